//! When a schedule is due and what becomes of each of its slots. Pure: no clock, no rows, no I/O;
//! the same watermark and the same time give the same decisions.
//!
//! [`Calendar`] is a compiled timing: the next nominal instant, the last one, and how many lie in a
//! stretch; [`Exclusions`](crate::model::Exclusions) say which of them are left out. [`due()`] decides about every slot in `(watermark, now]`. Its decisions are an exact
//! partition of those slots, so whoever commits them and moves the watermark in one transaction has
//! one row for each slot and no slot twice, whatever the clock did in between.
//!
//! The watermark is the nominal instant of the last slot decided (or the instant at which the
//! schedule began). It moves only where there was a slot: an idle schedule writes nothing.
//!
//! Nothing here costs time in proportion to the slots: a clock that was set forward by 72 years is
//! answered with a few rows, found by arithmetic.

mod calendar;
mod compare;
mod delay;
mod due;
mod forecast;

pub use calendar::{Calendar, Event, Stretch, fires, next_fire};
pub use compare::{Comparison, EXAMPLES, Limited, Only, Total, compare, noted, total};
pub use delay::start_delay_ms;
pub use due::{Decision, Due, Policy, ROWS_MAX, WINDOW_MAX, due, due_from, event_due, replay};
pub use forecast::{Coming, coming};

/// Why a timing cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its time zone is not known here.
    #[error("{0}")]
    Zone(String),
    /// Its period is too short.
    #[error("the period of a schedule is at least {}", crate::time::human_duration(Calendar::MIN_PERIOD))]
    Period,
}
