//! The file tools over a real folder, with everything in it that would lead out.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::super::testing::{brief, catalogue_skill, denied, done, failed};
use super::super::{Toolbox, World, toolbox};
use super::*;

async fn files(dir: &Path) -> Toolbox {
    toolbox(&brief(dir, &["files"]), &World::default()).await.unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let tools = files(dir.path()).await;
    assert_eq!(done(&tools, "list_dir", json!({})).await, "the workspace is empty.");
    done(&tools, "write_file", json!({"path": "a/b/c.txt", "content": "one\ntwo\n"})).await;
    done(&tools, "write_file", json!({"path": "a/b/c.txt", "content": "three", "append": true})).await;
    assert_eq!(done(&tools, "read_file", json!({"path": "./a/b/c.txt"})).await, "one\ntwo\nthree");
    assert_eq!(
        done(&tools, "read_file", json!({"path": "a/b/c.txt", "from_line": 2, "lines": 1})).await,
        "two\n"
    );
    assert!(
        failed(&tools, "read_file", json!({"path": "a/b/c.txt", "from_line": 9})).await.contains("3 lines")
    );
    done(&tools, "write_file", json!({"path": "a/b/c.txt", "content": "x"})).await;
    assert_eq!(done(&tools, "read_file", json!({"path": "a/../a/b/c.txt"})).await, "x", "it stays inside");
    std::fs::write(dir.path().join("files/in.csv"), "1;2").unwrap();
    assert_eq!(done(&tools, "read_file", json!({"path": "@files/in.csv"})).await, "1;2");
    done(&tools, "write_file", json!({"path": "@files/out.txt", "content": "y"})).await;
    assert_eq!(std::fs::read(dir.path().join("files/out.txt")).unwrap(), b"y");
    assert_eq!(done(&tools, "list_dir", json!({"path": "@files"})).await, "in.csv  3\nout.txt  1");
    assert_eq!(done(&tools, "list_dir", json!({"path": "a"})).await, "b/");
    let absolute = dir.path().join("workspace/a/b/c.txt");
    assert_eq!(
        done(&tools, "read_file", json!({"path": absolute})).await,
        "x",
        "programs are told such paths"
    );
}

#[tokio::test]
async fn no_path_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("workspace");
    let tools = files(dir.path()).await;
    std::fs::create_dir(dir.path().join("secret")).unwrap();
    std::fs::write(dir.path().join("secret/key"), "hidden").unwrap();
    symlink("../secret", work.join("relative")).unwrap();
    symlink(dir.path().join("secret"), work.join("absolute")).unwrap();
    symlink("../secret/key", work.join("file")).unwrap();
    symlink("../secret/new", work.join("dangling")).unwrap();
    std::fs::create_dir(work.join("inner")).unwrap();
    symlink("inner", work.join("within")).unwrap();
    symlink("circle", work.join("circle")).unwrap();
    let outside = dir.path().join("secret/key");
    for path in [
        "../secret/key",
        "relative/key",
        "absolute/key",
        "file",
        "inner/../../secret/key",
        "/etc/passwd",
        "@files/../secret/key",
        "/proc/self/environ",
        outside.to_str().unwrap(),
    ] {
        let told = denied(&tools, "read_file", json!({"path": path})).await;
        assert!(told.contains("outside") && !told.contains("hidden"), "{path}: {told}");
        denied(&tools, "write_file", json!({"path": path, "content": "x"})).await;
    }
    for path in ["dangling", "relative/new", "absolute/a/b"] {
        denied(&tools, "write_file", json!({"path": path, "content": "x"})).await;
    }
    for path in ["..", "relative", "/"] {
        denied(&tools, "list_dir", json!({"path": path})).await;
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("secret")).unwrap().count(),
        1,
        "nothing came to be outside"
    );
    assert_eq!(std::fs::read(&outside).unwrap(), b"hidden");
    done(&tools, "write_file", json!({"path": "within/x", "content": "y"})).await;
    assert_eq!(done(&tools, "read_file", json!({"path": "within/x"})).await, "y", "a link that stays inside");
    assert!(failed(&tools, "read_file", json!({"path": "circle"})).await.contains("circle"));
}

#[tokio::test]
async fn only_regular_files_of_some_size_are_touched() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("workspace");
    let tools = files(dir.path()).await;
    rustix::fs::mknodat(CWD, work.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    // Would wait for ever for the other end.
    assert!(failed(&tools, "read_file", json!({"path": "pipe"})).await.contains("not a regular file"));
    assert!(
        failed(&tools, "write_file", json!({"path": "pipe", "content": "x"}))
            .await
            .contains("not a regular file")
    );
    assert!(failed(&tools, "read_file", json!({"path": "."})).await.contains("list_dir"));
    assert!(failed(&tools, "read_file", json!({"path": "none"})).await.contains("There is no none"));
    assert!(failed(&tools, "read_file", json!({"path": "a\u{0}b"})).await.contains("NUL"));
    std::fs::write(work.join("binary"), b"\x7fELF\0\0").unwrap();
    assert!(failed(&tools, "read_file", json!({"path": "binary"})).await.contains("not a text file"));
    std::fs::write(work.join("paper"), b"%PDF-1.7\n\xe2\xe3 stream").unwrap();
    let told = failed(&tools, "read_file", json!({"path": "paper"})).await;
    assert_eq!(told, "paper is a PDF, not a text file.");
    let line = format!("{}\n", "x".repeat(1023));
    std::fs::write(work.join("long"), line.repeat(257)).unwrap();
    let told = done(&tools, "read_file", json!({"path": "long"})).await;
    assert!(
        told.ends_with("x\n[the file goes on at line 257]") && told.len() < READ_MAX + 100,
        "{}",
        told.len()
    );
    assert_eq!(done(&tools, "read_file", json!({"path": "long", "from_line": 257})).await, line);
    std::fs::write(work.join("one"), "y".repeat(READ_MAX + 1)).unwrap();
    assert!(
        done(&tools, "read_file", json!({"path": "one"}))
            .await
            .ends_with("[line 1 goes on: 256 KiB are the most of one reading]")
    );
    let full = File::create(work.join("full")).unwrap();
    full.set_len(WRITE_MAX - 1).unwrap();
    done(&tools, "write_file", json!({"path": "full", "content": "x", "append": true})).await;
    assert!(
        failed(&tools, "write_file", json!({"path": "full", "content": "x", "append": true}))
            .await
            .contains("16 MiB")
    );
    for n in 0..=ENTRIES_MAX {
        std::fs::write(dir.path().join(format!("files/{n}")), "").unwrap();
    }
    let listed = done(&tools, "list_dir", json!({"path": "@files"})).await;
    assert_eq!(listed.lines().count(), ENTRIES_MAX + 1, "and one line that says so");
}

#[tokio::test]
async fn skills_are_read_and_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = brief(dir.path(), &[]);
    told.seeded = vec!["shop".to_owned()];
    std::fs::create_dir_all(dir.path().join("skills/shop/references")).unwrap();
    std::fs::write(dir.path().join("skills/shop/references/a.md"), "seeded").unwrap();
    told.catalogue = vec![catalogue_skill(dir.path(), "log", "---\ndescription: d\n---\nx")];
    std::fs::write(told.catalogue[0].dir.join("b.md"), "offered").unwrap();
    let reader = toolbox(&told, &World::default()).await.unwrap();
    assert_eq!(done(&reader, "read_file", json!({"path": "@skills/shop/references/a.md"})).await, "seeded");
    assert_eq!(done(&reader, "read_file", json!({"path": "@skills/log/b.md"})).await, "offered");
    denied(&reader, "write_file", json!({"path": "x", "content": "y"})).await;
    denied(&reader, "read_file", json!({"path": "@skills/log/../../files/x"})).await;
    let told_of = failed(&reader, "read_file", json!({"path": "@skills/none/x"})).await;
    assert!(told_of.contains("shop, log"), "{told_of}");
    // A plain path is none of a skill either.
    for plain in ["x", "references/a.md", "b.md"] {
        let told_of = failed(&reader, "read_file", json!({"path": plain})).await;
        assert_eq!(told_of, SKILLS_ONLY, "{plain}");
    }
    assert!(denied(&reader, "read_file", json!({"path": "/etc/passwd"})).await.ends_with(SKILLS_ONLY));
    let specs = reader.specs();
    let spec = specs.iter().find(|spec| spec.name == "read_file").unwrap();
    assert!(spec.description.ends_with(SKILLS_ONLY) && !spec.description.contains("workspace"), "{spec:?}");

    told.tools = vec!["files".to_owned()];
    let all = toolbox(&told, &World::default()).await.unwrap();
    denied(&all, "write_file", json!({"path": "@skills/shop/new.md", "content": "y"})).await;
    assert!(!dir.path().join("skills/shop/new.md").exists());
}
