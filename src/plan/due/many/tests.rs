//! Exclusions, bounds and `catch_up: all`: what people expect, and a pass against a walk over every slot.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::ScheduleId;
use crate::model::{Bounds, Cron, Dst, DstGap, DstOverlap, Exclude, Schedule, Timing, Window};
use crate::plan::{ROWS_MAX, due, fires, next_fire};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn cron(text: &str, timezone: &str) -> Timing {
    Timing::Cron { cron: Cron::parse(text).unwrap(), timezone: timezone.to_owned() }
}

fn not(text: &str, timezone: &str) -> Exclude {
    Exclude::Cron { cron: Cron::parse(text).unwrap(), timezone: timezone.to_owned() }
}

fn schedule(timing: Timing, exclude: Vec<Exclude>) -> Schedule {
    Schedule { exclude, ..Schedule::plain(ScheduleId::from("x".to_owned()), timing) }
}

fn calendar(timing: Timing, exclude: Vec<Exclude>) -> Calendar {
    Calendar::of(&schedule(timing, exclude)).unwrap()
}

fn policy(catch_up: CatchUp) -> Policy {
    Policy { catch_up, catch_up_window: None, grace: None, catch_up_max: 100 }
}

/// What each slot ended as, and the slots of a run's window.
fn told(decisions: &[Decision]) -> Vec<(i64, String)> {
    let text = |decision: &Decision| match decision {
        Decision::Run { trigger, window, .. } => format!("{trigger} {}", window.slots),
        Decision::NotRun { reason, count, .. } => format!("{reason} {count}"),
    };
    decisions.iter().map(|d| (d.nominal_ms(), text(d))).collect()
}

#[test]
fn a_weekend_is_left_out_and_monday_runs_in_time() {
    let hourly = calendar(cron("0 * * * *", "Europe/Berlin"), vec![not("* * * * SAT,SUN", "Europe/Berlin")]);
    let (friday, monday) = (ms("2026-05-01T21:00:00Z"), ms("2026-05-03T22:00:00Z"));
    // Friday 23:00 local is the watermark, Monday 00:00 local is due: 48 hours between are excluded.
    let pass = due(&hourly, &policy(CatchUp::Latest), friday, monday + 5);
    assert_eq!(pass.decisions.len(), 49);
    assert!(told(&pass.decisions)[..48].iter().all(|(_, what)| what == "excluded 1"));
    assert_eq!(told(&pass.decisions)[48], (monday, "schedule 1".to_owned()));
    assert_eq!(pass.next, Some(monday + HOUR));
    // In the middle of it a slot is excluded at its time, and more than a hundred are one row.
    let noon = ms("2026-05-02T10:00:00Z");
    let at_noon = due(&hourly, &policy(CatchUp::Latest), noon - HOUR, noon);
    assert_eq!(told(&at_noon.decisions), [(noon, "excluded 1".to_owned())]);
    let minutely =
        calendar(cron("* * * * *", "Europe/Berlin"), vec![not("* * * * SAT,SUN", "Europe/Berlin")]);
    let first = ms("2026-05-01T22:00:00Z");
    let pass = due(&minutely, &policy(CatchUp::Latest), first - MINUTE, monday);
    assert_eq!(
        told(&pass.decisions),
        [(first, "excluded 2880".to_owned()), (monday, "schedule 1".to_owned())]
    );
    assert_eq!(next_fire(&hourly, first - 1), Some(monday));
    assert_eq!(fires(&hourly, first, 2), [monday, monday + HOUR]);
}

#[test]
fn missed_slots_around_a_holiday_become_one_run() {
    let holiday = (ms("2026-05-01T00:00:00Z"), ms("2026-05-02T00:00:00Z"));
    let daily = calendar(cron("0 9 * * *", "UTC"), vec![Exclude::Spans(vec![holiday])]);
    let start = ms("2026-04-28T09:00:00Z");
    let now = ms("2026-05-03T15:00:00Z");
    let wide = Policy { catch_up_window: Some(Duration::from_hours(24 * 30)), ..policy(CatchUp::Latest) };
    let pass = due(&daily, &wide, start, now);
    let day = |n: i64| start + n * DAY;
    assert_eq!(
        told(&pass.decisions),
        [
            (day(1), "coalesced 1".to_owned()),
            (day(2), "coalesced 1".to_owned()),
            (day(3), "excluded 1".to_owned()),
            (day(4), "coalesced 1".to_owned()),
            (day(5), "catch_up 4".to_owned()),
        ]
    );
    let Decision::Run { window, .. } = pass.decisions[4] else { panic!("the last one runs") };
    assert_eq!(window, Window { start_ms: start, end_ms: day(5), slots: 4 });
    // The newest slot is excluded: the one before it is the one that counts.
    let now = day(3) + MINUTE;
    let pass = due(&daily, &wide, day(1), now);
    assert_eq!(told(&pass.decisions), [(day(2), "catch_up 1".to_owned()), (day(3), "excluded 1".to_owned())]);
}

#[test]
fn all_runs_each_missed_slot_oldest_first_up_to_its_bound() {
    let hourly = calendar(cron("0 * * * *", "UTC"), vec![]);
    let nine = ms("2026-05-04T09:00:00Z");
    let all =
        Policy { catch_up_window: Some(Duration::from_hours(4)), catch_up_max: 3, ..policy(CatchUp::All) };
    let at = |h: i64| nine + h * HOUR;
    let runs = |now| told(&due(&hourly, &all, nine, now).decisions);
    let run = |h, what: &str| (at(h), what.to_owned());
    // In time: the newest is no catch-up and does not count.
    assert_eq!(
        runs(at(5) + MINUTE),
        [
            run(1, "missed_window 1"),
            run(2, "catch_up 1"),
            run(3, "catch_up 1"),
            run(4, "catch_up 1"),
            run(5, "schedule 1")
        ]
    );
    assert_eq!(
        runs(at(5) + 45 * MINUTE),
        [
            run(1, "missed_window 1"),
            run(2, "missed_window 1"),
            run(3, "catch_up 1"),
            run(4, "catch_up 1"),
            run(5, "catch_up 1")
        ]
    );
    assert_eq!(runs(at(1)), [run(1, "schedule 1")]);
    let none = Policy { catch_up_window: Some(Duration::ZERO), ..all };
    let pass = due(&hourly, &none, nine, at(2) + 45 * MINUTE);
    assert_eq!(told(&pass.decisions), [run(1, "missed_window 1"), run(2, "missed_window 1")]);
}

#[test]
fn a_replay_makes_catch_ups_and_never_more() {
    let hourly = calendar(cron("0 * * * *", "UTC"), vec![]);
    let nine = ms("2026-05-04T09:00:00Z");
    let now = nine + 5 * HOUR + MINUTE;
    let told_for = |catch_up| {
        let wide = Policy { catch_up_window: Some(Duration::from_hours(3)), ..policy(catch_up) };
        let decisions = replay(&hourly, &wide, nine, nine + 5 * HOUR, now);
        told(&decisions).into_iter().map(|(_, what)| what).collect::<Vec<_>>()
    };
    let lost = "missed_window 1";
    assert_eq!(told_for(CatchUp::Latest), [lost, lost, "coalesced 1", "coalesced 1", "catch_up 3"]);
    assert_eq!(told_for(CatchUp::All), [lost, lost, "catch_up 1", "catch_up 1", "catch_up 1"]);
    assert_eq!(told_for(CatchUp::None), [lost; 5]);
}

#[test]
fn bounds_cut_the_slots() {
    let mut bounded = schedule(cron("0 * * * *", "UTC"), vec![]);
    let nine = ms("2026-05-04T09:00:00Z");
    bounded.bounds = Bounds { start_ms: Some(nine), end_ms: Some(nine + 3 * HOUR), max_runs: None };
    let calendar = Calendar::of(&bounded).unwrap();
    assert_eq!(fires(&calendar, 0, 9), [nine, nine + HOUR, nine + 2 * HOUR]);
    assert_eq!(calendar.last_at_or_before(0, i64::MAX), Some(nine + 2 * HOUR));
    assert_eq!(calendar.count(0, i64::MAX).map(|s| s.count), Some(3));
    assert_eq!(calendar.count(nine + 2 * HOUR, i64::MAX), None);
    let at = Timing::At { at_ms: nine, timezone: "UTC".to_owned() };
    let once = Calendar::compile(&at).unwrap();
    assert_eq!(fires(&once, nine - 1, 5), [nine]);
    // A one-shot has a period of a day: two hours of grace, six of catch-up.
    for (late, what) in
        [(2 * HOUR, "schedule 1"), (6 * HOUR, "catch_up 1"), (6 * HOUR + 1, "missed_window 1")]
    {
        let pass = due(&once, &policy(CatchUp::Latest), nine - DAY, nine + late);
        assert_eq!(told(&pass.decisions), [(nine, what.to_owned())]);
        assert_eq!(pass.next, None);
    }
}

#[test]
fn decades_of_alternation_cost_a_bounded_pass() {
    let started = std::time::Instant::now();
    let from = ms("2026-05-04T09:00:00Z");
    let now = from + 72 * 365 * DAY;
    for (text, exclude) in [
        ("* * * * * *", "*/2 * * * *"),
        ("* * * * *", "* * * * SAT,SUN"),
        ("0 * * * *", "0 * * * *"),
        ("0 * * * *", "0 12 * * *"),
        ("30 2 * * *", "* 2 * * SUN"),
    ] {
        let calendar = calendar(cron(text, "Europe/Berlin"), vec![not(exclude, "Europe/Berlin")]);
        for catch_up in [CatchUp::Latest, CatchUp::All] {
            let pass = due(&calendar, &policy(catch_up), from, now);
            let count = |d: &Decision| match d {
                Decision::Run { .. } => 1,
                Decision::NotRun { count, .. } => *count,
            };
            let all: u64 = pass.decisions.iter().map(count).sum();
            assert_eq!(Some(all), calendar.count(from, now).map(|s| s.count), "{text} {exclude}");
            assert!(pass.decisions.len() < SEGMENTS_MAX * 60, "{} rows", pass.decisions.len());
        }
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    // What is excluded for ever never fires, and finding that out is bounded too.
    let never = calendar(cron("* * * * * *", "UTC"), vec![not("* * * * *", "UTC")]);
    assert_eq!(next_fire(&never, from), None);
}

fn a_schedule() -> impl Strategy<Value = (Schedule, i64)> {
    let patterns = [
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "*/15 30 2 * * *",
        "0 9 * * *",
    ];
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"];
    let excludes =
        ["* * * * SAT,SUN", "* 12 * * *", "*/2 * * * *", "0 9 * * MON", "* 1-3 * * *", "30 * * * *"];
    let exclude = prop_oneof![
        (proptest::sample::select(excludes.to_vec()), proptest::sample::select(zones.to_vec()))
            .prop_map(|(text, zone)| not(text, zone)),
        proptest::collection::vec((0_i64..2_000, 1_i64..200), 1..4).prop_map(|spans| {
            let base = 1_704_067_200_000;
            Exclude::Spans(
                spans.iter().map(|(at, long)| (base + at * DAY, base + at * DAY + long * HOUR)).collect(),
            )
        }),
    ];
    let dst = (any::<bool>(), 0_usize..3).prop_map(|(skip, overlap)| Dst {
        gap: if skip { DstGap::Skip } else { DstGap::After },
        overlap: DstOverlap::ALL[overlap],
    });
    let bounds = proptest::option::of((0_i64..2_000, 0_i64..3_000)).prop_map(|bounds| match bounds {
        None => Bounds::default(),
        Some((start, long)) => {
            let start = 1_704_067_200_000 + start * DAY;
            Bounds { start_ms: Some(start), end_ms: Some(start + long * DAY), max_runs: None }
        }
    });
    (
        proptest::sample::select(patterns.to_vec()),
        proptest::sample::select(zones.to_vec()),
        proptest::collection::vec(exclude, 0..3),
        dst,
        bounds,
    )
        .prop_map(|(text, zone, exclude, dst, bounds)| {
            let typical = match text.split(' ').next() {
                Some("*" | "*/7" | "*/15") => 5 * MINUTE,
                _ if text.starts_with("0 *") => HOUR,
                _ => DAY,
            };
            (Schedule { bounds, dst, ..schedule(cron(text, zone), exclude) }, typical)
        })
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let some = || prop_oneof![Just(None), (0_u64..1_000_000).prop_map(|s| Some(Duration::from_secs(s)))];
    (0_usize..3, some(), some(), 0_u32..20).prop_map(|(catch_up, catch_up_window, grace, catch_up_max)| {
        Policy { catch_up: CatchUp::ALL[catch_up], catch_up_window, grace, catch_up_max }
    })
}

/// The rules, slot by slot.
fn naive(
    calendar: &Calendar,
    policy: &Policy,
    slots: &[i64],
    watermark_ms: i64,
    now_ms: i64,
) -> Vec<(i64, String, i64)> {
    let included: Vec<i64> = slots.iter().copied().filter(|at| !calendar.excludes(*at)).collect();
    let newest = included.last().copied().unwrap_or(i64::MAX);
    let period = calendar.next_after(newest).map_or(DAY, |next| next - newest);
    let grace = policy.grace.map_or((period / 2).clamp(2 * MINUTE, 2 * HOUR), crate::time::millis);
    let window = policy.catch_up_window.map_or(grace.max(period.min(6 * HOUR)), crate::time::millis);
    let in_time = now_ms.saturating_sub(newest) <= grace;
    let in_window = |at: i64| policy.catch_up != CatchUp::None && now_ms - at <= window;
    let missed: Vec<i64> =
        included.iter().copied().filter(|at| in_window(*at) && !(in_time && *at == newest)).collect();
    let kept: Vec<i64> = missed.iter().rev().take(policy.catch_up_max as usize).copied().collect();
    let runs = in_time || in_window(newest);
    let mut all = Vec::new();
    let (mut before, mut window_start, mut stands_for) = (watermark_ms, None, 1_u64);
    for &at in slots {
        let what = if calendar.excludes(at) {
            "excluded".to_owned()
        } else if policy.catch_up == CatchUp::All {
            window_start = None;
            if in_time && at == newest {
                "schedule 1".to_owned()
            } else if kept.contains(&at) {
                "catch_up 1".to_owned()
            } else {
                "missed_window".to_owned()
            }
        } else if at == newest && runs {
            format!("{} {stands_for}", if in_time { "schedule" } else { "catch_up" })
        } else if runs && in_window(at) {
            window_start = window_start.or(Some(before));
            stands_for += 1;
            "coalesced".to_owned()
        } else {
            "missed_window".to_owned()
        };
        let is_run = what.contains(' ');
        all.push((at, what, if is_run { window_start.unwrap_or(before) } else { 0 }));
        before = at;
    }
    all
}

/// Rows of stretches as a row a slot.
fn expand(decisions: &[Decision], slots: &[i64]) -> Vec<(i64, String, i64)> {
    let mut all = Vec::new();
    for decision in decisions {
        match *decision {
            Decision::Run { nominal_ms, trigger, window } => {
                all.push((nominal_ms, format!("{trigger} {}", window.slots), window.start_ms));
            }
            Decision::NotRun { nominal_ms, until_ms, count, reason, .. } => {
                let inside: Vec<i64> =
                    slots.iter().copied().filter(|at| (nominal_ms..=until_ms).contains(at)).collect();
                assert_eq!(inside.len() as u64, count, "{decision:?}");
                assert!(count == 1 || count > ROWS_MAX, "{decision:?}");
                all.extend(inside.iter().map(|at| (*at, reason.to_string(), 0)));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_general_pass_is_what_a_walk_over_every_slot_gives(
        (schedule, typical) in a_schedule(),
        policy in a_policy(),
        watermark_ms in 1_704_067_200_000_i64..1_893_456_000_000,
        gap in 0_i64..200_000,
    ) {
        let calendar = Calendar::of(&schedule).unwrap();
        let now_ms = watermark_ms + typical / 1000 * gap;
        let slots: Vec<i64> = std::iter::successors(calendar.next_after(watermark_ms), |at| calendar.next_after(*at))
            .take_while(|at| *at <= now_ms)
            .collect();
        let pass = due(&calendar, &policy, watermark_ms, now_ms);
        prop_assert_eq!(pass.next, calendar.next_after(slots.last().copied().unwrap_or(watermark_ms)));
        let found = expand(&pass.decisions, &slots);
        prop_assert_eq!(found.len(), slots.len());
        let expected = naive(&calendar, &policy, &slots, watermark_ms, now_ms);
        // Beyond the segments that a pass tells apart, everything is lost.
        let (older, _) = segments(&calendar, watermark_ms, now_ms);
        let told_apart = older.map_or(0, |older| slots.partition_point(|at| *at <= older));
        prop_assert!(found[..told_apart].iter().all(|(_, what, _)| what == "missed_window"));
        if told_apart == 0 {
            prop_assert_eq!(found, expected);
        }
        prop_assert_eq!(calendar.count(watermark_ms, now_ms).map_or(0, |s| s.count), slots.len() as u64);
    }

    #[test]
    fn a_fire_is_the_next_slot_that_is_not_excluded(
        (schedule, typical) in a_schedule(),
        after_ms in 1_704_067_200_000_i64..1_893_456_000_000,
        span in 1_i64..60,
    ) {
        let calendar = Calendar::of(&schedule).unwrap();
        let until_ms = after_ms + typical * span;
        let walk = std::iter::successors(calendar.next_after(after_ms), |at| calendar.next_after(*at));
        let expected: Vec<i64> = walk.take_while(|at| *at <= until_ms).filter(|at| !calendar.excludes(*at)).collect();
        let found: Vec<i64> = std::iter::successors(next_fire(&calendar, after_ms), |at| next_fire(&calendar, *at))
            .take_while(|at| *at <= until_ms)
            .collect();
        prop_assert_eq!(found, expected);
    }
}
