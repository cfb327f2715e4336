//! What is read, what is refused and with which sentence, and the fires that people know by heart.

mod rule;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Cron, CronError, CronPool};
use crate::time::zone;

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn ts(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn refused(text: &str) -> String {
    match Cron::parse(text) {
        Ok(cron) => panic!("{text} was accepted as {cron:?}"),
        Err(e) => e.to_string(),
    }
}

/// The next `n` instants as wall-clock times with offset.
fn fires(text: &str, tz: &str, after: &str, n: usize) -> Vec<String> {
    let (cron, tz) = (cron(text), zone(tz).unwrap());
    let mut at = ts(after);
    let mut fires = Vec::new();
    for _ in 0..n {
        let Some(next) = cron.next_after(at, &tz) else {
            break;
        };
        assert!(next > at, "{text} stands still at {at}");
        fires.push(next.to_zoned(tz.clone()).strftime("%m-%d %H:%M:%S%z").to_string());
        at = next;
    }
    fires
}

#[test]
fn the_documented_forms_are_read() {
    for (text, normal) in [
        ("0 9 * * MON-FRI", "0 9 * * MON-FRI"),
        ("  0\t9  * *   mon-fri ", "0 9 * * mon-fri"),
        ("*/10 0 9 * * *", "*/10 0 9 * * *"),
        ("0 0 9 1 1 * 2030", "0 0 9 1 1 * 2030"),
        ("@Daily", "@daily"),
        ("@midnight", "@midnight"),
        ("0 0 L * ?", "0 0 L * ?"),
        ("0 0 LW * *", "0 0 LW * *"),
        ("0 0 15W * *", "0 0 15W * *"),
        ("0 0 ? * 5#3", "0 0 ? * 5#3"),
        ("0 0 * * FRIL", "0 0 * * FRIL"),
        ("0 0 * * FRI-SUN", "0 0 * * FRI-SUN"),
        ("0 0 13 * +FRI", "0 0 13 * +FRI"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 29 2 1#5", "0 0 29 2 1#5"),
        ("5-50/15 1,2,3 * jan,Jul *", "5-50/15 1,2,3 * jan,Jul *"),
    ] {
        assert_eq!(cron(text).text(), normal);
        assert_eq!(cron(cron(text).text()), cron(text));
    }
}

#[test]
fn nicknames_are_their_patterns() {
    for (name, text) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ] {
        let from = "2026-02-27T23:30:00Z";
        assert_eq!(fires(name, "Europe/Berlin", from, 5), fires(text, "Europe/Berlin", from, 5), "{name}");
    }
}

#[test]
fn refusals_name_the_field_and_its_range() {
    for (text, sentence) in [
        ("60 * * * *", "minute must be 0-59, not \"60\""),
        ("* 24 * * *", "hour must be 0-23, not \"24\""),
        ("* * 0 * *", "day of month must be 1-31, not \"0\""),
        ("* * * 13 *", "month must be 1-12 or JAN-DEC, not \"13\""),
        ("* * * MON *", "month must be 1-12 or JAN-DEC, not \"MON\""),
        ("* * * * 8", "day of week must be 0-7 or SUN-SAT, not \"8\""),
        ("* * * * MONDAY", "day of week must be 0-7 or SUN-SAT, not \"MONDAY\""),
        ("JAN * * * *", "minute must be 0-59, not \"JAN\""),
        ("H * * * *", "minute must be 0-59, not \"H\""),
        ("61 * * * * *", "second must be 0-59, not \"61\""),
        ("0 0 0 1 1 * 1969", "year must be 1970-4999, not \"1969\""),
        ("*/0 * * * *", "the step of minute must be a number from 1, not \"0\""),
        ("*/X * * * *", "the step of minute must be a number from 1, not \"X\""),
        ("5/15 * * * *", "5/15 of minute has no end; write 5-59/15"),
        ("50-10 * * * *", "minute 50-10 runs backwards; write the two ends as a list of ranges"),
        ("1,,2 * * * *", "minute has an empty entry in \"1,,2\""),
        ("*,5 * * * *", "minute mixes * with other entries in \"*,5\""),
        ("? * * * *", "? stands alone, for day of month or day of week"),
        ("* * * * L", "day of week must be 0-7 or SUN-SAT, not \"L\""),
        ("* * * * 1#6", "the number after # of day of week must be 1-5 or L, not \"6\""),
        (
            "@reboot",
            "@reboot is not known; use one of @yearly @annually @monthly @weekly @daily @midnight @hourly",
        ),
        ("", "the pattern is empty; write e.g. 0 9 * * MON-FRI"),
        (
            "* * *",
            "\"* * *\" has 3 fields; a pattern has 5, 6 with leading seconds, 7 with a trailing year too",
        ),
    ] {
        assert_eq!(refused(text), sentence, "{text}");
    }
    // What only the parser sees is its word, as our sentence.
    assert!(refused("0 0 1-2-3 * *").starts_with("day of month must be"));
    assert!(refused("0 0 1W-3 * *").starts_with("day of month must be"));
}

#[test]
fn a_pattern_without_a_date_is_refused_at_once() {
    for text in [
        "0 0 31 2 *",
        "0 0 30 FEB *",
        "0 0 31 4,6,9,11 *",
        "0 0 0 29 2 * 2027",
        "0 0 0 29 2 * 2027,2029,2100",
        "0 0 1 * +1#2",
    ] {
        let started = std::time::Instant::now();
        assert!(matches!(Cron::parse(text), Err(CronError::NeverFires(_))), "{text}");
        assert!(started.elapsed().as_millis() < 200, "{text}: {:?}", started.elapsed());
    }
    assert_eq!(refused("0 0  31 2 *"), "\"0 0 31 2 *\" never fires: no date from 1970 on matches it");
}

#[test]
fn a_pattern_of_past_years_is_valid_and_has_no_next() {
    let past = cron("0 0 12 29 2 * 2020,2024,2025");
    let utc = TimeZone::UTC;
    assert_eq!(past.next_after(ts("2020-03-01T00:00:00Z"), &utc), Some(ts("2024-02-29T12:00:00Z")));
    assert_eq!(past.next_after(ts("2024-02-29T12:00:00Z"), &utc), None);
    assert_eq!(past.last_at_or_before(ts("2026-01-01T00:00:00Z"), &utc), Some(ts("2024-02-29T12:00:00Z")));
    assert_eq!(past.count(ts("2000-01-01T00:00:00Z"), ts("2090-01-01T00:00:00Z"), &utc), 2);
}

#[test]
fn surprises_are_told() {
    for quiet in
        ["*/15 * * * *", "0 */6 * * *", "0 9 1 * *", "0 9 ? * 1", "0 0 13 * +FRI", "* * * * *", "@daily"]
    {
        assert_eq!(cron(quiet).warnings(), Vec::<String>::new(), "{quiet}");
    }
    for (text, sentence) in [
        ("*/45 * * * *", "minute */45 fires at :00 and :45, not every 45 minutes"),
        ("*/90 * * * *", "minute */90 fires at :00, not every 90 minutes"),
        ("0 */5 * * *", "hour */5 fires at 00:00, 05:00, 10:00, 15:00 and 20:00, not every 5 hours"),
        ("*/7 * * * * *", "second */7 fires at :00, :07, :14 .. :56, not every 7 seconds"),
        ("0 0 */10 * *", "day of month */10 fires at 1, 11, 21 and 31, not every 10 days"),
        ("0 0 * * */3", "day of week */3 fires at SUN, WED and SAT, not every 3 days"),
        ("0 0 1 */5 *", "month */5 fires at JAN, JUN and NOV, not every 5 months"),
        ("0 9 13 * FRI", "day of month and day of week are both set: a day that matches either one fires"),
    ] {
        assert_eq!(cron(text).warnings(), [sentence], "{text}");
    }
}

#[test]
fn json_holds_the_text_and_clones_share_the_pattern() {
    let daily = cron("0  9 * * *");
    let json = serde_json::to_string(&daily).unwrap();
    assert_eq!(json, "\"0 9 * * *\"");
    assert_eq!(serde_json::from_str::<Cron>(&json).unwrap(), daily);
    assert!(serde_json::from_str::<Cron>("\"99 * * * *\"").is_err());

    let mut pool = CronPool::default();
    let shared = |a: &Cron, b: &Cron| std::sync::Arc::ptr_eq(&a.0, &b.0);
    let one = pool.parse("0 9 * * *").unwrap();
    assert!(shared(&one, &pool.parse("0 9 * * *").unwrap()));
    assert!(shared(&one, &pool.parse("0  9 * * *").unwrap()));
    assert!(shared(&one, &pool.parse("0  9 * * *").unwrap()));
    assert!(!shared(&one, &pool.parse("0 10 * * *").unwrap()));
    assert!(pool.parse("nonsense").is_err());
    assert_eq!(pool.len(), 3, "a refused text is not kept");
}

#[test]
fn the_next_instant_is_strictly_later_and_never_early() {
    let every = cron("* * * * *");
    let utc = TimeZone::UTC;
    let minute = ts("2026-05-01T09:00:00Z");
    for (after, next) in [
        ("2026-05-01T08:59:59.999999999Z", "2026-05-01T09:00:00Z"),
        ("2026-05-01T08:59:59Z", "2026-05-01T09:00:00Z"),
        ("2026-05-01T09:00:00Z", "2026-05-01T09:01:00Z"),
        ("2026-05-01T09:00:00.000000001Z", "2026-05-01T09:01:00Z"),
        ("2026-05-01T09:00:00.999Z", "2026-05-01T09:01:00Z"),
        ("1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:58:59.5Z", "1969-12-31T23:59:00Z"),
    ] {
        assert_eq!(every.next_after(ts(after), &utc), Some(ts(next)), "{after}");
    }
    assert_eq!(every.last_at_or_before(minute, &utc), Some(minute));
    assert_eq!(every.last_at_or_before(ts("2026-05-01T09:00:59.9Z"), &utc), Some(minute));
    assert_eq!(every.last_at_or_before(ts("2026-05-01T08:59:59.9Z"), &utc), Some(ts("2026-05-01T08:59:00Z")));
}

#[test]
fn fixed_times_run_once_over_a_change_of_the_clock() {
    // Berlin 2026: 02:00 -> 03:00 on 29 March, 03:00 -> 02:00 on 25 October.
    let (gap, overlap) = ("2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z");
    assert_eq!(fires("30 2 * * *", "Europe/Berlin", gap, 2), ["03-29 03:00:00+0200", "03-30 02:30:00+0200"]);
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", overlap, 2),
        ["10-25 02:30:00+0200", "10-26 02:30:00+0100"]
    );
    // Lists and ranges are fixed times too; two that meet at the end of the gap are one.
    assert_eq!(
        fires("0 1,2,3 * * *", "Europe/Berlin", gap, 3),
        ["03-29 01:00:00+0100", "03-29 03:00:00+0200", "03-30 01:00:00+0200"]
    );
    assert_eq!(
        fires("30 1-3 * * *", "Europe/Berlin", overlap, 4),
        ["10-25 01:30:00+0200", "10-25 02:30:00+0200", "10-25 03:30:00+0100", "10-26 01:30:00+0100"]
    );
    assert_eq!(
        fires("30 1-3 * * *", "Europe/Berlin", gap, 3),
        ["03-29 01:30:00+0100", "03-29 03:00:00+0200", "03-29 03:30:00+0200"]
    );
    // A start on the second pass lies behind all fixed times of the first.
    assert_eq!(fires("50 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26 02:50:00+0100"]);
}

#[test]
fn other_patterns_follow_real_time() {
    let (gap, overlap) = ("2026-03-29T00:15:00Z", "2026-10-24T23:45:00Z");
    assert_eq!(
        fires("*/30 * * * *", "Europe/Berlin", gap, 3),
        ["03-29 01:30:00+0100", "03-29 03:00:00+0200", "03-29 03:30:00+0200"]
    );
    assert_eq!(
        fires("*/30 * * * *", "Europe/Berlin", overlap, 5),
        [
            "10-25 02:00:00+0200",
            "10-25 02:30:00+0200",
            "10-25 02:00:00+0100",
            "10-25 02:30:00+0100",
            "10-25 03:00:00+0100"
        ]
    );
    assert_eq!(
        fires("0 */2 * * *", "Europe/Berlin", overlap, 3),
        ["10-25 02:00:00+0200", "10-25 02:00:00+0100", "10-25 04:00:00+0100"]
    );
    assert_eq!(
        fires("*/30 * * * *", "America/New_York", "2026-11-01T04:45:00Z", 5),
        [
            "11-01 01:00:00-0400",
            "11-01 01:30:00-0400",
            "11-01 01:00:00-0500",
            "11-01 01:30:00-0500",
            "11-01 02:00:00-0500"
        ]
    );
}

#[test]
fn odd_zones_keep_the_rule() {
    // A change of half an hour: 02:00 -> 02:30 and 02:00 -> 01:30.
    assert_eq!(
        fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["10-04 02:30:00+1100", "10-05 02:15:00+1100"]
    );
    assert_eq!(
        fires("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:31:00Z", 4),
        ["04-05 01:45:00+1100", "04-05 01:30:00+1030", "04-05 01:45:00+1030", "04-05 02:00:00+1030"]
    );
    // A gap at midnight: 00:00 -> 01:00.
    assert_eq!(
        fires("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", 2),
        ["04-24 01:00:00+0300", "04-25 00:00:00+0300"]
    );
    // Midnight comes once where the clock goes back over it.
    assert_eq!(
        fires("30 23 * * *", "Africa/Cairo", "2026-10-29T12:00:00Z", 2),
        ["10-29 23:30:00+0300", "10-30 23:30:00+0200"]
    );
    assert_eq!(
        fires("0 0 * * *", "Europe/London", "2026-03-28T12:00:00Z", 2),
        ["03-29 00:00:00+0000", "03-30 00:00:00+0100"]
    );
    // A gap that ends on another day (23:00 Saturday -> 00:00 Sunday) loses no run either.
    assert_eq!(
        fires("30 23 * * 6", "America/Scoresbysund", "2026-03-28T12:00:00Z", 2),
        ["03-29 00:00:00-0100", "04-04 23:30:00-0100"]
    );
    // A whole day that never was.
    assert_eq!(
        fires("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3),
        ["12-29 09:00:00-1000", "12-31 00:00:00+1400", "12-31 09:00:00+1400"]
    );
    assert_eq!(
        fires("0 */12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3),
        ["12-29 12:00:00-1000", "12-31 00:00:00+1400", "12-31 12:00:00+1400"]
    );
}

#[test]
fn rare_and_distant_patterns_are_found_fast() {
    let started = std::time::Instant::now();
    let berlin = zone("Europe/Berlin").unwrap();
    let next = |text: &str| cron(text).next_after(ts("2026-01-01T00:00:00Z"), &berlin).unwrap().to_string();
    assert_eq!(next("*/30 4 29 2 +1#5"), "2044-02-29T03:00:00Z");
    assert_eq!(next("0 */8 0 1 7 * 2999"), "2999-06-30T22:00:00Z");
    assert_eq!(next("0 0 12 1 7 * 4999"), "4999-07-01T10:00:00Z");
    assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
}

#[test]
fn counting_decades_of_seconds_is_arithmetic() {
    let started = std::time::Instant::now();
    let berlin = zone("Europe/Berlin").unwrap();
    let (from, to) = (ts("2026-01-01T00:00:00Z"), ts("2098-01-01T00:00:00Z"));
    let seconds = u64::try_from(to.duration_since(from).as_secs()).unwrap();
    let every = cron("* * * * * *");
    assert_eq!(every.count(from, to, &berlin), seconds);
    // A day pattern that follows real time loses and gains the hours of the changes.
    assert_eq!(cron("0 * * * *").count(from, to, &berlin), seconds / 3600);
    // Fixed times run once a day, changes or not.
    let days = seconds / 86_400;
    assert_eq!(cron("30 2 * * *").count(from, to, &berlin), days);
    assert_eq!(cron("0 0 29 2 *").count(from, to, &berlin), 18);
    assert_eq!(every.last_at_or_before(to, &berlin), Some(to));
    assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
}

/// A pattern of one year has nothing before its first and behind its last time but what a clock that is set back
/// shows again.
#[test]
fn a_repeated_hour_has_the_first_and_the_last_time_of_a_pattern_too() {
    let berlin = zone("Europe/Berlin").unwrap();
    let (first, second) = (ts("2026-10-25T00:30:00Z"), ts("2026-10-25T01:30:00Z"));
    let interval = cron("0 */30 2 25 10 ? 2026");
    let all =
        ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
    let found: Vec<_> =
        std::iter::successors(interval.next_after(ts("2026-01-01T00:00:00Z"), &berlin), |at| {
            interval.next_after(*at, &berlin)
        })
        .collect();
    assert_eq!(found, all.map(ts));
    assert_eq!(interval.last_at_or_before(ts("2026-10-25T00:59:59Z"), &berlin), Some(first));
    let both = crate::model::Dst { overlap: crate::model::DstOverlap::Both, ..crate::model::Dst::default() };
    let fixed = cron("0 30 2 25 10 ? 2026");
    assert_eq!(fixed.next_after_by(first, &berlin, both), Some(second));
    assert_eq!(fixed.next_after_by(second, &berlin, both), None);
    // On the second pass, before the time comes again, the last one is that of the first pass.
    assert_eq!(fixed.last_at_or_before_by(ts("2026-10-25T01:10:00Z"), &berlin, both), Some(first));
    assert_eq!(fixed.last_at_or_before_by(ts("2026-10-25T00:10:00Z"), &berlin, both), None);
}

mod any_text {
    //! Whatever is written as a pattern is read or refused; what is read comes back from its text.

    use proptest::prelude::*;

    use super::*;

    fn a_word() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[0-9]{1,4}",
            3 => "[0-9]{1,2}-[0-9]{1,2}(/[0-9]{1,3})?",
            3 => "\\*(/[0-9]{1,3})?",
            2 => "[0-9]{0,2}[LW#?H+][0-9LW]{0,2}",
            1 => "(MON|sun|Jan|DEC|H\\(1-9\\)|LW)([-,#/][0-9A-Z]{1,3})?",
            1 => "[ -~]{0,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_read_or_refused(words in proptest::collection::vec(a_word(), 0..9), any in ".{0,30}") {
            for text in [words.join(" "), any] {
                if let Ok(cron) = Cron::parse_for("agent", &text) {
                    prop_assert_eq!(Cron::parse(cron.text()).unwrap(), cron.clone(), "{}", text);
                    let from = ts("2026-01-01T00:00:00Z");
                    let tz = TimeZone::UTC;
                    let next = cron.next_after(from, &tz);
                    prop_assert!(next.is_none_or(|next| next > from));
                    if let Some(next) = next {
                        prop_assert_eq!(cron.last_at_or_before(next, &tz), Some(next), "{}", text);
                        prop_assert_eq!(cron.count(from, next, &tz), 1, "{}", text);
                    }
                    let _ = cron.warnings();
                }
            }
        }
    }
}
