//! The time that a question names: `09:00`, `yesterday 09:00`, `2026-03-02 09:00`, RFC 3339.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// The stretch that a question means: the minute it names, or the second where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// First instant, Unix ms.
    pub from_ms: i64,
    /// First instant after it, Unix ms.
    pub to_ms: i64,
}

/// Reads a time; where it has no offset it is one of `tz`.
///
/// # Errors
/// A sentence.
pub fn parse(text: &str, now: Timestamp, tz: &TimeZone) -> Result<When, String> {
    let text = text.trim();
    let at = instant(text, now, tz).ok_or_else(|| {
        format!(
            "{text:?} is not a time; write 09:00, yesterday 09:00, 2026-03-02 09:00 or 2026-03-02T09:00:00Z"
        )
    })?;
    let from_ms = at.as_millisecond();
    let long = if names_seconds(text) { 1_000 } else { 60_000 };
    Ok(When { from_ms, to_ms: from_ms.saturating_add(long) })
}

fn instant(text: &str, now: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return at.round(jiff::Unit::Second).ok();
    }
    let local = |at: DateTime| tz.to_ambiguous_timestamp(at).compatible().ok();
    let local_text = |text: &str| text.parse::<DateTime>().ok().and_then(local);
    let (day, time) = match text.split_once(' ') {
        Some((day, time)) => (day, time.trim()),
        // A bare date would be its midnight, which nobody means.
        None if text.contains('-') => return local_text(text).filter(|_| text.contains(':')),
        None => ("today", text),
    };
    let days = match day.to_ascii_lowercase().as_str() {
        "today" => 0,
        "yesterday" => -1,
        "tomorrow" => 1,
        _ => return local_text(&format!("{day}T{time}")),
    };
    let today = tz.to_datetime(now).date();
    local(today.checked_add(days.days()).ok()?.to_datetime(time.parse::<Time>().ok()?))
}

/// Whether a time has a third part after its hour and minute.
fn names_seconds(text: &str) -> bool {
    let time = text.rsplit([' ', 'T']).next().unwrap_or(text);
    let clock = time.split(['+', '-', 'Z', 'z']).next().unwrap_or(time);
    clock.matches(':').count() == 2
}

/// A time of the past or the future as people say it beside a clock.
pub(super) fn distance(at_ms: i64, now_ms: i64) -> String {
    let seconds = SignedDuration::from_millis(at_ms.saturating_sub(now_ms)).as_secs();
    let text = crate::time::human_duration(std::time::Duration::from_secs(seconds.unsigned_abs()));
    let short: Vec<&str> = text.split(' ').take(2).collect();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", short.join(" ")),
        _ => format!("{} ago", short.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_the_zone_of_the_schedule() {
        let tz = crate::time::zone("Europe/Berlin").unwrap();
        let now: Timestamp = "2026-03-02T23:30:00Z".parse().unwrap();
        for (text, from, long) in [
            ("09:00", "2026-03-03T08:00:00Z", 60),
            ("today 09:00", "2026-03-03T08:00:00Z", 60),
            ("yesterday 09:00", "2026-03-02T08:00:00Z", 60),
            ("Tomorrow 09:00:30", "2026-03-04T08:00:30Z", 1),
            ("2026-03-01 09:00", "2026-03-01T08:00:00Z", 60),
            ("2026-03-01T09:00:05", "2026-03-01T08:00:05Z", 1),
            ("2026-03-01T09:00", "2026-03-01T08:00:00Z", 60),
            ("2026-03-01T09:00:00Z", "2026-03-01T09:00:00Z", 1),
            ("2026-03-01T09:00:00.000Z", "2026-03-01T09:00:00Z", 1),
            ("2026-03-01T09:00+02:00", "2026-03-01T07:00:00Z", 60),
        ] {
            let from_ms = from.parse::<Timestamp>().unwrap().as_millisecond();
            assert_eq!(parse(text, now, &tz), Ok(When { from_ms, to_ms: from_ms + long * 1_000 }), "{text}");
        }
        for bad in ["", "soon", "2026-03-01", "25:00", "yesterday", "9", "friday 09:00"] {
            assert!(parse(bad, now, &tz).unwrap_err().contains("is not a time"), "{bad}");
        }
    }

    #[test]
    fn distances_have_two_units() {
        assert_eq!(distance(3_725_000, 0), "in 1h 2m");
        assert_eq!(distance(0, 90_000), "1m 30s ago");
        assert_eq!(distance(0, 999), "now");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_time_is_read_or_refused(text in "(today|yesterday|tomorrow|[0-9]{1,5}-[0-9]{1,2}-[0-9]{1,2}|)[ T]?[0-9]{0,3}:?[0-9]{0,3}(:[0-9]{0,3})?(Z|\\+[0-9]{1,3}:00|)", any in ".{0,30}") {
            let tz = crate::time::zone("America/New_York").unwrap();
            for text in [&text, &any] {
                if let Ok(when) = parse(text, Timestamp::UNIX_EPOCH, &tz) {
                    prop_assert!(when.from_ms < when.to_ms, "{text}");
                }
            }
        }
    }
}
