//! A compiled timing. Nominal instants are Unix milliseconds; those of a pattern are whole seconds.
//!
//! A calendar knows the instants that the timing names between `start` and `end`. Which of them are
//! excluded is a second question, for they are slots all the same. Two timings name no instant by
//! themselves: `after` follows the runs, `on: startup` the daemon; whoever knows these asks
//! [`Calendar::event`].

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::Error;
use crate::model::{Bounds, ClockNote, Cron, Dst, Exclusions, SKIPS_MAX, Schedule, Timing, next_multiple};
use crate::time::{from_ms, millis, zone};

/// The nominal instants of one timing. A clone shares the pattern, the zone and the exclusions.
#[derive(Debug, Clone)]
pub struct Calendar {
    kind: Kind,
    /// `None` for a schedule that says nothing of the kind, which is nearly every one.
    limits: Option<Arc<Limits>>,
}

#[derive(Debug, Clone)]
enum Kind {
    Cron { cron: Cron, tz: TimeZone },
    CronBy { cron: Cron, tz: TimeZone, dst: Dst },
    Every { period_ms: i64, phase_ms: i64 },
    At { at_ms: i64 },
    Event(Event),
}

/// What a timing without instants of its own follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The ends of the agent's runs, by this delay, milliseconds.
    RunEnd(i64),
    /// The starts of the daemon.
    Startup,
}

#[derive(Debug)]
struct Limits {
    /// First instant that counts, Unix milliseconds.
    start_ms: i64,
    /// First instant that no longer does.
    end_ms: i64,
    exclusions: Option<Exclusions>,
}

/// Consecutive slots of one timing, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Nominal instant of the first, Unix milliseconds.
    pub first_ms: i64,
    /// Nominal instant of the last, Unix milliseconds.
    pub last_ms: i64,
    /// How many there are.
    pub count: u64,
}

impl Calendar {
    /// Shortest period of `every`.
    pub const MIN_PERIOD: Duration = Duration::from_secs(1);

    /// Compiles a timing alone: its zone is looked up once.
    ///
    /// # Errors
    /// [`Error`]; none for a timing that was read from a file on this machine.
    pub fn compile(timing: &Timing) -> Result<Self, Error> {
        Ok(Self { kind: Kind::of(timing, Dst::default())?, limits: None })
    }

    /// Compiles a schedule: its timing, its bounds, its rule for clock changes and its exclusions.
    ///
    /// # Errors
    /// As [`Calendar::compile`].
    pub fn of(schedule: &Schedule) -> Result<Self, Error> {
        let kind = Kind::of(&schedule.timing, schedule.dst)?;
        let Bounds { start_ms, end_ms, .. } = schedule.bounds;
        let exclusions = Exclusions::compile(&schedule.exclude).map_err(Error::Zone)?;
        let limited = start_ms.is_some() || end_ms.is_some() || exclusions.is_some();
        let limits = limited.then(|| {
            Arc::new(Limits {
                start_ms: start_ms.unwrap_or(i64::MIN),
                end_ms: end_ms.unwrap_or(i64::MAX),
                exclusions,
            })
        });
        Ok(Self { kind, limits })
    }

    /// What it follows where it names no instants by itself.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        if let Kind::Event(event) = self.kind { Some(event) } else { None }
    }

    /// `at_ms`, or `start` if that is later; `None` at or after `end`.
    #[must_use]
    pub fn bounded(&self, at_ms: i64) -> Option<i64> {
        let Some(limits) = &self.limits else { return Some(at_ms) };
        Some(at_ms.max(limits.start_ms)).filter(|at| *at < limits.end_ms)
    }

    /// What a clock change does to the fire of `at_ms`, where one does.
    #[must_use]
    pub fn clock_note(&self, at_ms: i64) -> Option<ClockNote> {
        let (Kind::Cron { cron, tz } | Kind::CronBy { cron, tz, .. }) = &self.kind else {
            return None;
        };
        cron.clock_note(from_ms(at_ms), tz)
    }

    /// The stretches in which it is not due, where there are any.
    #[must_use]
    pub fn exclusions(&self) -> Option<&Exclusions> {
        self.limits.as_ref()?.exclusions.as_ref()
    }

    /// Whether the slot of `at_ms` is excluded.
    #[must_use]
    pub fn excludes(&self, at_ms: i64) -> bool {
        self.exclusions().is_some_and(|exclusions| exclusions.covers(at_ms))
    }

    /// The first nominal instant strictly after `after_ms`; `None` where there is none.
    #[must_use]
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        let Some(limits) = &self.limits else {
            return self.kind.next_after(after_ms);
        };
        let next = self.kind.next_after(after_ms.max(limits.start_ms.saturating_sub(1)))?;
        (next < limits.end_ms).then_some(next)
    }

    /// The last nominal instant in `(after_ms, at_ms]`; `None` where there is none.
    #[must_use]
    pub fn last_at_or_before(&self, after_ms: i64, at_ms: i64) -> Option<i64> {
        let (mut after_ms, mut at_ms) = (after_ms, at_ms);
        if let Some(limits) = &self.limits {
            after_ms = after_ms.max(limits.start_ms.saturating_sub(1));
            at_ms = at_ms.min(limits.end_ms.saturating_sub(1));
        }
        if at_ms <= after_ms {
            return None;
        }
        self.kind.last_at_or_before(at_ms).filter(|last| *last > after_ms)
    }

    /// The nominal instants in `(after_ms, until_ms]`, counted by arithmetic; `None` where there is
    /// none.
    #[must_use]
    pub fn count(&self, after_ms: i64, until_ms: i64) -> Option<Stretch> {
        let first_ms = self.next_after(after_ms).filter(|first| *first <= until_ms)?;
        let last_ms = self.last_at_or_before(after_ms, until_ms)?;
        let count = match &self.kind {
            // What lies before the first is none of its instants.
            Kind::Cron { cron, tz } => cron.count(from_ms(first_ms - 1), from_ms(last_ms), tz),
            Kind::CronBy { cron, tz, dst } => {
                cron.count_by(from_ms(first_ms - 1), from_ms(last_ms), tz, *dst)
            }
            Kind::Every { period_ms, .. } => (last_ms.abs_diff(first_ms) / period_ms.unsigned_abs()) + 1,
            Kind::At { .. } => 1,
            Kind::Event(_) => 0,
        };
        Some(Stretch { first_ms, last_ms, count })
    }
}

impl Kind {
    fn of(timing: &Timing, dst: Dst) -> Result<Self, Error> {
        match timing {
            Timing::Cron { cron, timezone } => {
                let (cron, tz) = (cron.clone(), zone(timezone).map_err(Error::Zone)?);
                Ok(if cron.heeds(dst) { Self::CronBy { cron, tz, dst } } else { Self::Cron { cron, tz } })
            }
            Timing::Every { period, .. } if *period < Calendar::MIN_PERIOD => Err(Error::Period),
            Timing::Every { period, phase } => {
                Ok(Self::Every { period_ms: millis(*period), phase_ms: millis(*phase) })
            }
            Timing::At { at_ms, .. } => Ok(Self::At { at_ms: *at_ms }),
            Timing::After { delay } => Ok(Self::Event(Event::RunEnd(millis(*delay)))),
            Timing::Startup => Ok(Self::Event(Event::Startup)),
        }
    }

    fn next_after(&self, after_ms: i64) -> Option<i64> {
        match self {
            Self::Cron { cron, tz } => {
                cron.next_after(from_ms(after_ms), tz).map(jiff::Timestamp::as_millisecond)
            }
            Self::CronBy { cron, tz, dst } => {
                cron.next_after_by(from_ms(after_ms), tz, *dst).map(jiff::Timestamp::as_millisecond)
            }
            Self::Every { period_ms, phase_ms } => next_multiple(after_ms, *period_ms, *phase_ms),
            Self::At { at_ms } => (*at_ms > after_ms).then_some(*at_ms),
            Self::Event(_) => None,
        }
    }

    fn last_at_or_before(&self, at_ms: i64) -> Option<i64> {
        match self {
            Self::Cron { cron, tz } => {
                cron.last_at_or_before(from_ms(at_ms), tz).map(jiff::Timestamp::as_millisecond)
            }
            Self::CronBy { cron, tz, dst } => {
                cron.last_at_or_before_by(from_ms(at_ms), tz, *dst).map(jiff::Timestamp::as_millisecond)
            }
            Self::Every { period_ms, phase_ms } => {
                let index = at_ms.checked_sub(*phase_ms)?.div_euclid(*period_ms);
                index.checked_mul(*period_ms)?.checked_add(*phase_ms)
            }
            Self::At { at_ms: own } => (*own <= at_ms).then_some(*own),
            Self::Event(_) => None,
        }
    }
}

/// The first `n` nominal instants after `after_ms` that are not excluded; fewer where the timing ends.
#[must_use]
pub fn fires(calendar: &Calendar, after_ms: i64, n: usize) -> Vec<i64> {
    std::iter::successors(next_fire(calendar, after_ms), |at| next_fire(calendar, *at)).take(n).collect()
}

/// The first nominal instant after `after_ms` that is not excluded; `None` where there is none.
#[must_use]
pub fn next_fire(calendar: &Calendar, after_ms: i64) -> Option<i64> {
    let Some(exclusions) = calendar.exclusions() else {
        return calendar.next_after(after_ms);
    };
    exclusions.first_left(|after| calendar.next_after(after), after_ms, SKIPS_MAX).ok()
}
