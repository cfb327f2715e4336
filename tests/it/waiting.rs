//! What a run that does not start waits for, as it is told.

use std::time::Duration;

use matins::engine::{WaitKind, WaitingFor};
use matins::ids::RunId;
use matins::model::RunState;

use crate::support::{Binary, Home, TestDaemon, eventually_sync};

/// Runs until the file `go` beside the agents exists.
const UNTIL_GO: &str = "while [ ! -e $MATINS_AGENT_DIR/../go ]; do sleep 0.02; done";

fn running(daemon: &TestDaemon, agent: &str) -> RunId {
    let run = daemon.trigger(agent);
    daemon.wait_for(run, RunState::Running);
    run
}

fn waits(daemon: &TestDaemon, run: RunId) -> Option<WaitingFor> {
    let number = daemon.detail(run).event.number;
    daemon.block_on(daemon.core().waiting_for(number)).unwrap()
}

/// What `run` waits for, which has to be of this kind and to name these runs.
fn sentence(daemon: &TestDaemon, run: RunId, kind: WaitKind, holders: &[RunId]) -> String {
    let waits = waits(daemon, run).unwrap_or_else(|| panic!("{:?}", daemon.detail(run)));
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    assert_eq!((waits.kind, &waits.runs), (kind, &holders), "{waits:?}");
    assert!(holders.iter().all(|id| waits.sentence.contains(id)), "{waits:?}");
    waits.sentence
}

#[test]
fn what_holds_a_run_is_named() {
    let home = Home::new();
    home.settings("max_running: 3\npools: { browser: 1 }\n");
    home.agent("own", UNTIL_GO, "sandbox: off\n");
    home.agent("pooled", UNTIL_GO, "sandbox: off\npool: browser\noverlap: allow\n");
    home.agent("other", UNTIL_GO, "sandbox: off\npool: browser\n");
    home.agent("keyed", UNTIL_GO, "sandbox: off\nconcurrency_key: shop\n");
    home.agent("rival", UNTIL_GO, "sandbox: off\nconcurrency_key: shop\n");
    let daemon = TestDaemon::start(home);
    let own = running(&daemon, "own");
    assert_eq!(waits(&daemon, own), None, "it runs");
    let second = daemon.trigger("own");
    let said = sentence(&daemon, second, WaitKind::Agent, &[own]);
    assert!(said.contains("the same agent"), "{said}");
    let pooled = running(&daemon, "pooled");
    let other = daemon.trigger("other");
    let said = sentence(&daemon, other, WaitKind::Pool, &[pooled]);
    assert!(said.contains("the pool \"browser\""), "{said}");
    let keyed = running(&daemon, "keyed");
    let rival = daemon.trigger("rival");
    let said = sentence(&daemon, rival, WaitKind::ConcurrencyKey, &[keyed]);
    assert!(said.contains("the concurrency key \"shop\""), "{said}");
    daemon.home.write("go", "");
    daemon.settle();
}

#[test]
fn room_time_and_a_stop_are_told_of() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    home.agent("long", UNTIL_GO, "sandbox: off\n");
    home.agent("next", "true", "");
    home.agent("again", "exit 1", "retry: { max: 2, initial: 1h, jitter: 0% }\n");
    let mut daemon = TestDaemon::start(home);
    let again = daemon.trigger("again");
    let said = eventually_sync("it waits for its next attempt", || {
        waits(&daemon, again).filter(|w| w.kind == WaitKind::Time).map(|w| w.sentence)
    });
    let at = daemon.detail(again).event.not_before.unwrap();
    assert_eq!(said, format!("its next attempt, at {at}"));
    running(&daemon, "long");
    let next = daemon.trigger("next");
    let said = sentence(&daemon, next, WaitKind::MaxRunning, &[]);
    assert!(said.contains("1 runs are under way and max_running is 1"), "{said}");
    daemon.core().tasks.stop().soft();
    assert_eq!(waits(&daemon, next).unwrap().kind, WaitKind::Start);
    daemon.home.write("go", "");
    daemon.restart();
    daemon.wait_end(next);
    assert_eq!(waits(&daemon, next), None);
    daemon.advance(Duration::from_secs(3600));
    daemon.settle();
}

#[test]
fn the_command_line_says_what_a_run_waits_for() {
    let home = Home::new();
    home.agent("a", UNTIL_GO, "sandbox: off\n");
    let daemon = Binary::start(home);
    let start = || {
        let (status, answer) = daemon.post("/v1/agents/a/execute", &serde_json::json!({}));
        assert_eq!(status, 202, "{answer}");
        answer["data"]["eventId"].as_str().unwrap().to_owned()
    };
    let first = start();
    eventually_sync("it runs", || {
        (daemon.get(&format!("/v1/events/{first}"))["data"]["status"] == "RUNNING").then_some(())
    });
    let second = start();
    let event = &daemon.get(&format!("/v1/events/{second}"))["data"];
    assert_eq!(event["waitingFor"]["kind"], "agent", "{event}");
    assert_eq!(event["waitingFor"]["runs"], serde_json::json!([first]), "{event}");
    let of = |args: &[&str]| String::from_utf8(daemon.cli(args).stdout).unwrap();
    let (shown, status) = (of(&["show", &second]), of(&["status"]));
    assert!(shown.lines().any(|l| l.starts_with("waits for") && l.contains(&first)), "{shown}");
    let line = status.lines().find(|l| l.starts_with("waiting")).unwrap_or_else(|| panic!("{status}"));
    assert!(line.contains(&second) && line.contains(&first), "{status}");
    daemon.home.write("go", "");
    daemon.settled();
}
