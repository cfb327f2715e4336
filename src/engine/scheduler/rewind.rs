//! A clock that was set back by much.
//!
//! By less than [`REWIND_MIN`] it is waited out: what is decided stays decided. By more, every schedule
//! would be silent until the clock has caught up, for decades perhaps, so all go on from now: the
//! watermarks move back, and of the instants that are to come again the ledger keeps those only that
//! became a run. These are passed over when their time comes, so no slot runs twice.
//!
//! [`Scheduler::decided_ahead`] finds them. It costs nothing where no row of the ledger lies ahead of
//! the clock, which is nearly always.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::Scheduler;
use crate::plan::Event;
use crate::store::{self, Cut, Rewind};
use crate::time::from_ms;

/// A clock that goes back by less is only waited out.
const REWIND_MIN: i64 = 3 * 3_600_000;
/// A clock that goes by this much more than it should is counted as stepped.
const STEP_MIN: i64 = 60_000;

/// Stretches of slots, first and last, that are decided though their time is to come; by schedule.
pub(super) type Ahead = HashMap<i64, Vec<(i64, i64)>>;

impl Scheduler {
    /// Looks whether the clock was set, and lets the schedules go on from now where it was set back.
    pub(super) async fn watch_clock(&mut self, now_ms: i64) -> Result<(), store::Error> {
        let (last, back) = (self.last_ms, self.last_ms - now_ms);
        let stepped = back > 0 || -back > STEP_MIN + crate::time::millis(crate::time::WAKE_CAP);
        if stepped {
            self.core.metrics.clock_steps.fetch_add(1, Ordering::Relaxed);
        }
        let ahead = back > 0 && self.planned.iter().any(|p| p.watermark_ms - now_ms > REWIND_MIN);
        if back > REWIND_MIN || ahead {
            let was = self.planned.iter().map(|p| p.watermark_ms).max().unwrap_or(last).max(last);
            self.rewind(was, now_ms).await?;
        }
        // Only now: what failed is tried again.
        self.last_ms = now_ms;
        Ok(())
    }

    async fn rewind(&mut self, was_ms: i64, now_ms: i64) -> Result<(), store::Error> {
        let text = format!("the clock went back from {} to {}", from_ms(was_ms), from_ms(now_ms));
        tracing::warn!("{text}; schedules go on from now");
        let mut cuts = Vec::new();
        for (schedule, nominal_ms) in self.core.store.stretches_over(now_ms).await? {
            let planned = self.planned.iter().find(|p| p.schedule.number == schedule);
            let kept = planned.and_then(|p| p.schedule.calendar.count(nominal_ms - 1, now_ms));
            cuts.extend(kept.map(|kept| Cut { schedule, nominal_ms, until_ms: kept.last_ms, count: kept.count }));
        }
        self.core.store.rewind(Rewind { now_ms, text, cuts }).await?;
        // Waits were shortened with the clock.
        self.core.wake.dispatcher.notify_one();
        self.core.wake.deliverer.notify_one();
        self.ahead_ms = None;
        self.heap.clear();
        self.waiting.clear();
        for index in 0..self.planned.len() {
            let planned = &mut self.planned[index];
            planned.watermark_ms = planned.watermark_ms.min(now_ms);
            match planned.schedule.calendar.event() {
                None => planned.next_ms = planned.calendar_instant(),
                Some(Event::RunEnd(_)) if !planned.ended => {
                    self.wait(index);
                    continue;
                }
                Some(Event::Startup) => {
                    let from_now = |_| planned.schedule.calendar.bounded(now_ms.max(planned.watermark_ms + 1));
                    planned.next_ms = planned.next_ms.and_then(from_now);
                }
                Some(Event::RunEnd(_)) => {}
            }
            self.push(index);
        }
        Ok(())
    }

    /// What of the slots that `due` schedules are to decide is decided already.
    pub(super) async fn decided_ahead(&mut self, due: &[usize]) -> Result<Ahead, store::Error> {
        let ahead_ms = match self.ahead_ms {
            Some(ahead_ms) => ahead_ms,
            None => {
                let newest_ms = self.core.store.newest_slot().await?;
                *self.ahead_ms.insert(newest_ms.filter(|at| *at > self.last_ms).unwrap_or(i64::MIN))
            }
        };
        let behind = |index: &&usize| self.planned[**index].watermark_ms < ahead_ms;
        let of: Vec<(i64, i64)> =
            due.iter().filter(behind).map(|i| (self.planned[*i].schedule.number, self.planned[*i].watermark_ms)).collect();
        if of.is_empty() { Ok(Ahead::new()) } else { self.core.store.decided_after(of).await }
    }
}
