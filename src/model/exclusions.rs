//! When a schedule is not due: spans and patterns, asked for stretches in which all slots are alike.
//!
//! A stretch is found by its ends, so a year of excluded weekends costs a few hundred steps however
//! often the schedule would be due. A stretch that is given need not be the longest: whoever joins
//! neighbours gets the longest ones.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Cron, Exclude};
use crate::time::{from_ms, zone};

/// Excluded stretches that are skipped in the search for a fire; a schedule that is excluded for
/// longer has none.
pub const SKIPS_MAX: usize = 20_000;

/// The compiled `exclude:` of a schedule.
#[derive(Debug, Clone)]
pub struct Exclusions {
    /// `[start, end)`, Unix milliseconds, ascending and apart.
    spans: Vec<(i64, i64)>,
    patterns: Vec<(Cron, TimeZone)>,
}

impl Exclusions {
    /// Compiles the entries; `None` where there are none.
    ///
    /// # Errors
    /// A zone that is not known here.
    pub fn compile(entries: &[Exclude]) -> Result<Option<Self>, String> {
        let mut spans = Vec::new();
        let mut patterns = Vec::new();
        for entry in entries {
            match entry {
                Exclude::Cron { cron, timezone } => {
                    patterns.push((cron.clone(), zone(timezone)?));
                }
                Exclude::Spans(more) => spans.extend(more.iter().filter(|(start, end)| start < end)),
            }
        }
        let any = !spans.is_empty() || !patterns.is_empty();
        Ok(any.then(|| Self { spans: joined(spans), patterns }))
    }

    /// Whether the slot of `at_ms` is excluded.
    #[must_use]
    pub fn covers(&self, at_ms: i64) -> bool {
        self.span(at_ms).is_some() || self.patterns.iter().any(|(cron, tz)| cron.covers(from_ms(at_ms), tz))
    }

    /// The first instant of a timing after `after_ms` that is not excluded, skipping `skips` excluded
    /// stretches at most. `next`: the first instant of the timing after another.
    ///
    /// # Errors
    /// Where the search ended: at the last excluded instant that it came to; `None`: the timing has no
    /// further instant.
    pub fn first_left(
        &self,
        next: impl Fn(i64) -> Option<i64>,
        after_ms: i64,
        skips: usize,
    ) -> Result<i64, Option<i64>> {
        let mut after_ms = after_ms;
        for _ in 0..skips {
            let next = next(after_ms).ok_or(None)?;
            if !self.covers(next) {
                return Ok(next);
            }
            after_ms = self.alike_until(next).saturating_sub(1).max(next);
        }
        Err(Some(after_ms))
    }

    /// The span that holds `at_ms`.
    fn span(&self, at_ms: i64) -> Option<(i64, i64)> {
        let before = self.spans.partition_point(|(start, _)| *start <= at_ms);
        let (start, end) = *self.spans.get(before.checked_sub(1)?)?;
        (at_ms < end).then_some((start, end))
    }

    /// An instant after `at_ms` up to which, itself not included, every slot is excluded as that of
    /// `at_ms` is, or none is.
    #[must_use]
    pub fn alike_until(&self, at_ms: i64) -> i64 {
        let at = from_ms(at_ms);
        if self.covers(at_ms) {
            let of_span = self.span(at_ms).map(|(_, end)| end);
            let of_patterns = self.covering(at).map(|(cron, tz)| ms(cron.covered_until(at, tz)));
            return of_span.into_iter().chain(of_patterns).max().unwrap_or(at_ms + 1).max(at_ms + 1);
        }
        let next = self.spans.partition_point(|(start, _)| *start <= at_ms);
        let of_span = self.spans.get(next).map(|(start, _)| *start);
        let of_patterns = self.patterns.iter().filter_map(|(cron, tz)| cron.next_covered(at, tz)).map(ms);
        of_span.into_iter().chain(of_patterns).min().unwrap_or(i64::MAX).max(at_ms.saturating_add(1))
    }

    /// An instant at or before `at_ms` from which on, itself included, every slot up to `at_ms` is
    /// excluded as that of `at_ms` is, or none is.
    #[must_use]
    pub fn alike_since(&self, at_ms: i64) -> i64 {
        let at = from_ms(at_ms);
        if self.covers(at_ms) {
            let of_span = self.span(at_ms).map(|(start, _)| start);
            let of_patterns = self.covering(at).map(|(cron, tz)| ms(cron.covered_since(at, tz)));
            return of_span.into_iter().chain(of_patterns).min().unwrap_or(at_ms).min(at_ms);
        }
        let before = self.spans.partition_point(|(start, _)| *start <= at_ms);
        let of_span = before.checked_sub(1).and_then(|last| self.spans.get(last)).map(|(_, end)| *end);
        let of_patterns = self.patterns.iter().filter_map(|(cron, tz)| cron.last_covered_end(at, tz)).map(ms);
        of_span.into_iter().chain(of_patterns).max().unwrap_or(i64::MIN).min(at_ms)
    }

    fn covering(&self, at: Timestamp) -> impl Iterator<Item = &(Cron, TimeZone)> {
        self.patterns.iter().filter(move |(cron, tz)| cron.covers(at, tz))
    }
}

fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// Spans in order, those that touch as one.
fn joined(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
    for (start, end) in spans {
        match joined.last_mut() {
            Some((_, last)) if start <= *last => *last = (*last).max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}
