//! Counters and histograms of the engine. Each is written where the thing happens, once; what the
//! store decides is counted there, after its commit.

use std::sync::atomic::AtomicU64;

pub use crate::time::Histogram;

/// What the engine counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Nominal instant to committed slot and run, of slots that ran in time.
    pub lateness: Histogram,
    /// Admission to claim.
    pub queue_wait: Histogram,
    /// Steps of the wall clock that were noticed.
    pub clock_steps: AtomicU64,
    /// Heap entries that had to be put back by the periodic check.
    pub repairs: AtomicU64,
    /// Attempts to deliver a message that the receiver took.
    pub attempts_delivered: AtomicU64,
    /// Attempts that failed and are followed by another.
    pub attempts_failed: AtomicU64,
    /// Attempts that failed and were the last.
    pub attempts_exhausted: AtomicU64,
    /// Reloads that put new files in force.
    pub reloads_done: AtomicU64,
    /// Reloads that were refused for errors in the files.
    pub reloads_refused: AtomicU64,
}
