//! Calls of every kind of tool that needs nothing but the brief.

use serde_json::json;

use super::super::Outcome;
use super::super::testing::{brief, call, catalogue_skill, denied, done, failed};
use super::*;
use crate::model::{NOTE_MAX, NOTES_MAX};

async fn with(brief: &Brief) -> Toolbox {
    toolbox(brief, &World::default()).await.unwrap()
}

#[tokio::test]
async fn tools_are_those_of_the_brief_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let names = |toolbox: &Toolbox| toolbox.specs().iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert!(names(&with(&brief(dir.path(), &[])).await).is_empty());
    let all = with(&brief(dir.path(), &["notes", "last_run", "http_fetch", "files"])).await;
    assert_eq!(
        names(&all),
        [
            "http_fetch",
            "last_run",
            "list_dir",
            "note_get",
            "note_list",
            "note_set",
            "read_file",
            "write_file"
        ]
    );
    for spec in all.specs() {
        assert_eq!(spec.parameters["type"], "object", "{}", spec.name);
        assert!(Schema::compile(&spec.parameters).is_ok() && !spec.description.is_empty(), "{}", spec.name);
        assert!(!spec.description.contains(dir.path().to_str().unwrap()), "the same bytes in every run");
    }
}

#[tokio::test]
async fn a_call_that_does_not_fit_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let tools = with(&brief(dir.path(), &["files"])).await;
    let wrong = failed(&tools, "read_file", json!({"path": 5, "other": 1})).await;
    assert!(wrong.contains("/path: 5 is not of type \"string\"") && wrong.contains("other"), "{wrong}");
    assert!(failed(&tools, "read_file", json!({})).await.contains("\"path\" is a required property"));
    let unknown = failed(&tools, "read_files", json!({})).await;
    assert!(unknown.contains("list_dir, read_file, write_file"), "{unknown}");
    for withheld in ["shell", "http_fetch", "note_set", "last_run"] {
        let told = denied(&tools, withheld, json!({})).await;
        assert!(told.contains("under `tools:`") && told.contains("Nobody is there"), "{told}");
    }
}

#[tokio::test]
async fn notes_are_read_set_and_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let told = brief(dir.path(), &["notes"]);
    std::fs::write(&told.paths.notes, r#"{"seen": "42", "long": "a\nb"}"#).unwrap();
    let tools = with(&told).await;
    assert_eq!(done(&tools, "note_get", json!({"key": "seen"})).await, "42");
    assert_eq!(done(&tools, "note_list", json!({})).await, "long: a b\nseen: 42");
    let set = call(&tools, "note_set", json!({"key": "new", "text": "x"})).await;
    assert_eq!((set.outcome, set.note), (Outcome::Done, Some(("new".to_owned(), Some("x".to_owned())))));
    assert_eq!(done(&tools, "note_get", json!({"key": "new"})).await, "x", "its own notes are seen at once");
    let removed = call(&tools, "note_set", json!({"key": "seen", "text": ""})).await;
    assert_eq!(removed.note, Some(("seen".to_owned(), None)));
    assert!(done(&tools, "note_get", json!({"key": "seen"})).await.contains("no note"));
    let long = call(&tools, "note_set", json!({"key": "x", "text": "ä".repeat(NOTE_MAX + 1)})).await;
    assert_eq!((long.outcome, long.note), (Outcome::Failed, None));
    done(&tools, "note_set", json!({"key": "x", "text": "ä".repeat(NOTE_MAX)})).await;
    for n in 3..NOTES_MAX {
        done(&tools, "note_set", json!({"key": n.to_string(), "text": "y"})).await;
    }
    assert!(failed(&tools, "note_set", json!({"key": "more", "text": "y"})).await.contains("200 notes"));
    done(&tools, "note_set", json!({"key": "x", "text": "in its place"})).await;
}

#[tokio::test]
async fn notes_that_cannot_be_read_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let told = brief(dir.path(), &["notes"]);
    std::fs::write(&told.paths.notes, "[1]").unwrap();
    let said = toolbox(&told, &World::default()).await.err().unwrap().to_string();
    assert!(said.contains("notes.json cannot be read"), "{said}");
    std::fs::remove_file(&told.paths.notes).unwrap();
    assert_eq!(done(&with(&told).await, "note_list", json!({})).await, "There are no notes.");
}

#[tokio::test]
async fn the_last_run_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = brief(dir.path(), &["last_run"]);
    assert!(done(&with(&told).await, "last_run", json!({})).await.contains("no successful run"));
    told.last_run = json!({"id": "r", "result": {"price": 5}});
    let text = done(&with(&told).await, "last_run", json!({})).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), told.last_run);
}

#[tokio::test]
async fn a_skill_is_activated_once_and_its_files_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = brief(dir.path(), &[]);
    let shop = catalogue_skill(dir.path(), "shop", "---\nname: shop\ndescription: d\n---\n\n# How to shop\n");
    std::fs::create_dir_all(shop.dir.join("scripts/.cache")).unwrap();
    for file in ["scripts/a.sh", "scripts/.cache/x", "b.md", ".hidden"] {
        std::fs::write(shop.dir.join(file), "x").unwrap();
    }
    told.catalogue =
        vec![shop, catalogue_skill(dir.path(), "log", "no head"), catalogue_skill(dir.path(), "seeded", "x")];
    told.seeded = vec!["seeded".to_owned()];
    let tools = with(&told).await;
    let spec = tools.specs().iter().find(|s| s.name == "activate_skill").unwrap();
    assert!(
        tools.words()[0].contains("- shop: what shop is for\n- log: what log is for"),
        "{:?}",
        tools.words()
    );
    assert_eq!(
        spec.parameters["properties"]["name"]["enum"],
        json!(["shop", "log"]),
        "a seeded one is there already"
    );
    assert_eq!(
        done(&tools, "activate_skill", json!({"name": "shop"})).await,
        "<skill_content name=\"shop\">\n# How to shop\n\nPaths in it are relative to @skills/shop/\n<skill_resources>\n  \
         <file>b.md</file>\n  <file>scripts/a.sh</file>\n</skill_resources>\n</skill_content>"
    );
    assert!(done(&tools, "activate_skill", json!({"name": "shop"})).await.contains("active already"));
    assert_eq!(
        done(&tools, "activate_skill", json!({"name": "log"})).await,
        "<skill_content name=\"log\">\nno head\n</skill_content>"
    );
    failed(&tools, "activate_skill", json!({"name": "seeded"})).await;
    std::fs::remove_dir_all(&told.catalogue[1].dir).unwrap();
    let again = with(&told).await;
    assert!(failed(&again, "activate_skill", json!({"name": "log"})).await.contains("cannot be read"));
}
