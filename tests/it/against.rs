//! `matins plan --against DIR`: what a changed folder would fire otherwise, with a daemon and without.

use serde_json::Value;

use crate::support::{Binary, Home};

/// A home with two agents, and a folder `next` beside them that changes one, takes one away and adds one.
fn home() -> Home {
    let home = Home::new();
    home.settings("timezone: Europe/Berlin\n");
    home.agent("a", "true", "schedules: [ { cron: '0 9 * * *' }, { cron: '30 2 * * *' } ]\n");
    home.agent("gone", "true", "schedules: [ { every: 24h } ]\n");
    let text = std::fs::read_to_string(home.path().join("agents/a.yaml")).unwrap();
    home.write("next/a.yaml", &text.replace("0 9 * * *", "0 10 * * *"));
    home.write("next/new.yaml", &text.replace("id: a", "id: new"));
    home
}

const RANGE: [&str; 4] = ["--from", "2026-01-01T00:00:00Z", "--to", "2027-01-01T00:00:00Z"];

fn compared(daemon: &Binary, dir: &str) -> Value {
    let out = daemon.cli(&[&["plan", "--against", dir, "--json"], &RANGE[..]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Agent, change, fires that go, fires that come.
fn told(report: &Value) -> Vec<(String, String, u64, u64)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let count = |v: &Value| v["count"].as_u64().unwrap();
    let agents = report["agents"].as_array().unwrap();
    let of = |agent: &Value| {
        let schedules = agent["schedules"].as_array().unwrap().clone();
        let id = text(&agent["agentId"]);
        schedules
            .into_iter()
            .map(move |s| (id.clone(), text(&s["change"]), count(&s["removed"]), count(&s["added"])))
    };
    agents.iter().flat_map(of).collect()
}

fn row(agent: &str, change: &str, removed: u64, added: u64) -> (String, String, u64, u64) {
    (agent.to_owned(), change.to_owned(), removed, added)
}

#[test]
fn a_changed_folder_is_compared_with_what_is_in_force() {
    let mut daemon = Binary::start(home());
    let report = compared(&daemon, "next");
    assert_eq!(report["base"], "daemon");
    let wanted = [
        row("a", "changed", 365, 365),
        row("gone", "removed", 365, 0),
        row("new", "added", 0, 365),
        row("new", "added", 0, 365),
    ];
    assert_eq!(told(&report), wanted);
    assert_eq!(report["unchanged"], 1);
    let changed = &report["agents"][0]["schedules"][0];
    assert_eq!(changed["removed"]["first"][0], "2026-01-01T08:00:00.000Z");
    assert_eq!(changed["added"]["first"][0], "2026-01-01T09:00:00.000Z");
    let notes = report["agents"][2]["schedules"][1]["new"]["notes"].as_array().unwrap();
    assert_eq!((notes.len(), &notes[0]["at"]), (2, &"2026-03-29T01:00:00.000Z".into()));
    // The daemon holds what it has read, whatever lies in the folder by now.
    assert!(told(&compared(&daemon, "agents")).is_empty());
    daemon.kill();
    let alone = compared(&daemon, "next");
    assert!(alone["base"].as_str().unwrap().ends_with("matins.yaml"), "{alone}");
    assert_eq!(told(&alone), wanted);
    let out = daemon.cli(&[&["plan", "gone", "--against", "next"], &RANGE[..]].concat());
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("agent removed") && text.contains("-365 +0"), "{text}");
}

#[test]
fn a_folder_with_errors_is_told_and_not_compared() {
    let home = home();
    home.write("next/bad.yaml", "nonsense: 1\n");
    let daemon = Binary::unstarted(home);
    let out = daemon.cli(&["plan", "--against", "next"]);
    assert_eq!(out.status.code(), Some(78));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("next/bad.yaml") && said.contains("nonsense"), "{said}");
    let out = daemon.cli(&["plan", "--against", "next", "--json"]);
    let said: Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(said["error"]["details"][0]["line"], 1, "{said}");
}
