//! Disks that are full or read-only for a while, in a mount namespace of the test's own.
//!
//! A test process cannot enter a namespace by itself (it has threads), so each test starts itself once
//! more under `unshare -m`. Where that is not allowed the test says so and is over.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::blackbox::{assert_every_second_once, launchers_of};
use super::support::wait::pace;
use super::support::{Binary, Home, eventually_sync};

/// Set in the process that has a namespace of its own.
const INSIDE: &str = "MATINS_TEST_MOUNTS";

/// Whether this process may mount what it likes; else the test `test` was carried out in one that may.
#[expect(clippy::print_stdout, reason = "a test that is left out says why")]
pub fn may_mount(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !probe.as_ref().is_ok_and(|out| out.status.success()) {
        println!("skipped: no mount namespace can be had here: {probe:?}");
        return false;
    }
    let status = Command::new("unshare")
        .arg("-m")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

pub fn mount(args: &[&str], at: &Path) {
    assert!(Command::new("mount").args(args).arg(at).status().unwrap().success(), "mount {args:?}");
}

/// A home whose state directory is a disk of `size`.
fn small(size: &str, agents: &[(&str, &str, &str)]) -> Home {
    let home = Home::new();
    home.settings("watch: false\n");
    for (id, script, more) in agents {
        home.agent(id, script, more);
    }
    std::fs::create_dir(home.state()).unwrap();
    mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &home.state());
    home
}

fn fill(home: &Home) {
    assert!(std::fs::write(home.state().join("ballast"), vec![0; 64 << 20]).is_err(), "the disk is full now");
}

fn empty(home: &Home) {
    std::fs::remove_file(home.state().join("ballast")).unwrap();
}

/// Ends the daemon and lets the disk go.
fn end(mut daemon: Binary) {
    daemon.kill();
    eventually_sync("no launcher is left", || launchers_of(daemon.home.path()).is_empty().then_some(()));
    assert!(Command::new("umount").arg("-l").arg(daemon.home.state()).status().unwrap().success());
}

fn accepted(answer: &(u16, Value)) -> Option<String> {
    (answer.0 == 202).then(|| answer.1["data"]["eventId"].as_str().unwrap().to_owned())
}

#[test]
fn a_full_disk_costs_no_slot_and_no_flood_of_logs() {
    if !may_mount("disk::a_full_disk_costs_no_slot_and_no_flood_of_logs") {
        return;
    }
    let every = "schedules: [ { every: 1s, overlap: allow } ]\n";
    let daemon = Binary::start(small("6m", &[("a", "true", every)]));
    fill(&daemon.home);
    eventually_sync("it says so", || daemon.log().contains("disk").then_some(()));
    let before = daemon.log().lines().count();
    pace(Duration::from_secs(3));
    assert!(daemon.log().lines().count() < before + 30, "{}", daemon.log());
    empty(&daemon.home);
    let slots =
        || daemon.pages("/v1/slots?limit=200").iter().map(|s| s["count"].as_u64().unwrap()).sum::<u64>();
    let then = slots();
    eventually_sync("it goes on", || (slots() > then + 2).then_some(()));
    assert_every_second_once(&daemon.pages("/v1/slots?limit=200"), 1);
    end(daemon);
}

#[test]
fn a_full_disk_is_answered_and_what_was_acknowledged_stays() {
    if !may_mount("disk::a_full_disk_is_answered_and_what_was_acknowledged_stays") {
        return;
    }
    let mut daemon = Binary::start(small("8m", &[("a", "true", "")]));
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.extend(accepted(&daemon.post("/v1/agents/a/execute", &json!({}))));
    }
    assert_eq!(taken.len(), 5);
    daemon.settled();
    fill(&daemon.home);
    // What still fits into the files that are there is taken; the first that does not is refused.
    let refused = eventually_sync("a trigger is refused", || {
        let answer = daemon.post("/v1/agents/a/execute", &json!({}));
        let id = accepted(&answer);
        taken.extend(id.clone());
        id.is_none().then_some(answer)
    });
    assert!(matches!(refused.0, 503 | 507), "{refused:?}");
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("full"), "{refused:?}");
    let out = daemon.cli(&["run", "a"]);
    assert_eq!(out.status.code(), Some(75), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("full"));
    assert_eq!(daemon.get("/healthz")["data"]["status"], "ok", "it answers all the same");
    // A power cut in the middle of it takes nothing that was acknowledged.
    daemon.kill();
    empty(&daemon.home);
    daemon.restart();
    let ended = daemon.settled();
    let ids: Vec<&str> = ended.iter().map(|e| e["id"].as_str().unwrap()).collect();
    for id in &taken {
        assert!(ids.contains(&id.as_str()), "{id} was acknowledged");
    }
    assert!(accepted(&daemon.post("/v1/agents/a/execute", &json!({}))).is_some(), "it goes on by itself");
    daemon.settled();
    end(daemon);
}

#[test]
fn a_backup_that_does_not_fit_leaves_nothing() {
    if !may_mount("disk::a_backup_that_does_not_fit_leaves_nothing") {
        return;
    }
    let daemon = Binary::start(small("8m", &[("a", "true", "")]));
    fill(&daemon.home);
    let out = daemon.cli(&["backup", "copy.db"]);
    assert_eq!(out.status.code(), Some(75), "{}", String::from_utf8_lossy(&out.stderr));
    for name in ["copy.db", "copy.db.part"] {
        assert!(!daemon.home.path().join(name).exists(), "{name}");
    }
    let mut left = std::fs::read_dir(daemon.home.state().join("backups")).into_iter().flatten();
    assert!(left.next().is_none(), "nothing half is left");
    empty(&daemon.home);
    assert!(daemon.cli(&["backup", "copy.db"]).status.success());
    end(daemon);
}

#[test]
fn folders_that_are_read_only_for_a_while_are_said_and_got_over() {
    if !may_mount("disk::folders_that_are_read_only_for_a_while_are_said_and_got_over") {
        return;
    }
    let daemon = Binary::start(small("16m", &[("a", "true", "")]));
    let runs = daemon.home.state().join("runs");
    // A file system with an open file cannot be made read-only by hand, its folders can.
    mount(&["--bind", runs.to_str().unwrap()], &runs);
    mount(&["-o", "remount,bind,ro"], &runs);
    let id = accepted(&daemon.post("/v1/agents/a/execute", &json!({}))).unwrap();
    let ended = daemon.settled();
    let run = ended.iter().find(|e| e["id"] == id.as_str()).unwrap();
    assert_eq!(run["failureCode"], "launch_error", "{run}");
    assert!(run["failureExplanation"].as_str().unwrap().to_lowercase().contains("read-only"), "{run}");
    assert!(Command::new("umount").arg(&runs).status().unwrap().success());
    let id = accepted(&daemon.post("/v1/agents/a/execute", &json!({}))).unwrap();
    let ended = daemon.settled();
    assert_eq!(ended.iter().find(|e| e["id"] == id.as_str()).unwrap()["status"], "COMPLETED");
    end(daemon);
}

#[test]
fn a_state_directory_that_is_read_only_is_said_at_the_start() {
    if !may_mount("disk::a_state_directory_that_is_read_only_is_said_at_the_start") {
        return;
    }
    let mut daemon = Binary::start(small("16m", &[("a", "true", "")]));
    let id = accepted(&daemon.post("/v1/agents/a/execute", &json!({}))).unwrap();
    daemon.settled();
    assert_eq!(daemon.terminate(), Some(0));
    mount(&["-o", "remount,ro"], &daemon.home.state());
    daemon.spawn();
    assert_eq!(daemon.exited(), Some(1));
    let log = daemon.log().to_lowercase();
    assert!(log.contains("read-only") && log.contains("var"), "{log}");
    mount(&["-o", "remount,rw"], &daemon.home.state());
    daemon.restart();
    assert_eq!(daemon.events()[0]["id"], id.as_str());
    end(daemon);
}

/// The calls by which the files of the database are written, and asked whether they may be.
const WRITES: &str = "write,pwrite64,ftruncate,access,faccessat,faccessat2";
/// Those that bring them to the disk.
const SYNCS: &str = "fsync,fdatasync";

/// A tracer, and where it speaks: it would end where nobody listened.
struct Failing {
    strace: Child,
    _words: BufReader<ChildStderr>,
}

/// From now on these calls of the daemon on the files of its database fail, until the returned process is ended.
/// A file system with open files cannot be made read-only by hand, so the kernel's answer is put in the calls.
#[expect(clippy::print_stdout, reason = "a test that is left out says why")]
fn failing(daemon: &Binary, calls: &str, error: &str) -> Option<Failing> {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-p", &daemon.pid().to_string()]);
    for name in ["matins.db", "matins.db-wal", "matins.db-shm"] {
        command.arg("-P").arg(daemon.home.state().join(name));
    }
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")]);
    let mut strace = match command.stderr(Stdio::piped()).spawn() {
        Ok(strace) => strace,
        Err(e) => {
            println!("skipped: strace cannot be started: {e}");
            return None;
        }
    };
    let mut said = String::new();
    let mut words = BufReader::new(strace.stderr.take().unwrap());
    words.read_line(&mut said).unwrap();
    if !said.contains("attached") {
        println!("skipped: nothing can be traced here: {said}");
        strace.kill().unwrap();
        strace.wait().unwrap();
        return None;
    }
    Some(Failing { strace, _words: words })
}

/// The calls go on as before.
fn mended(mut failing: Failing) {
    let strace = &mut failing.strace;
    let pid = strace.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    strace.wait().unwrap();
}

#[test]
fn a_file_system_that_is_read_only_for_a_while_costs_nothing_that_was_answered() {
    let home = Home::new();
    home.agent("a", "true", "");
    home.agent("tick", "true", "schedules: [ { every: 1s, overlap: allow } ]\n");
    let mut daemon = Binary::start(home);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(accepted(&daemon.post("/v1/agents/a/execute", &json!({}))));
    }
    assert_eq!(taken.len(), 3);
    let Some(strace) = failing(&daemon, WRITES, "EROFS") else { return };
    let refused = eventually_sync("a trigger is refused", || {
        let answer = daemon.post("/v1/agents/a/execute", &json!({}));
        let id = accepted(&answer);
        taken.extend(id.clone());
        id.is_none().then_some(answer)
    });
    assert_eq!((refused.0, refused.1["error"]["code"].as_str()), (503, Some("unavailable")), "{refused:?}");
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("read-only"), "{refused:?}");
    let out = daemon.cli(&["run", "a"]);
    assert_eq!(out.status.code(), Some(75), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("read-only"));
    // What is there can be looked at, and what cannot be decided is said once.
    assert_eq!(daemon.get("/healthz")["data"]["status"], "ok");
    assert!(daemon.events().len() >= taken.len());
    eventually_sync("the scheduler says so", || {
        daemon.log().contains("the scheduler failed and tries again: the database is read-only").then_some(())
    });
    pace(Duration::from_secs(3));
    let slots =
        || daemon.pages("/v1/slots?limit=200").iter().map(|s| s["count"].as_u64().unwrap()).sum::<u64>();
    let then = slots();
    mended(strace);
    eventually_sync("it goes on by itself", || (slots() > then + 4).then_some(()));
    assert!(accepted(&daemon.post("/v1/agents/a/execute", &json!({}))).is_some());
    // The slots of that time are in the books: made up for, or missed.
    assert_every_second_once(&daemon.pages("/v1/slots?limit=200"), 1);
    std::fs::remove_file(daemon.home.path().join("agents/tick.yaml")).unwrap();
    assert!(daemon.cli(&["reload"]).status.success());
    let ended = daemon.settled();
    for id in &taken {
        let run =
            ended.iter().find(|e| e["id"] == id.as_str()).unwrap_or_else(|| panic!("{id} was answered"));
        assert_eq!(run["status"], "COMPLETED", "{run}");
    }
    assert_eq!(daemon.terminate(), Some(0), "it is the same daemon all the time");
}

#[test]
fn a_sync_that_fails_ends_the_daemon_and_a_start_finds_everything() {
    let home = Home::new();
    home.agent("a", "true", "");
    home.agent("long", "until [ -e $MATINS_AGENT_DIR/../go ]; do sleep 0.05; done", "sandbox: off\n");
    let mut daemon = Binary::start(home);
    let mut taken = Vec::new();
    for agent in ["long", "a", "a"] {
        taken.extend(accepted(&daemon.post(&format!("/v1/agents/{agent}/execute"), &json!({}))));
    }
    eventually_sync("the long one is left", || {
        let events = daemon.events();
        let of = |state: &str| events.iter().filter(|e| e["status"] == state).count();
        ((of("RUNNING"), of("COMPLETED")) == (1, 2)).then_some(())
    });
    let Some(strace) = failing(&daemon, SYNCS, "EIO") else {
        daemon.home.write("go", "");
        daemon.settled();
        return;
    };
    let refused = daemon.post("/v1/agents/a/execute", &json!({}));
    assert_eq!(refused.0, 503, "{refused:?}");
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("must restart"), "{refused:?}");
    assert_eq!(daemon.exited(), Some(1), "what is on disk is unknown: it does not go on");
    mended(strace);
    assert_eq!(launchers_of(daemon.home.path()).len(), 1, "the run goes on");
    daemon.restart();
    daemon.home.write("go", "");
    let ended = daemon.settled();
    for id in &taken {
        let run =
            ended.iter().find(|e| e["id"] == id.as_str()).unwrap_or_else(|| panic!("{id} was answered"));
        assert_eq!(run["status"], "COMPLETED", "{run}");
    }
}
