//! Attempts inside a run: retries, the wait between them, and the bounds on time.

use std::time::Duration;

use matins::ids::RunId;
use matins::model::{OnInterrupt, RunState};
use matins::store::EventDetail;

use crate::support::{Home, TestDaemon, eventually_sync};

/// Longer than the first wait of a retry, jitter included.
const PAST_THE_WAIT: Duration = Duration::from_secs(40);

/// Waits until a run is between two attempts.
fn wait_between(daemon: &TestDaemon, run: RunId, attempt: i64) -> EventDetail {
    eventually_sync(&format!("run {run} waits after attempt {attempt}"), || {
        let detail = daemon.detail(run);
        assert!(!detail.event.status.is_terminal(), "{:?}", detail.event);
        (detail.event.attempt == attempt && detail.event.not_before.is_some()).then_some(detail)
    })
}

/// Moves the clock beyond the wait once no task of the run is left that could still write.
fn go_on(daemon: &TestDaemon) {
    eventually_sync("nothing is watched", || (daemon.core().live_count() == 0).then_some(()));
    daemon.advance(PAST_THE_WAIT);
}

fn wait_file(daemon: &TestDaemon, run: RunId, file: &str) -> String {
    let path = daemon.home.run_file(&run.to_string(), file);
    eventually_sync(file, || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
}

fn kill(signal: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
}

#[test]
fn a_failed_attempt_is_followed_by_others_in_the_same_run() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    let script = "echo $MATINS_ATTEMPT >> $MATINS_FILES_DIR/all; echo try $MATINS_ATTEMPT >&2; test $MATINS_ATTEMPT = 3 || exit 7";
    home.agent("a", script, "");
    home.agent("b", "true", "");
    let daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 4);
    let run = daemon.trigger("a");
    let waiting = wait_between(&daemon, run, 1);
    assert_eq!(waiting.event.status, RunState::Running);
    let other = daemon.trigger("b");
    daemon.wait_for(other, RunState::Completed);
    go_on(&daemon);
    wait_between(&daemon, run, 2);
    go_on(&daemon);
    daemon.advance(PAST_THE_WAIT);
    let ended = daemon.wait_for(run, RunState::Completed);
    assert_eq!((ended.event.attempt, ended.event.exit_code, ended.event.not_before), (3, Some(0), None));
    let told: Vec<_> = ended.attempts.iter().map(|a| (a.attempt, a.exit_code)).collect();
    assert_eq!(told, [(1, Some(7)), (2, Some(7)), (3, Some(0))]);
    let first = ended.attempts[0].failure.as_ref().unwrap();
    assert_eq!(first.code, "runtime_error");
    assert!(first.explanation.contains("code 7: try 1"), "{first:?}");
    assert!(ended.attempts[0].ended_at_ms.unwrap() < ended.attempts[1].started_at_ms);
    assert_eq!(ended.attempts[2].failure, None);
    let id = run.to_string();
    assert_eq!(std::fs::read_to_string(daemon.home.run_file(&id, "files/all")).unwrap(), "1\n2\n3\n");
    assert_eq!(
        std::fs::read_to_string(daemon.home.run_file(&id, "attempts/2/stderr.log")).unwrap(),
        "try 2\n"
    );
}

#[test]
fn the_last_attempt_ends_the_run() {
    let home = Home::new();
    home.agent("a", "exit $MATINS_ATTEMPT", "");
    home.agent("only", "exit 3", "");
    let daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.retry.max = 2;
        if agent.id.as_str() == "only" {
            agent.policies.retry.on = vec![matins::model::RetryOn::Timeout];
        }
    });
    let only = daemon.wait_end(daemon.trigger("only"));
    assert_eq!((only.event.attempt, only.attempts.len()), (1, 1), "an exit code is not named in `on`");
    let run = daemon.trigger("a");
    wait_between(&daemon, run, 1);
    go_on(&daemon);
    let ended = daemon.wait_end(run);
    assert_eq!(
        (ended.event.failure_code.as_deref(), ended.event.exit_code),
        (Some("runtime_error"), Some(2))
    );
    assert_eq!(ended.attempts.len(), 2);
}

#[test]
fn a_cancel_while_it_waits_ends_it_at_once() {
    let home = Home::new();
    home.agent("a", "exit 1", "");
    let daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 2);
    let run = daemon.trigger("a");
    wait_between(&daemon, run, 1);
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    let ended = daemon.wait_end(run);
    assert_eq!(ended.event.error.as_deref(), Some("cancelled by ann"));
    assert_eq!((ended.event.attempt, ended.attempts.len()), (1, 1));
    assert_eq!(ended.attempts[0].failure.as_ref().unwrap().code, "runtime_error");
}

#[test]
fn a_cancelled_attempt_is_not_tried_again() {
    let home = Home::new();
    home.agent("a", "echo up > $MATINS_FILES_DIR/up; sleep 60", "kill_grace: 100ms\n");
    let daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 5);
    let run = daemon.trigger("a");
    wait_file(&daemon, run, "files/up");
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    assert_eq!(daemon.wait_end(run).event.failure_code.as_deref(), Some("cancelled"));
}

#[test]
fn the_wait_survives_a_crash() {
    let home = Home::new();
    home.agent("a", "test $MATINS_ATTEMPT = 2", "");
    let mut daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 2);
    let run = daemon.trigger("a");
    let before = wait_between(&daemon, run, 1).event.not_before;
    daemon.crash();
    daemon.restart();
    assert_eq!(wait_between(&daemon, run, 1).event.not_before, before);
    daemon.advance(PAST_THE_WAIT);
    assert_eq!(daemon.wait_for(run, RunState::Completed).event.attempt, 2);
}

#[test]
fn an_attempt_that_ended_while_nobody_watched_is_tried_again_too() {
    let home = Home::new();
    let script = "echo up > $MATINS_FILES_DIR/up; test $MATINS_ATTEMPT = 2 && exit 0; sleep 0.3; exit 3";
    home.agent("a", script, "");
    let mut daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 2);
    let run = daemon.trigger("a");
    wait_file(&daemon, run, "files/up");
    daemon.crash();
    let exit = daemon.home.run_file(&run.to_string(), "attempts/1/exit.json");
    eventually_sync("exit.json", || exit.exists().then_some(()));
    daemon.restart();
    wait_between(&daemon, run, 1);
    go_on(&daemon);
    let ended = daemon.wait_for(run, RunState::Completed);
    assert_eq!(ended.attempts[0].exit_code, Some(3));
}

#[test]
fn an_interruption_is_followed_by_an_attempt_where_the_agent_says_so() {
    let home = Home::new();
    let script =
        "test $MATINS_ATTEMPT = 2 && exit 0; echo $PPID > $MATINS_FILES_DIR/launcher; exec sleep 1000";
    home.agent("again", script, "");
    home.agent("once", script, "");
    let daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.on_interrupt = OnInterrupt::Retry;
        agent.policies.idempotent = agent.id.as_str() == "again";
    });
    let (again, once) = (daemon.trigger("again"), daemon.trigger("once"));
    for run in [again, once] {
        kill("-9", &wait_file(&daemon, run, "files/launcher"));
    }
    assert_eq!(daemon.wait_end(once).event.failure_code.as_deref(), Some("interrupted"));
    wait_between(&daemon, again, 1);
    go_on(&daemon);
    let ended = daemon.wait_for(again, RunState::Completed);
    assert_eq!(ended.attempts[0].failure.as_ref().unwrap().code, "interrupted");
}

#[test]
fn what_a_stop_interrupts_goes_on_with_the_next_daemon() {
    let home = Home::new();
    home.settings("drain_timeout: 200ms\nkill_grace: 100ms\n");
    home.agent("a", "test $MATINS_ATTEMPT = 2 && exit 0; sleep 1000", "");
    let mut daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.on_interrupt = OnInterrupt::Retry;
        agent.policies.idempotent = true;
    });
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Running);
    daemon.stop();
    daemon.restart();
    let waiting = wait_between(&daemon, run, 1);
    assert!(waiting.attempts[0].failure.as_ref().unwrap().explanation.contains("stopping"), "{waiting:?}");
    daemon.advance(PAST_THE_WAIT);
    daemon.wait_for(run, RunState::Completed);
}

#[test]
fn the_time_of_all_attempts_is_bounded() {
    let home = Home::new();
    home.agent("long", "sleep 60", "kill_grace: 100ms\n");
    home.agent("late", "exit 1", "");
    let daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.retry.max = 9;
        let total = if agent.id.as_str() == "long" { 300 } else { 10_000 };
        agent.policies.total_timeout = Some(Duration::from_millis(total));
    });
    let (long, late) = (daemon.trigger("long"), daemon.trigger("late"));
    let late = daemon.wait_end(late).event;
    assert_eq!(
        (late.attempt, late.failure_code.as_deref()),
        (1, Some("runtime_error")),
        "it would be too late"
    );
    let long = daemon.wait_end(long).event;
    assert_eq!((long.attempt, long.failure_code.as_deref()), (1, Some("timeout")));
    assert_eq!(long.error.as_deref(), Some("its total_timeout was over"));
}

#[test]
fn silence_is_bounded_and_a_step_is_a_sign_of_life() {
    let home = Home::new();
    home.agent("silent", "echo one; sleep 60", "kill_grace: 100ms\n");
    let script =
        "for i in 1 2 3 4 5 6; do echo '{\"type\":\"step\"}' >> $MATINS_EVENTS_FILE; sleep 0.2; done";
    home.agent("busy", script, "");
    let daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.idle_timeout = Some(Duration::from_millis(900));
    });
    let (silent, busy) = (daemon.trigger("silent"), daemon.trigger("busy"));
    let ended = daemon.wait_end(silent).event;
    assert_eq!(ended.failure_code.as_deref(), Some("idle_timeout"), "{:?}", ended.error);
    daemon.wait_for(busy, RunState::Completed);
}

#[test]
fn the_first_signal_of_an_end_can_be_chosen() {
    let home = Home::new();
    let script = "trap 'echo int > $MATINS_FILES_DIR/end; exit 0' INT; echo up > $MATINS_FILES_DIR/up; while :; do sleep 0.05; done";
    home.agent("a", script, "");
    let daemon = TestDaemon::start_with(home, |agent| agent.policies.kill_signal = Some(2));
    let run = daemon.trigger("a");
    wait_file(&daemon, run, "files/up");
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    daemon.wait_end(run);
    assert_eq!(wait_file(&daemon, run, "files/end"), "int\n");
}

#[test]
fn what_the_attempts_consumed_adds_up() {
    let home = Home::new();
    let script = "echo '{\"type\":\"usage\",\"inputTokens\":5,\"costUsd\":0.25}' >> $MATINS_EVENTS_FILE; test $MATINS_ATTEMPT = 2";
    let script = serde_json::to_string(script).unwrap();
    let yaml = format!("executor: {{ type: command, command: [/bin/sh, -c, {script}], protocol: matins }}\n");
    home.write("agents/a.yaml", &yaml);
    let daemon = TestDaemon::start_with(home, |agent| agent.policies.retry.max = 2);
    let run = daemon.trigger("a");
    let waiting = wait_between(&daemon, run, 1).event;
    assert_eq!((waiting.cost_usd, waiting.usage.unwrap().input_tokens), (Some(0.25), Some(5)));
    go_on(&daemon);
    let ended = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!((ended.cost_usd, ended.usage.unwrap().input_tokens), (Some(0.5), Some(10)));
}
