//! A pass in general: with exclusions, and with a run for each missed slot.
//!
//! The slots of a pass are cut into segments in which all are excluded or none is. That is done
//! backward from now, for the newest slots are the ones that matter: where exclusions and slots
//! alternate for longer than [`SEGMENTS_MAX`] segments, what is older is one lost stretch, excluded
//! or not. A clock that was set forward by decades is answered in bounded time whatever the pattern.

use super::{Due, NotRun, Pass, Policy, Verdict};
use crate::model::{CatchUp, Trigger};
use crate::plan::{Calendar, Decision};

/// Most segments that one pass tells apart: two a week for weekends, so two years of them.
pub(super) const SEGMENTS_MAX: usize = 200;
/// Most catch-ups of one pass, whatever `catch_up_max` says.
const RUNS_MAX: u32 = 10_000;

/// Slots that follow each other and are all excluded, or none of them is.
struct Segment {
    excluded: bool,
    first_ms: i64,
    last_ms: i64,
}

pub(super) fn due(calendar: &Calendar, policy: &Policy, watermark_ms: i64, now_ms: i64) -> Due {
    let Some(last_ms) = calendar.last_at_or_before(watermark_ms, now_ms) else {
        return Due { decisions: Vec::new(), next: calendar.next_after(watermark_ms) };
    };
    let verdict = |newest_ms| Verdict::of(policy, newest_ms, calendar.next_after(newest_ms), now_ms);
    let decisions = decide(calendar, policy, watermark_ms, now_ms, verdict);
    Due { decisions, next: calendar.next_after(last_ms) }
}

pub(super) fn replay(
    calendar: &Calendar,
    policy: &Policy,
    after_ms: i64,
    until_ms: i64,
    now_ms: i64,
) -> Vec<Decision> {
    let verdict = |newest_ms| match Verdict::of(policy, newest_ms, calendar.next_after(newest_ms), now_ms) {
        Verdict::Run { keep_ms, .. } if newest_ms >= keep_ms => {
            Verdict::Run { trigger: Trigger::CatchUp, keep_ms }
        }
        _ => Verdict::Lost,
    };
    decide(calendar, policy, after_ms, until_ms, verdict)
}

fn decide(
    calendar: &Calendar,
    policy: &Policy,
    after_ms: i64,
    until_ms: i64,
    verdict: impl Fn(i64) -> Verdict,
) -> Vec<Decision> {
    let mut pass = Pass::new(calendar, after_ms);
    let (older_ms, segments) = segments(calendar, after_ms, until_ms);
    if let Some(older_ms) = older_ms {
        pass.lose(older_ms);
    }
    let Some(newest_ms) = segments.iter().rev().find(|s| !s.excluded).map(|s| s.last_ms) else {
        for segment in &segments {
            pass.without_run(segment.last_ms, NotRun::Excluded, None);
        }
        return pass.decisions;
    };
    let verdict = verdict(newest_ms);
    let oldest_run_ms = match verdict {
        Verdict::Run { trigger, keep_ms } if policy.catch_up == CatchUp::All => {
            oldest_run(calendar, &segments, policy, trigger, keep_ms)
        }
        _ => i64::MAX,
    };
    for segment in &segments {
        let last_ms = segment.last_ms;
        match verdict {
            _ if segment.excluded => {
                pass.without_run(last_ms, NotRun::Excluded, None);
            }
            Verdict::Lost => pass.lose(last_ms),
            Verdict::Run { trigger, .. } if policy.catch_up == CatchUp::All => {
                pass.lose(last_ms.min(oldest_run_ms.saturating_sub(1)));
                pass.run_each(last_ms, newest_ms, trigger);
            }
            Verdict::Run { trigger, keep_ms } if last_ms == newest_ms => {
                pass.run(newest_ms, trigger, keep_ms);
            }
            Verdict::Run { keep_ms, .. } => pass.coalesce(last_ms, newest_ms, keep_ms),
        }
    }
    pass.decisions
}

impl Pass<'_> {
    /// A run for each slot up to and with `last_ms`.
    fn run_each(&mut self, last_ms: i64, newest_ms: i64, trigger: Trigger) {
        while let Some(at) = self.calendar.next_after(self.start_ms).filter(|at| *at <= last_ms) {
            self.coalesced = 0;
            self.run(at, if at == newest_ms { trigger } else { Trigger::CatchUp }, at);
        }
    }
}

/// The oldest slot that still runs under [`CatchUp::All`]; the newest is one of them.
fn oldest_run(
    calendar: &Calendar,
    segments: &[Segment],
    policy: &Policy,
    trigger: Trigger,
    keep_ms: i64,
) -> i64 {
    let mut left = policy.catch_up_max.min(RUNS_MAX) + u32::from(trigger == Trigger::Schedule);
    let mut oldest = i64::MAX;
    for segment in segments.iter().rev().filter(|s| !s.excluded) {
        let mut at = Some(segment.last_ms);
        while let Some(slot) = at {
            let newest = oldest == i64::MAX;
            if left == 0 || (slot < keep_ms && !(newest && trigger == Trigger::Schedule)) {
                return oldest;
            }
            oldest = slot;
            left -= 1;
            at = calendar.last_at_or_before(segment.first_ms - 1, slot - 1);
        }
    }
    oldest
}

/// The segments of `(after_ms, until_ms]`, oldest first, and the last slot that is older than all.
fn segments(calendar: &Calendar, after_ms: i64, until_ms: i64) -> (Option<i64>, Vec<Segment>) {
    let mut found: Vec<Segment> = Vec::new();
    let mut end_ms = until_ms;
    // Stretches without a slot of the other kind between them are joined, so steps are bounded apart.
    for _ in 0..SEGMENTS_MAX * 16 {
        let Some(last_ms) = calendar.last_at_or_before(after_ms, end_ms) else {
            found.reverse();
            return (None, found);
        };
        let (excluded, since_ms) = calendar.exclusions().map_or((false, after_ms + 1), |exclusions| {
            (exclusions.covers(last_ms), exclusions.alike_since(last_ms).max(after_ms + 1))
        });
        let first_ms = calendar.next_after(since_ms - 1).unwrap_or(last_ms);
        let full = found.len() == SEGMENTS_MAX;
        match found.last_mut() {
            Some(newer) if newer.excluded == excluded => newer.first_ms = first_ms,
            _ if full => break,
            _ => found.push(Segment { excluded, first_ms, last_ms }),
        }
        end_ms = first_ms - 1;
    }
    found.reverse();
    (calendar.last_at_or_before(after_ms, end_ms), found)
}

#[cfg(test)]
mod tests;
