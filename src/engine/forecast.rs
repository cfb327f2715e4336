//! What comes next: the future fires of agents.

use super::catalog::Entry;
use crate::plan;

/// When the schedules of an agent fire next, soonest first, with the schedule's zone: (Unix ms, zone).
#[must_use]
pub fn next_fires(agent: &Entry, after_ms: i64, n: usize) -> Vec<(i64, String)> {
    let over = |s: &&super::ScheduleEntry| s.schedule.bounds.max_runs.is_none_or(|max| s.runs < max);
    let mut fires: Vec<(i64, String)> = agent
        .schedules
        .iter()
        .filter(over)
        .flat_map(|s| {
            let zone = s.schedule.timing.timezone().to_owned();
            plan::fires(&s.calendar, after_ms, n).into_iter().map(move |at| (at, zone.clone()))
        })
        .collect();
    fires.sort();
    fires.dedup_by_key(|(at, _)| *at);
    fires.truncate(n);
    fires
}
