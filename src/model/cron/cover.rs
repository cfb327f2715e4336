//! A pattern as a set of minutes: what `exclude:` means by it.
//!
//! An instant is covered where the minute of its wall-clock time matches; the second field says
//! nothing. Minutes follow real time whatever the pattern looks like: there is no fixed time to move
//! out of a gap. Stretches are found a day or an hour at once where the pattern names whole ones, so
//! `* * * * SAT,SUN` is one stretch a day and not 1 440.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::count::{has, matches_day};
use super::zoned::change_at_or_before;
use super::{Cron, Pattern};

/// A stretch that the pattern names as a whole.
#[derive(Clone, Copy)]
enum Unit {
    Day,
    Hour,
    Minute,
}

impl Cron {
    /// Whether the minute of `at` matches.
    #[must_use]
    pub fn covers(&self, at: Timestamp, tz: &TimeZone) -> bool {
        let wall = tz.to_datetime(at);
        has(self.0.times.hours, wall.hour())
            && has(self.0.times.minutes, wall.minute())
            && matches_day(&self.0.parsed.pattern, wall.date())
    }

    /// An instant after `at` up to which everything is covered as `at` is, itself not included.
    /// `at` is covered.
    #[must_use]
    pub fn covered_until(&self, at: Timestamp, tz: &TimeZone) -> Timestamp {
        let (offset, unit) = (tz.to_offset(at), self.0.unit());
        let end = offset.to_timestamp(unit.end(offset.to_datetime(at))).unwrap_or(Timestamp::MAX);
        match tz.following(at).next() {
            Some(change) if change.timestamp() < end => change.timestamp(),
            _ => end,
        }
    }

    /// The first instant of a stretch that ends with `at` and is covered as a whole. `at` is covered.
    #[must_use]
    pub fn covered_since(&self, at: Timestamp, tz: &TimeZone) -> Timestamp {
        let (offset, unit) = (tz.to_offset(at), self.0.unit());
        let begin = offset.to_timestamp(unit.begin(offset.to_datetime(at))).unwrap_or(Timestamp::MIN);
        change_at_or_before(at, tz).map_or(begin, |change| change.max(begin))
    }

    /// The first covered instant after `at`, which is not covered.
    #[must_use]
    pub fn next_covered(&self, at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let found = self.0.next_interval(super::zoned::floor(at), tz)?;
        let offset = tz.to_offset(found);
        offset.to_timestamp(Unit::Minute.begin(offset.to_datetime(found))).ok()
    }

    /// The first instant after the last covered stretch before `at`, which is not covered.
    #[must_use]
    pub fn last_covered_end(&self, at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let last = self.0.last_interval(super::zoned::floor(at), tz)?;
        let offset = tz.to_offset(last);
        let end = offset.to_timestamp(Unit::Minute.end(offset.to_datetime(last))).ok()?;
        let change = tz.following(last).next().map(|change| change.timestamp());
        Some(change.filter(|change| *change < end).unwrap_or(end))
    }
}

impl Pattern {
    fn unit(&self) -> Unit {
        let minutes = self.times.minutes.count_ones() == 60;
        match minutes && self.times.hours.count_ones() == 24 {
            true => Unit::Day,
            false if minutes => Unit::Hour,
            false => Unit::Minute,
        }
    }
}

impl Unit {
    fn begin(self, wall: DateTime) -> DateTime {
        let time = match self {
            Self::Day => Time::midnight(),
            Self::Hour => Time::constant(wall.hour(), 0, 0, 0),
            Self::Minute => Time::constant(wall.hour(), wall.minute(), 0, 0),
        };
        wall.date().to_datetime(time)
    }

    fn end(self, wall: DateTime) -> DateTime {
        let long = match self {
            Self::Day => SignedDuration::from_hours(24),
            Self::Hour => SignedDuration::from_hours(1),
            Self::Minute => SignedDuration::from_mins(1),
        };
        self.begin(wall).checked_add(long).unwrap_or(DateTime::MAX)
    }
}
