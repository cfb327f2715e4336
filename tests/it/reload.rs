//! Reloading and watching: all or nothing, and no slot lost or doubled between two sets.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::blackbox::assert_every_second_once;
use super::support::wait::pace;
use super::support::{Binary, Home, eventually_sync};

const TRUE: &str = "executor: { type: command, command: [/bin/true] }\n";

fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn ids(daemon: &Binary) -> Vec<String> {
    let agents = daemon.pages("/v1/agents?limit=200");
    agents.iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect()
}

fn last(daemon: &Binary) -> Value {
    daemon.get("/v1/status")["data"]["lastReload"].clone()
}

fn reload(daemon: &Binary) -> (Option<i32>, String, String) {
    let out = daemon.cli(&["reload"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// A home whose files are put in force only when somebody asks.
fn unwatched() -> Home {
    let home = Home::new();
    home.settings("watch: false\n");
    home
}

fn watched() -> Home {
    let home = Home::new();
    home.agent("a", "true", "");
    home
}

fn one() -> Home {
    let home = unwatched();
    home.agent("a", "true", "");
    home
}

#[test]
fn the_difference_is_told_and_in_force() {
    let home = one();
    home.agent("gone", "true", "");
    home.agent("same", "true", "");
    let daemon = Binary::start(home);
    assert_eq!(last(&daemon), Value::Null, "nothing was reloaded yet");
    daemon.home.agent("a", "false", "env: { A: \"1\" }\n");
    daemon.home.agent("new", "true", "");
    std::fs::remove_file(daemon.home.path().join("agents/gone.yaml")).unwrap();
    daemon.home.settings("watch: false\nmax_running: 9\n");
    let (code, out, err) = reload(&daemon);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("added new\nremoved gone\nchanged a: env, executor\nchanged setting max_running\n")
            && out.ends_with("1 added, 1 removed, 1 changed, 1 unchanged\n"),
        "{out}"
    );
    assert_eq!(ids(&daemon), ["a", "new", "same"]);
    let status = daemon.get("/v1/status")["data"].clone();
    assert_eq!(status["maxRunning"], 9);
    assert_eq!(status["lastReload"]["ok"], true, "{status}");
    let (_, run) = daemon.post("/v1/agents/a/execute", &json!({}));
    let run = run["data"]["eventId"].as_str().unwrap();
    let ended = daemon.settled();
    assert_eq!(ended.iter().find(|e| e["id"] == run).unwrap()["status"], "FAILED", "the new command ran");
}

#[test]
fn one_error_anywhere_changes_nothing() {
    let home = one();
    home.agent("long", "until [ -s go ]; do sleep 0.05; done; cat go", "cwd: .\n");
    let daemon = Binary::start(home);
    daemon.post("/v1/agents/long/execute", &json!({}));
    eventually_sync("it runs", || (daemon.events()[0]["status"] == "RUNNING").then_some(()));
    daemon.home.agent("new", "true", "");
    daemon.home.write("agents/bad.yaml", &format!("{TRUE}timeout: soon\n"));
    daemon.home.settings("max_running: 7\n");
    let (code, out, err) = reload(&daemon);
    assert_eq!((code, out.as_str()), (Some(78), ""), "{err}");
    assert!(err.contains("agents/bad.yaml:2:10") && err.contains("timeout: soon"), "{err}");
    assert!(err.contains("nothing was changed: 1 error"), "{err}");
    assert_eq!(ids(&daemon), ["a", "long"]);
    let status = daemon.get("/v1/status")["data"].clone();
    assert_eq!(status["maxRunning"], 4);
    assert_eq!(status["lastReload"]["ok"], false);
    let problem = &status["lastReload"]["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(10)), "{problem}");
    assert!(status["lastReload"]["at"].is_string());
    let shown = String::from_utf8(daemon.cli(&["status"]).stdout).unwrap();
    assert!(shown.contains("refused"), "{shown}");
    assert!(daemon.log().contains("bad.yaml:2:10"), "the log says it too");
    std::fs::remove_file(daemon.home.path().join("agents/bad.yaml")).unwrap();
    assert_eq!(reload(&daemon).0, Some(0));
    assert_eq!(ids(&daemon), ["a", "long", "new"]);
    daemon.home.write("agents/go", "went on\n");
    let events = daemon.settled();
    let id = events[0]["id"].as_str().unwrap();
    assert_eq!(events[0]["status"], "COMPLETED", "{events:?}");
    assert_eq!(daemon.get(&format!("/v1/events/{id}/logs")), "went on\n");
}

#[test]
fn what_waits_keeps_the_definition_it_was_admitted_with() {
    let home = Home::new();
    home.settings("watch: false\nmax_running: 1\n");
    home.agent("block", "until [ -e go ]; do sleep 0.05; done", "cwd: .\n");
    home.agent("a", "echo old", "");
    let daemon = Binary::start(home);
    daemon.post("/v1/agents/block/execute", &json!({}));
    eventually_sync("it runs", || (daemon.events()[0]["status"] == "RUNNING").then_some(()));
    let (_, first) = daemon.post("/v1/agents/a/execute", &json!({}));
    daemon.home.agent("a", "echo new", "");
    assert_eq!(reload(&daemon).0, Some(0));
    let (_, second) = daemon.post("/v1/agents/a/execute", &json!({}));
    daemon.home.write("agents/go", "");
    daemon.settled();
    for (run, wrote) in [(first, "old\n"), (second, "new\n")] {
        let id = run["data"]["eventId"].as_str().unwrap();
        assert_eq!(daemon.get(&format!("/v1/events/{id}/logs")), wrote);
    }
}

#[test]
fn what_only_a_start_can_apply_is_said() {
    let daemon = Binary::start(one());
    let text = std::fs::read_to_string(daemon.home.path().join("matins.yaml")).unwrap();
    daemon.home.write("matins.yaml", &text.replace("var/matins.sock", "var/other.sock"));
    let (status, body) = daemon.post("/v1/reload", &json!({}));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"]["changes"]["restartToApply"], json!(["listen.socket"]), "{body}");
    assert!(daemon.log().contains("restart to apply"));
}

#[test]
fn a_hangup_reloads() {
    let daemon = Binary::start(one());
    daemon.home.agent("b", "true", "");
    daemon.signal(1);
    eventually_sync("b is there", || (ids(&daemon).len() == 2).then_some(()));
    assert_eq!(last(&daemon)["ok"], true);
}

#[test]
fn changes_of_the_files_are_seen() {
    let daemon = Binary::start(watched());
    let path = |name: &str| daemon.home.path().join(name);
    let has = |wanted: &[&str]| {
        eventually_sync(&format!("the agents are {wanted:?}"), || (ids(&daemon) == wanted).then_some(()));
    };
    // As editors do it: a swap file, then a rename over the name.
    std::fs::write(path("agents/.b.yaml.swp"), "\0\0").unwrap();
    std::fs::write(path("agents/b.yaml~"), "no: [").unwrap();
    std::fs::write(path("b.new"), TRUE).unwrap();
    std::fs::rename(path("b.new"), path("agents/b.yaml")).unwrap();
    has(&["a", "b"]);
    // The whole directory is exchanged.
    std::fs::create_dir(path("next")).unwrap();
    std::fs::write(path("next/c.yaml"), TRUE).unwrap();
    std::fs::rename(path("agents"), path("before")).unwrap();
    std::fs::rename(path("next"), path("agents")).unwrap();
    has(&["c"]);
    // What happens in it now is seen too.
    std::fs::write(path("agents/d.yaml"), TRUE).unwrap();
    has(&["c", "d"]);
    // A mistake is told and changes nothing; its end is seen.
    std::fs::write(path("agents/d.yaml"), "executor: 1\n").unwrap();
    eventually_sync("the mistake is told", || (last(&daemon)["ok"] == false).then_some(()));
    assert_eq!(ids(&daemon), ["c", "d"]);
    std::fs::write(path("agents/d.yaml"), TRUE).unwrap();
    eventually_sync("it is good again", || (last(&daemon)["ok"] == true).then_some(()));
    daemon.home.settings("max_running: 3\n");
    eventually_sync("the settings are seen", || {
        (daemon.get("/v1/status")["data"]["maxRunning"] == 3).then_some(())
    });
}

#[test]
fn an_empty_directory_removes_agents_only_when_it_is_meant() {
    let daemon = Binary::start(watched());
    std::fs::remove_file(daemon.home.path().join("agents/a.yaml")).unwrap();
    eventually_sync("it is told", || (last(&daemon)["ok"] == false).then_some(()));
    let problem = last(&daemon)["problems"][0]["message"].to_string();
    assert!(problem.contains("empty"), "{problem}");
    assert_eq!(ids(&daemon), ["a"]);
    assert_eq!(reload(&daemon).0, Some(0));
    assert!(ids(&daemon).is_empty());
}

#[test]
fn reloads_under_load_lose_and_double_no_slot() {
    let (agents, reloads) = (50, count("MATINS_RELOADS", 30));
    let home = Home::new();
    home.settings("watch: false\nmax_running: 8\n");
    let each_second = "schedules: [ { cron: \"* * * * * *\" } ]\n";
    for i in 0..agents {
        home.agent(&format!("a{i}"), "true", each_second);
    }
    let mut daemon = Binary::start(home);
    for n in 0..reloads {
        // Each changes some agents, and one comes and goes.
        for i in (n % 5..agents).step_by(5) {
            daemon.home.agent(&format!("a{i}"), "true", &format!("{each_second}description: \"{n}\"\n"));
        }
        if n % 2 == 0 {
            daemon.home.agent("extra", "true", "");
        } else {
            std::fs::remove_file(daemon.home.path().join("agents/extra.yaml")).unwrap();
        }
        let (status, body) = daemon.post("/v1/reload", &json!({}));
        assert_eq!(status, 200, "{body}");
        pace(Duration::from_millis(250));
    }
    let begun = daemon.get("/v1/status")["data"]["uptimeMs"].as_u64().unwrap();
    daemon.kill();
    daemon.home.settings("max_running: 50\n");
    for i in 0..agents {
        daemon.home.agent(&format!("a{i}"), "true", "");
    }
    daemon.restart();
    daemon.settled();
    let slots = daemon.pages("/v1/slots?limit=200");
    let all = assert_every_second_once(&slots, agents);
    let expected = agents * usize::try_from(begun / 1000).unwrap();
    assert!(all + agents * 2 >= expected, "{all} of about {expected} slots");
    println!("slots {all} over {reloads} reloads in {begun} ms");
}

fn write_agents(home: &Path, n: usize) {
    let mut text = String::new();
    for i in 0..n {
        text.clear();
        let _ = writeln!(text, "{TRUE}schedules: [ {{ cron: \"{} {} * * *\" }} ]", i % 60, i % 24);
        std::fs::write(home.join(format!("agents/n{i}.yaml")), &text).unwrap();
    }
}

#[test]
fn many_files_load_and_reload() {
    let n = count("MATINS_FILES", 2000);
    let home = unwatched();
    write_agents(home.path(), n);
    let mut daemon = Binary::unstarted(home);
    let begun = Instant::now();
    daemon.restart();
    let start = begun.elapsed();
    assert_eq!(daemon.get("/v1/status")["data"]["agents"]["active"], n);
    let timed = |daemon: &Binary| {
        let begun = Instant::now();
        let (status, body) = daemon.post("/v1/reload", &json!({}));
        assert_eq!(status, 200, "{body}");
        (begun.elapsed(), body["data"]["changes"].clone())
    };
    let (same, changes) = timed(&daemon);
    assert_eq!(changes["unchanged"], n);
    daemon.home.write("agents/n7.yaml", &format!("{TRUE}description: other\n"));
    let (one, changes) = timed(&daemon);
    assert_eq!(changes["changed"], json!([{ "id": "n7", "keys": ["description", "schedules"] }]));
    println!("{n} files: start {start:?}, reload unchanged {same:?}, reload one changed {one:?}");
}
