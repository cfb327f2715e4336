//! The instants of a timing, found by trying: every day, every hour and minute that the fields name.
//!
//! Written from the rules (semantics, sections 2 and 4) and not from the product's code: a fixed hour
//! and minute runs once a day, at the first instant after a gap, on the first pass of a repeated hour;
//! a pattern whose hour or minute is `*` or a step follows real time. No search, no arithmetic over
//! zones: a list of all instants of a stretch of days.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::scenario::{Dst, Exclude, Field, Pattern, Timing};

const DAY_MS: i64 = 86_400_000;

/// The timing of a schedule with its bounds.
#[derive(Debug, Clone)]
pub struct Calendar {
    timing: Timing,
    zone: TimeZone,
    dst: Dst,
    start: i64,
    end: i64,
}

impl Calendar {
    /// The calendar of a timing between `start` and `end`, Unix ms.
    pub fn new(timing: &Timing, dst: Dst, start: Option<i64>, end: Option<i64>) -> Self {
        let zone = match timing {
            Timing::Cron(pattern) => TimeZone::get(pattern.zone).unwrap(),
            _ => TimeZone::UTC,
        };
        let (start, end) = (start.unwrap_or(i64::MIN), end.unwrap_or(i64::MAX));
        Self { timing: timing.clone(), zone, dst, start, end }
    }

    /// Whether it names instants by itself.
    pub fn is_calendar(&self) -> bool {
        !matches!(self.timing, Timing::After(_) | Timing::Startup)
    }

    /// Every instant in `(after, until]`, ascending.
    pub fn between(&self, after: i64, until: i64) -> Vec<i64> {
        let (after, until) = (after.max(self.start.saturating_sub(1)), until.min(self.end.saturating_sub(1)));
        if until <= after {
            return Vec::new();
        }
        match &self.timing {
            Timing::Cron(pattern) => self.cron(pattern, after, until),
            Timing::Every { period_s, phase_s } => {
                let (period, phase) = (period_s * 1000, phase_s * 1000);
                let first = ((after - phase).div_euclid(period) + 1) * period + phase;
                std::iter::successors(Some(first), |at| Some(at + period))
                    .take_while(|at| *at <= until)
                    .collect()
            }
            Timing::At(at) => Some(*at).into_iter().filter(|at| *at > after && *at <= until).collect(),
            Timing::After(_) | Timing::Startup => Vec::new(),
        }
    }

    /// The first instant after `at`.
    pub fn next(&self, at: i64) -> Option<i64> {
        let from = at.max(self.start.saturating_sub(1));
        [2, 40, 400, 4000]
            .iter()
            .find_map(|days| self.between(from, from.saturating_add(days * DAY_MS)).first().copied())
            .or_else(|| match self.timing {
                Timing::At(own) => Some(own).filter(|own| *own > from && *own < self.end),
                _ => None,
            })
    }

    fn cron(&self, pattern: &Pattern, after: i64, until: i64) -> Vec<i64> {
        let mut found = Vec::new();
        let (mut day, last) = (self.date(after), self.date(until).tomorrow().unwrap());
        day = day.yesterday().unwrap();
        while day <= last {
            if day_matches(pattern, day) {
                self.of_day(pattern, day, &mut found);
            }
            day = day.tomorrow().unwrap();
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|at| *at > after && *at <= until);
        found
    }

    fn date(&self, at: i64) -> Date {
        self.zone.to_datetime(jiff::Timestamp::from_millisecond(at).unwrap()).date()
    }

    fn of_day(&self, pattern: &Pattern, day: Date, found: &mut Vec<i64>) {
        let second = i8::try_from(pattern.second.unwrap_or(0)).unwrap();
        let midnight = |d: Date| self.zone.to_ambiguous_timestamp(d.at(0, 0, 0, 0)).offset();
        let (begin, end) = (midnight(day), midnight(day.tomorrow().unwrap()));
        let steady = match (begin, end) {
            (AmbiguousOffset::Unambiguous { offset: a }, AmbiguousOffset::Unambiguous { offset: b })
                if a == b =>
            {
                Some(a)
            }
            _ => None,
        };
        for hour in (0..24).filter(|h| pattern.hour.has(*h)) {
            for minute in (0..60).filter(|m| pattern.minute.has(*m)) {
                let wall = day.at(i8::try_from(hour).unwrap(), i8::try_from(minute).unwrap(), second, 0);
                match steady {
                    Some(offset) => found.push(offset.to_timestamp(wall).unwrap().as_millisecond()),
                    None => self.of_wall(pattern, wall, found),
                }
            }
        }
    }

    /// The instants of one wall-clock time.
    fn of_wall(&self, pattern: &Pattern, wall: DateTime, found: &mut Vec<i64>) {
        let fixed = !pattern.hour.flowing && !pattern.minute.flowing;
        let ms = |offset: jiff::tz::Offset| offset.to_timestamp(wall).unwrap().as_millisecond();
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => found.push(ms(offset)),
            AmbiguousOffset::Gap { before, after } => {
                if fixed && !self.dst.gap_skip {
                    found.push(self.gap_end(ms(after), ms(before), before));
                }
            }
            AmbiguousOffset::Fold { before, after } => {
                let (first, last) = (ms(before), ms(after));
                match (fixed, self.dst.overlap) {
                    (true, "first") => found.push(first),
                    (true, "last") => found.push(last),
                    _ => found.extend([first, last]),
                }
            }
        }
    }

    /// The first instant in `(low, high]` at which the offset is no longer `before`, second by second.
    fn gap_end(&self, low: i64, high: i64, before: jiff::tz::Offset) -> i64 {
        let offset = |at: i64| self.zone.to_offset(jiff::Timestamp::from_millisecond(at).unwrap());
        (low..=high + 1000).step_by(1000).find(|at| offset(*at) != before).unwrap()
    }
}

fn number(day: Weekday) -> u32 {
    u32::try_from(day.to_sunday_zero_offset()).unwrap()
}

/// Day of month and day of week both set: a day that matches either.
fn day_matches(pattern: &Pattern, day: Date) -> bool {
    let of_month = if pattern.last_day {
        day == day.last_of_month()
    } else {
        pattern.day.has(u32::try_from(day.day()).unwrap())
    };
    let of_week = pattern.weekday.has(number(day.weekday()));
    let either = (pattern.last_day || !pattern.day.any()) && !pattern.weekday.any();
    let month = pattern.month.has(u32::try_from(day.month()).unwrap());
    month && if either { of_month || of_week } else { of_month && of_week }
}

impl Field {
    fn has(&self, value: u32) -> bool {
        self.set >> value & 1 == 1
    }

    fn any(&self) -> bool {
        self.text == "*"
    }
}

/// Whether an exclusion covers `at`, in the zone of the schedule.
pub fn excludes(exclude: &Exclude, zone: &TimeZone, at: i64) -> bool {
    let wall = zone.to_datetime(jiff::Timestamp::from_millisecond(at).unwrap());
    match exclude {
        Exclude::Dates(first, last) => wall.date() >= *first && wall.date() <= *last,
        Exclude::Cron(pattern) => {
            pattern.hour.has(u32::try_from(wall.hour()).unwrap())
                && pattern.minute.has(u32::try_from(wall.minute()).unwrap())
                && day_matches(pattern, wall.date())
        }
    }
}
