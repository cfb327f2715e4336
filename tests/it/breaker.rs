//! What keeps an agent from running too often or in vain: breaker, budgets, idempotency keys; and
//! running an ended run again.

use std::time::Duration;

use matins::engine::Refused;
use matins::ids::RunId;
use matins::model::{NotRun, Overlap, Overrides, RunState};
use matins::store::SlotRow;
use serde_json::{Value, json};

use crate::support::{Binary, Home, TestDaemon, TestReceiver, eventually_sync};

const SECOND: Duration = Duration::from_secs(1);
const EVERY_SECOND: &str = "schedules: [ { cron: \"* * * * * *\", overlap: allow } ]\n";
/// Fails until the file `well` stands beside the agents.
const UNTIL_WELL: &str = "test -e $MATINS_AGENT_DIR/../well";

/// Lets one slot come due, and waits until its run, if it has one, has ended.
fn slot(daemon: &TestDaemon) -> SlotRow {
    let before = daemon.slots().len();
    daemon.advance(SECOND);
    eventually_sync("the slot", || (daemon.slots().len() > before).then_some(()));
    let slot = daemon.slots().remove(0);
    if let (None, Some(run)) = (slot.reason, slot.run) {
        daemon.wait_end(run);
    }
    slot
}

fn reasons(daemon: &TestDaemon, slots: usize) -> Vec<Option<NotRun>> {
    (0..slots).map(|_| slot(daemon).reason).collect()
}

fn status(daemon: &TestDaemon) -> matins::store::AgentSummary {
    daemon.block_on(daemon.core().store.agent("a".parse().unwrap())).unwrap().unwrap()
}

#[test]
fn failures_in_a_row_open_the_breaker_and_a_resume_closes_it() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [agent.breaker_opened] }} ]\n", receiver.url);
    home.agent("a", UNTIL_WELL, &format!("{EVERY_SECOND}breaker: {{ failures: 2 }}\n{hook}"));
    let mut daemon = TestDaemon::start(home);
    assert_eq!(reasons(&daemon, 3), [None, None, Some(NotRun::Breaker)]);
    let agent = status(&daemon);
    assert_eq!(agent.status, "PAUSED");
    let pause = agent.pause.unwrap();
    assert_eq!(pause.by, "breaker");
    assert!(pause.reason.as_ref().unwrap().contains("2 runs in a row failed"), "{pause:?}");
    let told = eventually_sync("the message", || receiver.received().pop()).json();
    assert_eq!((&told["type"], &told["data"]["agentId"]), (&json!("agent.breaker_opened"), &json!("a")));
    daemon.stop();
    daemon.restart();
    assert_eq!(slot(&daemon).reason, Some(NotRun::Breaker), "a restart changes nothing");
    let by_hand = daemon.trigger("a");
    assert_eq!(daemon.wait_end(by_hand).event.status, RunState::Failed, "a trigger by hand still runs");
    daemon.home.write("well", "");
    daemon.block_on(daemon.core().resume(&"a".parse().unwrap(), "ann", false)).unwrap();
    assert_eq!(slot(&daemon).reason, None);
    assert_eq!(status(&daemon).status, "ACTIVE");
    eventually_sync("no second message", || (receiver.received().len() == 1).then_some(()));
}

#[test]
fn a_success_starts_the_count_anew_and_a_cancel_does_not_count() {
    let home = Home::new();
    home.agent(
        "a",
        "cat; test -e $MATINS_AGENT_DIR/../well || sleep 60",
        "breaker: { failures: 2 }\nkill_grace: 100ms\n",
    );
    home.agent("b", UNTIL_WELL, "breaker: { failures: 2 }\n");
    let daemon = TestDaemon::start(home);
    for _ in 0..3 {
        let run = daemon.trigger("a");
        daemon.wait_for(run, RunState::Running);
        daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
        daemon.wait_end(run);
    }
    assert_eq!(status(&daemon).status, "ACTIVE", "a cancel says nothing of the agent");
    let well = daemon.home.path().join("well");
    for fine in [false, true, false] {
        let _ = std::fs::remove_file(&well);
        if fine {
            daemon.home.write("well", "");
        }
        let run = daemon.trigger("b");
        daemon.wait_end(run);
    }
    let b = daemon.block_on(daemon.core().store.agent("b".parse().unwrap())).unwrap().unwrap();
    assert_eq!(b.status, "ACTIVE", "two failures, but not in a row");
}

#[test]
fn a_probe_closes_the_breaker_or_opens_it_again() {
    let home = Home::new();
    home.agent("a", UNTIL_WELL, &format!("{EVERY_SECOND}breaker: {{ failures: 1, probe_after: 3s }}\n"));
    let daemon = TestDaemon::start(home);
    let breaker = Some(NotRun::Breaker);
    // Opened by the first, probed 3 s later, and opened by that for another 3 s.
    assert_eq!(reasons(&daemon, 6), [None, breaker, breaker, None, breaker, breaker]);
    daemon.home.write("well", "");
    assert_eq!(reasons(&daemon, 3), [None; 3], "the probe was well, and with it the agent");
    assert_eq!(status(&daemon).status, "ACTIVE");
}

#[test]
fn a_probe_that_says_nothing_is_followed_by_another() {
    let home = Home::new();
    home.agent(
        "a",
        "test -e $MATINS_AGENT_DIR/../hang && exec sleep 60; false",
        &format!("{EVERY_SECOND}breaker: {{ failures: 1, probe_after: 2s }}\nkill_grace: 100ms\n"),
    );
    let daemon = TestDaemon::start(home);
    assert_eq!(reasons(&daemon, 2), [None, Some(NotRun::Breaker)]);
    daemon.home.write("hang", "");
    let before = daemon.slots().len();
    daemon.advance(SECOND);
    eventually_sync("the probe", || (daemon.slots().len() > before).then_some(()));
    let probe = daemon.slots()[0].run.unwrap();
    daemon.wait_for(probe, RunState::Running);
    assert_eq!(slot(&daemon).reason, Some(NotRun::Breaker), "one probe at a time");
    daemon.block_on(daemon.core().cancel(probe, "ann".to_owned())).unwrap();
    daemon.wait_end(probe);
    std::fs::remove_file(daemon.home.path().join("hang")).unwrap();
    assert_eq!(slot(&daemon).reason, None, "the next one is a probe");
}

#[test]
fn a_budget_of_runs_is_for_the_last_24_hours() {
    let home = Home::new();
    home.settings("budget: { runs_per_day: 4 }\n");
    home.agent("a", "true", &format!("{EVERY_SECOND}budget: {{ runs_per_day: 2 }}\n"));
    home.agent("b", "true", "");
    let daemon = TestDaemon::start(home);
    assert_eq!(reasons(&daemon, 3), [None, None, Some(NotRun::Budget)]);
    let ask = |agent: &str| daemon.ask(agent, Overrides::default(), Some(Overlap::Allow), None);
    let refused = ask("a").unwrap_err();
    let Refused::Budget { free_at_ms, .. } = &refused else { panic!("{refused}") };
    let begun = daemon.slots().iter().map(|s| s.nominal_ms).min().unwrap();
    assert_eq!(*free_at_ms, Some(begun + 24 * 3_600_000), "{refused}");
    for _ in 0..2 {
        let run = daemon.trigger("b");
        daemon.wait_for(run, RunState::Completed);
    }
    let refused = ask("b").unwrap_err();
    assert!(refused.to_string().contains("the daemon has had the 4 runs"), "{refused}");
    // Its slots would take the budget that becomes free.
    daemon.block_on(daemon.core().pause(&"a".parse().unwrap(), "ann", None)).unwrap();
    daemon.advance(Duration::from_secs(24 * 3600));
    let newest = |d: &TestDaemon| d.slots().iter().map(|s| s.until_ms).max().unwrap();
    eventually_sync("the day is decided", || (newest(&daemon) > begun + 86_000_000).then_some(()));
    let run = daemon.trigger("b");
    daemon.wait_for(run, RunState::Completed);
    daemon.settle();
}

#[test]
fn a_request_that_comes_twice_makes_one_run() {
    let home = Home::new();
    home.agent("a", "cat", "prompt: hello\n");
    let mut binary = Binary::start(home);
    let run = |args: &[&str]| {
        let all = [&["run", "a", "--idempotency-key", "monday"], args].concat();
        let output = binary.cli(&all);
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, first, _) = run(&[]);
    assert_eq!(code, Some(0));
    assert_eq!(run(&[]).1, first, "the same run");
    let (code, _, error) = run(&["--prompt", "another"]);
    assert_eq!(code, Some(1));
    assert!(error.contains(&first), "it names the run: {error}");
    binary.kill();
    binary.restart();
    let run_after = binary.cli(&["run", "a", "--idempotency-key", "monday", "--follow"]);
    assert!(String::from_utf8(run_after.stderr).unwrap().contains(&first), "a restart forgets nothing");
    assert_eq!(binary.settled().len(), 1);
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn a_key_is_forgotten_after_a_day() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let ask = || daemon.ask("a", Overrides::default(), None, Some("k")).unwrap();
    let first = ask();
    daemon.wait_for(first.id, RunState::Completed);
    let again = ask();
    assert!(again.id == first.id && again.repeated && !first.repeated);
    daemon.advance(Duration::from_secs(24 * 3600));
    let other = ask();
    assert!(other.id != first.id && !other.repeated);
    daemon.wait_for(other.id, RunState::Completed);
}

#[test]
fn a_retry_runs_the_same_definition_again() {
    let home = Home::new();
    home.agent("a", "cat; cat $MATINS_INPUT_FILE; echo one", "prompt: template\n");
    let mut daemon = TestDaemon::start(home);
    let overrides = Overrides {
        prompt: Some("verbatim ".to_owned()),
        input: Some(json!({"n": 1})),
        ..Overrides::default()
    };
    let first = daemon.trigger_with("a", overrides);
    daemon.wait_for(first, RunState::Completed);
    daemon.stop();
    daemon.home.agent("a", "echo two", "");
    daemon.restart();
    let number = daemon.detail(first).event.number;
    let second = daemon.block_on(daemon.core().retry(number, Some("bob".to_owned()))).unwrap();
    let detail = daemon.wait_for(second.id, RunState::Completed);
    let log = |run: RunId| {
        std::fs::read_to_string(daemon.home.run_file(&run.to_string(), "attempts/1/stdout.log")).unwrap()
    };
    assert_eq!(log(second.id), "verbatim {\"n\":1}one\n");
    assert_eq!(log(second.id), log(first));
    assert_eq!(detail.event.user_id.as_deref(), Some("bob"));
    assert_eq!(detail.event.definition_sha256, daemon.detail(first).event.definition_sha256);
    assert_eq!(detail.retry_of, Some(first));
}

#[test]
fn a_run_that_has_not_ended_is_not_retried() {
    let home = Home::new();
    home.agent("a", "exec sleep 60", "kill_grace: 100ms\n");
    let mut binary = Binary::start(home);
    let out = binary.cli(&["run", "a"]);
    let run = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let (status, body) = binary.post(&format!("/v1/events/{run}/retry"), &json!({}));
    assert_eq!((status, body["error"]["code"].as_str()), (409, Some("not_ended")));
    assert!(binary.cli(&["cancel", &run]).status.success());
    binary.settled();
    let again = binary.cli(&["--json", "retry", &run]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    let again = again["eventId"].as_str().unwrap();
    assert!(again != run);
    assert!(binary.cli(&["cancel", again]).status.success());
    binary.settled();
    assert_eq!(binary.get(&format!("/v1/events/{again}"))["data"]["retryOf"], run);
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn a_concurrency_key_keeps_agents_apart_and_a_broken_one_loses_no_run() {
    let home = Home::new();
    home.settings("max_running: 10\n");
    let wait = "while [ ! -e $MATINS_AGENT_DIR/../go ]; do sleep 0.02; done";
    let key = "concurrency_key: \"shop {{ input.shop }}\"\ninput: { shop: north }\n";
    home.agent("a", wait, key);
    home.agent("b", "true", key);
    let daemon = TestDaemon::start(home);
    let with = |shop: Value| Overrides { input: Some(shop), ..Overrides::default() };
    let first = daemon.trigger("a");
    daemon.wait_for(first, RunState::Running);
    let behind = daemon.trigger("b");
    let beside = daemon.trigger_with("b", with(json!({"shop": "south"})));
    daemon.wait_for(beside, RunState::Completed);
    assert_eq!(daemon.detail(behind).event.status, RunState::Pending, "it waits for another agent's run");
    let broken = daemon.trigger_with("b", with(json!({})));
    let ended = daemon.wait_end(broken);
    assert_eq!(ended.event.failure_code.as_deref(), Some("launch_error"));
    assert!(ended.event.error.as_ref().unwrap().contains("concurrency key"), "{:?}", ended.event.error);
    daemon.home.write("go", "");
    daemon.wait_for(behind, RunState::Completed);
}

#[test]
fn a_retry_of_a_slot_does_what_its_schedule_says() {
    let home = Home::new();
    let schedule = "{ cron: \"* * * * * *\", overlap: allow, prompt: from the schedule, input: { n: 2 } }";
    home.agent(
        "a",
        "cat; cat $MATINS_INPUT_FILE",
        &format!("prompt: of the agent\nschedules: [ {schedule} ]\n"),
    );
    let daemon = TestDaemon::start(home);
    let first = slot(&daemon).run.unwrap();
    let log = |run: RunId| {
        daemon.wait_for(run, RunState::Completed);
        std::fs::read_to_string(daemon.home.run_file(&run.to_string(), "attempts/1/stdout.log")).unwrap()
    };
    let retry = |run: RunId| {
        let number = daemon.detail(run).event.number;
        daemon.block_on(daemon.core().retry(number, None)).unwrap().id
    };
    assert_eq!(log(first), "from the schedule{\"n\":2}");
    let second = retry(first);
    assert_eq!(log(second), log(first));
    assert_eq!(log(retry(second)), log(first), "and so does a retry of that");
}
