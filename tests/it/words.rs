//! Every reason of the ledger and every failure code, met for real and told in words.

use std::collections::BTreeMap;
use std::time::Duration;

use matins::model::{FailureCode, NotRun, Overlap, RunState};

use crate::support::{Home, TestDaemon, eventually_sync};

const SECOND: Duration = Duration::from_secs(1);
const UNTIL_GO: &str = "while [ ! -e $MATINS_AGENT_DIR/../go ]; do sleep 0.02; done";
const EACH_SECOND: &str = "cron: '* * * * * *'";
const AT_START: &str = "schedules: [ { on: startup, max_runs: 1 } ]\n";

fn why(daemon: &TestDaemon, agent: &str, time: Option<&str>) -> String {
    daemon.block_on(daemon.core().why(&agent.parse().unwrap(), time)).unwrap().sentences.join("\n")
}

/// No slot is recorded as `draining`: what is due while the daemon stops is decided by the next start.
const NEVER: &[NotRun] = &[NotRun::Draining];

/// An agent for each reason.
fn reasons() -> Home {
    let home = Home::new();
    home.settings("pools: { p: 1 }\nmax_running: 20\n");
    home.agent("holder", UNTIL_GO, "pool: p\n");
    let agent = |id: &str, script: &str, schedule: &str, more: &str| {
        home.agent(id, script, &format!("schedules: [ {{ {EACH_SECOND}{schedule} }} ]\n{more}"));
    };
    agent("overlap", UNTIL_GO, "", "");
    agent("queue-full", "true", ", overlap: queue", "pool: p\n");
    agent("paused", "true", "", "");
    agent("excluded", "true", ", exclude: [ '* * * * *' ]", "");
    agent("budget", "true", "", "budget: { runs_per_day: 1 }\n");
    agent("breaker", "exit 1", "", "breaker: { failures: 1 }\n");
    agent("config-error", "true", ", start: '2026-03-02T09:30:00Z'", "");
    agent("coalesced", "true", ", start: '2026-03-02T10:00:00Z'", "");
    agent("missed-window", "true", ", catch_up: none, start: '2026-03-02T10:00:00Z'", "");
    home
}

#[test]
fn every_reason_is_met_and_told() {
    let mut daemon = TestDaemon::start(reasons());
    daemon.allow_leftovers = true;
    let holder = daemon.trigger("holder");
    daemon.wait_for(holder, RunState::Running);
    daemon.block_on(daemon.core().pause(&"paused".parse().unwrap(), "ann", Some("a fair".into()))).unwrap();
    for _ in 0..Overlap::QUEUE_CAP {
        daemon.trigger("queue-full");
    }
    let mut told: BTreeMap<&str, String> = BTreeMap::new();
    let mut look = |daemon: &TestDaemon, reason: NotRun| {
        let agent = reason.as_str().replace('_', "-");
        let slot = eventually_sync(&format!("a slot ends {reason}"), || {
            daemon.slots_of(&agent).into_iter().find(|s| s.reason == Some(reason))
        });
        let at = matins::time::from_ms(slot.nominal_ms).to_string();
        told.insert(reason.as_str(), why(daemon, &agent, Some(&at)));
    };
    daemon.advance(SECOND);
    let ended = |daemon: &TestDaemon, agent: &str| {
        eventually_sync("its first run has ended", || {
            let of: Vec<_> = daemon.events().into_iter().filter(|e| e.agent_id == agent).collect();
            (!of.is_empty() && of.iter().all(|e| e.status.is_terminal())).then_some(())
        });
    };
    ended(&daemon, "budget");
    ended(&daemon, "breaker");
    eventually_sync("it is under way", || {
        let busy = daemon.events().into_iter().find(|e| e.agent_id == "overlap");
        busy.filter(|e| e.status == RunState::Running)
    });
    daemon.advance(SECOND);
    for reason in [NotRun::Overlap, NotRun::QueueFull, NotRun::Paused, NotRun::Excluded, NotRun::Budget] {
        look(&daemon, reason);
    }
    look(&daemon, NotRun::Breaker);
    daemon.crash();
    daemon.home.write("agents/config-error.yaml", "nonsense: 1\n");
    daemon.advance(SECOND * 4000);
    daemon.restart();
    for reason in [NotRun::ConfigError, NotRun::Coalesced, NotRun::MissedWindow] {
        look(&daemon, reason);
    }
    for (reason, word) in [
        ("overlap", "was RUNNING since"),
        ("queue_full", "as many runs of the agent waited"),
        ("paused", "matins resume paused --catch-up"),
        ("excluded", "exclude"),
        ("budget", "budget"),
        ("breaker", "matins resume breaker"),
        ("config_error", "matins check"),
        ("coalesced", "stands for"),
        ("missed_window", "was down when it came due"),
    ] {
        let text = &told[reason];
        assert!(text.contains(&format!("({reason})")) && text.contains(word), "{reason}: {text}");
        assert!(text.contains("Decided Mon 2026-03-02"), "{reason}: {text}");
    }
    let met: Vec<NotRun> = NotRun::ALL.iter().copied().filter(|r| told.contains_key(r.as_str())).collect();
    let missing: Vec<_> = NotRun::ALL.iter().filter(|r| !met.contains(r) && !NEVER.contains(r)).collect();
    assert!(missing.is_empty(), "nobody met {missing:?}");
    daemon.home.write("go", "");
    daemon.settle();
}

fn id(code: FailureCode) -> String {
    code.as_str().replace('_', "-")
}

/// An agent for each failure code.
fn codes() -> Home {
    let home = Home::new();
    home.settings("pools: { p: 1 }\nmax_running: 40\ndrain_timeout: 1s\n");
    let said = [
        FailureCode::ValidationFailed,
        FailureCode::MaxRetriesExceeded,
        FailureCode::Unknown,
        FailureCode::StepLimit,
        FailureCode::BudgetExceeded,
        FailureCode::ProviderError,
        FailureCode::RateLimited,
        FailureCode::Refused,
        FailureCode::PermissionDenied,
    ];
    for code in said {
        let line = format!(r#"{{"type":"error","code":"{code}","message":"of its own accord"}}"#);
        let script = format!("echo '{line}' >> \"$MATINS_EVENTS_FILE\"");
        let script = serde_json::to_string(&script).unwrap();
        let command =
            format!("executor: {{ type: command, protocol: matins, command: [sh, -c, {script}] }}\n");
        home.write(&format!("agents/{}.yaml", id(code)), &format!("{command}{AT_START}"));
    }
    let at_start =
        |code, script: &str, more: &str| home.agent(&id(code), script, &format!("{AT_START}{more}"));
    at_start(FailureCode::RuntimeError, "echo no such shop >&2; exit 3", "");
    at_start(FailureCode::LaunchError, "true", "secrets: { A: { env: NOBODY_HAS_SET_IT } }\n");
    at_start(FailureCode::Timeout, "sleep 60", "timeout: 1s\n");
    at_start(FailureCode::IdleTimeout, "sleep 60", "idle_timeout: 1s\n");
    at_start(FailureCode::OutputLimit, "yes", "limits: { output: 1KiB }\n");
    at_start(FailureCode::Cancelled, "sleep 60", "");
    at_start(FailureCode::Interrupted, "sleep 60", "");
    home.agent("holder", UNTIL_GO, &format!("{AT_START}pool: p\n"));
    let waiting = |more: &str| format!("schedules: [ {{ {EACH_SECOND}, {more} }} ]\npool: p\n");
    home.agent(&id(FailureCode::Deadline), "true", &waiting("max_runs: 1, start_deadline: 1s"));
    home.agent(&id(FailureCode::Superseded), "true", &waiting("max_runs: 2, overlap: queue_one"));
    home
}

#[test]
fn every_failure_code_is_met_and_told() {
    let mut daemon = TestDaemon::start(codes());
    // A start is a slot of its own moment, which is not that in which the agents became known.
    daemon.advance(Duration::from_millis(1));
    let of = |daemon: &TestDaemon, code: FailureCode| {
        daemon.events().into_iter().rfind(|e| e.agent_id == id(code))
    };
    eventually_sync("the pool is taken", || {
        let holder = daemon.events().into_iter().find(|e| e.agent_id == "holder");
        holder.filter(|e| e.status == RunState::Running)
    });
    let running = |code| {
        eventually_sync("it is under way", || of(&daemon, code).filter(|e| e.status == RunState::Running))
    };
    running(FailureCode::Interrupted);
    let cancelled = running(FailureCode::Cancelled);
    daemon.block_on(daemon.core().cancel(cancelled.id.parse().unwrap(), "user ann".to_owned())).unwrap();
    for _ in 0..2 {
        let slots = daemon.slots().len();
        daemon.advance(SECOND);
        eventually_sync("the slots", || (daemon.slots().len() > slots).then_some(()));
    }
    eventually_sync("it waited too long, and another took its place", || {
        daemon.advance(SECOND);
        let ended = |code| of(&daemon, code).filter(|e| e.status == RunState::Failed);
        ended(FailureCode::Deadline).and(ended(FailureCode::Superseded))
    });
    let slow = [FailureCode::Timeout, FailureCode::IdleTimeout, FailureCode::OutputLimit];
    for code in slow {
        eventually_sync("it ends", || of(&daemon, code).filter(|e| e.status == RunState::Failed));
    }
    daemon.restart();
    daemon.home.write("go", "");
    daemon.settle();
    for code in FailureCode::ALL.iter().copied() {
        let run = of(&daemon, code).unwrap_or_else(|| panic!("no run of {code}"));
        assert_eq!(run.failure_code.as_deref(), Some(code.as_str()), "{:?}", run.error);
        let text = why(&daemon, &id(code), run.scheduled_for.as_deref());
        let explained = format!("({code}): {}", run.error.as_deref().unwrap());
        assert!(text.contains(explained.trim_end_matches('.')), "{code}: {text}");
    }
}
