//! Dates and times as people write them in a definition: `2026-12-24`, `2026-12-01T09:00`,
//! `2026-12-01T09:00:00+01:00`.
//!
//! A time without an offset is one of a wall clock and becomes an instant only together with a zone:
//! an agent's `exclude:` is read once and means another instant in each schedule's zone.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A written time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// A day.
    Day(Date),
    /// A time of a wall clock.
    Wall(DateTime),
    /// An instant.
    Exact(Timestamp),
}

/// What a clock change does to a time of a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// The clock skips it.
    Skipped,
    /// The clock shows it twice.
    Twice,
}

impl Written {
    /// Reads a date, a time, or a time with its offset from UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // The library also takes week dates, bare years and other forms that nobody means here.
        if text.as_bytes().get(4) != Some(&b'-') || text.as_bytes().get(7) != Some(&b'-') {
            return None;
        }
        if text.len() == "2026-12-24".len() {
            return text.parse().ok().map(Self::Day);
        }
        let timed = text.get(10..11).is_some_and(|c| matches!(c, "T" | "t" | " "));
        if !timed || text.contains('[') {
            return None;
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Some(Self::Exact(instant));
        }
        text.parse().ok().map(Self::Wall)
    }

    /// Its instant in a zone; of a day the beginning.
    pub fn instant(self, tz: &TimeZone) -> Option<(Timestamp, Option<Clash>)> {
        match self {
            Self::Day(day) => Some((of_wall(midnight(day), tz)?.0, None)),
            Self::Wall(wall) => of_wall(wall, tz),
            Self::Exact(instant) => Some((instant, None)),
        }
    }

    /// The instant at which it is over: of a day the beginning of the next.
    pub fn end(self, tz: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Day(day) => Self::Day(day.tomorrow().ok()?).instant(tz).map(|(at, _)| at),
            other => other.instant(tz).map(|(at, _)| at),
        }
    }
}

fn midnight(day: Date) -> DateTime {
    day.to_datetime(Time::midnight())
}

/// The instant of a wall-clock time: the first of two, the end of the gap it lies in.
fn of_wall(wall: DateTime, tz: &TimeZone) -> Option<(Timestamp, Option<Clash>)> {
    let at = |offset: Offset| offset.to_timestamp(wall).ok();
    match tz.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => Some((at(offset)?, None)),
        AmbiguousOffset::Fold { before, .. } => Some((at(before)?, Some(Clash::Twice))),
        AmbiguousOffset::Gap { before, .. } => {
            // Read with the offset before the gap it lies after it, so the change is the last one.
            let after = at(before)?.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
            let change = tz.preceding(after).next()?;
            Some((change.timestamp(), Some(Clash::Skipped)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        crate::time::zone("Europe/Berlin").unwrap()
    }

    #[test]
    fn dates_and_times_are_read_and_other_forms_are_not() {
        assert!(matches!(Written::parse("2026-12-24"), Some(Written::Day(_))));
        for wall in ["2026-12-01T09:00", "2026-12-01 09:00:30", "2026-12-01T09:00"] {
            assert!(matches!(Written::parse(wall), Some(Written::Wall(_))), "{wall}");
        }
        for exact in ["2026-12-01T09:00Z", "2026-12-01T09:00:00+01:00"] {
            assert!(matches!(Written::parse(exact), Some(Written::Exact(_))), "{exact}");
        }
        for bad in
            ["", "2026", "2026-12", "20261201", "2026-W10-1", "2026-13-01", "2026-02-30", "09:00", "tomorrow"]
        {
            assert_eq!(Written::parse(bad), None, "{bad}");
        }
        assert_eq!(Written::parse("2026-12-01T09:00[Europe/Berlin]"), None);
        assert_eq!(Written::parse("2026-12-01T25:00"), None);
        assert_eq!(Written::parse("2026-12-0ä"), None);
    }

    #[test]
    fn a_wall_clock_time_is_an_instant_of_a_zone() {
        let at = |text: &str| {
            let (at, clash) = Written::parse(text).unwrap().instant(&berlin()).unwrap();
            (at.to_string(), clash)
        };
        assert_eq!(at("2026-12-01T09:00"), ("2026-12-01T08:00:00Z".into(), None));
        assert_eq!(at("2026-12-01T09:00+03:00"), ("2026-12-01T06:00:00Z".into(), None));
        assert_eq!(at("2026-03-29T02:30"), ("2026-03-29T01:00:00Z".into(), Some(Clash::Skipped)));
        assert_eq!(at("2026-10-25T02:30"), ("2026-10-25T00:30:00Z".into(), Some(Clash::Twice)));
        assert_eq!(at("2026-12-24"), ("2026-12-23T23:00:00Z".into(), None));
    }

    #[test]
    fn a_day_ends_with_the_next() {
        let end = |text: &str| Written::parse(text).unwrap().end(&berlin()).unwrap().to_string();
        assert_eq!(end("2026-12-24"), "2026-12-24T23:00:00Z");
        assert_eq!(end("2026-03-29"), "2026-03-29T22:00:00Z", "a day of 23 hours");
        assert_eq!(end("2026-12-24T12:00"), "2026-12-24T11:00:00Z");
        assert_eq!(Written::parse("9999-12-31").and_then(|w| w.end(&berlin())), None);
    }
}
