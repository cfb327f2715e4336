//! The decisions of one pass over one schedule, by the rules of downtime (semantics, section 5): every
//! due slot is listed and judged by itself.

use jiff::tz::TimeZone;

use super::calendar::{Calendar, excludes};
use super::scenario::{Agent, Exclude, Schedule, Timing};

const HOUR_MS: i64 = 3_600_000;

/// What a slot is to become, before anything stands in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A run: whether it is a catch-up, where its window begins, and the slots in it.
    Run {
        catch_up: bool,
        after: i64,
        slots: i64,
    },
    Not(&'static str),
}

/// One decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    pub nominal: i64,
    pub wanted: Wanted,
}

/// The due slots of a schedule.
pub struct Due<'a> {
    pub agent: &'a Agent,
    pub schedule: &'a Schedule,
    pub calendar: &'a Calendar,
}

/// Seconds as milliseconds.
pub fn ms(seconds: i64) -> i64 {
    seconds * 1000
}

impl Due<'_> {
    /// Whether the slot of `at` is excluded.
    pub fn excluded(&self, at: i64) -> bool {
        let zone = match &self.schedule.timing {
            Timing::Cron(p) => TimeZone::get(p.zone).unwrap(),
            _ => TimeZone::UTC,
        };
        let of: Vec<&Exclude> = self.agent.exclude.iter().chain(&self.schedule.exclude).collect();
        of.into_iter().any(|e| excludes(e, &zone, at))
    }

    /// Grace and catch-up window of a slot: period is the distance to the following one, else 24 h.
    pub fn patience(&self, newest: i64) -> (i64, i64) {
        let period = self.calendar.next(newest).map_or(24 * HOUR_MS, |next| next - newest);
        let grace = self.schedule.grace_s.map_or_else(|| (period / 2).clamp(120_000, 2 * HOUR_MS), ms);
        let window = self.schedule.catch_up_window_s.map_or_else(|| grace.max(period.min(6 * HOUR_MS)), ms);
        (grace, window)
    }

    /// The decisions about every slot in `(watermark, now]`.
    pub fn decide(&self, watermark: i64, now: i64) -> Vec<Decided> {
        let due = self.calendar.between(watermark, now);
        let none = self.agent.exclude.is_empty() && self.schedule.exclude.is_empty();
        let (out, live): (Vec<i64>, Vec<i64>) = due.iter().partition(|at| !none && self.excluded(**at));
        let mut found: Vec<Decided> =
            out.into_iter().map(|nominal| Decided { nominal, wanted: Wanted::Not("excluded") }).collect();
        if let Some(&newest) = live.last() {
            found.extend(self.judge(&live, newest, watermark, now, &due));
        }
        found.sort_by_key(|d| d.nominal);
        found
    }

    fn judge(&self, live: &[i64], newest: i64, watermark: i64, now: i64, due: &[i64]) -> Vec<Decided> {
        let (grace, window) = self.patience(newest);
        let in_time = now - newest <= grace;
        let kept = |at: i64| at >= now - window;
        let before = |at: i64| {
            let index = due.partition_point(|d| *d < at);
            if index == 0 { watermark } else { due[index - 1] }
        };
        let alone = |at: i64, catch_up| Wanted::Run { catch_up, after: before(at), slots: 1 };
        let runs = in_time || kept(newest);
        let max = self.schedule.catch_up_max.unwrap_or(100);
        let missed: Vec<i64> = live.iter().copied().filter(|at| !in_time || *at != newest).collect();
        let caught: Vec<i64> = missed.iter().rev().copied().filter(|at| kept(*at)).take(max).collect();
        let coalesced: Vec<i64> = live.iter().copied().filter(|at| *at != newest && kept(*at)).collect();
        let wanted = |at: i64| match self.schedule.catch_up {
            "latest" if at == newest && runs => Wanted::Run {
                catch_up: !in_time,
                after: before(coalesced.first().copied().unwrap_or(newest)),
                slots: i64::try_from(coalesced.len()).unwrap() + 1,
            },
            "latest" if runs && kept(at) => Wanted::Not("coalesced"),
            "all" | "none" if in_time && at == newest => alone(at, false),
            "all" if runs && caught.contains(&at) => alone(at, true),
            _ => Wanted::Not("missed_window"),
        };
        live.iter().map(|&nominal| Decided { nominal, wanted: wanted(nominal) }).collect()
    }
}
