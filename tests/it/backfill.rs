//! Backfills: past slots that are run again, what keeps them from it, and what they leave alone.

use std::time::Duration;

use matins::engine::backfill::{Backfill, NotAgain};
use matins::engine::{BackfillRequest, Refused};
use matins::model::{NotRun, RunState, Trigger};
use matins::store::BACKFILL_MAX;

use crate::support::daemon::START_MS;
use crate::support::{Binary, Home, TestDaemon, eventually_sync};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const HOUR_MS: i64 = 3_600_000;

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

/// A request for the slots of agent `a`.
fn slots(from_ms: i64, to_ms: i64) -> BackfillRequest {
    let agent = "a".parse().unwrap();
    BackfillRequest {
        agent,
        from_ms,
        to_ms,
        only_missed: false,
        dry_run: false,
        user: Some("ann".to_owned()),
    }
}

fn ask(daemon: &TestDaemon, request: BackfillRequest) -> Result<Backfill, Refused> {
    daemon.block_on(daemon.core().backfill(request))
}

fn nominal(done: &Backfill) -> Vec<i64> {
    done.slots.iter().map(|s| s.nominal_ms).collect()
}

fn left_out(done: &Backfill) -> Vec<(NotAgain, u64)> {
    done.left_out.iter().map(|l| (l.reason, l.count)).collect()
}

/// An agent that writes down what it is told of its slot.
const TELLS: &str = r#"echo "$MATINS_TRIGGER $MATINS_SCHEDULED_FOR" >> $MATINS_AGENT_DIR/../order"#;

fn daemon(script: &str, rest: &str) -> TestDaemon {
    let home = Home::new();
    home.agent("a", script, rest);
    TestDaemon::start(home)
}

fn order(daemon: &TestDaemon) -> Vec<String> {
    let text = std::fs::read_to_string(daemon.home.path().join("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_past_range_runs_again_oldest_first_and_the_ledger_stays() {
    let daemon =
        daemon(TELLS, "sandbox: off\nschedules: [ { cron: '0 * * * *', exclude: [ '* 6 * * *' ] } ]\n");
    let range = slots(START_MS - 5 * HOUR_MS, START_MS);
    let dry = ask(&daemon, BackfillRequest { dry_run: true, ..range.clone() }).unwrap();
    assert!(daemon.events().is_empty() && dry.slots.iter().all(|s| s.run.is_none()));
    let done = ask(&daemon, range).unwrap();
    let wanted: Vec<i64> = [5, 4, 2, 1].iter().map(|h| START_MS - h * HOUR_MS).collect();
    assert_eq!((nominal(&dry), nominal(&done)), (wanted.clone(), wanted.clone()));
    assert_eq!(
        (left_out(&dry), left_out(&done)),
        (vec![(NotAgain::Excluded, 1)], vec![(NotAgain::Excluded, 1)])
    );
    let events = daemon.settle();
    let told: Vec<String> =
        wanted.iter().map(|at_ms| format!("backfill {}", matins::time::rfc3339_ms(*at_ms))).collect();
    assert_eq!(order(&daemon), told);
    for event in &events {
        assert_eq!((event.status, event.trigger), (RunState::Completed, Trigger::Backfill));
        assert_eq!((event.user_id.as_deref(), event.lateness_ms), (Some("ann"), None));
    }
    assert!(daemon.slots().is_empty(), "the ledger is as it was");
}

/// Goes past the slots of three hours in which nothing could fire, one that ran and one of a pause.
fn with_a_past(daemon: &mut TestDaemon) {
    daemon.stop();
    daemon.advance(3 * HOUR + 40 * MINUTE);
    daemon.restart();
    let rows = |daemon: &TestDaemon, n: usize| {
        eventually_sync(&format!("{n} rows"), || (daemon.slots().len() == n).then_some(()));
    };
    rows(daemon, 3);
    daemon.advance(20 * MINUTE);
    rows(daemon, 4);
    daemon.settle();
    let agent = "a".parse().unwrap();
    daemon.block_on(daemon.core().pause(&agent, "ann", None)).unwrap();
    daemon.advance(HOUR);
    rows(daemon, 5);
    daemon.block_on(daemon.core().resume(&agent, "ann", false)).unwrap();
}

#[test]
fn only_missed_takes_each_slot_that_nothing_ran_for_once() {
    let mut daemon = daemon("true", "schedules: [ { cron: '0 * * * *', catch_up: none } ]\n");
    with_a_past(&mut daemon);
    let before = format!("{:?}", daemon.slots());
    // One of them was before the schedule: the ledger has no row of it.
    let missed = BackfillRequest { only_missed: true, ..slots(START_MS - HOUR_MS, START_MS + 6 * HOUR_MS) };
    let done = ask(&daemon, missed.clone()).unwrap();
    let reasons: Vec<_> =
        done.slots.iter().map(|s| ((s.nominal_ms - START_MS) / HOUR_MS, s.missed)).collect();
    let lost = Some(NotRun::MissedWindow);
    assert_eq!(reasons, [(1, lost), (2, lost), (3, lost), (5, Some(NotRun::Paused))]);
    assert_eq!(left_out(&done), [(NotAgain::Ran, 1), (NotAgain::NoRow, 2)]);
    daemon.settle();
    assert_eq!(format!("{:?}", daemon.slots()), before);
    let why = daemon.block_on(daemon.core().why(&"a".parse().unwrap(), Some("10:00"))).unwrap();
    assert!(why.sentences.iter().any(|s| s.starts_with("A backfill has run it again: run ")), "{why:?}");
    let again = ask(&daemon, missed).unwrap();
    assert_eq!((again.slots.len(), left_out(&again)[1]), (0, (NotAgain::Backfilled, 4)));
    // What is asked for without regard to the past runs whatever became of it.
    let all = ask(&daemon, slots(START_MS, START_MS + 6 * HOUR_MS)).unwrap();
    assert_eq!(all.slots.len(), 6);
    daemon.settle();
}

#[test]
fn schedules_of_one_instant_run_once_however_often_it_is_asked_for() {
    let two = "sandbox: off\nschedules: [ { cron: '0 * * * *' }, { cron: '0 */1 * * *' } ]\n";
    let daemon = daemon("cat $MATINS_AGENT_DIR/../go", two);
    daemon.home.gate();
    let range = slots(START_MS - 2 * HOUR_MS, START_MS);
    let first = ask(&daemon, range.clone()).unwrap();
    assert_eq!((first.slots.len(), left_out(&first)), (2, vec![(NotAgain::Coalesced, 2)]));
    let again = ask(&daemon, range).unwrap();
    assert_eq!(
        (again.slots.len(), left_out(&again)),
        (0, vec![(NotAgain::Pending, 2), (NotAgain::Coalesced, 2)]),
        "the runs that wait stand for both"
    );
    daemon.home.open_gate();
    assert_eq!(daemon.settle().len(), 2);
}

#[test]
fn schedules_of_one_instant_that_ask_for_other_things_run_both() {
    let two = "schedules: [ { cron: '0 * * * *' }, { cron: '0 * * * *', overlap: allow } ]\n";
    let daemon = daemon("true", two);
    let done = ask(&daemon, slots(START_MS - HOUR_MS, START_MS)).unwrap();
    assert_eq!((done.slots.len(), done.left_out.len()), (2, 0));
    daemon.settle();
}

#[test]
fn one_that_waits_is_not_doubled_and_the_present_goes_first() {
    let script = format!("{TELLS}; cat $MATINS_AGENT_DIR/../go");
    let mut daemon = daemon(&script, "sandbox: off\nschedules: [ { cron: '0 * * * *' } ]\n");
    daemon.home.gate();
    let range = slots(START_MS - 3 * HOUR_MS, START_MS);
    let first = ask(&daemon, range.clone()).unwrap().slots[0].run.unwrap();
    daemon.wait_for(first, RunState::Running);
    for _ in 0..2 {
        let again = ask(&daemon, range.clone()).unwrap();
        assert_eq!((again.slots.len(), left_out(&again)), (0, vec![(NotAgain::Pending, 3)]));
        daemon.crash();
        daemon.restart();
    }
    // A slot that comes due is not left out for the sake of the past, though its overlap is skip.
    daemon.advance(HOUR);
    let row = eventually_sync("the slot is decided", || daemon.slots().pop());
    assert!(row.reason.is_none(), "{row:?}");
    daemon.home.open_gate();
    daemon.settle();
    let triggers: Vec<String> =
        order(&daemon).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(triggers, ["backfill", "schedule", "backfill", "backfill"]);
}

#[test]
fn the_days_on_which_the_clock_is_set_have_their_slots() {
    let daily = "schedules: [ { cron: '30 2 * * *', timezone: Europe/Berlin } ]\n";
    let daemon = daemon("true", daily);
    let dry = |from: &str, to: &str| {
        let range = slots(ms(from), ms(to));
        let done = ask(&daemon, BackfillRequest { dry_run: true, ..range }).unwrap();
        done.slots.iter().map(|s| (at(s.nominal_ms), s.note.is_some())).collect::<Vec<_>>()
    };
    let told = |text: &str, note| (text.to_owned(), note);
    assert_eq!(
        dry("2025-03-29T00:00:00Z", "2025-04-01T00:00:00Z"),
        [
            told("2025-03-29T01:30:00Z", false),
            told("2025-03-30T01:00:00Z", true),
            told("2025-03-31T00:30:00Z", false)
        ]
    );
    assert_eq!(
        dry("2025-10-25T00:00:00Z", "2025-10-28T00:00:00Z"),
        [
            told("2025-10-25T00:30:00Z", false),
            told("2025-10-26T00:30:00Z", true),
            told("2025-10-27T01:30:00Z", false)
        ]
    );
}

#[test]
fn a_range_is_bounded_and_so_is_what_waits() {
    let daemon = daemon("true", "schedules: [ { cron: '* * * * *' } ]\n");
    let last_ms = START_MS - 60_000;
    let range = |n: i64| slots(START_MS - n * 60_000, last_ms + 1);
    let most = i64::try_from(BACKFILL_MAX).unwrap();
    let dry = ask(&daemon, BackfillRequest { dry_run: true, ..range(most) }).unwrap();
    assert_eq!(dry.slots.len(), BACKFILL_MAX);
    let refused = ask(&daemon, range(most + 1)).unwrap_err().to_string();
    assert!(refused.contains(&format!("lie before {}", matins::time::rfc3339_ms(last_ms))), "{refused}");
    assert!(daemon.events().is_empty());
    let future = ask(&daemon, slots(START_MS + 1, START_MS + 2)).unwrap_err().to_string();
    assert!(future.contains("future"), "{future}");
    assert!(ask(&daemon, slots(START_MS - 1, START_MS - 1)).is_err());
}

#[test]
fn slots_of_one_instant_that_ask_for_the_same_run_are_one_and_budgets_hold() {
    let two = "budget: { runs_per_day: 2 }\nschedules: [ { cron: '0 * * * *' }, { every: 30m } ]\n";
    let daemon = daemon("true", two);
    let done = ask(&daemon, slots(START_MS - 2 * HOUR_MS, START_MS)).unwrap();
    assert_eq!(nominal(&done), [START_MS - 2 * HOUR_MS, START_MS - 2 * HOUR_MS + HOUR_MS / 2]);
    let mut left = left_out(&done);
    left.sort();
    assert_eq!(left, [(NotAgain::Coalesced, 2), (NotAgain::Budget, 1), (NotAgain::Budget, 1)]);
    daemon.settle();
}

#[test]
fn the_command_says_what_would_run_and_runs_it() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { every: 1h } ]\n");
    let daemon = Binary::start(home);
    let ask = |more: &[&str]| {
        let range = ["backfill", "a", "--from", "2025-01-06T00:00:00Z", "--to", "2025-01-06T02:00:00Z"];
        let out = daemon.cli(&[&range[..], more].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let dry = ask(&["--dry-run"]);
    assert_eq!(dry.matches("would run").count(), 2, "{dry}");
    let missed = ask(&["--dry-run", "--only-missed"]);
    assert!(missed.contains("not: no_row, 2 slots"), "{missed}");
    let done: serde_json::Value = serde_json::from_str(&ask(&["--json"])).unwrap();
    assert_eq!(done["slots"].as_array().unwrap().len(), 2, "{done}");
    eventually_sync("both have run", || {
        let runs = daemon.get("/v1/events?trigger=backfill&status=COMPLETED");
        (runs["data"].as_array().unwrap().len() == 2).then_some(())
    });
    let (status, answer) = daemon.post("/v1/agents/a/backfill", &serde_json::json!({ "form": "x" }));
    assert_eq!((status, &answer["error"]["details"][0]["pointer"]), (422, &"/form".into()));
    let (status, answer) = daemon.post("/v1/agents/a/backfill", &serde_json::json!({}));
    assert_eq!((status, &answer["error"]["details"][0]["pointer"]), (422, &"/from".into()));
}
