//! Whether and when a failed attempt is followed by another.
//!
//! A decision of data alone, made at the end of an attempt, whether that end was watched or is settled by a
//! later daemon. The wait is a row, so nothing is lost with the process that decided. That somebody cancelled
//! the run is not asked here: the statement that lets it wait refuses then.
//!
//! An interruption is told apart from a failure: by default it ends the run, for nobody knows what of it was
//! done. Only an agent that says `on_interrupt: retry` and `idempotent: true` is tried again after one, with
//! or without `retry:`.

use std::time::Duration;

use crate::model::{Failure, OnInterrupt, Policies, RetryOn};

/// Attempts in all of a run that is tried again after interruptions and says no number.
pub(super) const INTERRUPTED_MAX: u32 = 3;

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed<'a> {
    /// Its failure.
    pub(super) failure: &'a Failure,
    /// Its number, from 1.
    pub(super) attempt: u32,
    /// Time since the first attempt started.
    pub(super) elapsed: Duration,
    /// Uniform in 0..1.
    pub(super) random: f64,
}

/// The wait before the next attempt; `None`: there is none.
pub(super) fn next(policies: &Policies, failed: &Failed<'_>) -> Option<Duration> {
    let retry = &policies.retry;
    let kind = RetryOn::of(&failed.failure.code).filter(|kind| retry.on.contains(kind))?;
    if failed.attempt >= most_after(policies, kind) {
        return None;
    }
    let delay = retry.delay(failed.attempt, failed.random);
    let over = policies.total_timeout.is_some_and(|total| failed.elapsed.saturating_add(delay) >= total);
    (!over).then_some(delay)
}

/// Most attempts that a run may have, whatever they end of.
#[must_use]
pub fn most(policies: &Policies) -> u32 {
    policies.retry.on.iter().map(|kind| most_after(policies, *kind)).max().unwrap_or(1)
}

/// Most attempts of a run of which one has ended like this.
fn most_after(policies: &Policies, kind: RetryOn) -> u32 {
    let max = policies.retry.max;
    match kind {
        RetryOn::Interrupted if policies.on_interrupt != OnInterrupt::Retry || !policies.idempotent => 1,
        RetryOn::Interrupted if max == 1 => INTERRUPTED_MAX,
        _ => max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Retry;

    fn policies(max: u32) -> Policies {
        Policies { retry: Retry { max, jitter: 0.0, ..Retry::default() }, ..Policies::default() }
    }

    fn after(policies: &Policies, code: &str, attempt: u32, elapsed_s: u64) -> Option<u64> {
        let failure = Failure { code: code.to_owned(), explanation: String::new() };
        let elapsed = Duration::from_secs(elapsed_s);
        next(policies, &Failed { failure: &failure, attempt, elapsed, random: 0.5 }).map(|d| d.as_secs())
    }

    #[test]
    fn attempts_are_counted_in_all() {
        assert_eq!(after(&policies(1), "runtime_error", 1, 0), None);
        assert_eq!(after(&policies(3), "runtime_error", 1, 0), Some(30));
        assert_eq!(after(&policies(3), "timeout", 2, 0), Some(60));
        assert_eq!(after(&policies(3), "runtime_error", 3, 0), None);
    }

    #[test]
    fn only_what_is_named_is_tried_again() {
        let mut only = policies(3);
        only.retry.on = vec![RetryOn::Transient];
        assert_eq!(after(&only, "runtime_error", 1, 0), None);
        assert_eq!(after(&only, "rate_limited", 1, 0), Some(30));
        for code in ["cancelled", "validation_failed", "launch_error", "shop_closed"] {
            assert_eq!(after(&policies(3), code, 1, 0), None, "{code}");
        }
    }

    #[test]
    fn an_interruption_needs_the_word_of_the_agent() {
        let mut p = policies(3);
        assert_eq!(after(&p, "interrupted", 1, 0), None);
        p.on_interrupt = OnInterrupt::Retry;
        assert_eq!(after(&p, "interrupted", 1, 0), None, "not idempotent");
        p.idempotent = true;
        assert_eq!(after(&p, "interrupted", 1, 0), Some(30));
        p.retry.max = 1;
        assert_eq!(after(&p, "interrupted", INTERRUPTED_MAX - 1, 0), Some(60), "without `retry:` too");
        assert_eq!(after(&p, "interrupted", INTERRUPTED_MAX, 0), None);
        assert_eq!(after(&p, "runtime_error", 1, 0), None);
    }

    #[test]
    fn how_many_attempts_there_may_be_is_what_the_decision_allows() {
        let mut p = policies(1);
        assert_eq!((most(&p), most(&policies(5))), (1, 5));
        (p.on_interrupt, p.idempotent) = (OnInterrupt::Retry, true);
        assert_eq!(most(&p), INTERRUPTED_MAX, "without `retry:` too");
        p.retry.on.clear();
        assert_eq!(most(&p), 1);
    }

    #[test]
    fn no_attempt_begins_after_the_whole_time() {
        let mut p = policies(9);
        p.total_timeout = Some(Duration::from_secs(100));
        assert_eq!(after(&p, "timeout", 1, 69), Some(30));
        assert_eq!(after(&p, "timeout", 1, 70), None);
    }
}
