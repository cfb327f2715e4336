//! Runs in process, with a clock that is moved by hand and a real launcher.

use std::path::Path;
use std::time::Duration;

use matins::engine::Refused;
use matins::model::{NotRun, Overlap, Overrides, RunState, Trigger};
use serde_json::{Value, json};

use crate::support::{Home, TestDaemon, eventually_sync};

const SECOND: Duration = Duration::from_secs(1);

fn cron(pattern: &str, more: &str) -> String {
    format!("schedules: [ {{ cron: \"{pattern}\", {more} }} ]\n")
}

#[test]
fn a_schedule_and_a_trigger_both_complete() {
    let home = Home::new();
    home.agent("tick", "echo hello", &cron("* * * * * *", "overlap: allow"));
    let daemon = TestDaemon::start(home);
    let manual = daemon.trigger("tick");
    daemon.advance(SECOND);
    let events = eventually_sync("two runs", || Some(daemon.events()).filter(|e| e.len() == 2));
    assert_eq!(events.iter().filter(|e| e.trigger == Trigger::Schedule).count(), 1);
    let events = daemon.settle();
    assert!(events.iter().all(|e| e.status == RunState::Completed), "{events:#?}");
    let detail = daemon.detail(manual);
    assert_eq!(detail.event.user_id.as_deref(), Some("ann"));
    assert_eq!(detail.event.attempt, 1);
    let log =
        std::fs::read_to_string(daemon.home.run_file(&detail.event.id, "attempts/1/stdout.log")).unwrap();
    assert_eq!(log, "hello\n");
    let slots = daemon.slots();
    assert_eq!(slots.len(), 1);
    assert_eq!(slots[0].reason, None);
    assert!(slots[0].run.is_some());
}

#[test]
fn every_second_has_one_slot() {
    let home = Home::new();
    // The clock runs ahead of a busy machine; nothing may wait too long by it.
    home.agent("tick", "true", &cron("* * * * * *", "overlap: allow, start_deadline: 1h"));
    let daemon = TestDaemon::start(home);
    for second in 1..=30_usize {
        daemon.advance(SECOND);
        eventually_sync("the slot", || (daemon.slots().len() == second).then_some(()));
    }
    let mut nominal: Vec<i64> = daemon.slots().iter().map(|s| s.nominal_ms).collect();
    nominal.sort_unstable();
    nominal.dedup();
    assert_eq!(nominal.len(), 30);
    daemon.settle();
}

#[test]
fn downtime_is_made_up_for_by_one_run_that_knows_the_window() {
    let home = Home::new();
    home.agent("hourly", "env > $MATINS_FILES_DIR/env", &cron("0 * * * *", "catch_up_window: 24h"));
    let mut daemon = TestDaemon::start(home);
    daemon.stop();
    daemon.advance(Duration::from_secs(4 * 3600 + 3000));
    daemon.restart();
    let events = eventually_sync("the catch-up", || Some(daemon.settle()).filter(|e| !e.is_empty()));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].trigger, Trigger::CatchUp);
    assert_eq!(events[0].status, RunState::Completed, "{:?}", events[0].error);
    let env = std::fs::read_to_string(daemon.home.run_file(&events[0].id, "files/env")).unwrap();
    for line in [
        "MATINS_TRIGGER=catch_up",
        "MATINS_WINDOW_START=2026-03-02T09:00:00.000Z",
        "MATINS_WINDOW_END=2026-03-02T13:00:00.000Z",
        "MATINS_SCHEDULED_FOR=2026-03-02T13:00:00.000Z",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in\n{env}");
    }
    let mut reasons: Vec<_> = daemon.slots().iter().map(|s| (s.nominal_ms, s.reason)).collect();
    reasons.sort_by_key(|r| r.0);
    let reasons: Vec<_> = reasons.into_iter().map(|r| r.1).collect();
    assert_eq!(reasons, [Some(NotRun::Coalesced), Some(NotRun::Coalesced), Some(NotRun::Coalesced), None]);
}

#[test]
fn catch_up_none_leaves_missed_slots_out() {
    let home = Home::new();
    home.agent("hourly", "true", &cron("0 * * * *", "catch_up: none"));
    let mut daemon = TestDaemon::start(home);
    daemon.stop();
    daemon.advance(Duration::from_secs(2 * 3600 + 3000));
    daemon.restart();
    eventually_sync("both slots", || (daemon.slots().len() == 2).then_some(()));
    assert!(daemon.slots().iter().all(|s| s.reason == Some(NotRun::MissedWindow)));
    assert!(daemon.events().is_empty());
}

#[test]
fn a_clock_that_goes_decades_ahead_costs_a_few_rows() {
    let home = Home::new();
    home.agent("tick", "true", &cron("* * * * * *", ""));
    let daemon = TestDaemon::start(home);
    daemon.advance(Duration::from_secs(72 * 365 * 86_400));
    eventually_sync("the slots", || (!daemon.slots().is_empty()).then_some(()));
    daemon.settle();
    let slots = daemon.slots();
    assert!(slots.len() < 400, "{} rows", slots.len());
    let all: i64 = slots.iter().map(|s| s.count).sum();
    assert!(all >= 72 * 365 * 86_400, "{all} slots are accounted for");
}

#[test]
fn a_clock_that_goes_back_a_little_fires_nothing_twice() {
    let home = Home::new();
    home.agent("tick", "true", &cron("* * * * * *", "overlap: allow"));
    let daemon = TestDaemon::start(home);
    daemon.advance(SECOND * 5);
    eventually_sync("the slots", || (daemon.slots().iter().map(|s| s.count).sum::<i64>() == 5).then_some(()));
    let before = daemon.slots().len();
    daemon.clock.set(matins::time::from_ms(crate::support::daemon::START_MS + 1_000));
    daemon.advance(SECOND * 4);
    daemon.advance(SECOND);
    eventually_sync("the sixth", || (daemon.slots().iter().map(|s| s.count).sum::<i64>() == 6).then_some(()));
    assert_eq!(daemon.slots().len(), before + 1);
    daemon.settle();
}

#[test]
fn a_clock_that_was_hours_ahead_decides_its_time_anew() {
    let home = Home::new();
    home.agent("tick", "true", &cron("0 * * * *", "overlap: allow"));
    let out = "schedules:\n  - { cron: '* * * * *', timezone: UTC }\nexclude: ['2020-01-01..2030-01-01']\n";
    home.agent("out", "true", out);
    let mut daemon = TestDaemon::start(home);
    let counted = |daemon: &TestDaemon, agent: &str| {
        daemon.slots().iter().filter(|s| s.agent == agent).map(|s| s.count).sum::<i64>()
    };
    let start = crate::support::daemon::START_MS;
    daemon.advance(SECOND * 6 * 3600);
    eventually_sync("six hours", || (counted(&daemon, "tick") == 6).then_some(()));
    eventually_sync("six hours left out", || (counted(&daemon, "out") == 360).then_some(()));
    daemon.settle();
    daemon.clock.set(matins::time::from_ms(start + 30_000));
    daemon.advance(SECOND * 60);
    eventually_sync("the time to come is open", || (counted(&daemon, "out") <= 2).then_some(()));
    let hours_later = |daemon: &TestDaemon, hours: u32| {
        daemon.advance(SECOND * 3600 * hours);
        let tick = i64::from(hours);
        eventually_sync("its slots come again", || (counted(daemon, "tick") == tick).then_some(()));
        eventually_sync("and those left out", || (counted(daemon, "out") / 60 == tick).then_some(()));
    };
    hours_later(&daemon, 2);
    daemon.restart();
    daemon.settle();
    assert_eq!(counted(&daemon, "tick"), 2);
}

#[test]
fn skip_queue_and_allow_do_what_they_say() {
    let home = Home::new();
    for overlap in ["skip", "queue", "allow"] {
        home.agent(
            overlap,
            "cat $MATINS_AGENT_DIR/../go",
            &cron("* * * * * *", &format!("overlap: {overlap}")),
        );
    }
    let fifo = home.gate();
    home.settings("max_running: 10\n");
    let daemon = TestDaemon::start(home);
    let of = |agent: &str, state: RunState| {
        daemon.events().iter().filter(|e| e.agent_id == agent && e.status == state).count()
    };
    daemon.advance(SECOND);
    eventually_sync("the first three run", || {
        ["skip", "queue", "allow"].iter().all(|a| of(a, RunState::Running) == 1).then_some(())
    });
    daemon.advance(SECOND);
    eventually_sync("the second slots", || (daemon.slots().len() == 6).then_some(()));
    eventually_sync("allow runs beside", || (of("allow", RunState::Running) == 2).then_some(()));
    assert_eq!(of("queue", RunState::Pending), 1);
    assert_eq!(of("skip", RunState::Pending) + of("skip", RunState::Running), 1);
    let skipped: Vec<_> = daemon.slots().into_iter().filter(|s| s.reason.is_some()).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].agent.as_str(), skipped[0].reason), ("skip", Some(NotRun::Overlap)));
    daemon.settle_with(|| drop(open_for_writing(&fifo)));
}

/// Whether a process runs; one that is dead and not reaped does not.
fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Opening a FIFO for writing lets its readers go on when it is closed again.
fn open_for_writing(fifo: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().read(true).write(true).open(fifo).unwrap()
}

#[test]
fn max_running_holds_and_the_rest_waits() {
    let home = Home::new();
    home.settings("max_running: 2\n");
    home.agent("a", "sleep 0.2", "overlap: allow\n");
    let daemon = TestDaemon::start(home);
    for _ in 0..6 {
        daemon.trigger_under("a", Overlap::Allow);
    }
    let mut most = 0;
    eventually_sync("all have ended", || {
        let events = daemon.events();
        most = most.max(events.iter().filter(|e| e.status == RunState::Running).count());
        events.iter().all(|e| e.status == RunState::Completed).then_some(())
    });
    assert!((1..=2).contains(&most), "{most} ran at once");
}

#[test]
fn a_caller_that_asks_for_skip_is_told_who_is_in_the_way() {
    let home = Home::new();
    home.agent("a", "sleep 60", "kill_grace: 100ms\n");
    let daemon = TestDaemon::start(home);
    let first = daemon.trigger("a");
    daemon.wait_for(first, RunState::Running);
    let refused = daemon.ask("a", Overrides::default(), Some(Overlap::Skip), None).unwrap_err();
    assert!(matches!(refused, Refused::Overlap { run, .. } if run == first), "{refused}");
    daemon.block_on(daemon.core().cancel(first, "ann".to_owned())).unwrap();
    let ended = daemon.wait_end(first);
    assert_eq!(ended.event.failure_code.as_deref(), Some("cancelled"));
    assert_eq!(ended.event.error.as_deref(), Some("cancelled by ann"));
}

#[test]
fn a_cancel_at_any_moment_ends_the_run() {
    let home = Home::new();
    home.agent("a", "exec sleep 60", "");
    let daemon = TestDaemon::start(home);
    for _ in 0..40 {
        let run = daemon.trigger("a");
        daemon.wait_for(run, RunState::Running);
        // Its launcher may not have begun, may be reading its message, or may have started the program.
        daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
        assert_eq!(daemon.wait_end(run).event.failure_code.as_deref(), Some("cancelled"));
    }
}

#[test]
fn a_cancel_kills_a_grandchild_in_a_session_of_its_own() {
    let home = Home::new();
    let script = "setsid sh -c 'echo $$ > $MATINS_FILES_DIR/pid; exec sleep 1000' & sleep 1000";
    home.agent("a", script, "kill_grace: 200ms\n");
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    let pid_file = daemon.home.run_file(&run.to_string(), "files/pid");
    let pid = eventually_sync("the grandchild", || {
        std::fs::read_to_string(&pid_file).ok().and_then(|p| p.trim().parse::<i32>().ok())
    });
    assert!(alive(pid));
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    assert_eq!(daemon.wait_end(run).event.failure_code.as_deref(), Some("cancelled"));
    assert!(!alive(pid), "dead before the run is terminal");
}

#[test]
fn a_waiting_run_is_cancelled_without_a_start() {
    let home = Home::new();
    home.settings("max_running: 1\n");
    home.agent("a", "sleep 60", "kill_grace: 100ms\n");
    let daemon = TestDaemon::start(home);
    let first = daemon.trigger("a");
    let second = daemon.trigger("a");
    daemon.wait_for(first, RunState::Running);
    daemon.block_on(daemon.core().cancel(second, "bob".to_owned())).unwrap();
    let ended = daemon.wait_end(second);
    assert_eq!((ended.event.started_at, ended.event.failure_code.as_deref()), (None, Some("cancelled")));
    daemon.block_on(daemon.core().cancel(first, "bob".to_owned())).unwrap();
    daemon.wait_end(first);
}

#[test]
fn a_timeout_ends_the_run() {
    let home = Home::new();
    home.agent("a", "sleep 60", "timeout: 300ms\nkill_grace: 100ms\n");
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    let ended = daemon.wait_end(run);
    assert_eq!(ended.event.failure_code.as_deref(), Some("timeout"));
}

#[test]
fn a_crash_in_mid_run_loses_neither_the_run_nor_its_output() {
    let home = Home::new();
    home.agent("a", "echo one; sleep 1; echo two", "");
    let mut daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Running);
    daemon.crash();
    daemon.restart();
    let ended = daemon.wait_for(run, RunState::Completed);
    assert_eq!(ended.event.attempt, 1);
    let log =
        std::fs::read_to_string(daemon.home.run_file(&ended.event.id, "attempts/1/stdout.log")).unwrap();
    assert_eq!(log, "one\ntwo\n");
}

#[test]
fn a_run_that_ended_while_nobody_watched_is_taken() {
    let home = Home::new();
    home.agent("good", "sleep 0.3", "");
    home.agent("bad", "sleep 0.3; exit 3", "");
    let mut daemon = TestDaemon::start(home);
    let (good, bad) = (daemon.trigger("good"), daemon.trigger("bad"));
    daemon.wait_for(good, RunState::Running);
    daemon.wait_for(bad, RunState::Running);
    daemon.crash();
    for run in [good, bad] {
        let exit = daemon.home.run_file(&run.to_string(), "attempts/1/exit.json");
        eventually_sync("exit.json", || exit.exists().then_some(()));
    }
    daemon.restart();
    daemon.wait_for(good, RunState::Completed);
    let ended = daemon.wait_end(bad);
    assert_eq!(ended.event.failure_code.as_deref(), Some("runtime_error"));
}

#[test]
fn a_run_whose_launcher_was_killed_is_interrupted_and_leaves_nothing() {
    let home = Home::new();
    home.agent(
        "a",
        "echo $PPID > $MATINS_FILES_DIR/launcher; echo $$ > $MATINS_FILES_DIR/pid; exec sleep 1000",
        "",
    );
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    let (pid, launcher) = (daemon.wait_pid(run, "pid"), daemon.wait_pid(run, "launcher"));
    assert!(
        std::process::Command::new("kill").args(["-9", &launcher.to_string()]).status().unwrap().success()
    );
    let ended = daemon.wait_end(run);
    assert_eq!(ended.event.failure_code.as_deref(), Some("interrupted"));
    assert!(!alive(pid), "the program is gone too");
}

#[test]
fn a_stop_drains_and_then_ends_what_still_runs() {
    let home = Home::new();
    home.settings("drain_timeout: 300ms\nkill_grace: 200ms\n");
    home.agent("quick", "sleep 0.1", "");
    home.agent("slow", "sleep 1000", "");
    let mut daemon = TestDaemon::start(home);
    let (quick, slow) = (daemon.trigger("quick"), daemon.trigger("slow"));
    daemon.wait_for(quick, RunState::Running);
    daemon.wait_for(slow, RunState::Running);
    daemon.stop();
    daemon.restart();
    assert_eq!(daemon.wait_end(quick).event.status, RunState::Completed);
    assert_eq!(daemon.wait_end(slow).event.failure_code.as_deref(), Some("interrupted"));
}

#[test]
fn a_broken_file_makes_its_slots_config_errors_and_leaves_the_others_alone() {
    let home = Home::new();
    home.agent("a", "true", &cron("* * * * * *", ""));
    home.agent("b", "true", &cron("* * * * * *", ""));
    let mut daemon = TestDaemon::start(home);
    daemon.stop();
    daemon.home.write("agents/a.yaml", "executor: [\n");
    daemon.restart();
    daemon.advance(SECOND);
    eventually_sync("both slots", || (daemon.slots().len() == 2).then_some(()));
    daemon.settle();
    let reason = |agent: &str| daemon.slots().into_iter().find(|s| s.agent == agent).unwrap().reason;
    assert_eq!(reason("a"), Some(NotRun::ConfigError));
    assert_eq!(reason("b"), None);
    let refused = daemon.ask("a", Overrides::default(), None, None);
    assert!(matches!(refused, Err(Refused::InvalidAgent(_))));
}

#[test]
fn two_schedules_of_one_agent_at_one_instant_run_once() {
    let home = Home::new();
    let schedules = "schedules:\n  - cron: \"* * * * * *\"\n  - every: 1s\n";
    home.agent("a", "true", schedules);
    let daemon = TestDaemon::start(home);
    daemon.advance(SECOND);
    eventually_sync("both slots", || (daemon.slots().len() == 2).then_some(()));
    let events = daemon.settle();
    assert_eq!(events.len(), 1);
    let mut reasons: Vec<_> = daemon.slots().iter().map(|s| s.reason).collect();
    reasons.sort_by_key(Option::is_some);
    assert_eq!(reasons, [None, Some(NotRun::Coalesced)]);
    let runs: Vec<_> = daemon.slots().iter().map(|s| s.run.map(|r| r.to_string())).collect();
    assert_eq!(
        runs,
        [Some(events[0].id.clone()), Some(events[0].id.clone())],
        "the coalesced one names the run"
    );
}

#[test]
fn overrides_are_verbatim_and_kept() {
    let home = Home::new();
    home.agent(
        "a",
        "cat; cat $MATINS_INPUT_FILE",
        "prompt: \"Hello {{ input.who }}\"\ninput: { who: world }\n",
    );
    let daemon = TestDaemon::start(home);
    let plain = daemon.trigger("a");
    let overrides = Overrides {
        prompt: Some("{{ not.a.template }}\n".to_owned()),
        input: Some(json!({"who": "you"})),
        ..Overrides::default()
    };
    let changed = daemon.trigger_with("a", overrides);
    let log = |run: matins::ids::RunId| {
        daemon.wait_for(run, RunState::Completed);
        std::fs::read_to_string(daemon.home.run_file(&run.to_string(), "attempts/1/stdout.log")).unwrap()
    };
    assert_eq!(log(plain), "Hello world{\"who\":\"world\"}");
    assert_eq!(log(changed), "{{ not.a.template }}\n{\"who\":\"you\"}");
    assert_eq!(daemon.detail(changed).event.input, Some(json!({"who": "you"})));
}

#[test]
fn a_result_is_checked_against_its_schema() {
    let home = Home::new();
    let schema = "result_schema: { type: object, properties: { n: { type: integer } }, required: [n] }\n";
    home.agent("good", "echo '{\"n\": 1}'", schema);
    home.agent("bad", "echo '{\"n\": \"one\"}'", schema);
    home.agent("empty", "true", schema);
    home.agent("file", "echo noise; echo '{\"n\": 2}' > $MATINS_RESULT_FILE", schema);
    let daemon = TestDaemon::start(home);
    let runs = ["good", "bad", "empty", "file"].map(|a| daemon.trigger(a));
    let ended = runs.map(|r| daemon.wait_end(r).event);
    assert_eq!(ended[0].result, Some(json!({"n": 1})));
    assert_eq!(ended[1].failure_code.as_deref(), Some("validation_failed"), "{:?}", ended[1]);
    assert_eq!(ended[2].failure_code.as_deref(), Some("validation_failed"), "{:?}", ended[2]);
    assert_eq!(ended[3].result, Some(json!({"n": 2})));
}

/// An agent that speaks the protocol `matins`.
fn protocol(script: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!("executor: {{ type: command, command: [/bin/sh, -c, {script}], protocol: matins }}\n")
}

#[test]
fn what_a_run_used_up_is_known_though_its_launcher_was_killed() {
    let home = Home::new();
    let script = "echo '{\"type\":\"usage\",\"inputTokens\":7,\"costUsd\":0.5,\"model\":\"m\"}' >> $MATINS_EVENTS_FILE; \
                  echo '{\"type\":\"result\",\"result\":1}' >> $MATINS_EVENTS_FILE; \
                  echo $PPID > $MATINS_FILES_DIR/launcher; exec sleep 1000";
    home.write("agents/a.yaml", &protocol(script));
    let daemon = TestDaemon::start(home);
    for cancelled in [false, true] {
        let run = daemon.trigger("a");
        let launcher = daemon.wait_pid(run, "launcher").to_string();
        if cancelled {
            // It can hear of nothing any more.
            assert!(
                std::process::Command::new("kill").args(["-STOP", &launcher]).status().unwrap().success()
            );
            daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
        }
        assert!(std::process::Command::new("kill").args(["-9", &launcher]).status().unwrap().success());
        let ended = daemon.wait_end(run).event;
        let code = if cancelled { "cancelled" } else { "interrupted" };
        assert_eq!((ended.failure_code.as_deref(), ended.result), (Some(code), Some(Value::Null)));
        assert_eq!((ended.usage.unwrap().input_tokens, ended.cost_usd), (Some(7), Some(0.5)));
        assert_eq!(ended.final_model.as_deref(), Some("m"));
    }
}

#[test]
fn the_protocol_matins_tells_steps_errors_and_results() {
    let home = Home::new();
    let good = "echo '{\"type\":\"step\",\"description\":\"look\"}' >> $MATINS_EVENTS_FILE; \
                echo 'not json' >> $MATINS_EVENTS_FILE; \
                echo '{\"type\":\"usage\",\"inputTokens\":7}' >> $MATINS_EVENTS_FILE; \
                echo '{\"type\":\"result\",\"result\":{\"ok\":true}}' >> $MATINS_EVENTS_FILE";
    home.write("agents/good.yaml", &protocol(good));
    let bad = "echo '{\"type\":\"error\",\"code\":\"no_stock\",\"message\":\"nothing to sell\"}' >> $MATINS_EVENTS_FILE";
    home.write("agents/bad.yaml", &protocol(bad));
    let daemon = TestDaemon::start(home);
    let (good, bad) = (daemon.trigger("good"), daemon.trigger("bad"));
    let good = daemon.wait_end(good).event;
    assert_eq!((good.status, good.result), (RunState::Completed, Some(json!({"ok": true}))));
    assert_eq!(good.usage.unwrap().input_tokens, Some(7));
    let bad = daemon.wait_end(bad).event;
    assert_eq!(bad.status, RunState::Failed);
    assert!(bad.error.unwrap().contains("nothing to sell"));
}

#[test]
fn skills_are_seeded_verbatim_with_their_digest() {
    let home = Home::new();
    home.write("skills/look/SKILL.md", "---\nname: look\ndescription: Look.\n---\nLook well.\n");
    home.write("skills/look/ref/more.txt", "more");
    home.agent("a", "cat $MATINS_SKILLS_DIR/look/ref/more.txt", "skills: [look]\n");
    let daemon = TestDaemon::start(home);
    let first = daemon.trigger("a");
    let event = daemon.wait_for(first, RunState::Completed).event;
    let skills = event.skills.unwrap();
    assert_eq!((skills.len(), skills[0].id.as_str(), skills[0].sha256.len()), (1, "look", 64));
    let seeded = daemon.home.run_file(&event.id, "skills/look/SKILL.md");
    let source = daemon.home.path().join("skills/look/SKILL.md");
    assert_eq!(std::fs::read(seeded).unwrap(), std::fs::read(source).unwrap());
    daemon.home.write("skills/look/ref/more.txt", "less");
    let second = daemon.trigger("a");
    let changed = daemon.wait_for(second, RunState::Completed).event.skills.unwrap();
    assert_ne!(changed[0].sha256, skills[0].sha256);
}

#[test]
fn secrets_reach_the_program_and_nothing_else() {
    let home = Home::new();
    home.write("token", "s3cr3t-value-of-the-token\n");
    let more = format!("secrets: {{ TOKEN: {{ file: {} }} }}\n", home.path().join("token").display());
    home.agent("a", "echo \"it is $TOKEN\"; printf %s \"$TOKEN\" | wc -c", &more);
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    let event = daemon.wait_for(run, RunState::Completed).event;
    let log = std::fs::read_to_string(daemon.home.run_file(&event.id, "attempts/1/stdout.log")).unwrap();
    assert!(log.ends_with("25\n"), "{log}");
    drop(daemon.block_on(daemon.core().store.integrity_check()));
    let grep = std::process::Command::new("grep")
        .args(["-rl", "s3cr3t-value"])
        .arg(daemon.home.state())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "in no file, log or database");
}

#[test]
fn what_keeps_a_program_from_starting_is_a_launch_error() {
    let home = Home::new();
    home.write("agents/gone.yaml", "executor: { type: command, command: [no-such-program-here] }\n");
    home.agent("secret", "true", "secrets: { A: { env: NOT_THERE } }\n");
    home.agent("prompt", "true", "prompt: \"{{ input.missing }}\"\n");
    home.agent("signal", "kill -9 $$", "");
    let daemon = TestDaemon::start(home);
    let runs = ["gone", "secret", "prompt", "signal"].map(|a| daemon.trigger(a));
    let ended = runs.map(|r| daemon.wait_end(r).event);
    for (event, word) in ended.iter().zip(["no-such-program-here", "NOT_THERE", "missing"]) {
        assert_eq!(event.failure_code.as_deref(), Some("launch_error"), "{:?}", event.error);
        assert!(event.error.as_deref().unwrap().contains(word), "{:?}", event.error);
    }
    assert_eq!(ended[3].failure_code.as_deref(), Some("runtime_error"));
    assert!(ended[3].error.as_deref().unwrap().contains("KILL"), "{:?}", ended[3].error);
}

#[test]
fn a_launcher_that_does_not_answer_is_killed_with_its_tree() {
    let home = Home::new();
    let script = "echo $PPID > $MATINS_FILES_DIR/launcher; echo $$ > $MATINS_FILES_DIR/pid; exec sleep 1000";
    home.agent("a", script, "kill_grace: 100ms\n");
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    let (launcher, pid) = (daemon.wait_pid(run, "launcher"), daemon.wait_pid(run, "pid"));
    assert!(
        std::process::Command::new("kill").args(["-STOP", &launcher.to_string()]).status().unwrap().success()
    );
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    assert_eq!(daemon.wait_end(run).event.failure_code.as_deref(), Some("cancelled"));
    assert!(!alive(pid) && !alive(launcher));
}

#[test]
fn a_forged_report_of_a_killed_launcher_is_not_believed() {
    let home = Home::new();
    home.agent("first", "true", "");
    let script = "cd $MATINS_RUN_DIR/attempts/1; sed \"s/[0-9a-f]\\{8\\}-[0-9a-f-]\\{27\\}/$MATINS_RUN_ID/g; \
                  s/\\\"launcher_pid\\\":[0-9]*/\\\"launcher_pid\\\":$PPID/\" $(ls $MATINS_AGENT_DIR/../var/runs/*/attempts/1/exit.json) > exit.json; \
                  echo $$ > $MATINS_FILES_DIR/pid; kill -9 $PPID; exec sleep 300";
    home.agent("forger", script, "sandbox: off\n");
    let daemon = TestDaemon::start(home);
    let first = daemon.trigger("first");
    daemon.wait_end(first);
    let run = daemon.trigger("forger");
    assert_eq!(daemon.wait_end(run).event.failure_code.as_deref(), Some("interrupted"));
    let forged =
        std::fs::read_to_string(daemon.home.run_file(&run.to_string(), "attempts/1/exit.json")).unwrap();
    assert!(forged.contains(&run.to_string()), "the forgery was in place: {forged}");
    let pid = std::fs::read_to_string(daemon.home.run_file(&run.to_string(), "files/pid")).unwrap();
    assert!(!alive(pid.trim().parse().unwrap()), "its program is gone");
}
