//! The ground that the daemon stands on, taken away: its socket, its database; and signals that nobody meant.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::blackbox::launchers_of;
use crate::support::{Binary, Home, eventually_sync};

const UNTIL_GO: &str = "echo up; until [ -e $MATINS_AGENT_DIR/../go ]; do sleep 0.05; done";

fn home() -> Home {
    let home = Home::new();
    home.agent("long", UNTIL_GO, "sandbox: off\n");
    home.agent("quick", "true", "");
    home
}

fn run(daemon: &Binary, agent: &str) -> String {
    let (status, answer) = daemon.post(&format!("/v1/agents/{agent}/execute"), &json!({}));
    assert_eq!(status, 202, "{answer}");
    answer["data"]["eventId"].as_str().unwrap().to_owned()
}

fn running(daemon: &Binary) -> String {
    let id = run(daemon, "long");
    eventually_sync("it runs", || {
        (daemon.get(&format!("/v1/events/{id}"))["data"]["status"] == "RUNNING").then_some(())
    });
    id
}

#[test]
fn a_removed_socket_comes_back_and_is_handed_over() {
    let daemon = Binary::start(home());
    let id = running(&daemon);
    let mut follower = daemon.command(&["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut line) = (BufReader::new(follower.stdout.take().unwrap()), String::new());
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n", "it is connected");
    for _ in 0..2 {
        std::fs::remove_file(daemon.home.socket()).unwrap();
        eventually_sync("it is made anew", || daemon.try_get("/healthz"));
        assert!(daemon.log().contains("was removed; it is made anew"), "{}", daemon.log());
        // Over a replacement it is the new one that is handed on.
        let replaced = daemon.cli(&["reexec"]);
        assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    }
    assert_eq!(daemon.get(&format!("/v1/events/{id}"))["data"]["status"], "RUNNING");
    daemon.home.write("go", "");
    assert!(follower.wait().unwrap().success(), "who followed was not cut off");
    daemon.settled();
}

#[test]
fn a_signal_that_means_nothing_changes_nothing() {
    let mut daemon = Binary::start(home());
    running(&daemon);
    // One that starts its program is two for a moment.
    let launchers = eventually_sync("its launcher alone", || {
        Some(launchers_of(daemon.home.path())).filter(|launchers| launchers.len() == 1)
    });
    for signal in [10, 14, 13] {
        daemon.signal(signal);
    }
    // SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE, SIGHUP.
    for signal in ["10", "12", "14", "13", "1"] {
        let pid = launchers[0].to_string();
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap();
        assert!(sent.success());
    }
    eventually_sync("it says so", || {
        (daemon.log().contains("signal 10 means nothing") && daemon.log().contains("signal 14 means nothing"))
            .then_some(())
    });
    assert_eq!(launchers_of(daemon.home.path()), launchers);
    daemon.home.write("go", "");
    let events = daemon.settled();
    assert_eq!(events[0]["status"], "COMPLETED", "{events:?}");
    // SIGQUIT stops as SIGTERM does.
    daemon.signal(3);
    assert_eq!(daemon.exited(), Some(0));
    assert!(daemon.log().contains("stopped"), "{}", daemon.log());
}

/// Takes a file of the database away under a daemon that runs something; it must give up by itself.
fn gives_up(name: &str, take: impl Fn(&std::path::Path), touch: bool) {
    let mut daemon = Binary::start(home());
    let id = running(&daemon);
    let (file, copy) = (daemon.home.state().join(name), daemon.home.path().join("copy"));
    // A second name, so that the file can be put back as a person would who moved it.
    std::fs::hard_link(&file, &copy).unwrap();
    take(&file);
    if touch {
        let (status, answer) = daemon.post("/v1/agents/quick/execute", &json!({}));
        assert_eq!(status, 503, "nothing is acknowledged that nobody would find: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(name), "{answer}");
    }
    assert_eq!(daemon.exited(), Some(1));
    let log = daemon.log();
    assert!(
        log.contains(&format!("{name} was removed or replaced")) && log.contains("matins restore"),
        "{log}"
    );
    assert_eq!(launchers_of(daemon.home.path()).len(), 1, "the run goes on");
    std::fs::rename(&copy, &file).unwrap();
    daemon.restart();
    assert_eq!(daemon.get(&format!("/v1/events/{id}"))["data"]["status"], "RUNNING");
    daemon.home.write("go", "");
    // What was refused may be there all the same: the answer is that nobody knows.
    let events = daemon.settled();
    assert!(events.iter().all(|e| e["status"] == "COMPLETED"), "{events:?}");
    assert!(events.iter().any(|e| e["id"] == id.as_str()), "{events:?}");
}

#[test]
fn a_database_that_is_removed_takes_nothing_more() {
    gives_up("matins.db", |file| std::fs::remove_file(file).unwrap(), true);
}

#[test]
fn a_database_that_is_replaced_is_noticed_where_nothing_is_written() {
    let other = tempfile::tempdir().unwrap();
    let new = other.path().join("new");
    let replace = |file: &std::path::Path| {
        std::fs::copy(file, &new).unwrap();
        std::fs::copy(&new, file.with_extension("new")).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    gives_up("matins.db", replace, false);
}

#[test]
fn a_log_of_the_database_that_is_removed_is_noticed() {
    gives_up("matins.db-wal", |file| std::fs::remove_file(file).unwrap(), true);
}

#[test]
fn nothing_is_noticed_where_nothing_has_changed() {
    let daemon = Binary::start(home());
    run(&daemon, "quick");
    daemon.settled();
    let socket = daemon.home.socket().metadata().unwrap();
    crate::support::wait::pace(Duration::from_secs(5));
    let same = std::os::unix::fs::MetadataExt::ino(&daemon.home.socket().metadata().unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&socket), same);
    assert!(!daemon.log().contains("WARN") && !daemon.log().contains("ERROR"), "{}", daemon.log());
}
