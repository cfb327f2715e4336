//! `shell` with real programs and what they leave behind.

use std::path::Path;

use serde_json::json;

use super::super::testing::{brief, call, denied, done, failed};
use super::super::{Outcome, Toolbox, World, toolbox};
use super::*;

async fn shell(dir: &Path, allow: &[&str], timeout_ms: u64) -> Toolbox {
    let mut told = brief(dir, &["shell"]);
    told.shell = Some(Shell { allow: allow.iter().map(|name| (*name).to_owned()).collect(), timeout_ms });
    let env = [("PATH", "/usr/bin:/bin"), ("REGION", "eu"), ("SHOP_PASSWORD", "hunter2")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    toolbox(&told, &World { env: env.into() }).await.unwrap()
}

#[test]
fn a_line_is_split_into_words_and_nothing_else() {
    let split = |line: &str| words(line).unwrap();
    assert_eq!(split("  ls -l  'a b' "), ["ls", "-l", "a b"]);
    assert_eq!(split(r#"a"b c"'d e'\ f "" x\"y"#), ["ab cd e f", "", "x\"y"]);
    assert_eq!(split(r#"grep "\$x \a" '$(id)' *.txt ~"#), ["grep", r"$x \a", "$(id)", "*.txt", "~"]);
    assert_eq!(split(""), Vec::<String>::new());
    for line in [
        "a | b",
        "a; b",
        "a && b",
        "a > b",
        "a $HOME",
        "a \"$(id)\"",
        "a `id`",
        "a\nb",
        "(a)",
        "'a",
        "\"a",
        "a\\",
    ] {
        assert!(words(line).is_err(), "{line}");
    }
}

#[tokio::test]
async fn only_listed_programs_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let tools = shell(dir.path(), &["cat", "ls", "env"], 20_000).await;
    std::fs::write(dir.path().join("workspace/a b"), "here").unwrap();
    assert_eq!(done(&tools, "shell", json!({"command": "cat 'a b'"})).await, "here", "in the workspace");
    let env = done(&tools, "shell", json!({"command": "env"})).await;
    let mut names: Vec<&str> = env.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["MATINS_TOOL_CALL", "PATH", "REGION", "SHOP_PASSWORD"], "and no key of a provider");
    for command in ["rm x", "/bin/cat x", "./cat", "catx"] {
        let told = denied(&tools, "shell", json!({"command": command})).await;
        assert!(told.contains("cat, ls, env"), "{told}");
    }
    let wrong = failed(&tools, "shell", json!({"command": "ls none"})).await;
    assert!(wrong.contains("none") && wrong.ends_with("[exit code 2]"), "{wrong}");
    assert!(failed(&tools, "shell", json!({"command": "cat a | sh"})).await.contains("no shell"));
    assert!(failed(&tools, "shell", json!({"command": ""})).await.contains("/command"));
    assert!(failed(&tools, "shell", json!({"command": "ls \u{0}"})).await.contains("NUL"));
    let missing = shell(dir.path(), &["no-such-program"], 20_000).await;
    assert!(
        failed(&missing, "shell", json!({"command": "no-such-program"})).await.contains("cannot be started")
    );
}

#[tokio::test]
async fn any_is_a_line_of_sh() {
    let dir = tempfile::tempdir().unwrap();
    let tools = shell(dir.path(), &["*"], 20_000).await;
    let told = done(&tools, "shell", json!({"command": "printf 'a\\nb\\n' | wc -l; echo $REGION >&2"})).await;
    assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["2", "eu"], "stderr as it comes");
    assert_eq!(
        done(&tools, "shell", json!({"command": "cat; true"})).await,
        "It ended well and wrote nothing."
    );
    assert!(
        failed(&tools, "shell", json!({"command": "kill -9 $$"}))
            .await
            .ends_with("[it was ended by signal 9]")
    );
    let long =
        done(&tools, "shell", json!({"command": "head -c 3000000 /dev/zero | tr '\\0' x; echo end"})).await;
    assert!(long.len() < OUTPUT_MAX + 100 && long.ends_with("xend\n"), "{}", long.len());
    assert!(long.contains("[1951428 bytes are left out]"), "{}", long.replace('x', ""));
}

/// The process whose pid a command wrote is gone.
fn gone(file: &Path) -> bool {
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    proc::member(pid).is_none_or(|m| m.zombie)
}

#[tokio::test]
async fn what_a_command_leaves_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let tools = shell(dir.path(), &["*"], 20_000).await;
    let work = dir.path().join("workspace");
    let leave = "sleep 600 & echo $! > child; setsid sh -c 'echo $$ > session; exec sleep 600' & \
                 while ! [ -s session ]; do :; done; echo left";
    // Both hold the pipe, so an answer at once shows that it is not waited for.
    assert_eq!(done(&tools, "shell", json!({"command": leave})).await, "left\n");
    assert!(gone(&work.join("child")) && gone(&work.join("session")));

    let slow = shell(dir.path(), &["*"], 300).await;
    let told =
        failed(&slow, "shell", json!({"command": "echo begun; sleep 600 & echo $! > late; wait"})).await;
    assert_eq!(told, "begun\n[it took longer than 0.3 s and was ended]");
    assert!(gone(&work.join("late")));
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tools = shell(dir.path(), &["*"], 600_000).await;
    let file = dir.path().join("workspace/pid");
    let started = dir.path().join("workspace/started");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &started,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let reading = crate::task::blocking(move || std::fs::read(started).unwrap());
    tokio::select! {
        answer = call(&tools, "shell", json!({"command": "sleep 600 & echo $! > pid; echo go > started; wait"})) => {
            assert_eq!(answer.outcome, Outcome::Failed, "it cannot end");
            panic!("{}", answer.content);
        }
        read = reading => assert_eq!(read.unwrap(), b"go\n"),
    }
    assert!(gone(&file));
}
