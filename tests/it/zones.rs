//! The plan against an oracle: every change of the clock of every zone from 2025 to 2030, with patterns that lie in
//! it, beside it and across it, by every rule of `dst`.
//!
//! The suite takes a few changes and a part of the patterns, chosen by a seed; `MATINS_ZONES=all` takes everything.

mod oracle;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use matins::ids::ScheduleId;
use matins::model::{Cron, Dst, Exclude, Schedule, Timing};
use matins::plan::Calendar;
use proptest::prelude::*;

use oracle::{Pattern, Walk, wall};

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Changes of the clock that the suite looks at.
const CHANGES: usize = 5;
/// One of so many patterns is tried at each of them.
const PART: usize = 4;
/// By which they are chosen.
const SEED: u64 = 0x6d61_7469_6e73;

/// A change of the clock of a zone, Unix seconds.
#[derive(Debug, Clone)]
struct Change {
    zone: String,
    at: i64,
}

/// Every change from 2025 to 2030 of every zone that jiff knows, and how many zones there are.
fn changes() -> (usize, Vec<Change>) {
    let from: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
    let to: Timestamp = "2031-01-01T00:00:00Z".parse().unwrap();
    let mut zones: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    zones.sort();
    zones.dedup();
    let mut found = Vec::new();
    for zone in &zones {
        let tz = matins::time::zone(zone).unwrap();
        let of_zone = tz.following(from).map(|change| change.timestamp()).take_while(|at| *at < to);
        found.extend(of_zone.map(|at| Change { zone: zone.clone(), at: at.as_second() }));
    }
    (zones.len(), found)
}

/// How far around the change a set of patterns is compared, and the step of the walk; seconds.
#[derive(Clone, Copy)]
struct Reach {
    around: i64,
    step: i64,
}

const WIDE: Reach = Reach { around: 2 * DAY, step: MINUTE };
/// Patterns that fire every few minutes or seconds are compared where the clock is set.
const NEAR: Reach = Reach { around: 6 * HOUR, step: MINUTE };
const NEAREST: Reach = Reach { around: 150 * MINUTE, step: 1 };

/// Patterns around the wall-clock time at which a skipped or repeated range begins.
fn patterns(change: &Change, tz: &TimeZone) -> Vec<(Reach, String)> {
    let offset = |at: i64| i64::from(tz.to_offset(Timestamp::from_second(at).unwrap()).seconds());
    let begin = wall(change.at + offset(change.at).min(offset(change.at - 1)));
    let (h, d) = (begin.hour, begin.day);
    let (before, after) = ((h + 23) % 24, (h + 1) % 24);
    let hours = |mut hours: [i64; 3]| {
        hours.sort_unstable();
        format!("{},{},{}", hours[0], hours[1], hours[2])
    };
    let week = (d - 1) / 7 + 1;
    let last = if h < 23 { h + 1 } else { 23 };
    let nth = week.min(5);
    let weekday = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"][usize::try_from(begin.weekday).unwrap()];
    let month = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
        [usize::try_from(begin.month - 1).unwrap()];
    let (first, next_day) = ((d - 1).max(1), (begin.weekday + 1) % 7);
    let (year, month_number, day_number) = (begin.year, begin.month, begin.weekday);
    let wide = [
        format!("30 {h} * * *"),
        format!("0 {h} * * *"),
        format!("1,59 {h} * * *"),
        format!("0 {after} * * *"),
        format!("59 {before} * * *"),
        format!("0,30 {} * * *", hours([before, h, after])),
        format!("15-20 {h}-{last} * * *"),
        format!("*/20 {h} * * *"),
        format!("10-50/20 {h}-{last} * * *"),
        "0 */1 * * *".to_owned(),
        "5 */2 * * *".to_owned(),
        "7 * * * *".to_owned(),
        format!("0 {h}-23/3 * * *"),
        "0 0 * * *".to_owned(),
        "30 23 * * *".to_owned(),
        format!("30 {h} {d} * *"),
        format!("30 {h} {first}-{d} {month_number} *"),
        format!("30 {h} L * *"),
        format!("30 {h} LW * ?"),
        format!("30 {h} {d}W * *"),
        format!("30 {h} ? * {day_number}#{nth}"),
        format!("30 {h} * {month} {weekday}L"),
        format!("30 {h} {d} * {next_day}"),
        format!("30 {h} {d} * +{weekday}"),
        format!("30 {h} */2 * {day_number}"),
        format!("0 {h} 1,15 */2 MON-FRI"),
        format!("45 {h} * * 5-7"),
        format!("30 45 {h} * * *"),
        format!("0 30 {h} {d} {month_number} ? {year}"),
        format!("0 30 {h} * * * {year}-2040/5"),
    ];
    let near =
        ["* * * * *".to_owned(), "*/7 * * * *".to_owned(), format!("* {h} * * *"), format!("0-59 {h} * * *")];
    let nearest = [
        "*/13 * * * * *".to_owned(),
        format!("*/20 30 {h} * * *"),
        format!("* 59 {before} * * *"),
        format!("5,55 0-2 {h} * * *"),
    ];
    let with =
        |reach: Reach, texts: &[String]| texts.iter().map(move |t| (reach, t.clone())).collect::<Vec<_>>();
    [with(WIDE, &wide), with(NEAR, &near), with(NEAREST, &nearest)].concat()
}

fn calendar(text: &str, zone: &str, dst: Dst) -> Calendar {
    let timing = Timing::Cron { cron: Cron::parse(text).unwrap(), timezone: zone.to_owned() };
    Calendar::of(&Schedule { dst, ..Schedule::plain(ScheduleId::from("x".to_owned()), timing) }).unwrap()
}

/// What differs between a calendar and the instants that it should have in `(from, to]`, Unix seconds.
fn differs(calendar: &Calendar, wanted: &[i64], from: i64, to: i64) -> Option<String> {
    let (from_ms, to_ms) = (from * 1000, to * 1000);
    let wanted: Vec<i64> = wanted.iter().map(|at| at * 1000).collect();
    let next = |after: i64| calendar.next_after(after).filter(|at| *at <= to_ms && *at > after);
    let forward: Vec<i64> = std::iter::successors(next(from_ms), |at| next(*at)).collect();
    if forward != wanted {
        return Some(format!("forward {}", difference(&forward, &wanted)));
    }
    let last = |at: i64| calendar.last_at_or_before(from_ms, at).filter(|found| *found <= at);
    let mut backward: Vec<i64> = std::iter::successors(last(to_ms), |at| last(*at - 1)).collect();
    backward.reverse();
    if backward != wanted {
        return Some(format!("backward {}", difference(&backward, &wanted)));
    }
    let count = |after: i64, until: i64| calendar.count(after, until).map_or(0, |s| s.count);
    let n = wanted.len() as u64;
    if count(from_ms, to_ms) != n {
        return Some(format!("counted {} of {n}", count(from_ms, to_ms)));
    }
    // The rank of the slots nearest to the middle, where the clock is set, from both ends.
    let middle = from_ms.midpoint(to_ms);
    let near = wanted.partition_point(|at| *at < middle);
    for (rank, at) in wanted.iter().enumerate().skip(near.saturating_sub(2)).take(4) {
        let (upto, behind) = (count(from_ms, *at), count(*at, to_ms));
        if (upto, behind) != (rank as u64 + 1, n - rank as u64 - 1) {
            return Some(format!("rank {rank} of {n} counted as {upto}, {behind}"));
        }
    }
    None
}

fn difference(found: &[i64], wanted: &[i64]) -> String {
    let only = |a: &[i64], b: &[i64]| {
        let only = a.iter().filter(|at| !b.contains(at)).take(3);
        only.map(|at| Timestamp::from_millisecond(*at).unwrap().to_string()).collect::<Vec<_>>().join(" ")
    };
    format!("has [{}] too many, lacks [{}]", only(found, wanted), only(wanted, found))
}

/// Compares everything around one change; the number of cases and what differs.
fn compare(change: &Change, part: usize) -> (u64, Vec<String>) {
    let tz = matins::time::zone(&change.zone).unwrap();
    let walk = |reach: Reach| {
        let far = reach.around + DAY + HOUR;
        let begin = |at: i64| at.div_euclid(MINUTE) * MINUTE;
        Walk::new(&tz, begin(change.at - far), begin(change.at + far), reach.step)
    };
    let near = |reach: Reach| {
        let far = reach.around + 3 * HOUR;
        Walk::new(&tz, change.at - far, change.at + far, reach.step)
    };
    let (minutes, seconds) = (walk(WIDE), near(NEAREST));
    let half = Walk::new(&tz, change.at - 3 * DAY - change.at.rem_euclid(MINUTE), change.at + 3 * DAY, 30);
    let (mut cases, mut different) = (0, Vec::new());
    let begin = usize::try_from(change.at / MINUTE).unwrap() % part;
    for (reach, text) in patterns(change, &tz).into_iter().skip(begin).step_by(part) {
        let pattern = Pattern::read(&text);
        let rules: &[Dst] = if pattern.fixed() { &Dst::ALL } else { &Dst::ALL[..1] };
        let of_seconds = text.split(' ').count() == 6 && reach.step == MINUTE;
        let walk = if reach.step == 1 {
            &seconds
        } else if of_seconds {
            &half
        } else {
            &minutes
        };
        let (from, to) = (change.at - reach.around - 1, change.at + reach.around);
        for dst in rules {
            cases += 1;
            let wanted = walk.instants(&pattern, *dst, from, to);
            let found = calendar(&text, &change.zone, *dst);
            if let Some(how) = differs(&found, &wanted, from, to) {
                let at = Timestamp::from_second(change.at).unwrap();
                different.push(format!("{} {at} {text:?} {dst:?}: {how}", change.zone));
            }
        }
    }
    (cases, different)
}

/// The changes that are looked at: all, or some that differ in zone and year.
fn chosen(all: Vec<Change>) -> (usize, Vec<Change>) {
    if std::env::var("MATINS_ZONES").is_ok_and(|which| which == "all") {
        return (1, all);
    }
    let mut state = SEED;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % all.len()
    };
    // Those that no two zones have in common come rarely by chance.
    let odd = ["Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca", "Europe/Dublin"];
    let of_odd = odd.iter().flat_map(|zone| all.iter().filter(|c| c.zone == *zone).take(1).cloned());
    let of_odd: Vec<Change> = of_odd.collect();
    let more = (0..CHANGES.saturating_sub(of_odd.len())).map(|_| all[next()].clone()).collect();
    (PART, [of_odd, more].concat())
}

#[test]
fn the_plan_agrees_with_the_oracle_around_changes_of_the_clock() {
    let (zones, all) = changes();
    assert!(zones > 400 && all.len() > 1000, "{zones} zones, {} changes", all.len());
    let (part, chosen) = chosen(all);
    let (next, cases) = (AtomicUsize::new(0), AtomicU64::new(0));
    let different = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(change) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (n, found) = compare(change, part);
                    cases.fetch_add(n, Ordering::Relaxed);
                    different.lock().unwrap().extend(found);
                }
            });
        }
    });
    let (different, cases) = (different.into_inner().unwrap(), cases.into_inner());
    let transitions = chosen.len();
    println!(
        "proof: zones zones={zones} transitions={transitions} cases={cases} differences={}",
        different.len()
    );
    different.iter().take(40).for_each(|how| println!("{how}"));
    assert!(different.is_empty(), "{} of {cases} differ; the first: {}", different.len(), different[0]);
}

/// What a field of hours or minutes may be.
fn a_field(most: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (0..=most).prop_map(|n| n.to_string()),
        1 => Just("*".to_owned()),
        1 => (1..=most).prop_map(|n| format!("*/{n}")),
        1 => (0..=most, 0..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (0..=most, 0..=most).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
    ]
}

fn a_timing() -> impl Strategy<Value = Timing> {
    let zones = proptest::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/Sao_Paulo",
        "Asia/Gaza",
        "Antarctica/Troll",
    ]);
    let days =
        proptest::sample::select(vec!["* * *", "* * MON-FRI", "1,15 * *", "L * *", "13 * FRI", "29 2 *"]);
    let cron = (a_field(59), a_field(23), days, zones).prop_map(|(minute, hour, days, zone)| {
        let cron = Cron::parse(&format!("{minute} {hour} {days}")).unwrap();
        Timing::Cron { cron, timezone: zone.to_owned() }
    });
    let seconds = |s: u64| std::time::Duration::from_secs(s);
    let every = (1_u64..200_000, 0_u64..100_000)
        .prop_map(move |(period, phase)| Timing::Every { period: seconds(period), phase: seconds(phase) });
    prop_oneof![3 => cron, 1 => every]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Going forward, going back and counting are three ways to the same slots.
    #[test]
    fn ranks_and_searches_are_symmetrical(
        timing in a_timing(),
        rule in proptest::sample::select(&Dst::ALL[..]),
        start_s in 1_735_689_600_i64..1_920_000_000,
        shifts in proptest::collection::vec(0_i64..40 * DAY, 1..6),
        bounds in any::<bool>(),
    ) {
        let mut schedule = Schedule { dst: rule, ..Schedule::plain(ScheduleId::from("x".to_owned()), timing) };
        if bounds {
            schedule.bounds.start_ms = Some((start_s + DAY) * 1000);
            schedule.bounds.end_ms = Some((start_s + 30 * DAY) * 1000);
            schedule.exclude = vec![Exclude::Spans(vec![((start_s + 3 * DAY) * 1000, (start_s + 5 * DAY) * 1000)])];
        }
        let calendar = Calendar::of(&schedule).unwrap();
        let first = start_s * 1000;
        let slots: Vec<i64> = std::iter::successors(calendar.next_after(first), |at| calendar.next_after(*at)).take(150).collect();
        for (rank, pair) in slots.windows(2).enumerate() {
            prop_assert!(pair[0] < pair[1]);
            prop_assert_eq!(calendar.last_at_or_before(first, pair[1] - 1), Some(pair[0]));
            prop_assert_eq!(calendar.last_at_or_before(first, pair[0]), Some(pair[0]));
            prop_assert_eq!(calendar.count(first, pair[1] - 1).map(|s| s.count), Some(rank as u64 + 1));
        }
        for shift in shifts {
            let at = first + shift * 1000 + 500;
            let before = slots.iter().rev().find(|slot| **slot <= at).copied();
            if slots.last().is_some_and(|last| *last > at) {
                prop_assert_eq!(calendar.last_at_or_before(first, at), before);
                prop_assert_eq!(calendar.next_after(at), slots.iter().find(|slot| **slot > at).copied());
                let rank = slots.partition_point(|slot| *slot <= at) as u64;
                prop_assert_eq!(calendar.count(first, at).map_or(0, |s| s.count), rank);
            }
        }
    }
}
