//! The rule of cron patterns and clock changes, written down a second time and as slowly as can be: walk real
//! time step by step, look at the wall clock of each step, match it against the fields.
//!
//! Nothing of it is shared with what it judges. Of jiff it takes the offset of an instant and nothing else; dates
//! are computed here, fields are read here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use matins::model::{Dst, DstGap, DstOverlap};

/// A wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    /// 0 is Sunday.
    pub weekday: i64,
}

/// The wall clock that shows `seconds` since 1970-01-01T00:00:00 on the wall.
pub fn wall(seconds: i64) -> Wall {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (mut year, mut left) = (1970, days);
    while left < 0 {
        year -= 1;
        left += year_days(year);
    }
    while left >= year_days(year) {
        left -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while left >= month_days(year, month) {
        left -= month_days(year, month);
        month += 1;
    }
    Wall {
        year,
        month,
        day: left + 1,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
        weekday: (days + 4).rem_euclid(7),
    }
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_days(year: i64) -> i64 {
    if leap(year) { 366 } else { 365 }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A pattern of seven fields: second, minute, hour, day, month, weekday, year.
#[derive(Debug, Clone)]
pub struct Pattern([String; 7]);

impl Pattern {
    /// Reads a pattern of 5, 6 or 7 fields.
    pub fn read(text: &str) -> Self {
        let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if fields.len() == 5 {
            fields.insert(0, "0".to_owned());
        }
        if fields.len() == 6 {
            fields.push("*".to_owned());
        }
        Self(fields.try_into().expect("seven fields"))
    }

    /// Whether its times are fixed: neither hour nor minute is a star or a step.
    pub fn fixed(&self) -> bool {
        !self.0[1..3].iter().any(|field| field.contains('*') || field.contains('/'))
    }

    /// Whether it names the second of this wall clock.
    pub fn matches(&self, wall: &Wall) -> bool {
        let [second, minute, hour, _, _, _, year] = &self.0;
        number(second, wall.second, 0, 59, &[])
            && number(minute, wall.minute, 0, 59, &[])
            && number(hour, wall.hour, 0, 23, &[])
            && number(year, wall.year, 1970, 4999, &[])
            && self.matches_day(wall)
    }

    fn matches_day(&self, wall: &Wall) -> bool {
        let [_, _, _, day, month, weekday, _] = &self.0;
        let open = |field: &str| field == "*" || field == "?";
        let of_month = day.split(',').any(|part| day_of_month(part, wall));
        let days = weekday.strip_prefix('+').unwrap_or(weekday);
        let of_week = days.split(',').any(|part| day_of_week(part, wall));
        let both = open(day) || open(weekday) || weekday.starts_with('+');
        number(month, wall.month, 1, 12, &MONTHS)
            && if both { of_month && of_week } else { of_month || of_week }
    }
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

fn value(text: &str, least: i64, names: &[&str]) -> i64 {
    match names.iter().position(|name| *name == text) {
        Some(at) => least + i64::try_from(at).unwrap(),
        None => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
    }
}

/// A list of stars, values, ranges and steps.
fn number(field: &str, value_now: i64, least: i64, most: i64, names: &[&str]) -> bool {
    field.split(',').any(|part| {
        let (range, step) =
            part.split_once('/').map_or((part, 1), |(range, step)| (range, value(step, 0, &[])));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (value(from, least, names), value(to, least, names)),
            None => (value(range, least, names), value(range, least, names)),
        };
        (from..=to).contains(&value_now) && (value_now - from) % step == 0
    })
}

fn day_of_month(part: &str, wall: &Wall) -> bool {
    let last = month_days(wall.year, wall.month);
    match part {
        "?" => true,
        "L" => wall.day == last,
        "LW" => wall.day == nearest_weekday(wall, last),
        _ => match part.strip_suffix('W') {
            Some(day) => {
                let day = value(day, 1, &[]);
                day <= last && wall.day == nearest_weekday(wall, day)
            }
            None => number(part, wall.day, 1, 31, &[]),
        },
    }
}

/// The working day nearest to a day of the month of `wall`, in the same month.
fn nearest_weekday(wall: &Wall, day: i64) -> i64 {
    let last = month_days(wall.year, wall.month);
    match (wall.weekday + day - wall.day).rem_euclid(7) {
        6 if day > 1 => day - 1,
        6 => day + 2,
        0 if day < last => day + 1,
        0 => day - 2,
        _ => day,
    }
}

fn day_of_week(part: &str, wall: &Wall) -> bool {
    if part == "?" {
        return true;
    }
    if let Some((day, nth)) = part.split_once('#') {
        let which = if nth == "L" { last_week(wall) } else { (wall.day - 1) / 7 + 1 == value(nth, 1, &[]) };
        return which && weekday(day, wall);
    }
    match part.strip_suffix('L') {
        Some(day) => last_week(wall) && weekday(day, wall),
        None => weekday(part, wall),
    }
}

fn last_week(wall: &Wall) -> bool {
    wall.day + 7 > month_days(wall.year, wall.month)
}

/// 0 and 7 are Sunday.
fn weekday(part: &str, wall: &Wall) -> bool {
    number(part, wall.weekday, 0, 7, &DAYS)
        || (wall.weekday == 0 && !part.contains('*') && number(part, 7, 0, 7, &DAYS))
}

/// Real time around a change of the clock, step by step, with the wall clock of each step, in seconds.
pub struct Walk {
    step: i64,
    steps: Vec<(i64, i64)>,
    /// Each wall-clock time that comes, with the instants that show it, in their order.
    shown: BTreeMap<i64, Vec<i64>>,
    walls: Vec<Wall>,
}

impl Walk {
    /// Walks from `from` to `to`, Unix seconds.
    pub fn new(tz: &TimeZone, from: i64, to: i64, step: i64) -> Self {
        let offset = |at: i64| i64::from(tz.to_offset(Timestamp::from_second(at).unwrap()).seconds());
        let steps: Vec<(i64, i64)> =
            (from..=to).step_by(usize::try_from(step).unwrap()).map(|at| (at, at + offset(at))).collect();
        let mut shown: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (at, local) in &steps {
            shown.entry(*local).or_default().push(*at);
        }
        let walls = steps.iter().map(|(_, local)| wall(*local)).collect();
        Self { step, steps, shown, walls }
    }

    /// The instants of a pattern in `(after, until]` by the rule of semantics 4.
    pub fn instants(&self, pattern: &Pattern, dst: Dst, after: i64, until: i64) -> Vec<i64> {
        let named: Vec<(i64, i64)> = self
            .steps
            .iter()
            .zip(&self.walls)
            .filter(|(_, wall)| pattern.matches(wall))
            .map(|(step, _)| *step)
            .collect();
        let mut found: Vec<i64> = if pattern.fixed() {
            let shown =
                named.iter().flat_map(|(_, local)| match (self.shown[local].as_slice(), dst.overlap) {
                    ([first, ..], DstOverlap::First) => vec![*first],
                    ([.., last], DstOverlap::Last) => vec![*last],
                    (all, _) => all.to_vec(),
                });
            let skipped = if dst.gap == DstGap::After { self.skipped(pattern) } else { Vec::new() };
            shown.chain(skipped).collect()
        } else {
            named.iter().map(|(at, _)| *at).collect()
        };
        found.retain(|at| *at > after && *at <= until);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The ends of the gaps in which a time of the pattern lies.
    fn skipped(&self, pattern: &Pattern) -> Vec<i64> {
        let mut found = Vec::new();
        for pair in self.steps.windows(2) {
            let ((_, before), (at, local)) = (pair[0], pair[1]);
            let mut missing = before + self.step;
            while missing < local {
                if pattern.matches(&wall(missing)) {
                    found.push(at);
                    break;
                }
                missing += self.step;
            }
        }
        found
    }
}
