//! A user's mistakes, from outside: each has a clear error at its place, and nothing is lost.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::{Binary, Home};

/// `matins check` on a home with one agent file: exit code and everything it printed.
fn check(agent: &str) -> (Option<i32>, String) {
    let home = Home::new();
    home.write("agents/a.yaml", agent);
    check_home(&home)
}

fn check_home(home: &Home) -> (Option<i32>, String) {
    let output = std::process::Command::new(crate::support::binary::exe())
        .args(["check"])
        .arg(home.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.code(), text)
}

#[track_caller]
fn refused(agent: &str, at: &str, says: &[&str]) {
    let (code, text) = check(agent);
    assert_eq!(code, Some(78), "{text}");
    for word in [&[at], says].concat() {
        assert!(text.contains(word), "{word:?} in:\n{text}");
    }
}

const RUNS: &str = "executor: { type: command, command: [/bin/true] }\n";

#[test]
fn bad_yaml_is_shown_at_its_place() {
    refused("executor: [\n", "a.yaml:", &["error"]);
}

#[test]
fn unknown_and_duplicate_keys_are_shown() {
    refused(&format!("{RUNS}promt: hi\n"), "a.yaml:2:1", &["promt", "prompt"]);
    refused(&format!("{RUNS}name: a\nname: b\n"), "a.yaml:3:1", &["name"]);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let again = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb = format!("{bomb}a{i}: &a{i} [{again}]\n");
    }
    refused(&(bomb + RUNS), "a.yaml", &["error"]);
}

#[test]
fn schedules_that_cannot_be_are_shown() {
    let with = |schedule: &str| format!("{RUNS}schedules:\n  - {schedule}\n");
    refused(&with("cron: \"0 0 31 2 *\""), "a.yaml:3:", &["never"]);
    refused(&with("cron: \"0 0 1 1 * 99 99 99\""), "a.yaml:3:", &["error"]);
    refused(
        &with("{ cron: \"@daily\", timezone: Europe/Berln }"),
        "a.yaml:3:",
        &["Europe/Berln", "time zone"],
    );
    refused(&with("{ every: soon }"), "a.yaml:3:", &["duration"]);
}

#[test]
fn skills_and_paths_that_are_not_there_or_lead_outside_are_shown() {
    let home = Home::new();
    home.write("skills/extract-prices/SKILL.md", "---\nname: extract-prices\n---\n");
    home.write("agents/a.yaml", &format!("{RUNS}skills: [extract-price]\n"));
    let (code, text) = check_home(&home);
    assert_eq!(code, Some(78));
    assert!(
        text.contains("a.yaml:2:10") && text.contains("did you mean") && text.contains("extract-prices"),
        "{text}"
    );
    refused(&format!("{RUNS}skills: [../../etc]\n"), "a.yaml:2:10", &["../../etc"]);
    refused(&format!("{RUNS}result_schema: ../../../etc/passwd\n"), "a.yaml:2:16", &["error"]);
    refused(&format!("{RUNS}result_schema: schemas/none.json\n"), "a.yaml:2:16", &["schemas/none.json"]);
}

#[test]
fn a_program_that_is_not_there_is_shown() {
    refused("executor: { type: command, command: [./none.sh] }\n", "a.yaml:1:", &["./none.sh"]);
    refused("executor: { type: command, command: [] }\n", "a.yaml:1:", &["command"]);
    refused("executor: { type: command, command: \"ls -l\" }\n", "a.yaml:1:", &["list", "[ls, -l]"]);
}

#[test]
fn bytes_that_are_no_text_are_shown() {
    let home = Home::new();
    std::fs::write(home.path().join("agents/a.yaml"), b"name: \xff\xfe\n").unwrap();
    let (code, text) = check_home(&home);
    assert_eq!(code, Some(78));
    assert!(text.contains("a.yaml:1:7") && text.contains("UTF-8"), "{text}");
    refused("name: \"a\0b\"\n", "a.yaml:1:", &["error"]);
}

#[test]
fn every_problem_of_every_file_is_shown_at_once() {
    let home = Home::new();
    home.write("agents/a.yaml", "promt: x\ntimeout: soon\n");
    home.write("agents/b.yaml", "executor: 3\n");
    let (code, text) = check_home(&home);
    assert_eq!(code, Some(78));
    for word in ["a.yaml:1:1", "a.yaml:2:10", "b.yaml:1:11"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn a_huge_prompt_runs_or_is_refused_clearly() {
    let home = Home::new();
    home.agent("a", "wc -c", "");
    let daemon = Binary::start(home);
    let big = "x".repeat(10 << 20);
    let (status, body) = daemon.post("/v1/agents/a/execute", &json!({ "prompt": big }));
    assert_eq!(status, 202, "{body}");
    let event = &daemon.settled()[0];
    assert_eq!(event["status"], "COMPLETED", "{event}");
    let log = daemon.get(&format!("/v1/events/{}/logs", event["id"].as_str().unwrap()));
    assert_eq!(log.to_string().trim_matches(['"', 'n', '\\']).trim(), (10 << 20).to_string());
    let (status, body) = daemon.post("/v1/agents/a/execute", &json!({ "prompt": "x".repeat(18 << 20) }));
    assert!(status == 413 || status == 422, "{status} {body}");
}

#[test]
fn output_without_end_is_bounded_and_bytes_are_kept() {
    let home = Home::new();
    home.agent("flood", "head -c 1073741824 /dev/zero", "limits: { output: 2M }\n");
    home.agent("bytes", "printf '\\377\\000\\376'", "");
    let daemon = Binary::start(home);
    daemon.post("/v1/agents/flood/execute", &json!({}));
    daemon.post("/v1/agents/bytes/execute", &json!({}));
    let events = daemon.settled();
    let of = |agent: &str| events.iter().find(|e| e["agentId"] == agent).unwrap();
    assert_eq!(of("flood")["failureCode"], "output_limit", "{}", of("flood"));
    assert_eq!(of("bytes")["status"], "COMPLETED");
    let size = |agent: &str| {
        let run = of(agent)["id"].as_str().unwrap();
        std::fs::metadata(daemon.home.run_file(run, "attempts/1/stdout.log")).unwrap().len()
    };
    assert!(size("flood") <= 2 << 20);
    assert_eq!(size("bytes"), 3);
}

#[test]
fn a_socket_path_that_is_too_long_is_refused() {
    let home = Home::new();
    home.agent("a", "true", "");
    let long = "x".repeat(120);
    home.write("matins.yaml", &format!("listen: {{ socket: {long}/matins.sock }}\n"));
    let mut daemon = Binary::unstarted(home);
    daemon.spawn();
    assert_eq!(daemon.exited(), Some(78));
    assert!(daemon.log().contains("107"), "{}", daemon.log());
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = Binary::start(home);
    daemon.terminate();
    rusqlite::Connection::open(daemon.home.state().join("matins.db"))
        .unwrap()
        .execute("INSERT INTO refinery_schema_history VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')", [])
        .unwrap();
    daemon.spawn();
    assert_ne!(daemon.exited(), Some(0));
    assert!(daemon.log().contains("newer matins"), "{}", daemon.log());
}

#[test]
fn a_state_directory_that_cannot_be_written_is_said() {
    let home = Home::new();
    home.agent("a", "true", "");
    // Root writes through permissions; a file in the way it cannot.
    std::fs::write(home.path().join("var"), "a file").unwrap();
    std::fs::set_permissions(home.path().join("var"), std::fs::Permissions::from_mode(0o444)).unwrap();
    let mut daemon = Binary::unstarted(home);
    daemon.spawn();
    assert_ne!(daemon.exited(), Some(0));
    assert!(daemon.log().contains("var"), "{}", daemon.log());
}

#[test]
fn a_client_without_a_daemon_says_how_to_start_one() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = Binary::unstarted(home);
    for args in [&["agents"][..], &["run", "a"], &["events"], &["status"], &["cancel", "@last"]] {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(69), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("matins serve"), "{stderr}");
        assert!(!stderr.contains("Usage"), "{stderr}");
    }
}

#[test]
fn requests_that_do_not_fit_are_refused_at_their_field() {
    let home = Home::new();
    home.agent(
        "a",
        "true",
        "input: { n: 1 }\ninput_schema: { type: object, properties: { n: { type: integer } } }\n",
    );
    let daemon = Binary::start(home);
    let post =
        |agent: &str, body: serde_json::Value| daemon.post(&format!("/v1/agents/{agent}/execute"), &body);
    assert_eq!(post("none", json!({})).0, 404);
    assert_eq!(post("..%2f..", json!({})).0, 404);
    assert_eq!(post("a", json!({"promt": "x"})).0, 422);
    let (status, body) = post("a", json!({"input": {"n": "one"}}));
    assert_eq!(status, 422, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("input"), "{body}");
    assert_eq!(post("a", json!({"skills": ["none"]})).0, 422);
    assert_eq!(post("a", json!({"webhookUrl": "http://127.0.0.1/"})).0, 422);
    assert_eq!(post("a", json!({"overlap": "perhaps"})).0, 422);
    assert!(daemon.events().is_empty(), "nothing was admitted");
}
