//! The slots of a calendar that are still to come, as people are shown them: fires one by one,
//! excluded ones as stretches, with a word where the clock is set.

use super::Calendar;
use crate::model::ClockNote;

/// One fire, or a stretch of excluded slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coming {
    /// Nominal instant, Unix milliseconds; of a stretch the first.
    pub at_ms: i64,
    /// Nominal instant of the last slot of the stretch, Unix milliseconds.
    pub until_ms: i64,
    /// Slots in it.
    pub count: u64,
    /// Whether they are excluded.
    pub excluded: bool,
    /// What a clock change does to it.
    pub note: Option<ClockNote>,
}

/// Neighbouring excluded stretches that are joined into one.
const JOINED_MAX: usize = 100;

/// What comes first after `after_ms`, and not after `until_ms`; `None` where nothing does.
#[must_use]
pub fn coming(calendar: &Calendar, after_ms: i64, until_ms: i64) -> Option<Coming> {
    let at_ms = calendar.next_after(after_ms).filter(|at| *at <= until_ms)?;
    let Some(exclusions) = calendar.exclusions().filter(|exclusions| exclusions.covers(at_ms)) else {
        let note = calendar.clock_note(at_ms);
        return Some(Coming { at_ms, until_ms: at_ms, count: 1, excluded: false, note });
    };
    let mut end_ms = exclusions.alike_until(at_ms).saturating_sub(1);
    for _ in 0..JOINED_MAX {
        match calendar.next_after(end_ms).filter(|next| *next <= until_ms && exclusions.covers(*next)) {
            Some(next) => end_ms = exclusions.alike_until(next).saturating_sub(1).max(next),
            None => break,
        }
    }
    let stretch = calendar.count(at_ms - 1, end_ms.min(until_ms))?;
    Some(Coming { at_ms, until_ms: stretch.last_ms, count: stretch.count, excluded: true, note: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ScheduleId;
    use crate::model::{Cron, Exclude, Schedule, Timing};

    fn ms(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn all(text: &str, exclude: &[&str], from: &str, to: &str) -> Vec<(String, u64, Option<String>)> {
        let timezone = "Europe/Berlin".to_owned();
        let timing = Timing::Cron { cron: Cron::parse(text).unwrap(), timezone: timezone.clone() };
        let not =
            |text: &&str| Exclude::Cron { cron: Cron::parse(text).unwrap(), timezone: timezone.clone() };
        let plain = Schedule::plain(ScheduleId::from("x".to_owned()), timing);
        let calendar =
            Calendar::of(&Schedule { exclude: exclude.iter().map(not).collect(), ..plain }).unwrap();
        let mut found = Vec::new();
        let mut after = ms(from);
        while let Some(next) = coming(&calendar, after, ms(to)) {
            after = next.until_ms;
            let word = if next.excluded { "not " } else { "" };
            let at = format!("{word}{}", crate::time::from_ms(next.at_ms));
            found.push((at, next.count, next.note.map(|note| note.to_string())));
        }
        found
    }

    #[test]
    fn weekends_are_one_stretch_each() {
        let found = all("0 9 * * *", &["* * * * SAT,SUN"], "2026-05-07T12:00:00Z", "2026-05-12T12:00:00Z");
        let told: Vec<_> = found.iter().map(|(at, count, _)| (at.as_str(), *count)).collect();
        assert_eq!(
            told,
            [
                ("2026-05-08T07:00:00Z", 1),
                ("not 2026-05-09T07:00:00Z", 2),
                ("2026-05-11T07:00:00Z", 1),
                ("2026-05-12T07:00:00Z", 1),
            ]
        );
    }

    #[test]
    fn clock_changes_are_told() {
        let gap = all("30 2 * * *", &[], "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(
            gap[0].2.as_deref(),
            Some("the clock goes from 02:00 to 03:00, which skips the time written")
        );
        assert_eq!(gap[1].2, None);
        let fold = all("30 2 * * *", &[], "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(fold[0].2.as_deref(), Some("02:30 comes twice on this day; this is the first time"));
        let both = all("30 * * * *", &[], "2026-10-24T23:45:00Z", "2026-10-25T02:00:00Z");
        let notes: Vec<_> = both.iter().map(|(_, _, note)| note.as_deref()).collect();
        assert_eq!(
            notes,
            [
                Some("02:30 comes twice on this day; this is the first time"),
                Some("02:30 comes twice on this day; this is the second time")
            ]
        );
    }
}
