//! Disks that are full or read-only for a while, in a mount namespace of the test's own.
//!
//! A test process cannot enter a namespace by itself (it has threads), so each test starts itself once
//! more under `unshare -m`. Where that is not allowed the test says so and is over.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::blackbox::{assert_every_second_once, launchers_of};
use super::support::wait::pace;
use super::support::{Binary, Home, eventually_sync};

/// Set in the process that has a namespace of its own.
const INSIDE: &str = "MATINS_TEST_MOUNTS";

/// Whether this process may mount what it likes; else the test `name` was carried out in one that may.
#[expect(clippy::print_stdout, reason = "a test that is left out says why")]
fn may_mount(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !probe.as_ref().is_ok_and(|out| out.status.success()) {
        println!("skipped: no mount namespace can be had here: {probe:?}");
        return false;
    }
    let test = format!("disk::{name}");
    let status = Command::new("unshare")
        .arg("-m")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

fn mount(args: &[&str], at: &Path) {
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
    if !may_mount("a_full_disk_costs_no_slot_and_no_flood_of_logs") {
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
    if !may_mount("a_full_disk_is_answered_and_what_was_acknowledged_stays") {
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
    if !may_mount("a_backup_that_does_not_fit_leaves_nothing") {
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
    if !may_mount("folders_that_are_read_only_for_a_while_are_said_and_got_over") {
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
    if !may_mount("a_state_directory_that_is_read_only_is_said_at_the_start") {
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
