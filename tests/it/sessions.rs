//! Sessions, variants, what differs between two runs, and reading a run's logs to the end.

use std::process::Stdio;

use matins::engine::Refused;
use matins::ids::RunId;
use matins::model::{Event, Overrides, RunState};
use serde_json::json;

use crate::support::{Binary, Home, TestDaemon, eventually_sync};

fn stdout(daemon: &TestDaemon, event: &Event) -> String {
    std::fs::read_to_string(daemon.home.run_file(&event.id, "attempts/1/stdout.log")).unwrap()
}

fn completed(daemon: &TestDaemon, run: RunId) -> Event {
    daemon.wait_for(run, RunState::Completed).event
}

fn refused(daemon: &TestDaemon, agent: &str, overrides: Overrides) -> (String, String) {
    match daemon.ask(agent, overrides, None, None).unwrap_err() {
        Refused::Field { pointer, message } => (pointer, message),
        other => panic!("{other}"),
    }
}

#[test]
fn runs_that_name_a_session_share_its_workspace() {
    let home = Home::new();
    let script = "echo $MATINS_RUN_ID >> seen; wc -l < seen; pwd";
    home.agent("own", script, "");
    home.agent("shared", script, "session: shop\n");
    home.agent("each", script, "input: { who: ann }\nsession: \"of-{{ input.who }}\"\n");
    home.agent("bad", script, "input: { who: ../x }\nsession: \"{{ input.who }}\"\n");
    let daemon = TestDaemon::start(home);
    let lines = |event: &Event| stdout(&daemon, event).lines().next().unwrap().trim().to_owned();
    let first = completed(&daemon, daemon.trigger("shared"));
    let second = completed(&daemon, daemon.trigger("shared"));
    assert_eq!((first.session_id.as_str(), lines(&first).as_str()), ("shop", "1"));
    assert_eq!((second.session_id.as_str(), lines(&second).as_str()), ("shop", "2"));
    assert!(stdout(&daemon, &second).trim_end().ends_with("sessions/shop/workspace"));
    let own = completed(&daemon, daemon.trigger("own"));
    assert_eq!((own.session_id == own.id, lines(&own).as_str()), (true, "1"));
    let named = Overrides { session_id: Some("shop".to_owned()), ..Overrides::default() };
    let third = completed(&daemon, daemon.trigger_with("own", named));
    assert_eq!((third.session_id.as_str(), lines(&third).as_str()), ("shop", "3"));
    let input = |who: &str| Overrides { input: Some(json!({ "who": who })), ..Overrides::default() };
    assert_eq!(completed(&daemon, daemon.trigger("each")).session_id, "of-ann");
    assert_eq!(completed(&daemon, daemon.trigger_with("each", input("bob"))).session_id, "of-bob");
    let bad = daemon.wait_end(daemon.trigger("bad")).event;
    assert_eq!(bad.failure_code.as_deref(), Some("launch_error"));
    assert!(bad.error.as_deref().unwrap().contains("\"../x\" is not the name of a session"), "{bad:?}");
}

#[test]
fn a_session_that_a_caller_names_has_a_plain_name() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let named = |name: &str| Overrides { session_id: Some(name.to_owned()), ..Overrides::default() };
    for bad in ["", "..", "a/b", ".hidden", "ä", &"x".repeat(65)] {
        let (pointer, message) = refused(&daemon, "a", named(bad));
        assert_eq!(pointer, "/sessionId");
        assert!(message.contains("1 to 64"), "{message}");
    }
    completed(&daemon, daemon.trigger_with("a", named(&"x".repeat(64))));
}

#[test]
fn a_variant_replaces_prompt_and_schemas() {
    let home = Home::new();
    home.agent(
        "a",
        "cat; test -z \"$MATINS_RESULT_SCHEMA_FILE\" || echo '{\"n\": 1}' > $MATINS_RESULT_FILE",
        "prompt: plain {{ input.x | default('none') }}\n\
         executions:\n  \
           strict: { prompt: \"strict {{ input.x }}\", input_schema: { type: object, required: [x] }, \
                     result_schema: { type: object, required: [n] } }\n  \
           wrong: { result_schema: { type: object, required: [m] } }\n",
    );
    let daemon = TestDaemon::start(home);
    let of = |key: &str, input: Option<serde_json::Value>| Overrides {
        execution_key: Some(key.to_owned()),
        input,
        ..Overrides::default()
    };
    let plain = completed(&daemon, daemon.trigger("a"));
    assert_eq!((stdout(&daemon, &plain).as_str(), plain.execution_key), ("plain none", None));
    let strict = completed(&daemon, daemon.trigger_with("a", of("strict", Some(json!({"x": 7})))));
    assert_eq!(stdout(&daemon, &strict), "strict 7");
    assert_eq!((strict.execution_key.as_deref(), strict.result), (Some("strict"), Some(json!({"n": 1}))));
    let wrong = daemon.wait_end(daemon.trigger_with("a", of("wrong", None))).event;
    assert_eq!(wrong.failure_code.as_deref(), Some("validation_failed"), "{:?}", wrong.error);
    let (pointer, message) = refused(&daemon, "a", of("none", None));
    assert_eq!(pointer, "/executionKey");
    assert!(message.contains("strict, wrong"), "{message}");
    assert_eq!(refused(&daemon, "a", of("strict", None)).0, "/input", "the agent's own input does not fit");
}

#[test]
fn what_differs_between_two_runs_is_shown() {
    let home = Home::new();
    home.agent(
        "a",
        "cat $MATINS_INPUT_FILE > $MATINS_RESULT_FILE",
        "input: { n: 1 }\nprompt: \"n is {{ input.n }}\"\n",
    );
    let daemon = Binary::start(home);
    for args in [&["run", "a", "--follow"][..], &["run", "a", "--follow", "--input", "n=2"]] {
        assert!(daemon.cli(args).status.success());
    }
    let runs: Vec<String> =
        daemon.events().iter().rev().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    let diff = daemon.get(&format!("/v1/events/{}/diff/{}", runs[0], runs[1]));
    let changes = diff["data"]["changes"].as_array().unwrap().clone();
    let find = |pointer: &str| changes.iter().find(|c| c["pointer"] == pointer).unwrap();
    assert_eq!(find("/input/n")["to"], 2);
    assert_eq!(
        (find("/result/n")["from"].clone(), find("/result/n")["op"].clone()),
        (json!(1), json!("replace"))
    );
    assert_eq!(find("/prompt")["to"], "n is 2");
    assert_eq!(changes.len(), 3, "{changes:?}");
    let table = daemon.cli(&["diff", &runs[0], "@last"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("/prompt\tn is 1\tn is 2\n"), "{table:?}");
    let same = daemon.cli(&["diff", "@last", "a@last", "--json"]);
    let same: serde_json::Value = serde_json::from_slice(&same.stdout).unwrap();
    assert_eq!(same["changes"], json!([]));
}

#[test]
fn a_caller_on_the_command_line_sees_gates_sessions_and_short_names() {
    let home = Home::new();
    home.agent("closed", "true", "gate: { command: [/bin/sh, -c, \"exit 75\"] }\n");
    home.agent("a", "pwd", "executions: { k: { prompt: x } }\n");
    home.agent("liar", "ln -sf /etc/hostname $MATINS_RUN_DIR/attempts/1/stdout.log", "sandbox: off\n");
    let daemon = Binary::start(home);
    let out = daemon.cli(&["run", "closed", "--follow"]);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    let shown = daemon.cli(&["show", "closed@last"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("nothing to do"), "{shown:?}");
    let out = daemon.cli(&["run", "a", "--follow", "--session", "shop", "--execution", "k"]);
    assert!(String::from_utf8_lossy(&out.stdout).trim_end().ends_with("/sessions/shop/workspace"), "{out:?}");
    let shown = String::from_utf8(daemon.cli(&["show", "a@last"]).stdout).unwrap();
    assert!(shown.contains("shop") && shown.contains("exit code"), "{shown}");
    let short = daemon.cli(&["show", "01a"]);
    assert_eq!(short.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&short.stderr).contains("give at least 4 characters"), "{short:?}");
    daemon.cli(&["run", "liar"]);
    daemon.settled();
    let log = daemon.cli(&["logs", "liar@last"]);
    assert!(
        String::from_utf8_lossy(&log.stderr).contains("something else in the place of the file"),
        "{log:?}"
    );
}

#[test]
fn a_follower_loses_nothing_over_attempts_and_a_killed_daemon() {
    let home = Home::new();
    let script = "echo one $MATINS_ATTEMPT; test $MATINS_ATTEMPT = 1 && exit 1; \
                  until test -e $MATINS_AGENT_DIR/../go; do echo tick; sleep 0.05; done; echo last";
    home.agent("a", script, "retry: { max: 2, initial: 1s, jitter: 0% }\n");
    let mut daemon = Binary::start(home);
    daemon.cli(&["run", "a"]);
    let id = daemon.events()[0]["id"].as_str().unwrap().to_owned();
    let log = daemon.home.path().join("followed");
    let file = std::fs::File::create(&log).unwrap();
    let mut follower =
        daemon.command(&["logs", "-f", &id]).stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let second = daemon.home.run_file(&id, "attempts/2/stdout.log");
    let followed = || std::fs::read_to_string(&log).unwrap();
    eventually_sync("the second attempt is followed", || followed().contains("one 2\ntick").then_some(()));
    daemon.kill();
    daemon.restart();
    std::fs::write(daemon.home.path().join("go"), "").unwrap();
    assert!(follower.wait().unwrap().success());
    let first = std::fs::read_to_string(daemon.home.run_file(&id, "attempts/1/stdout.log")).unwrap();
    let whole = first + &std::fs::read_to_string(second).unwrap();
    assert!(whole.ends_with("last\n"));
    assert_eq!(followed(), whole, "no byte is lost, none comes twice");
}
