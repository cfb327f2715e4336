//! How the fires of two calendars differ in a range.
//!
//! Both are walked side by side, so what is told is exact, up to a number of steps that the caller
//! names; the totals are found by arithmetic and are exact, but that a total of many
//! excluded stretches counts the slots behind [`EXCLUDED_MAX`] of them too.

use super::{Calendar, coming, next_fire};
use crate::model::ClockNote;
use crate::time::{from_ms, zone};

/// Examples that are kept of each side.
pub const EXAMPLES: usize = 3;
/// Fires beside one change of the clock that are looked at for a note.
const NOTED_MAX: usize = 50;
/// Stretches of excluded slots that a total takes away one by one; a total behind them leaves them in.
const EXCLUDED_MAX: usize = 2_000;
/// How far from a change of the clock a fire can be that it touches: 3 h, ms.
const BESIDE_MS: i64 = 3 * 3_600_000;

/// Fires of one side that the other has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// How many.
    pub count: u64,
    /// The first of them, Unix ms.
    pub first: Vec<i64>,
}

impl Only {
    fn add(&mut self, at_ms: i64) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(at_ms);
        }
    }
}

/// How two calendars differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fires of the old one alone.
    pub removed: Only,
    /// Fires of the new one alone.
    pub added: Only,
    /// Up to where they were compared, Unix ms; `None`: to the end.
    pub compared_ms: Option<i64>,
}

/// Compares the fires of two calendars in `(after_ms, until_ms]`, with at most `steps` steps.
#[must_use]
pub fn compare(old: &Calendar, new: &Calendar, after_ms: i64, until_ms: i64, steps: usize) -> Comparison {
    let next = |calendar: &Calendar, at: i64| next_fire(calendar, at).filter(|at| *at <= until_ms);
    let (mut a, mut b) = (next(old, after_ms), next(new, after_ms));
    let mut found = Comparison::default();
    for _ in 0..steps {
        match (a, b) {
            (Some(x), Some(y)) if x == y => (a, b) = (next(old, x), next(new, y)),
            (Some(x), y) if y.is_none_or(|y| x < y) => {
                found.removed.add(x);
                a = next(old, x);
            }
            (_, Some(y)) => {
                found.added.add(y);
                b = next(new, y);
            }
            _ => return found,
        }
    }
    found.compared_ms = a.into_iter().chain(b).min().map(|at| at - 1);
    found
}

/// The fires of a calendar in `(after_ms, until_ms]`: how many, and the first of them.
#[must_use]
pub fn total(calendar: &Calendar, after_ms: i64, until_ms: i64) -> Only {
    let first: Vec<i64> = super::fires(calendar, after_ms, EXAMPLES);
    let first = first.into_iter().filter(|at| *at <= until_ms).collect();
    let mut count = calendar.count(after_ms, until_ms).map_or(0, |stretch| stretch.count);
    if let Some(exclusions) = calendar.exclusions() {
        let mut at_ms = after_ms;
        for _ in 0..EXCLUDED_MAX {
            // Fires are passed over a stretch at once, or one by one where they begin one.
            let Some(next) = coming(calendar, at_ms, until_ms) else { break };
            if next.excluded {
                count = count.saturating_sub(next.count);
                at_ms = next.until_ms;
            } else {
                at_ms = exclusions.alike_until(next.at_ms).saturating_sub(1).max(next.at_ms);
            }
        }
    }
    Only { count, first }
}

/// The fires in `(after_ms, until_ms]` that a change of the clock of `timezone` touches; at most `most`.
#[must_use]
pub fn noted(
    calendar: &Calendar,
    timezone: &str,
    after_ms: i64,
    until_ms: i64,
    most: usize,
) -> Vec<(i64, ClockNote)> {
    let Ok(tz) = zone(timezone) else { return Vec::new() };
    let mut found = Vec::new();
    for change in tz.following(from_ms(after_ms)) {
        let change_ms = change.timestamp().as_millisecond();
        if found.len() >= most || change_ms > until_ms.saturating_add(BESIDE_MS) {
            break;
        }
        let (mut at_ms, end_ms) = (after_ms.max(change_ms - BESIDE_MS), until_ms.min(change_ms + BESIDE_MS));
        for _ in 0..NOTED_MAX {
            let Some(next) = next_fire(calendar, at_ms).filter(|at| *at <= end_ms) else { break };
            at_ms = next;
            found.extend(calendar.clock_note(next).map(|note| (next, note)));
        }
    }
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ScheduleId;
    use crate::model::{Cron, Exclude, Schedule, Timing};

    fn calendar(text: &str, exclude: Option<&str>) -> Calendar {
        let timezone = "Europe/Berlin".to_owned();
        let cron = |text: &str| Cron::parse(text).unwrap();
        let timing = Timing::Cron { cron: cron(text), timezone: timezone.clone() };
        let not = exclude.map(|text| Exclude::Cron { cron: cron(text), timezone });
        let plain = Schedule::plain(ScheduleId::from("x".to_owned()), timing);
        Calendar::of(&Schedule { exclude: not.into_iter().collect(), ..plain }).unwrap()
    }

    fn ms(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn year() -> (i64, i64) {
        (ms("2026-01-01T00:00:00Z") - 1, ms("2027-01-01T00:00:00Z") - 1)
    }

    #[test]
    fn what_one_side_alone_fires_is_told_exactly() {
        let (from, to) = year();
        let (old, new) = (calendar("0 9 * * *", None), calendar("0 9 * * MON-FRI", None));
        let found = compare(&old, &new, from, to, 1_000);
        assert_eq!((found.removed.count, found.added.count, found.compared_ms), (104, 0, None));
        assert_eq!(found.removed.first[0], ms("2026-01-03T08:00:00Z"));
        let back = compare(&new, &old, from, to, 1_000);
        assert_eq!((back.removed, back.added), (found.added, found.removed));
        assert_eq!(compare(&old, &old, from, to, 1_000), Comparison::default());
        let never = compare(&old, &calendar("0 0 0 1 1 ? 2020", None), from, to, 1_000);
        assert_eq!((never.removed.count, never.added.count), (365, 0));
    }

    #[test]
    fn a_comparison_stops_after_its_steps_and_says_so() {
        let (from, to) = year();
        let (old, new) = (calendar("* * * * *", None), calendar("*/2 * * * *", None));
        let found = compare(&old, &new, from, to, 100);
        assert_eq!((found.removed.count, found.added.count), (50, 0));
        assert_eq!(found.compared_ms, Some(ms("2026-01-01T01:40:00Z") - 1));
        assert_eq!(total(&old, from, to).count, 525_600);
    }

    #[test]
    fn totals_leave_out_what_is_excluded() {
        let (from, to) = year();
        let weekdays = calendar("0 */2 * * *", Some("* * * * SAT,SUN"));
        let found = total(&weekdays, from, to);
        assert_eq!(
            found.count,
            compare(&weekdays, &calendar("0 0 0 1 1 ? 2020", None), from, to, 1 << 20).removed.count
        );
        assert!(total(&calendar("0 9 * * SAT", Some("* * * * SAT")), from, to).first.is_empty());
    }

    #[test]
    fn fires_that_a_change_of_the_clock_touches_are_noted() {
        let (from, to) = year();
        let notes = noted(&calendar("30 2 * * *", None), "Europe/Berlin", from, to, 10);
        let at: Vec<i64> = notes.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [ms("2026-03-29T01:00:00Z"), ms("2026-10-25T00:30:00Z")]);
        assert!(noted(&calendar("30 12 * * *", None), "Europe/Berlin", from, to, 10).is_empty());
    }
}
