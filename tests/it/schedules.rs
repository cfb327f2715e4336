//! Schedules in process, with a clock that is moved by hand: each timing, what is left out, and what
//! becomes of slots that were missed.

use std::time::Duration;

use matins::model::{Event, NotRun, RunState, Trigger};
use matins::store::SlotRow;

use crate::support::daemon::START_MS;
use crate::support::{Home, TestDaemon, eventually_sync};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn minutes(n: i64) -> i64 {
    START_MS + n * 60_000
}

/// A daemon with one agent `a` that runs `script` by `schedules`.
fn daemon(script: &str, schedules: &str) -> TestDaemon {
    let home = Home::new();
    home.agent("a", script, &format!("schedules: {schedules}\n"));
    TestDaemon::start(home)
}

/// The ledger, oldest first, once it holds `n` rows.
fn ledger(daemon: &TestDaemon, n: usize) -> Vec<SlotRow> {
    let mut rows = eventually_sync(&format!("{n} rows in the ledger"), || {
        let rows = daemon.slots();
        assert!(rows.len() <= n, "more than {n} rows: {rows:#?}");
        (rows.len() == n).then_some(rows)
    });
    rows.reverse();
    rows
}

/// Waits until `n` runs have ended.
fn ended(daemon: &TestDaemon, n: usize) -> Vec<Event> {
    eventually_sync(&format!("{n} ended runs"), || {
        let events = daemon.events();
        let all = events.iter().all(|e| e.status.is_terminal());
        (all && events.len() == n).then_some(events)
    })
}

/// Moves the clock and gives the scheduler a turn: a marker agent of every second tells that it had one.
fn pass_time(daemon: &TestDaemon, by: Duration) {
    daemon.advance(by);
    let now = daemon.core().clock.now_ms();
    eventually_sync("the scheduler has had its turn", || {
        daemon.slots_of("marker").iter().any(|row| row.until_ms == now / 1000 * 1000).then_some(())
    });
}

/// As [`daemon`], with an agent that has a slot each second, so that time can be seen to have passed.
fn marked(script: &str, schedules: &str) -> TestDaemon {
    let home = Home::new();
    home.agent("a", script, &format!("schedules: {schedules}\n"));
    home.agent("marker", "true", "schedules: [ { cron: '* * * * * *', exclude: [ '* * * * *' ] } ]\n");
    TestDaemon::start(home)
}

/// Nominal instants of `a` in minutes after the start, with what became of them.
fn told(daemon: &TestDaemon) -> Vec<(i64, Option<NotRun>)> {
    let mut rows: Vec<_> =
        daemon.slots_of("a").iter().map(|s| ((s.nominal_ms - START_MS) / 60_000, s.reason)).collect();
    rows.reverse();
    rows
}

#[test]
fn after_counts_from_the_end_of_the_newest_run() {
    let daemon = marked("true", "[ { after: 10m } ]");
    pass_time(&daemon, 9 * MINUTE);
    assert_eq!(told(&daemon), []);
    pass_time(&daemon, MINUTE);
    assert_eq!(told(&daemon), [(10, None)]);
    ended(&daemon, 1);
    pass_time(&daemon, 9 * MINUTE + 59 * SECOND);
    assert_eq!(told(&daemon).len(), 1);
    pass_time(&daemon, SECOND);
    assert_eq!(told(&daemon), [(10, None), (20, None)]);
    ended(&daemon, 2);
    // A run by hand moves it on.
    pass_time(&daemon, 5 * MINUTE);
    daemon.trigger("a");
    ended(&daemon, 3);
    pass_time(&daemon, 5 * MINUTE);
    assert_eq!(told(&daemon).len(), 2);
    pass_time(&daemon, 5 * MINUTE);
    assert_eq!(told(&daemon), [(10, None), (20, None), (35, None)]);
    assert!(ended(&daemon, 4).iter().all(|e| e.status == RunState::Completed));
}

#[test]
fn after_is_never_due_while_a_run_is_under_way_and_survives_a_restart() {
    let mut daemon = marked("cat $MATINS_AGENT_DIR/../go", "[ { after: 10m } ]");
    let fifo = daemon.home.gate();
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Running);
    pass_time(&daemon, 50 * MINUTE);
    assert_eq!(told(&daemon), []);
    std::fs::write(&fifo, "go").unwrap();
    ended(&daemon, 1);
    // It ended at 9:50: due at 10:00, and found at 10:30 by the daemon after this one.
    daemon.stop();
    daemon.advance(40 * MINUTE);
    std::fs::remove_file(&fifo).unwrap();
    std::fs::write(&fifo, "").unwrap();
    daemon.restart();
    let events = ended(&daemon, 2);
    assert_eq!(told(&daemon), [(60, None)]);
    assert_eq!((events[0].trigger, events[0].lateness_ms), (Trigger::Schedule, Some(30 * 60_000)));
}

#[test]
fn a_start_of_the_daemon_is_one_slot() {
    let mut daemon = daemon("true", "[ { on: startup } ]");
    daemon.advance(SECOND);
    ended(&daemon, 1);
    daemon.advance(HOUR);
    daemon.restart();
    ended(&daemon, 2);
    // One that is killed at once either has it in the books or not; the next start is another one.
    daemon.advance(SECOND);
    daemon.restart();
    daemon.crash();
    daemon.advance(SECOND);
    daemon.restart();
    let rows = eventually_sync("a slot of this start", || {
        let rows = daemon.slots();
        rows.iter().any(|s| s.nominal_ms >= minutes(60) + 3_000).then_some(rows)
    });
    assert!((3..=4).contains(&rows.len()), "{rows:#?}");
    daemon.settle();
    let mut nominal: Vec<i64> = rows.iter().map(|s| s.nominal_ms).collect();
    nominal.dedup();
    assert_eq!(nominal.len(), rows.len());
}

#[test]
fn at_fires_once() {
    // 11:30 in Berlin is 10:30 UTC; the daemon began at 9:00 UTC.
    let daemon = marked("true", "[ { at: '2026-03-02T11:30', timezone: Europe/Berlin } ]");
    pass_time(&daemon, 89 * MINUTE);
    assert_eq!(told(&daemon), []);
    pass_time(&daemon, MINUTE);
    assert_eq!(told(&daemon), [(90, None)]);
    pass_time(&daemon, 24 * HOUR);
    assert_eq!(told(&daemon).len(), 1);
    ended(&daemon, 1);
}

#[test]
fn what_is_excluded_is_in_the_books_and_does_not_run() {
    let daemon =
        daemon("true", "[ { cron: '0 * * * *', exclude: [ '* 10 * * *', '2026-03-03' ], overlap: allow } ]");
    daemon.advance(HOUR);
    assert_eq!(ledger(&daemon, 1)[0].reason, Some(NotRun::Excluded));
    daemon.advance(HOUR);
    ledger(&daemon, 2);
    ended(&daemon, 1);
    daemon.advance(13 * HOUR);
    // Midnight is excluded, so 23:00 is the newest slot that counts, and an hour late.
    let rows = ledger(&daemon, 15);
    assert_eq!(rows[14].reason, Some(NotRun::Excluded));
    assert_eq!(rows[13].reason, None, "{rows:#?}");
    ended(&daemon, 2);
    daemon.advance(24 * HOUR);
    let rows = ledger(&daemon, 39);
    assert_eq!(rows.iter().filter(|s| s.reason == Some(NotRun::Excluded)).count(), 1 + 24);
    assert_eq!(rows[38].reason, None, "midnight of the day after runs");
    ended(&daemon, 3);
}

#[test]
fn a_long_excluded_stretch_is_one_row() {
    let mut daemon = daemon("true", "[ { cron: '* * * * *', exclude: [ '2026-03-03..2026-03-04' ] } ]");
    daemon.stop();
    // Until Thursday 00:00:05: two excluded days of 1440 slots each, one row; then one run.
    daemon.advance(63 * HOUR + 5 * SECOND);
    daemon.restart();
    let rows = eventually_sync("the run", || {
        let rows = daemon.slots();
        rows.iter().any(|s| s.run.is_some() && s.reason.is_none()).then_some(rows)
    });
    let excluded: Vec<i64> =
        rows.iter().filter(|s| s.reason == Some(NotRun::Excluded)).map(|s| s.count).collect();
    assert_eq!(excluded, [2880]);
    assert_eq!(rows.iter().map(|s| s.count).sum::<i64>(), 63 * 60);
    ended(&daemon, 1);
}

#[test]
fn a_schedule_is_due_between_its_bounds_and_as_often_as_it_says() {
    let daemon = marked(
        "true",
        "[ { cron: '*/10 * * * *', start: '2026-03-02T09:25', end: '2026-03-02T09:50' }, \
           { cron: '*/30 * * * * *', start: '2026-03-02T10:00', max_runs: 2, overlap: allow } ]",
    );
    pass_time(&daemon, 3_599 * SECOND);
    assert_eq!(
        told(&daemon).iter().filter(|(_, r)| r.is_none()).map(|(at, _)| *at).collect::<Vec<_>>(),
        [40]
    );
    let count = daemon.slots_of("a").len();
    assert_eq!(count, 2, "9:30 is coalesced into 9:40");
    for _ in 0..5 {
        pass_time(&daemon, 30 * SECOND);
    }
    assert_eq!(daemon.slots_of("a").len(), count + 2, "10:00:00 and 10:00:30, then it is over");
    ended(&daemon, 3);
}

#[test]
fn catch_up_all_runs_each_missed_slot_oldest_first() {
    let mut daemon = daemon(
        "echo $MATINS_SCHEDULED_FOR",
        "[ { cron: '0 * * * *', catch_up: all, catch_up_window: 24h, catch_up_max: 3 } ]",
    );
    daemon.stop();
    daemon.advance(5 * HOUR + 45 * MINUTE);
    daemon.restart();
    let rows = ledger(&daemon, 5);
    let reasons: Vec<_> = rows.iter().map(|s| s.reason).collect();
    assert_eq!(reasons, [Some(NotRun::MissedWindow), Some(NotRun::MissedWindow), None, None, None]);
    let mut events = ended(&daemon, 3);
    events.reverse();
    assert!(
        events.iter().all(|e| e.trigger == Trigger::CatchUp && e.status == RunState::Completed),
        "{events:#?}"
    );
    let order: Vec<_> = events.iter().map(|e| e.scheduled_for.clone().unwrap()).collect();
    assert_eq!(order, ["2026-03-02T12:00:00.000Z", "2026-03-02T13:00:00.000Z", "2026-03-02T14:00:00.000Z"]);
    let started: Vec<_> = events.iter().map(|e| e.started_at.clone().unwrap()).collect();
    assert!(started.is_sorted(), "one after the other: {started:?}");
}

#[test]
fn schedules_of_one_instant_are_one_run_only_where_they_ask_for_the_same() {
    let daemon = daemon(
        "cat $MATINS_INPUT_FILE",
        "[ { cron: '0 * * * *', overlap: allow, input: { n: 1 } }, \
           { cron: '0 10 * * *', overlap: allow, input: { n: 2 } }, \
           { cron: '0 10 2 * *', overlap: allow, input: { n: 1 } } ]",
    );
    daemon.advance(HOUR);
    let rows = ledger(&daemon, 3);
    let mut reasons: Vec<_> = rows.iter().map(|s| s.reason).collect();
    reasons.sort_by_key(Option::is_some);
    assert_eq!(reasons, [None, None, Some(NotRun::Coalesced)]);
    let log =
        |e: &Event| std::fs::read_to_string(daemon.home.run_file(&e.id, "attempts/1/stdout.log")).unwrap();
    let mut inputs: Vec<String> =
        ended(&daemon, 2).iter().map(|e| log(e).split_whitespace().collect()).collect();
    inputs.sort();
    assert_eq!(inputs, ["{\"n\":1}", "{\"n\":2}"]);
}

#[test]
fn a_schedule_may_leave_out_the_time_that_a_day_skips() {
    let home = Home::new();
    let schedule = "schedules: [ { cron: '30 2 * * *', timezone: Europe/Berlin, dst: { gap: skip } } ]\n";
    home.agent("a", "true", schedule);
    let daemon = TestDaemon::start(home);
    // Saturday 12:00; on Sunday 2:30 does not exist in Berlin.
    daemon.clock.set("2026-03-28T12:00:00Z".parse().unwrap());
    let before =
        eventually_sync("the slots up to here", || Some(daemon.slots()).filter(|s| !s.is_empty())).len();
    daemon.advance(24 * HOUR);
    daemon.advance(24 * HOUR);
    let rows = ledger(&daemon, before + 1);
    assert_eq!(matins::time::rfc3339_ms(rows[before].nominal_ms), "2026-03-30T00:30:00.000Z");
    daemon.settle();
}

#[test]
fn a_hashed_pattern_is_stable_and_differs_between_agents() {
    let home = Home::new();
    for n in 0..6 {
        home.agent(&format!("a{n}"), "true", "schedules: [ { cron: 'H H(1-5) * * *' } ]\n");
    }
    let mut daemon = TestDaemon::start(home);
    let texts = |daemon: &TestDaemon| -> Vec<String> {
        let catalog = &daemon.core().catalog;
        let entry = |n: i32| catalog.get(&format!("a{n}").parse().unwrap()).unwrap();
        (0..6).map(|n| entry(n).schedules[0].schedule.timing.describe()).collect()
    };
    let before = texts(&daemon);
    let different: std::collections::BTreeSet<_> = before.iter().collect();
    assert!(different.len() > 3, "{before:?}");
    daemon.restart();
    assert_eq!(texts(&daemon), before);
}

#[test]
fn a_jittered_slot_is_admitted_at_its_instant_and_starts_later() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { cron: '0 * * * *', jitter: 30m, catch_up: none } ]\n");
    let mut daemon = TestDaemon::start(home);
    daemon.advance(HOUR);
    let slot = ledger(&daemon, 1).remove(0);
    assert_eq!((slot.reason, slot.lateness_ms), (None, Some(0)));
    let range = matins::engine::forecast::Range {
        visible: None,
        agent: None,
        from_ms: START_MS,
        to_ms: START_MS + 3 * 3_600_000,
        after: None,
        limit: 10,
        foresee: false,
    };
    let next = daemon.block_on(daemon.core().forecast(&range)).unwrap().remove(0);
    assert_eq!(next.coming.at_ms, minutes(120));
    let calendar = &daemon.core().catalog.get(&"a".parse().unwrap()).unwrap().schedules[0];
    let delay =
        matins::plan::start_delay_ms("a", &calendar.schedule, minutes(60), Some(minutes(120))).unsigned_abs();
    assert!(delay > 0 && delay < 30 * 60_000, "{delay}");
    assert_eq!(daemon.events()[0].status, RunState::Pending);
    let why = daemon.block_on(daemon.core().why(&"a".parse().unwrap(), None)).unwrap().sentences.join("\n");
    assert!(why.contains("`jitter` and `spread` let it start in"), "{why}");
    // It outlives a restart, and starts when its time has come.
    daemon.restart();
    daemon.advance(Duration::from_millis(delay - 1));
    assert_eq!(daemon.events()[0].status, RunState::Pending);
    daemon.advance(Duration::from_millis(1));
    let events = ended(&daemon, 1);
    let started: jiff::Timestamp = events[0].started_at.as_ref().unwrap().parse().unwrap();
    assert!(started.as_millisecond() >= minutes(60) + i64::try_from(delay).unwrap());
}

/// A daemon whose agent was paused for slots at 10:00 to 13:00; it is 13:10.
fn paused(catch_up: &str) -> TestDaemon {
    let home = Home::new();
    let schedule = format!("{{ cron: '0 * * * *', catch_up: {catch_up}, catch_up_window: 150m }}");
    home.agent("a", "true", &format!("schedules: [ {schedule} ]\n"));
    let daemon = TestDaemon::start(home);
    daemon.block_on(daemon.core().pause(&"a".parse().unwrap(), "ann", None)).unwrap();
    for hour in 1..=4 {
        daemon.advance(HOUR);
        ledger(&daemon, hour);
    }
    daemon.advance(10 * MINUTE);
    daemon
}

fn resume(daemon: &TestDaemon) -> Vec<Option<NotRun>> {
    daemon.block_on(daemon.core().resume(&"a".parse().unwrap(), "ann", true)).unwrap();
    daemon.settle();
    ledger(daemon, 4).iter().map(|s| s.reason).collect()
}

#[test]
fn a_resume_with_catch_up_replays_what_the_pause_left_out() {
    let pause = Some(NotRun::Paused);
    let daemon = paused("latest");
    assert_eq!(resume(&daemon), [pause, Some(NotRun::Coalesced), Some(NotRun::Coalesced), None]);
    let events = ended(&daemon, 1);
    assert_eq!((events[0].trigger, events[0].status), (Trigger::CatchUp, RunState::Completed));
    // Asking again replays nothing.
    resume(&daemon);
    ended(&daemon, 1);
    drop(daemon);
    let daemon = paused("all");
    assert_eq!(resume(&daemon), [pause, None, None, None]);
    ended(&daemon, 3);
    drop(daemon);
    let daemon = paused("none");
    assert_eq!(resume(&daemon), [pause; 4]);
    assert!(daemon.events().is_empty());
}
