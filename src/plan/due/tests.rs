//! The rules of the downtime chapter, spelled out, and `due` against a walk over every slot.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Cron, Timing};
use crate::plan::{Error, Stretch, fires};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn cron(text: &str, timezone: &str) -> Calendar {
    Calendar::compile(&Timing::Cron { cron: Cron::parse(text).unwrap(), timezone: timezone.to_owned() })
        .unwrap()
}

fn every(period: Duration, phase: Duration) -> Calendar {
    Calendar::compile(&Timing::Every { period, phase }).unwrap()
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn policy(catch_up: CatchUp) -> Policy {
    Policy { catch_up, catch_up_window: None, grace: None, catch_up_max: 100 }
}

const LATEST: Policy =
    Policy { catch_up: CatchUp::Latest, catch_up_window: None, grace: None, catch_up_max: 100 };

fn run(nominal_ms: i64, trigger: Trigger, start_ms: i64, slots: u64) -> Decision {
    Decision::Run { nominal_ms, trigger, window: Window { start_ms, end_ms: nominal_ms, slots } }
}

fn lost(nominal_ms: i64, until_ms: i64, count: u64) -> Decision {
    Decision::NotRun { nominal_ms, until_ms, count, reason: NotRun::MissedWindow, into: None }
}

fn coalesced(nominal_ms: i64, into: i64) -> Decision {
    Decision::NotRun {
        nominal_ms,
        until_ms: nominal_ms,
        count: 1,
        reason: NotRun::Coalesced,
        into: Some(into),
    }
}

#[test]
fn a_slot_in_time_runs_normally() {
    let hourly = cron("0 * * * *", "UTC");
    let nine = ms("2026-05-04T09:00:00Z");
    let watermark = nine - HOUR;
    let expected = |now| (due(&hourly, &LATEST, watermark, now), now);
    for now in [nine, nine + 3, nine + 30 * MINUTE] {
        let (due, _) = expected(now);
        assert_eq!(due.decisions, [run(nine, Trigger::Schedule, watermark, 1)], "{now}");
        assert_eq!(due.next, Some(nine + HOUR));
        assert_eq!(due.watermark_ms(), Some(nine));
        assert_eq!(due, due_from(&hourly, &LATEST, watermark, nine, now));
    }
    // Never early, not by a millisecond.
    assert_eq!(due(&hourly, &LATEST, watermark, nine - 1), Due { decisions: vec![], next: Some(nine) });
}

#[test]
fn grace_is_half_the_period_within_its_bounds() {
    let trigger =
        |calendar: &Calendar, watermark, now| match due(calendar, &LATEST, watermark, now).decisions[..] {
            [Decision::Run { trigger, .. }] => trigger,
            ref other => panic!("{other:?}"),
        };
    // Half of an hour; half of a minute is raised to two minutes; half of a day is cut to two hours.
    for (calendar, grace) in [(cron("0 * * * *", "UTC"), 30 * MINUTE), (cron("0 9 * * *", "UTC"), 2 * HOUR)] {
        let slot = calendar.next_after(ms("2026-05-04T08:30:00Z")).unwrap();
        assert_eq!(trigger(&calendar, slot - 1, slot + grace), Trigger::Schedule);
        assert_eq!(trigger(&calendar, slot - 1, slot + grace + 1), Trigger::CatchUp);
    }
    let once = cron("0 0 9 4 5 * 2026", "UTC");
    let slot = ms("2026-05-04T09:00:00Z");
    assert_eq!(trigger(&once, 0, slot + 2 * HOUR), Trigger::Schedule);
    assert_eq!(trigger(&once, 0, slot + 2 * HOUR + 1), Trigger::CatchUp);
    assert_eq!(due(&once, &LATEST, 0, slot + 6 * HOUR + 1).decisions, [lost(slot, slot, 1)]);
    assert_eq!(due(&once, &LATEST, slot, slot + DAY), Due::default());

    let often = every(Duration::from_mins(1), Duration::ZERO);
    let now = 1000 * MINUTE + 59_999;
    assert_eq!(
        due(&often, &LATEST, 996 * MINUTE, now).decisions,
        [
            lost(997 * MINUTE, 997 * MINUTE, 1),
            lost(998 * MINUTE, 998 * MINUTE, 1),
            coalesced(999 * MINUTE, 1000 * MINUTE),
            run(1000 * MINUTE, Trigger::Schedule, 998 * MINUTE, 2),
        ]
    );
}

#[test]
fn missed_slots_within_the_window_become_one_run() {
    // Down from Friday 17:00 to Monday 08:10; hourly, so grace 30 min, window 1 h.
    let hourly = cron("0 * * * *", "UTC");
    let (friday, monday) = (ms("2026-05-01T17:00:00Z"), ms("2026-05-04T08:10:00Z"));
    let eight = ms("2026-05-04T08:00:00Z");
    let slots: Vec<i64> = fires(&hourly, friday, 63);
    assert_eq!(slots[62], eight);
    let decided = due(&hourly, &LATEST, friday, monday);
    assert_eq!(decided.decisions.len(), 63, "up to 100 alike have a row each");
    assert_eq!(decided.decisions[62], run(eight, Trigger::Schedule, eight - HOUR, 1));

    // A wider window takes all of them into the one run, which is told so.
    let wide = Policy { catch_up_window: Some(Duration::from_hours(72)), ..LATEST };
    let decided = due(&hourly, &wide, friday, monday).decisions;
    assert_eq!(decided[..62], slots[..62].iter().map(|at| coalesced(*at, eight)).collect::<Vec<_>>());
    assert_eq!(decided[62], run(eight, Trigger::Schedule, friday, 63));

    // Later than grace it is a catch-up; a slot exactly as old as the window still counts.
    let narrow = Policy {
        catch_up_window: Some(Duration::from_mins(90)),
        grace: Some(Duration::from_mins(1)),
        ..LATEST
    };
    let now = eight + 30 * MINUTE;
    assert_eq!(
        due(&hourly, &narrow, eight - 3 * HOUR, now).decisions,
        [
            lost(eight - 2 * HOUR, eight - 2 * HOUR, 1),
            coalesced(eight - HOUR, eight),
            run(eight, Trigger::CatchUp, eight - 2 * HOUR, 2),
        ]
    );
    assert_eq!(
        due(&hourly, &narrow, eight - 2 * HOUR, now + 1).decisions,
        [lost(eight - HOUR, eight - HOUR, 1), run(eight, Trigger::CatchUp, eight - HOUR, 1),]
    );
    // Nothing inside the window: nothing runs.
    let closed = Policy { catch_up_window: Some(Duration::ZERO), grace: Some(Duration::ZERO), ..LATEST };
    assert_eq!(due(&hourly, &closed, eight - HOUR, eight + 1).decisions, [lost(eight, eight, 1)]);
    assert_eq!(
        due(&hourly, &closed, eight - HOUR, eight).decisions,
        [run(eight, Trigger::Schedule, eight - HOUR, 1)]
    );
}

#[test]
fn without_catch_up_only_a_slot_in_time_runs() {
    let hourly = cron("0 * * * *", "UTC");
    let none = policy(CatchUp::None);
    let nine = ms("2026-05-04T09:00:00Z");
    let missed: Vec<_> = [nine - 2 * HOUR, nine - HOUR].map(|at| lost(at, at, 1)).into();
    let mut in_time = missed.clone();
    in_time.push(run(nine, Trigger::Schedule, nine - HOUR, 1));
    assert_eq!(due(&hourly, &none, nine - 3 * HOUR, nine + 30 * MINUTE).decisions, in_time);
    let mut late = missed;
    late.push(lost(nine, nine, 1));
    assert_eq!(due(&hourly, &none, nine - 3 * HOUR, nine + 31 * MINUTE).decisions, late);
}

#[test]
fn more_than_a_hundred_alike_are_one_row() {
    let minutely = every(Duration::from_mins(1), Duration::ZERO);
    let none = policy(CatchUp::None);
    let rows = |slots: i64| due(&minutely, &none, 0, slots * MINUTE).decisions;
    // The last slot runs, the ones before it are alike.
    assert_eq!(rows(101).len(), 101);
    assert_eq!(
        rows(102),
        [lost(MINUTE, 101 * MINUTE, 101), run(102 * MINUTE, Trigger::Schedule, 101 * MINUTE, 1),]
    );
}

#[test]
fn a_clock_set_forward_by_decades_costs_nothing() {
    let started = std::time::Instant::now();
    let watermark = ms("2026-05-04T09:00:00Z");
    let now = ms("2098-05-04T09:00:00Z") + 10 * MINUTE + 500;
    let hours = (now - watermark) / HOUR;
    for (calendar, rows, slots) in [
        (cron("* * * * * *", "Europe/Berlin"), 122, hours * 3600 + 600),
        (cron("* * * * *", "Africa/Cairo"), 4, hours * 60 + 10),
        (cron("0 * * * *", "America/New_York"), 2, hours),
        (every(Duration::from_secs(1), Duration::ZERO), 122, hours * 3600 + 600),
    ] {
        let due = due(&calendar, &LATEST, watermark, now);
        assert!(due.decisions.len() <= rows, "{} rows", due.decisions.len());
        assert_eq!(expand_count(&due.decisions), u64::try_from(slots).unwrap());
        assert!(matches!(due.decisions.last(), Some(Decision::Run { trigger: Trigger::Schedule, .. })));
        assert!(due.next.is_some_and(|next| next > now));
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

fn expand_count(decisions: &[Decision]) -> u64 {
    let slots = |decision: &Decision| match decision {
        Decision::Run { .. } => 1,
        Decision::NotRun { count, .. } => *count,
    };
    decisions.iter().map(slots).sum()
}

#[test]
fn a_watermark_ahead_of_the_clock_decides_nothing() {
    let hourly = cron("0 * * * *", "UTC");
    let nine = ms("2026-05-04T09:00:00Z");
    assert_eq!(
        due(&hourly, &LATEST, nine, nine - 2 * HOUR),
        Due { decisions: vec![], next: Some(nine + HOUR) }
    );
}

#[test]
fn every_is_anchored_to_the_epoch() {
    let quarter = every(Duration::from_mins(15), Duration::from_mins(5));
    assert_eq!(fires(&quarter, 0, 2), [5 * MINUTE, 20 * MINUTE]);
    assert_eq!(fires(&quarter, 5 * MINUTE - 1, 1), [5 * MINUTE]);
    assert_eq!(fires(&quarter, 5 * MINUTE, 1), [20 * MINUTE]);
    assert_eq!(fires(&quarter, -30 * MINUTE, 1), [-25 * MINUTE]);
    assert_eq!(quarter.last_at_or_before(0, 20 * MINUTE), Some(20 * MINUTE));
    assert_eq!(quarter.last_at_or_before(5 * MINUTE, 20 * MINUTE - 1), None);
    assert_eq!(
        quarter.count(0, 35 * MINUTE),
        Some(Stretch { first_ms: 5 * MINUTE, last_ms: 35 * MINUTE, count: 3 })
    );
    // The ends of time are no place to panic.
    for at in [i64::MIN, i64::MAX] {
        let _ =
            (quarter.next_after(at), quarter.last_at_or_before(i64::MIN, at), quarter.count(i64::MIN, at));
        let _ = due(&quarter, &LATEST, i64::MIN, at);
        let _ = due(&cron("* * * * *", "Europe/Berlin"), &LATEST, i64::MIN, at);
    }
    let timing = Timing::Every { period: Duration::from_millis(999), phase: Duration::ZERO };
    assert_eq!(Calendar::compile(&timing).unwrap_err(), Error::Period);
    let timing =
        Timing::Cron { cron: Cron::parse("@daily").unwrap(), timezone: "Europe/Atlantis".to_owned() };
    assert!(matches!(Calendar::compile(&timing), Err(Error::Zone(_))));
}

#[test]
fn one_slot_in_time_is_cheap() {
    let daily = cron("0 9 * * MON-FRI", "Europe/Berlin");
    let nine = ms("2026-05-04T07:00:00Z");
    let started = std::time::Instant::now();
    for _ in 0..10_000 {
        let due = due_from(&daily, &LATEST, nine - DAY, nine, nine + 2);
        assert_eq!(due.decisions.len(), 1);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

fn a_calendar() -> impl Strategy<Value = (Calendar, i64)> {
    let patterns = [
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "*/20 0-4 * * SUN",
        "0 9 * * MON-FRI",
        "0 0 1 * *",
        "0 0 29 2 *",
        "*/15 30 2 * * *",
        "0 0 12 1 6 * 2025,2026",
    ];
    let zones =
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"];
    let patterns = (proptest::sample::select(patterns.to_vec()), proptest::sample::select(zones.to_vec()))
        .prop_map(|(text, zone)| (cron(text, zone), typical_ms(text)))
        .boxed();
    let periods = (1_u64..200_000, 0_u64..200_000).prop_map(|(period_s, phase_s)| {
        let calendar = every(Duration::from_secs(period_s), Duration::from_secs(phase_s % period_s));
        (calendar, i64::try_from(period_s).unwrap() * 1000)
    });
    prop_oneof![3 => patterns, 1 => periods]
}

/// Roughly the distance of two slots, to draw gaps that hold from none to some hundreds.
fn typical_ms(pattern: &str) -> i64 {
    match pattern.split(' ').collect::<Vec<_>>()[..] {
        ["*" | "*/7" | "*/15", ..] => 5 * MINUTE,
        ["0", "*", ..] => HOUR,
        [_, _, "1" | "29", ..] => 30 * DAY,
        _ => DAY,
    }
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let some = || {
        prop_oneof![
            Just(None),
            Just(Some(Duration::ZERO)),
            (0_u64..3_000_000).prop_map(|s| Some(Duration::from_secs(s)))
        ]
    };
    (any::<bool>(), some(), some()).prop_map(|(latest, catch_up_window, grace)| Policy {
        catch_up: if latest { CatchUp::Latest } else { CatchUp::None },
        catch_up_window,
        grace,
        catch_up_max: 100,
    })
}

/// The rules, slot by slot: what each one ends as.
fn naive(slots: &[i64], next: Option<i64>, policy: &Policy, watermark_ms: i64, now_ms: i64) -> Vec<Decision> {
    let Some(&newest) = slots.last() else {
        return vec![];
    };
    let period = next.map_or(DAY, |next| next - newest);
    let grace = policy.grace.map_or((period / 2).clamp(2 * MINUTE, 2 * HOUR), millis);
    let window = policy.catch_up_window.map_or(grace.max(period.min(6 * HOUR)), millis);
    let in_window = |at: i64| policy.catch_up == CatchUp::Latest && now_ms - at <= window;
    let trigger = if now_ms - newest <= grace {
        Some(Trigger::Schedule)
    } else {
        in_window(newest).then_some(Trigger::CatchUp)
    };
    let Some(trigger) = trigger else {
        return slots.iter().map(|at| lost(*at, *at, 1)).collect();
    };
    let (older, missed): (Vec<i64>, Vec<i64>) =
        slots[..slots.len() - 1].iter().copied().partition(|at| !in_window(*at));
    let start = older.last().copied().unwrap_or(watermark_ms);
    let mut all: Vec<Decision> = older.iter().map(|at| lost(*at, *at, 1)).collect();
    all.extend(missed.iter().map(|at| coalesced(*at, newest)));
    all.push(run(newest, trigger, start, missed.len() as u64 + 1));
    all
}

/// Every row of a stretch as a row each, found among `slots`.
fn expand(decisions: &[Decision], slots: &[i64]) -> Vec<Decision> {
    let mut all = Vec::new();
    for decision in decisions {
        match *decision {
            Decision::NotRun { nominal_ms, until_ms, count, reason, into } if count > 1 => {
                assert!(count > ROWS_MAX, "{decision:?}");
                let inside: Vec<i64> =
                    slots.iter().copied().filter(|at| (nominal_ms..=until_ms).contains(at)).collect();
                assert_eq!(inside.len() as u64, count, "{decision:?}");
                assert_eq!((inside[0], inside[inside.len() - 1]), (nominal_ms, until_ms));
                all.extend(inside.iter().map(|at| Decision::NotRun {
                    nominal_ms: *at,
                    until_ms: *at,
                    count: 1,
                    reason,
                    into,
                }));
            }
            other => all.push(other),
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pass_is_what_a_walk_over_every_slot_gives(
        (calendar, typical) in a_calendar(),
        policy in a_policy(),
        watermark_ms in 1_704_067_200_000_i64..1_893_456_000_000,
        gap in 0_i64..300_000,
        split in 0_i64..300_000,
    ) {
        let now_ms = watermark_ms + typical / 1000 * gap;
        let walk = std::iter::successors(calendar.next_after(watermark_ms), |at| calendar.next_after(*at));
        let slots: Vec<i64> = walk.take_while(|at| *at <= now_ms).collect();

        let whole = due(&calendar, &policy, watermark_ms, now_ms);
        prop_assert_eq!(whole.next, calendar.next_after(now_ms));
        prop_assert_eq!(
            expand(&whole.decisions, &slots),
            naive(&slots, whole.next, &policy, watermark_ms, now_ms)
        );
        prop_assert_eq!(whole.watermark_ms(), slots.last().copied());
        prop_assert_eq!(
            calendar.count(watermark_ms, now_ms).map(|s| (s.first_ms, s.last_ms, s.count)),
            slots.first().map(|first| (*first, slots[slots.len() - 1], slots.len() as u64))
        );

        // Two passes decide about the same slots as one.
        let split_ms = watermark_ms + (now_ms - watermark_ms) * split / 300_000;
        let first = due(&calendar, &policy, watermark_ms, split_ms);
        let second = due(&calendar, &policy, first.watermark_ms().unwrap_or(watermark_ms), now_ms);
        let decided: Vec<i64> = [first, second]
            .iter()
            .flat_map(|due| expand(&due.decisions, &slots))
            .map(|decision| decision.nominal_ms())
            .collect();
        prop_assert_eq!(decided, slots);
    }
}
