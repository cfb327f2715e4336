//! A clock that was set back.
//!
//! A small step is waited out: the ledger forbids a second decision. After a big one every schedule would be
//! silent until the wrong time has come again, so watermarks move back to now, and what the wrong clock has
//! decided of the time to come is decided anew when it comes.
//!
//! A row that stands for slots on both sides of now is cut, which takes the timing of its schedule. One of a
//! schedule that is out of force stays whole, and so does the watermark behind it; the schedule is found ahead
//! of the clock when it comes back, and then its timing is there.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::{Planned, Scheduler};
use crate::plan::Event;
use crate::store;
use crate::time::from_ms;

/// A clock that goes back by less is only waited out.
const REWIND_MIN: i64 = 3 * 3_600_000;
/// A clock that goes by this much more than it should is counted as stepped.
const STEP_MIN: i64 = 60_000;

impl Scheduler {
    /// A clock that was set back by much would keep every schedule silent until it has caught up
    /// again. The slots up to now stay decided, the watermarks move back to now.
    pub(super) async fn watch_clock(&mut self, now_ms: i64) -> Result<(), store::Error> {
        let (last, back) = (self.last_ms, self.last_ms - now_ms);
        let stepped = back > 0 || -back > STEP_MIN + crate::time::millis(crate::time::WAKE_CAP);
        if stepped {
            self.core.metrics.clock_steps.fetch_add(1, Ordering::Relaxed);
        }
        let ahead = back > 0 && self.planned.iter().any(|p| p.watermark_ms - now_ms > REWIND_MIN);
        if back <= REWIND_MIN && !ahead {
            (self.last_ms, self.seen_ms) = (now_ms, Some(now_ms));
            return Ok(());
        }
        let was = self.planned.iter().map(|p| p.watermark_ms).max().unwrap_or(last).max(last);
        let text = format!("the clock went back from {} to {}", from_ms(was), from_ms(now_ms));
        // Until it is written the step is as new as before: the next turn tries again.
        let beyond_ms = self.rewound_beyond(now_ms);
        let cut = self.cut(now_ms, beyond_ms).await?;
        self.core.store.rewind_watermarks(now_ms, beyond_ms, cut, text.clone()).await?;
        tracing::warn!("{text}; schedules go on from now");
        (self.last_ms, self.seen_ms) = (now_ms, Some(now_ms));
        self.plan_anew(now_ms, beyond_ms);
        self.core.wake.dispatcher.notify_one();
        self.core.wake.deliverer.notify_one();
        Ok(())
    }

    /// Watermarks beyond this move back. All that lie ahead do where the clock itself has gone back by much;
    /// where a schedule came back that an earlier step has left far ahead, what a small step has decided stays.
    fn rewound_beyond(&self, now_ms: i64) -> i64 {
        let by_clock = self.seen_ms.is_none_or(|seen| seen - now_ms > REWIND_MIN);
        if by_clock { now_ms } else { now_ms.saturating_add(REWIND_MIN) }
    }

    /// Gives every schedule its place after a step back.
    fn plan_anew(&mut self, now_ms: i64, beyond_ms: i64) {
        self.heap.clear();
        self.waiting.clear();
        for index in 0..self.planned.len() {
            let planned = &mut self.planned[index];
            if planned.watermark_ms > beyond_ms {
                planned.watermark_ms = now_ms;
            }
            match planned.schedule.calendar.event() {
                None => planned.next_ms = planned.calendar_instant(),
                Some(Event::RunEnd(_)) if !planned.ended => {
                    self.wait(index);
                    continue;
                }
                // A start that is not in the books is due now, as one after the last slot is.
                Some(Event::Startup) if planned.next_ms.is_some() => {
                    planned.next_ms = planned.schedule.calendar.bounded(now_ms.max(planned.watermark_ms + 1));
                }
                Some(_) => {}
            }
            self.push(index);
        }
    }

    /// The rows of the ledger that reach beyond `now_ms`, as they are up to now.
    async fn cut(&self, now_ms: i64, beyond_ms: i64) -> Result<Vec<store::Across>, store::Error> {
        let mut rows = self.core.store.across(now_ms, beyond_ms).await?;
        let calendars: HashMap<i64, &Planned> = self.planned.iter().map(|p| (p.schedule.number, p)).collect();
        rows.retain_mut(|row| {
            let Some(planned) = calendars.get(&row.schedule) else { return false };
            // The first is there in any case; bounds that changed since may leave no other.
            let others = planned.schedule.calendar.count(row.nominal_ms, now_ms);
            row.until_ms = others.map_or(row.nominal_ms, |others| others.last_ms);
            row.count = others.map_or(1, |others| i64::try_from(others.count).unwrap_or(i64::MAX - 1) + 1);
            true
        });
        Ok(rows)
    }
}
