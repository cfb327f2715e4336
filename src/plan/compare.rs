//! How the fires of two calendars differ in a range.
//!
//! Both are walked side by side, so what is told is exact, up to a number of steps that the caller
//! names; the totals are found by arithmetic, whatever the range. Exclusions are taken away from a total stretch
//! by stretch, up to a bound too; a total that was not taken to its end is the most that there can be.

use super::{Calendar, coming, next_fire};
use crate::model::ClockNote;
use crate::time::{from_ms, zone};

/// Examples that are kept of each side.
pub const EXAMPLES: usize = 3;
/// Fires beside one change of the clock that are looked at for a note.
const NOTED_MAX: usize = 50;
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

/// A calendar with what `max_runs` leaves of it.
#[derive(Debug, Clone, Copy)]
pub struct Limited<'a> {
    /// Its instants.
    pub calendar: &'a Calendar,
    /// Fires that count, from the beginning of the range; `None`: all.
    pub most: Option<u32>,
}

impl Limited<'_> {
    /// The fire after `at_ms` that is the `n`-th, counted from 0.
    fn next(self, n: u64, at_ms: i64, until_ms: i64) -> Option<i64> {
        let open = self.most.is_none_or(|most| n < u64::from(most));
        open.then(|| next_fire(self.calendar, at_ms)).flatten().filter(|at| *at <= until_ms)
    }
}

/// The fires of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    /// How many, and the first of them.
    pub fires: Only,
    /// Whether there may be fewer: not every exclusion was taken away.
    pub at_most: bool,
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
pub fn compare(old: Limited<'_>, new: Limited<'_>, after_ms: i64, until_ms: i64, steps: usize) -> Comparison {
    let (mut of_old, mut of_new) = (0, 0);
    let mut next_old = |at: i64| {
        of_old += 1;
        old.next(of_old - 1, at, until_ms)
    };
    let mut next_new = |at: i64| {
        of_new += 1;
        new.next(of_new - 1, at, until_ms)
    };
    let (mut a, mut b) = (next_old(after_ms), next_new(after_ms));
    let mut found = Comparison::default();
    for _ in 0..steps {
        match (a, b) {
            (Some(x), Some(y)) if x == y => (a, b) = (next_old(x), next_new(y)),
            (Some(x), y) if y.is_none_or(|y| x < y) => {
                found.removed.add(x);
                a = next_old(x);
            }
            (_, Some(y)) => {
                found.added.add(y);
                b = next_new(y);
            }
            _ => return found,
        }
    }
    found.compared_ms = a.into_iter().chain(b).min().map(|at| at - 1);
    found
}

/// The fires of a calendar in `(after_ms, until_ms]`, with at most `steps` steps over its exclusions.
#[must_use]
pub fn total(of: Limited<'_>, after_ms: i64, until_ms: i64, steps: usize) -> Total {
    let calendar = of.calendar;
    let examples = of.most.map_or(EXAMPLES, |most| EXAMPLES.min(most.try_into().unwrap_or(EXAMPLES)));
    let first: Vec<i64> = super::fires(calendar, after_ms, examples);
    let first = first.into_iter().filter(|at| *at <= until_ms).collect();
    let mut count = calendar.count(after_ms, until_ms).map_or(0, |stretch| stretch.count);
    let mut at_most = false;
    if let Some(exclusions) = calendar.exclusions() {
        let mut at_ms = after_ms;
        at_most = true;
        for _ in 0..steps {
            // Fires are passed over a stretch at once, or one by one where they begin one.
            let Some(next) = coming(calendar, at_ms, until_ms) else {
                at_most = false;
                break;
            };
            if next.excluded {
                count = count.saturating_sub(next.count);
                at_ms = next.until_ms;
            } else {
                at_ms = exclusions.alike_until(next.at_ms).saturating_sub(1).max(next.at_ms);
            }
        }
    }
    let count = of.most.map_or(count, |most| count.min(u64::from(most)));
    Total { fires: Only { count, first }, at_most }
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

    fn all(calendar: &Calendar) -> Limited<'_> {
        Limited { calendar, most: None }
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
        let found = compare(all(&old), all(&new), from, to, 1_000);
        assert_eq!((found.removed.count, found.added.count, found.compared_ms), (104, 0, None));
        assert_eq!(found.removed.first[0], ms("2026-01-03T08:00:00Z"));
        let back = compare(all(&new), all(&old), from, to, 1_000);
        assert_eq!((back.removed, back.added), (found.added, found.removed));
        assert_eq!(compare(all(&old), all(&old), from, to, 1_000), Comparison::default());
        let never = compare(all(&old), all(&calendar("0 0 0 1 1 ? 2020", None)), from, to, 1_000);
        assert_eq!((never.removed.count, never.added.count), (365, 0));
    }

    #[test]
    fn a_comparison_stops_after_its_steps_and_says_so() {
        let (from, to) = year();
        let (old, new) = (calendar("* * * * *", None), calendar("*/2 * * * *", None));
        let found = compare(all(&old), all(&new), from, to, 100);
        assert_eq!((found.removed.count, found.added.count), (50, 0));
        assert_eq!(found.compared_ms, Some(ms("2026-01-01T01:40:00Z") - 1));
        assert_eq!(total(all(&old), from, to, 9).fires.count, 525_600);
    }

    #[test]
    fn totals_leave_out_what_is_excluded() {
        let (from, to) = year();
        let weekdays = calendar("0 */2 * * *", Some("* * * * SAT,SUN"));
        let found = total(all(&weekdays), from, to, 2_000);
        assert!(!found.at_most);
        assert_eq!(
            found.fires.count,
            compare(all(&weekdays), all(&calendar("0 0 0 1 1 ? 2020", None)), from, to, 1 << 20)
                .removed
                .count
        );
        let cut = total(all(&weekdays), from, to, 20);
        assert!(cut.at_most && cut.fires.count > found.fires.count, "{cut:?}");
        let none = total(all(&calendar("0 9 * * SAT", Some("* * * * SAT"))), from, to, 2_000);
        assert_eq!(none, Total::default());
    }

    #[test]
    fn fires_that_a_change_of_the_clock_touches_are_noted() {
        let (from, to) = year();
        let notes = noted(&calendar("30 2 * * *", None), "Europe/Berlin", from, to, 10);
        let at: Vec<i64> = notes.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [ms("2026-03-29T01:00:00Z"), ms("2026-10-25T00:30:00Z")]);
        assert!(noted(&calendar("30 12 * * *", None), "Europe/Berlin", from, to, 10).is_empty());
    }

    #[test]
    fn a_limit_of_runs_ends_a_side() {
        let (from, to) = year();
        let (early, late) = (calendar("0 9 * * *", None), calendar("0 10 * * *", None));
        let of = |calendar, most| Limited { calendar, most: Some(most) };
        let found = compare(of(&early, 3), of(&early, 5), from, to, 1_000);
        assert_eq!((found.removed.count, found.added.count, found.compared_ms), (0, 2, None));
        assert_eq!(found.added.first[0], ms("2026-01-04T08:00:00Z"));
        let found = compare(of(&early, 3), all(&late), from, to, 1_000);
        assert_eq!((found.removed.count, found.added.count), (3, 365));
        assert_eq!(total(of(&early, 3), from, to, 9).fires.count, 3);
        assert_eq!(total(of(&early, 0), from, to, 9), Total::default());
    }
}
