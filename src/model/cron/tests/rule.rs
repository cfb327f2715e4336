//! Searching and counting against the written rule, found by walking the clock minute by minute:
//! random cases, and every change of the clock of some years.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{cron, ts};
use crate::model::{Cron, Dst, DstGap, DstOverlap};
use crate::time::zone;

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kolkata",
    "America/Scoresbysund",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/St_Johns",
];

fn a_field(min: u8, max: u8) -> impl Strategy<Value = String> {
    let range = move || (min..=max, min..=max).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (min..=max).prop_map(|n| n.to_string()),
        2 => (1..=max).prop_map(|n| format!("*/{n}")),
        1 => range().prop_map(|(a, b)| format!("{a}-{b}")),
        1 => (range(), 1..=max).prop_map(|((a, b), n)| format!("{a}-{b}/{n}")),
        2 => proptest::collection::vec(min..=max, 2..4)
            .prop_map(|list| list.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    ]
}

/// Patterns of whole minutes whose hours gather where clocks change.
fn a_pattern() -> impl Strategy<Value = String> {
    let hours = prop_oneof![
        a_field(0, 23),
        a_field(0, 4),
        Just("23".to_owned()),
        Just("22-23".to_owned()),
        Just("0,23".to_owned())
    ];
    let days = prop_oneof![
        6 => Just("* * *".to_owned()),
        1 => Just("* * SUN".to_owned()),
        1 => Just("* * SAT,THU".to_owned()),
        1 => Just("*/2 * *".to_owned()),
        1 => Just("L * FRI".to_owned()),
        1 => Just("? * SUNL".to_owned()),
    ];
    (a_field(0, 59), hours, days).prop_map(|(m, h, d)| format!("{m} {h} {d}"))
}

/// A start within two days of some change of the clock between 2005 and 2035, and a span.
fn a_stretch(tz: &TimeZone, pick: u32, shift_s: i64, span_s: i64) -> (Timestamp, Timestamp) {
    let origin = ts("2005-01-01T00:00:00Z");
    let nth = usize::try_from(pick % 60).unwrap();
    let anchor = tz.following(origin).nth(nth).map_or(origin, |change| change.timestamp());
    let from = anchor + SignedDuration::from_secs(shift_s);
    (from, from + SignedDuration::from_secs(span_s))
}

/// The instants in `(from, to]` as the rule says, minute by minute; the slow way.
fn oracle(cron: &Cron, tz: &TimeZone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let minute = SignedDuration::from_mins(1);
    let day = SignedDuration::from_hours(48);
    let matches = |wall: DateTime| cron.0.parsed.is_time_matching(&wall).unwrap();
    let floor = |at: Timestamp| Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap();
    let mut found = Vec::new();
    if cron.0.fixed {
        let wall_at = |at: Timestamp| tz.to_datetime(floor(at));
        let (mut wall, end) = (wall_at(from - day), wall_at(to + day));
        while wall <= end {
            if matches(wall) {
                found.push(first_instant(wall, tz));
            }
            wall = wall.checked_add(minute).unwrap();
        }
    } else {
        let mut at = floor(from);
        while at <= to {
            if matches(tz.to_datetime(at)) {
                found.push(at);
            }
            at += minute;
        }
    }
    found.retain(|at| *at > from && *at <= to);
    found.sort();
    found.dedup();
    found
}

fn first_instant(wall: DateTime, tz: &TimeZone) -> Timestamp {
    let ambiguous = tz.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            // Walk out of the gap.
            let mut at = ambiguous.earlier().unwrap();
            while tz.to_datetime(at) < wall {
                at += SignedDuration::from_mins(1);
            }
            at
        }
        _ => ambiguous.earlier().unwrap(),
    }
}

/// What random cases meet too rarely: every change of some years, fixed times in and beside it.
#[test]
fn every_change_of_the_clock_keeps_the_rule() {
    for zone_name in ZONES {
        let tz = zone(zone_name).unwrap();
        let changes = tz.following(ts("2010-06-01T00:00:00Z")).take(12);
        for change in changes.map(|change| change.timestamp()) {
            let (from, to) =
                (change - SignedDuration::from_hours(30), change + SignedDuration::from_hours(30));
            for text in
                ["*/10 0-4,21-23 * * *", "0,15,30,45 0,1,2,3,22,23 * * *", "0 0-3 * * *", "30 2 * * *"]
            {
                let cron = cron(text);
                let expected = oracle(&cron, &tz, from, to);
                let found: Vec<_> =
                    std::iter::successors(cron.next_after(from, &tz), |at| cron.next_after(*at, &tz))
                        .take_while(|at| *at <= to)
                        .collect();
                assert_eq!(found, expected, "{text} in {zone_name} around {change}");
                // Counting from every instant and up to every instant.
                for (n, at) in expected.iter().enumerate() {
                    assert_eq!(cron.count(from, *at, &tz), n as u64 + 1, "{text} {zone_name} up to {at}");
                    let left = (expected.len() - n - 1) as u64;
                    assert_eq!(cron.count(*at, to, &tz), left, "{text} {zone_name} from {at}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn search_and_count_agree_with_the_rule(
        text in a_pattern(),
        zone_name in proptest::sample::select(ZONES),
        pick in any::<u32>(),
        shift_s in -172_800_i64..86_400,
        span_s in 0_i64..259_200,
    ) {
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let tz = zone(zone_name).unwrap();
        let (from, to) = a_stretch(&tz, pick, shift_s, span_s);
        let expected = oracle(&cron, &tz, from, to);

        let mut forward = Vec::new();
        let mut at = from;
        while let Some(next) = cron.next_after(at, &tz).filter(|next| *next <= to) {
            prop_assert!(next > at);
            forward.push(next);
            at = next;
        }
        prop_assert_eq!(&forward, &expected, "forward");

        let mut backward = Vec::new();
        let mut at = to;
        while let Some(last) = cron.last_at_or_before(at, &tz).filter(|last| *last > from) {
            prop_assert!(last <= at);
            backward.push(last);
            at = last - SignedDuration::from_nanos(1);
        }
        backward.reverse();
        prop_assert_eq!(&backward, &expected, "backward");

        prop_assert_eq!(cron.count(from, to, &tz), expected.len() as u64, "count");
    }

    #[test]
    fn long_counts_are_sums_of_short_ones(
        text in a_pattern(),
        zone_name in proptest::sample::select(ZONES),
        start_s in 1_000_000_000_i64..2_000_000_000,
        long_s in 0_i64..1_500_000_000,
        short_s in 0_i64..3_000_000,
        rest_s in 0_i64..1_500_000_000,
    ) {
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let tz = zone(zone_name).unwrap();
        let at = |s: i64| Timestamp::from_second(start_s + s).unwrap();
        let (a, b, c) = (long_s, long_s + short_s, long_s + short_s + rest_s);
        let parts = cron.count(at(0), at(a), &tz) + cron.count(at(a), at(b), &tz) + cron.count(at(b), at(c), &tz);
        prop_assert_eq!(parts, cron.count(at(0), at(c), &tz));
    }
}

/// The instants of fixed times in `(from, to]` under `dst`, wall-clock minute by wall-clock minute.
fn oracle_by(cron: &Cron, tz: &TimeZone, dst: Dst, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    if !cron.0.fixed {
        return oracle(cron, tz, from, to);
    }
    let day = SignedDuration::from_hours(48);
    let (mut wall, end) = (tz.to_datetime(from - day), tz.to_datetime(to + day));
    wall = wall.with().second(0).subsec_nanosecond(0).build().unwrap();
    let mut found = Vec::new();
    while wall <= end {
        if cron.0.parsed.is_time_matching(&wall).unwrap() {
            let ambiguous = tz.to_ambiguous_timestamp(wall);
            let (early, late) = (ambiguous.earlier(), tz.to_ambiguous_timestamp(wall).later().unwrap());
            match (ambiguous.offset(), dst.gap, dst.overlap) {
                (AmbiguousOffset::Gap { .. }, DstGap::Skip, _) => {}
                (AmbiguousOffset::Gap { .. }, DstGap::After, _) => found.push(first_instant(wall, tz)),
                (AmbiguousOffset::Fold { .. }, _, DstOverlap::Last) => found.push(late),
                (AmbiguousOffset::Fold { .. }, _, DstOverlap::Both) => found.extend([early.unwrap(), late]),
                _ => found.push(early.unwrap()),
            }
        }
        wall = wall.checked_add(SignedDuration::from_mins(1)).unwrap();
    }
    found.retain(|at| *at > from && *at <= to);
    found.sort();
    found.dedup();
    found
}

fn agrees(cron: &Cron, tz: &TimeZone, dst: Dst, from: Timestamp, to: Timestamp) {
    let what = format!("{cron} {dst:?} {:?} {from} {to}", tz.iana_name());
    let expected = oracle_by(cron, tz, dst, from, to);
    let forward: Vec<_> = std::iter::successors(cron.next_after_by(from, tz, dst), |at| {
        cron.next_after_by(*at, tz, dst).inspect(|next| assert!(next > at, "{what}"))
    })
    .take_while(|at| *at <= to)
    .collect();
    assert_eq!(forward, expected, "forward {what}");
    let before = |at: Timestamp| cron.last_at_or_before_by(at, tz, dst).filter(|last| *last > from);
    let mut backward: Vec<_> =
        std::iter::successors(before(to), |at| before(*at - SignedDuration::from_nanos(1))).collect();
    backward.reverse();
    assert_eq!(backward, expected, "backward {what}");
    for (n, at) in expected.iter().enumerate() {
        assert_eq!(cron.count_by(from, *at, tz, dst), n as u64 + 1, "up to {at} {what}");
        assert_eq!(cron.count_by(*at, to, tz, dst), (expected.len() - n - 1) as u64, "from {at} {what}");
    }
    assert_eq!(cron.count_by(from, to, tz, dst), expected.len() as u64, "{what}");
}

#[test]
fn every_change_of_the_clock_keeps_every_other_rule() {
    for zone_name in ZONES {
        let tz = zone(zone_name).unwrap();
        for change in tz.following(ts("2010-06-01T00:00:00Z")).take(3).map(|change| change.timestamp()) {
            let far = SignedDuration::from_hours(30);
            for text in ["0,30 0,1,2,3,23 * * *", "30 2 * * *"] {
                for dst in Dst::ALL {
                    agrees(&cron(text), &tz, dst, change - far, change + far);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn other_rules_agree_with_their_walk(
        text in a_pattern(),
        zone_name in proptest::sample::select(ZONES),
        dst in proptest::sample::select(&Dst::ALL[..]),
        pick in any::<u32>(),
        shift_s in -172_800_i64..86_400,
        span_s in 0_i64..259_200,
    ) {
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let tz = zone(zone_name).unwrap();
        let (from, to) = a_stretch(&tz, pick, shift_s, span_s);
        agrees(&cron, &tz, dst, from, to);
    }

    #[test]
    fn covered_stretches_are_covered_as_a_whole(
        text in a_pattern(),
        zone_name in proptest::sample::select(ZONES),
        pick in any::<u32>(),
        shift_s in -172_800_i64..86_400,
        steps in proptest::collection::vec(0_i64..200_000, 1..8),
    ) {
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let tz = zone(zone_name).unwrap();
        let (mut at, _) = a_stretch(&tz, pick, shift_s, 0);
        let minute = SignedDuration::from_mins(1);
        for step in steps {
            at += SignedDuration::from_secs(step);
            let covered = cron.covers(at, &tz);
            let wall = tz.to_datetime(at).with().second(0).subsec_nanosecond(0).build().unwrap();
            prop_assert_eq!(covered, cron.0.parsed.is_time_matching(&wall).unwrap());
            let (since, until) = if covered {
                (Some(cron.covered_since(at, &tz)), Some(cron.covered_until(at, &tz)))
            } else {
                (cron.last_covered_end(at, &tz), cron.next_covered(at, &tz))
            };
            let (since, until) = (since.unwrap_or(at), until.unwrap_or(at + minute));
            prop_assert!(since <= at && at < until, "{since} {at} {until}");
            if !covered {
                prop_assert!(cron.covers(until, &tz), "{until} begins what is covered");
                prop_assert!(cron.covers(since - SignedDuration::from_secs(1), &tz), "{since} ends it");
            }
            // Every minute of what is near, in real time.
            let mut look = since.max(at - SignedDuration::from_hours(50));
            while look < until.min(at + SignedDuration::from_hours(50)) {
                prop_assert_eq!(cron.covers(look, &tz), covered, "{} of {} at {}", look, text, at);
                look += minute;
            }
        }
    }
}
