//! The decisions of one pass over one schedule: which of its due slots runs, which one it stands
//! for, which are lost.
//!
//! The newest slot found due that is not excluded runs normally where it is late by no more than
//! `grace`. Every other one is missed: within the catch-up window it is coalesced into that slot, so
//! one run stands for all and is told the window, or under `catch_up: all` runs itself; what is older
//! is lost. Stretches without a run are found by their ends, never slot by slot.
//!
//! A schedule without exclusions and without `catch_up: all`, which is nearly every one, takes the
//! short way in this file; [`many`] is the general one.

mod many;

use std::time::Duration;

use super::Calendar;
use crate::model::{CatchUp, NotRun, Schedule, Trigger, Window};
use crate::time::millis;

/// Most consecutive slots that end alike and still get a row each; more are one row.
pub const ROWS_MAX: u64 = 100;

/// Period of a slot that no other follows: 24 h, milliseconds.
const LAST_PERIOD_MS: i64 = 86_400_000;
/// Bounds of the default grace, 2 min and 2 h, milliseconds.
const GRACE_MS: (i64, i64) = (120_000, 7_200_000);
/// Longest default catch-up window that follows from the period.
pub const WINDOW_MAX: Duration = Duration::from_hours(6);
const WINDOW_MAX_MS: i64 = 21_600_000;

/// What a schedule says about slots that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What missed slots become.
    pub catch_up: CatchUp,
    /// How far back they still count; `None`: max(grace, min(period, 6 h)).
    pub catch_up_window: Option<Duration>,
    /// Lateness that still counts as in time; `None`: half the period within 2 min..2 h.
    pub grace: Option<Duration>,
    /// Most missed slots that run under [`CatchUp::All`].
    pub catch_up_max: u32,
}

impl From<&Schedule> for Policy {
    fn from(schedule: &Schedule) -> Self {
        Self {
            catch_up: schedule.catch_up,
            catch_up_window: schedule.catch_up_window,
            grace: schedule.grace,
            catch_up_max: schedule.catch_up_max,
        }
    }
}

/// What becomes of one slot, or of a stretch of slots that end alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The slot gets a run.
    Run {
        /// Its nominal instant, Unix milliseconds.
        nominal_ms: i64,
        /// [`Trigger::Schedule`] in time, [`Trigger::CatchUp`] otherwise.
        trigger: Trigger,
        /// The slots it stands for.
        window: Window,
    },
    /// The slots end without a run of their own.
    NotRun {
        /// Nominal instant of the first, Unix milliseconds.
        nominal_ms: i64,
        /// Nominal instant of the last, Unix milliseconds.
        until_ms: i64,
        /// How many there are: 1, or more than [`ROWS_MAX`].
        count: u64,
        /// Why: [`NotRun::MissedWindow`], [`NotRun::Coalesced`] or [`NotRun::Excluded`].
        reason: NotRun,
        /// Nominal instant of the run that stands for them, where one does.
        into: Option<i64>,
    },
}

impl Decision {
    /// Nominal instant of its first slot, Unix milliseconds.
    #[must_use]
    pub fn nominal_ms(&self) -> i64 {
        match *self {
            Self::Run { nominal_ms, .. } | Self::NotRun { nominal_ms, .. } => nominal_ms,
        }
    }

    /// Nominal instant of its last slot, Unix milliseconds.
    #[must_use]
    pub fn until_ms(&self) -> i64 {
        match *self {
            Self::Run { nominal_ms, .. } => nominal_ms,
            Self::NotRun { until_ms, .. } => until_ms,
        }
    }
}

/// The outcome of one pass over one schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// An exact partition of the slots in `(watermark, now]`, oldest first. More than one runs only
    /// under [`CatchUp::All`].
    pub decisions: Vec<Decision>,
    /// The next nominal instant after all of them, and after the watermark; `None` where the
    /// schedule has ended.
    pub next: Option<i64>,
}

impl Due {
    /// The watermark once the decisions are committed; `None` where there was no slot.
    #[must_use]
    pub fn watermark_ms(&self) -> Option<i64> {
        self.decisions.last().map(Decision::until_ms)
    }
}

/// Decides about every slot in `(watermark_ms, now_ms]`. A watermark ahead of `now_ms`, as after a
/// clock that was set back, leaves nothing to decide: no slot is decided twice.
#[must_use]
pub fn due(calendar: &Calendar, policy: &Policy, watermark_ms: i64, now_ms: i64) -> Due {
    match calendar.next_after(watermark_ms) {
        Some(first_ms) => due_from(calendar, policy, watermark_ms, first_ms, now_ms),
        None => Due::default(),
    }
}

/// [`due()`] for a caller that kept `first_ms`, the first nominal instant after the watermark (the
/// `next` of the pass before). One slot in time then costs one search.
#[must_use]
pub fn due_from(calendar: &Calendar, policy: &Policy, watermark_ms: i64, first_ms: i64, now_ms: i64) -> Due {
    if first_ms > now_ms {
        return Due { decisions: Vec::new(), next: Some(first_ms) };
    }
    if policy.catch_up == CatchUp::All || calendar.exclusions().is_some() {
        return many::due(calendar, policy, watermark_ms, now_ms);
    }
    let second = calendar.next_after(first_ms);
    let (newest_ms, next) = match second.filter(|second| *second <= now_ms) {
        None => (first_ms, second),
        Some(second) => {
            let newest = calendar.last_at_or_before(first_ms, now_ms).unwrap_or(second);
            (newest, calendar.next_after(newest))
        }
    };
    let verdict = Verdict::of(policy, newest_ms, next, now_ms);
    let mut pass = Pass::new(calendar, watermark_ms);
    match verdict {
        Verdict::Lost => pass.lose(newest_ms),
        Verdict::Run { trigger, keep_ms } => pass.run(newest_ms, trigger, keep_ms),
    }
    Due { decisions: pass.decisions, next }
}

/// Decides about the one slot of `nominal_ms` of a timing that follows events. It is never missed:
/// however late it is found, nothing has come after it.
#[must_use]
pub fn event_due(calendar: &Calendar, watermark_ms: i64, nominal_ms: i64) -> Due {
    let decision = if calendar.excludes(nominal_ms) {
        Decision::NotRun { nominal_ms, until_ms: nominal_ms, count: 1, reason: NotRun::Excluded, into: None }
    } else {
        let window = Window { start_ms: watermark_ms.min(nominal_ms - 1), end_ms: nominal_ms, slots: 1 };
        Decision::Run { nominal_ms, trigger: Trigger::Schedule, window }
    };
    Due { decisions: vec![decision], next: None }
}

/// Decides anew about the slots in `(after_ms, until_ms]`, which were left out while the agent was
/// paused, as if they were found missed at `now_ms`: what runs is a catch-up.
#[must_use]
pub fn replay(
    calendar: &Calendar,
    policy: &Policy,
    after_ms: i64,
    until_ms: i64,
    now_ms: i64,
) -> Vec<Decision> {
    many::replay(calendar, policy, after_ms, until_ms, now_ms)
}

/// What becomes of the newest slot, and from when on the ones before it are coalesced into it.
#[derive(Clone, Copy)]
enum Verdict {
    Lost,
    Run { trigger: Trigger, keep_ms: i64 },
}

impl Verdict {
    fn of(policy: &Policy, newest_ms: i64, next: Option<i64>, now_ms: i64) -> Self {
        let period = next.map_or(LAST_PERIOD_MS, |next| next.saturating_sub(newest_ms));
        let grace = policy.grace.map_or_else(|| (period / 2).clamp(GRACE_MS.0, GRACE_MS.1), millis);
        let window = policy.catch_up_window.map_or_else(|| grace.max(period.min(WINDOW_MAX_MS)), millis);
        let in_time = now_ms.saturating_sub(newest_ms) <= grace;
        let keep_ms = match policy.catch_up {
            CatchUp::Latest | CatchUp::All => now_ms.saturating_sub(window),
            CatchUp::None => i64::MAX,
        };
        if in_time {
            Self::Run { trigger: Trigger::Schedule, keep_ms }
        } else if newest_ms >= keep_ms {
            Self::Run { trigger: Trigger::CatchUp, keep_ms }
        } else {
            Self::Lost
        }
    }
}

/// Decisions as they are made, oldest first.
struct Pass<'a> {
    calendar: &'a Calendar,
    decisions: Vec<Decision>,
    /// Nominal instant of the last slot decided, or the watermark.
    start_ms: i64,
    /// Slots that wait for the run that stands for them, and where they begin.
    coalesced: u64,
    window_ms: i64,
}

impl<'a> Pass<'a> {
    fn new(calendar: &'a Calendar, start_ms: i64) -> Self {
        Self { calendar, decisions: Vec::new(), start_ms, coalesced: 0, window_ms: start_ms }
    }

    fn lose(&mut self, newest_ms: i64) {
        self.without_run(newest_ms, NotRun::MissedWindow, None);
    }

    fn run(&mut self, newest_ms: i64, trigger: Trigger, keep_ms: i64) {
        self.coalesce(newest_ms - 1, newest_ms, keep_ms);
        let window = Window { start_ms: self.window_ms, end_ms: newest_ms, slots: self.coalesced + 1 };
        self.decisions.push(Decision::Run { nominal_ms: newest_ms, trigger, window });
        self.start_ms = newest_ms;
        self.coalesced = 0;
    }

    /// The slots up to and with `until_ms`: those before `keep_ms` are lost, the others are for the
    /// run of `newest_ms`.
    fn coalesce(&mut self, until_ms: i64, newest_ms: i64, keep_ms: i64) {
        self.without_run(until_ms.min(keep_ms.saturating_sub(1)), NotRun::MissedWindow, None);
        if self.coalesced == 0 {
            self.window_ms = self.start_ms;
        }
        self.coalesced += self.without_run(until_ms, NotRun::Coalesced, Some(newest_ms));
    }

    /// Decides about the slots up to and with `until_ms`, in a row each or, if they are many, in
    /// one. Returns how many there are.
    fn without_run(&mut self, until_ms: i64, reason: NotRun, into: Option<i64>) -> u64 {
        let Some(stretch) = self.calendar.count(self.start_ms, until_ms) else {
            return 0;
        };
        let row =
            |nominal_ms, until_ms, count| Decision::NotRun { nominal_ms, until_ms, count, reason, into };
        if stretch.count > ROWS_MAX {
            self.decisions.push(row(stretch.first_ms, stretch.last_ms, stretch.count));
        } else {
            let slots = std::iter::successors(Some(stretch.first_ms), |at| self.calendar.next_after(*at))
                .take_while(|at| *at <= stretch.last_ms);
            self.decisions.extend(slots.map(|at| row(at, at, 1)));
        }
        self.start_ms = stretch.last_ms;
        stretch.count
    }
}

#[cfg(test)]
mod tests;
