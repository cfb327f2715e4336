//! How many instants of a pattern lie in a stretch of time, by arithmetic: a clock that was set
//! forward by decades must cost nothing, not even for a pattern of every second.
//!
//! Which times of day match does not depend on the day, so a stretch of wall clock is a part of its
//! first day, whole days and a part of its last. Which days match depends only on the length of the
//! year and the weekday of its first day: there are fourteen kinds of years, and a table for each,
//! made when it is first needed. The changes of the clock inside the stretch then add what they
//! repeat and take away what they skip.

use std::sync::OnceLock;

use croner::CronPattern;
use croner::time::Weekday;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

use super::zoned::{SECOND, floor, settled_wall};
use super::{Cron, Pattern, Times};

/// Stretches up to so many days are counted day by day, which is cheaper than a table.
const DAY_BY_DAY: i64 = 40;

impl Cron {
    /// How many instants lie in `(after, until]`; cost grows with the clock changes between
    /// them, never with the instants.
    #[must_use]
    pub fn count(&self, after: Timestamp, until: Timestamp, tz: &TimeZone) -> u64 {
        let (after, until) = (floor(after), floor(until));
        if after >= until {
            return 0;
        }
        let count = if self.0.fixed {
            self.0.count_fixed(after, until, tz)
        } else {
            self.0.count_interval(after, until, tz)
        };
        count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}

/// A change of the clock: the wall clock that would have been and the one that is.
pub(super) struct Change {
    pub at: Timestamp,
    pub old: DateTime,
    pub new: DateTime,
}

impl Pattern {
    /// Walls of `[from, to)` in real time: the difference of the wall clocks, corrected by what
    /// each change between them skips or repeats.
    pub(super) fn count_interval(&self, after: Timestamp, until: Timestamp, tz: &TimeZone) -> Option<i64> {
        let from = after.checked_add(SECOND).ok()?;
        let mut count = self.count_walls(
            tz.to_offset(from).to_datetime(from),
            next_second(tz.to_offset(until).to_datetime(until))?,
        );
        for change in changes(from, until, tz) {
            count += self.count_walls(change.new, change.old);
        }
        Some(count)
    }

    /// Fixed times of the wall clock, each once; those of one gap are one instant together, and
    /// the time at the end of the gap is the same one.
    pub(super) fn count_fixed(&self, after: Timestamp, until: Timestamp, tz: &TimeZone) -> Option<i64> {
        let mut count =
            self.count_walls(next_second(settled_wall(after, tz)?)?, next_second(settled_wall(until, tz)?)?);
        for change in changes(after, until, tz) {
            if change.old < change.new {
                let merged = self.count_walls(change.old, next_second(change.new)?);
                count -= (merged - 1).max(0);
            }
        }
        Some(count)
    }

    /// Matching seconds of the wall clock in `[from, to)`; negative where `to` is earlier.
    pub(super) fn count_walls(&self, from: DateTime, to: DateTime) -> i64 {
        if to < from {
            return -self.count_walls(to, from);
        }
        let times = |wall: DateTime| {
            let matches = matches_day(&self.parsed.pattern, wall.date());
            if matches { self.times.before(wall.time()) } else { 0 }
        };
        let days = self.days.count(&self.parsed.pattern, from.date(), to.date());
        days * self.times.per_day() + times(to) - times(from)
    }
}

/// Changes of the offset in `(from, until]`.
pub(super) fn changes(from: Timestamp, until: Timestamp, tz: &TimeZone) -> impl Iterator<Item = Change> + '_ {
    let mut offset = tz.to_offset(from);
    tz.following(from).take_while(move |change| change.timestamp() <= until).filter_map(move |change| {
        let old = std::mem::replace(&mut offset, change.offset());
        let wall = |offset: Offset| offset.to_datetime(change.timestamp());
        (old != offset).then(|| Change { at: change.timestamp(), old: wall(old), new: wall(offset) })
    })
}

fn next_second(wall: DateTime) -> Option<DateTime> {
    wall.checked_add(SECOND).ok()
}

impl Times {
    fn per_day(self) -> i64 {
        ones(self.hours) * ones(self.minutes) * ones(self.seconds)
    }

    /// Matching times of the day strictly before `time`.
    fn before(self, time: Time) -> i64 {
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let mut count = below(self.hours, hour) * ones(self.minutes) * ones(self.seconds);
        if has(self.hours, hour) {
            count += below(self.minutes, minute) * ones(self.seconds);
            if has(self.minutes, minute) {
                count += below(self.seconds, second);
            }
        }
        count
    }
}

fn ones(bits: u64) -> i64 {
    i64::from(bits.count_ones())
}

fn below(bits: u64, value: i8) -> i64 {
    ones(bits & ((1 << value) - 1))
}

pub(super) fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

pub(super) fn matches_day(pattern: &CronPattern, day: Date) -> bool {
    pattern.year_match(i32::from(day.year())).unwrap_or(false) && matches_day_of_year(pattern, day)
}

fn matches_day_of_year(pattern: &CronPattern, day: Date) -> bool {
    let number = |part: i8| u32::from(part.unsigned_abs());
    let (month, weekday) = (number(day.month()), number(day.weekday().to_sunday_zero_offset()));
    pattern.month_match(month).unwrap_or(false)
        && pattern
            .day_match(
                i32::from(day.year()),
                month,
                number(day.day()),
                Weekday::from_days_from_sunday(weekday),
            )
            .unwrap_or(false)
}

/// The matching days of a pattern, whatever the year field says, by kind of year. `n`th entry of a
/// table: matching days among the first `n` days of the year.
#[derive(Default)]
pub(super) struct Days([OnceLock<Box<[u16]>>; 14]);

impl Days {
    fn table(&self, pattern: &CronPattern, year: i16) -> &[u16] {
        let Some((kind, first)) = kind_of(year) else {
            return &[];
        };
        self.0[kind].get_or_init(|| {
            let mut table = vec![0];
            for day in first.series(jiff::Span::new().days(1)).take_while(|day| day.year() == year) {
                let before = table.last().copied().unwrap_or(0);
                table.push(before + u16::from(matches_day_of_year(pattern, day)));
            }
            table.into_boxed_slice()
        })
    }

    /// Matching days in `[from, to)`.
    fn count(&self, pattern: &CronPattern, from: Date, to: Date) -> i64 {
        if to <= from {
            return 0;
        }
        let short = from.duration_until(to).as_hours() <= DAY_BY_DAY * 24;
        if short {
            let days = from.series(jiff::Span::new().days(1)).take_while(|day| *day < to);
            return days.map(|day| i64::from(matches_day(pattern, day))).sum();
        }
        let in_year = |year: i16| {
            if !pattern.year_match(i32::from(year)).unwrap_or(false) {
                return 0;
            }
            let table = self.table(pattern, year);
            let upto = |day: Date| {
                let index = usize::from(day.day_of_year().unsigned_abs()) - 1;
                table.get(index).copied().unwrap_or(0)
            };
            let start = if year == from.year() { upto(from) } else { 0 };
            let end = if year == to.year() { upto(to) } else { table.last().copied().unwrap_or(0) };
            i64::from(end) - i64::from(start)
        };
        (from.year()..=to.year()).map(in_year).sum()
    }

    /// The last matching day, [`Date::MAX`] where the year is free; `None` where no day matches.
    pub(super) fn last(&self, pattern: &CronPattern) -> Option<Date> {
        /// 28 years that hold every kind of year.
        const EVERY_KIND: std::ops::RangeInclusive<i16> = 2001..=2028;
        let has_days = |year: i16| self.table(pattern, year).last().is_some_and(|days| *days > 0);
        if pattern.years.from_wildcard && pattern.years.step == 1 {
            return EVERY_KIND.clone().any(has_days).then_some(Date::MAX);
        }
        let year = (1970..5000)
            .rev()
            .find(|&year| pattern.year_match(i32::from(year)).unwrap_or(false) && has_days(year))?;
        let table = self.table(pattern, year);
        let last = table.iter().position(|days| Some(days) == table.last())?;
        // The count first reaches its end after the last matching day.
        let days = jiff::Span::new().days(i64::try_from(last).ok()? - 1);
        Date::new(year, 1, 1).ok()?.checked_add(days).ok()
    }
}

/// Which of the fourteen kinds a year is, and its first day.
fn kind_of(year: i16) -> Option<(usize, Date)> {
    let first = Date::new(year, 1, 1).ok()?;
    let weekday = usize::from(first.weekday().to_sunday_zero_offset().unsigned_abs());
    Some((weekday + if first.in_leap_year() { 7 } else { 0 }, first))
}
