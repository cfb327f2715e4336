//! What becomes of a run that meets another: overlap policies, keys, pools, priorities, pauses.

use std::time::Duration;

use matins::engine::{Refused, Triggered};
use matins::ids::RunId;
use matins::model::{NotRun, Overlap, Overrides, RunState};
use matins::store::EventDetail;

use crate::support::{Binary, Home, TestDaemon, TestReceiver, eventually_sync};

const SECOND: Duration = Duration::from_secs(1);

/// Runs until the file `go` beside the agents exists.
const UNTIL_GO: &str = "while [ ! -e $MATINS_AGENT_DIR/../go ]; do sleep 0.02; done";
/// Does not hear a polite word.
const STUBBORN: &str = "trap '' TERM; touch $MATINS_FILES_DIR/up; while :; do sleep 0.05; done";

fn ask(daemon: &TestDaemon, agent: &str, overlap: Overlap) -> Result<Triggered, Refused> {
    daemon.ask(agent, Overrides::default(), Some(overlap), None)
}

fn trigger(daemon: &TestDaemon, agent: &str, overlap: Overlap) -> RunId {
    ask(daemon, agent, overlap).unwrap().id
}

fn go(daemon: &TestDaemon) {
    daemon.home.write("go", "");
}

fn failure(detail: &EventDetail) -> Option<&str> {
    detail.event.failure_code.as_deref()
}

fn every_second(overlap: &str) -> String {
    format!("schedules: [ {{ cron: \"* * * * * *\", overlap: {overlap} }} ]\nkill_grace: 100ms\n")
}

#[test]
fn queue_one_keeps_the_newest_and_tells_of_the_displaced() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [run.failed] }} ]\n", receiver.url);
    home.agent("a", UNTIL_GO, &(every_second("queue_one") + &hook));
    let daemon = TestDaemon::start(home);
    let of = |n: usize| {
        daemon.advance(SECOND);
        eventually_sync("the slot", || {
            let slots = daemon.slots();
            (slots.len() == n).then(|| slots[0].run.unwrap())
        })
    };
    let first = of(1);
    daemon.wait_for(first, RunState::Running);
    let second = of(2);
    let by_hand = trigger(&daemon, "a", Overlap::Queue);
    let third = of(3);
    let displaced = daemon.wait_end(second);
    assert_eq!((failure(&displaced), displaced.event.started_at.clone()), (Some("superseded"), None));
    assert!(displaced.event.error.as_ref().unwrap().contains(&third.to_string()), "{displaced:?}");
    eventually_sync("its message", || (receiver.received().len() == 1).then_some(()));
    assert_eq!(daemon.detail(by_hand).event.status, RunState::Pending, "what a person queued stays");
    go(&daemon);
    daemon.wait_for(first, RunState::Completed);
    daemon.wait_for(by_hand, RunState::Completed);
    daemon.wait_for(third, RunState::Completed);
    assert!(daemon.slots().iter().all(|s| s.reason.is_none()), "each slot had its run");
}

#[test]
fn cancel_previous_starts_when_the_one_before_has_ended() {
    let home = Home::new();
    home.settings("max_running: 10\n");
    let script = "touch $MATINS_FILES_DIR/up; trap 'sleep 0.2; exit 0' TERM; while :; do sleep 0.02; done";
    home.agent("a", script, "");
    let daemon = TestDaemon::start(home);
    let first = trigger(&daemon, "a", Overlap::Queue);
    daemon.wait_up(first);
    let waiting = trigger(&daemon, "a", Overlap::Queue);
    let second = trigger(&daemon, "a", Overlap::CancelPrevious);
    daemon.wait_up(second);
    let (before, after) = (daemon.detail(first), daemon.detail(second));
    assert_eq!(failure(&before), Some("cancelled"));
    assert_eq!(before.event.error.as_deref(), Some("cancelled by a newer run of a"));
    assert!(before.event.completed_at <= after.event.started_at, "one after the other");
    assert_eq!(failure(&daemon.wait_end(waiting)), Some("superseded"));
    daemon.block_on(daemon.core().cancel(second, "ann".to_owned())).unwrap();
    daemon.wait_end(second);
}

#[test]
fn replace_kills_what_does_not_listen() {
    let home = Home::new();
    home.agent("a", STUBBORN, "kill_grace: 10m\n");
    let daemon = TestDaemon::start(home);
    let first = trigger(&daemon, "a", Overlap::Queue);
    daemon.wait_up(first);
    let second = trigger(&daemon, "a", Overlap::Replace);
    assert_eq!(failure(&daemon.wait_end(first)), Some("cancelled"));
    daemon.wait_up(second);
    let cancel = || daemon.block_on(daemon.core().cancel(second, "ann".to_owned())).unwrap();
    cancel();
    cancel();
    daemon.wait_end(second);
}

#[test]
fn a_full_queue_refuses_triggers_and_slots() {
    let home = Home::new();
    home.agent("a", UNTIL_GO, &every_second("queue"));
    let mut daemon = TestDaemon::start(home);
    daemon.allow_leftovers = true;
    let first = trigger(&daemon, "a", Overlap::Queue);
    daemon.wait_for(first, RunState::Running);
    for _ in 0..Overlap::QUEUE_CAP {
        trigger(&daemon, "a", Overlap::Queue);
    }
    assert!(matches!(ask(&daemon, "a", Overlap::Queue), Err(Refused::QueueFull { .. })));
    daemon.advance(SECOND);
    let slot = eventually_sync("the slot", || daemon.slots().pop());
    assert_eq!(slot.reason, Some(NotRun::QueueFull));
    go(&daemon);
    daemon.wait_end(first);
}

#[test]
fn allow_with_a_bound_keeps_to_it() {
    let home = Home::new();
    home.settings("max_running: 10\n");
    home.agent("a", UNTIL_GO, "overlap: allow\nmax_concurrent: 2\n");
    let daemon = TestDaemon::start(home);
    let runs: Vec<RunId> = (0..4).map(|_| trigger(&daemon, "a", Overlap::Allow)).collect();
    daemon.wait_for(runs[1], RunState::Running);
    let running = daemon.events().iter().filter(|e| e.status == RunState::Running).count();
    assert!(running <= 2, "{running}");
    go(&daemon);
    daemon.settle();
}

#[test]
fn a_run_that_was_displaced_before_a_crash_ends_after_it() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    home.agent("busy", UNTIL_GO, "");
    home.agent("a", "true", "");
    let mut daemon = TestDaemon::start(home);
    let busy = trigger(&daemon, "busy", Overlap::Queue);
    daemon.wait_for(busy, RunState::Running);
    let first = trigger(&daemon, "a", Overlap::QueueOne);
    // The admission is on disk, and nobody has carried out what it decided.
    let entry = daemon.core().catalog.get(&"a".parse().unwrap()).unwrap();
    let id = RunId::generate(1, daemon.core().entropy.as_ref());
    let run = matins::store::NewRun::plain(id, entry.number, entry.definition, Overlap::QueueOne);
    let manual = matins::store::Manual { run, user: None, overrides: Overrides::default(), key: None };
    let done = daemon.block_on(daemon.core().store.admit_manual(manual, 0)).unwrap().unwrap();
    assert_eq!(done.way.gone.len(), 1);
    daemon.crash();
    daemon.restart();
    assert_eq!(failure(&daemon.wait_end(first)), Some("superseded"));
    go(&daemon);
    daemon.wait_for(busy, RunState::Completed);
    daemon.wait_for(id, RunState::Completed);
}

#[test]
fn a_displaced_run_that_nobody_ended_is_ended_by_the_janitor() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    home.agent("busy", UNTIL_GO, "");
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let busy = trigger(&daemon, "busy", Overlap::Queue);
    daemon.wait_for(busy, RunState::Running);
    let first = trigger(&daemon, "a", Overlap::QueueOne);
    let entry = daemon.core().catalog.get(&"a".parse().unwrap()).unwrap();
    let id = RunId::generate(1, daemon.core().entropy.as_ref());
    let run = matins::store::NewRun::plain(id, entry.number, entry.definition, Overlap::QueueOne);
    let manual = matins::store::Manual { run, user: None, overrides: Overrides::default(), key: None };
    let now_ms = matins::time::Clock::now_ms(&daemon.clock);
    daemon.block_on(daemon.core().store.admit_manual(manual, now_ms)).unwrap().unwrap();
    eventually_sync("the janitor comes by", || {
        daemon.advance(SECOND * 5);
        daemon.detail(first).event.status.is_terminal().then_some(())
    });
    assert_eq!(failure(&daemon.detail(first)), Some("superseded"));
    go(&daemon);
    daemon.settle();
}

#[test]
fn a_cancel_that_comes_before_the_launcher_is_heard() {
    let home = Home::new();
    home.agent("a", "sleep 60", "kill_grace: 100ms\n");
    let daemon = TestDaemon::start(home);
    // At every moment between claim and start, and after it.
    for wait_for_start in [false, false, true, true] {
        let run = daemon.trigger("a");
        if wait_for_start {
            daemon.wait_for(run, RunState::Running);
        }
        daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
        assert_eq!(failure(&daemon.wait_end(run)), Some("cancelled"));
    }
}

#[test]
fn a_paused_agent_fires_not_and_runs_by_hand() {
    let home = Home::new();
    home.agent("a", "true", &every_second("allow"));
    let mut binary = Binary::start(home);
    let paused = binary.cli(&["pause", "a", "--reason", "the shop is closed"]);
    assert!(paused.status.success(), "{paused:?}");
    eventually_sync("a slot is left out", || {
        let slots = binary.get("/v1/agents/a/slots");
        (slots["data"][0]["reason"] == "paused").then_some(())
    });
    let agent = binary.get("/v1/agents/a");
    assert_eq!(agent["data"]["status"], "PAUSED");
    assert_eq!(agent["data"]["pauseReason"], "the shop is closed");
    assert!(agent["data"]["pausedAt"].is_string() && agent["data"]["pausedBy"].is_string(), "{agent}");
    let status = binary.cli(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("the shop is closed"), "{status}");
    let by_hand = binary.cli(&["run", "a", "--follow"]);
    assert_eq!(by_hand.status.code(), Some(0), "{by_hand:?}");
    binary.kill();
    binary.restart();
    assert_eq!(binary.get("/v1/agents/a")["data"]["status"], "PAUSED", "a restart changes nothing");
    assert!(binary.cli(&["resume", "a"]).status.success());
    eventually_sync("it fires", || {
        let slots = binary.get("/v1/agents/a/slots");
        (slots["data"][0]["outcome"] == "run").then_some(())
    });
    assert_eq!(binary.cli(&["pause", "nobody"]).status.code(), Some(1));
    let (status, body) = binary.post("/v1/agents/a/pause", &serde_json::json!({"reason": "x".repeat(1001)}));
    assert_eq!((status, body["error"]["details"][0]["pointer"].as_str()), (422, Some("/reason")));
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn a_pause_lets_go_on_what_was_admitted() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    home.agent("busy", UNTIL_GO, "");
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let busy = daemon.trigger("busy");
    daemon.wait_for(busy, RunState::Running);
    let waiting = daemon.trigger("a");
    daemon.block_on(daemon.core().pause(&"a".parse().unwrap(), "ann", None)).unwrap();
    go(&daemon);
    daemon.wait_for(waiting, RunState::Completed);
}

/// Pauses `a`, lets `seconds` slots pass, and resumes it with a catch-up; its slots, oldest first.
fn paused_for(daemon: &TestDaemon, seconds: usize) -> Vec<matins::store::SlotRow> {
    let agent = "a".parse().unwrap();
    daemon.block_on(daemon.core().pause(&agent, "ann", None)).unwrap();
    let before = daemon.slots().len();
    for slot in 1..=seconds {
        daemon.advance(SECOND);
        eventually_sync("the slot", || (daemon.slots().len() == before + slot).then_some(()));
    }
    assert!(daemon.slots()[..seconds].iter().all(|s| s.reason == Some(NotRun::Paused)));
    // Said again, it is the same pause with another reason.
    daemon.block_on(daemon.core().pause(&agent, "bob", Some("still".to_owned()))).unwrap();
    daemon.block_on(daemon.core().resume(&agent, "ann", true)).unwrap();
    let mut slots = daemon.slots();
    slots.reverse();
    slots
}

#[test]
fn a_resume_with_catch_up_replays_what_the_pause_has_left_out() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { cron: \"* * * * * *\", catch_up_window: 1h } ]\n");
    let daemon = TestDaemon::start(home);
    daemon.advance(SECOND);
    let run = eventually_sync("the first slot", || daemon.slots().pop()).run.unwrap();
    daemon.wait_end(run);
    let slots = paused_for(&daemon, 4);
    let reasons: Vec<_> = slots.iter().map(|s| s.reason).collect();
    let coalesced = Some(NotRun::Coalesced);
    assert_eq!(reasons, [None, coalesced, coalesced, coalesced, None]);
    let run = slots[4].run.unwrap();
    assert!(slots[1..].iter().all(|s| s.run == Some(run)), "they name the run that stands for them");
    let detail = daemon.wait_for(run, RunState::Completed);
    assert_eq!(detail.event.trigger, matins::model::Trigger::CatchUp);
    daemon.advance(SECOND);
    eventually_sync("it fires again", || (daemon.slots().len() == 6).then_some(()));
    assert_eq!(daemon.slots()[0].reason, None);
    daemon.settle();
}

#[test]
fn a_resume_with_catch_up_all_runs_each_and_with_none_none() {
    let home = Home::new();
    let schedule = |id: &str, catch_up: &str, home: &Home| {
        let more = format!(
            "schedules: [ {{ cron: \"* * * * * *\", catch_up: {catch_up}, catch_up_window: 1h }} ]\n"
        );
        home.agent(id, "true", &more);
    };
    schedule("a", "all", &home);
    let daemon = TestDaemon::start(home);
    let slots = paused_for(&daemon, 3);
    assert!(slots.iter().all(|s| s.reason.is_none()), "{slots:?}");
    assert_eq!(daemon.settle().len(), 3);
    let home = Home::new();
    schedule("a", "none", &home);
    let daemon = TestDaemon::start(home);
    let slots = paused_for(&daemon, 3);
    assert!(slots.iter().all(|s| s.reason == Some(NotRun::Paused)), "{slots:?}");
}
