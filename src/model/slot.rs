//! Why a due slot did not run: the closed set of reasons of the slot ledger.

use super::words;

/// The reason of a slot that ended without a run of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotRun {
    /// Another run of the agent was in the way and the policy is to skip.
    Overlap,
    /// It came due while nothing fired, and the catch-up policy leaves it out.
    MissedWindow,
    /// Another slot's run stands for it.
    Coalesced,
    /// The agent was paused.
    Paused,
    /// An `exclude:` entry covers it.
    Excluded,
    /// A budget was used up.
    Budget,
    /// The circuit breaker of the agent was open.
    Breaker,
    /// The daemon was stopping.
    Draining,
    /// The agent's queue was full.
    QueueFull,
    /// The agent's file was broken.
    ConfigError,
}

words!(NotRun {
    Overlap => "overlap",
    MissedWindow => "missed_window",
    Coalesced => "coalesced",
    Paused => "paused",
    Excluded => "excluded",
    Budget => "budget",
    Breaker => "breaker",
    Draining => "draining",
    QueueFull => "queue_full",
    ConfigError => "config_error",
});
