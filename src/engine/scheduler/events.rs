//! Schedules whose instants are not in a calendar: `after`, which follows the runs of its agent, and
//! `on: startup`, which follows the daemon.
//!
//! `after` counts from the end of the newest run, or from the instant at which its last slot was
//! decided if that is later: a slot that was left out (the agent paused, its file broken) would else
//! be the last one. While a run of the agent waits or is under way it has no next instant; then it is
//! among those that wait, which are looked up whenever the scheduler wakes. The end of a run wakes
//! it, and a lost wake-up costs one turn of the loop. An instant that has come is looked up once
//! more, for a run by hand may have begun and ended meanwhile.
//!
//! The start of the daemon is an instant of the first catalog that this process plans, and of no
//! later one: a schedule that a reload brings waits for the next start. Its slot is due as long as it
//! is not in the books, so a daemon that is killed before that owes nothing, for its successor has a
//! start of its own. A program that took over in place is no start: it goes on with that of the one
//! before it, which is due only as long as nobody has decided it.

use super::Scheduler;
use crate::engine::Core;
use crate::model::{Agent, Timing};
use crate::plan::Event;
use crate::store::{self, Activity};

impl Core {
    /// Wakes the scheduler where a run of `agent` has ended and a schedule follows it.
    pub(in crate::engine) fn tell_followers(&self, agent: &Agent) {
        if agent.schedules.iter().any(|s| matches!(s.timing, Timing::After { .. })) {
            self.wake.scheduler.notify_one();
        }
    }
}

impl Scheduler {
    /// The next instant of a schedule that follows events, as far as it is known without rows.
    pub(super) fn event_instant(&mut self, index: usize, event: Event, first_load: bool) -> Option<i64> {
        let planned = &self.planned[index];
        match event {
            Event::RunEnd(_) => {
                self.wait(index);
                None
            }
            // A new start is not at or before what is decided, as after a clock that was set back: it is
            // waited out.
            Event::Startup if first_load => match self.core.handover.start_before() {
                Some(started_ms) if started_ms <= planned.watermark_ms => None,
                Some(started_ms) => planned.schedule.calendar.bounded(started_ms),
                None => planned.schedule.calendar.bounded(self.started_ms.max(planned.watermark_ms + 1)),
            },
            Event::Startup => None,
        }
    }

    /// Of what has come due, keeps what needs no second look; the rest waits for it.
    pub(super) fn set_aside(&mut self, due: &mut Vec<usize>) {
        due.retain(|&index| {
            let follows = matches!(self.planned[index].schedule.calendar.event(), Some(Event::RunEnd(_)));
            if follows {
                self.wait(index);
            }
            !follows
        });
    }

    /// Looks up the runs that schedules wait for, and gives back those whose instant has come; the
    /// others get their place in the heap, or go on waiting.
    pub(super) async fn follow_runs(&mut self, now_ms: i64) -> Result<Vec<usize>, store::Error> {
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        let agents = self.waiting.iter().map(|&index| self.planned[index].agent.number).collect();
        let found = self.core.store.activity(agents).await?;
        let mut due = Vec::new();
        for (index, activity) in std::mem::take(&mut self.waiting).into_iter().zip(found) {
            if activity.active {
                self.waiting.push(index);
                continue;
            }
            let next_ms = self.after_run(index, activity, now_ms);
            self.planned[index].next_ms = next_ms;
            match next_ms {
                Some(at) if at <= now_ms => due.push(index),
                _ => self.push(index),
            }
        }
        Ok(due)
    }

    fn after_run(&self, index: usize, activity: Activity, now_ms: i64) -> Option<i64> {
        let planned = &self.planned[index];
        let Some(Event::RunEnd(delay_ms)) = planned.schedule.calendar.event() else {
            return None;
        };
        // A clock that was set back has runs that end in the future.
        let ended_ms = activity.last_ended_ms.map_or(i64::MIN, |ended| ended.min(now_ms));
        let next_ms = ended_ms.max(planned.watermark_ms).saturating_add(delay_ms);
        planned.schedule.calendar.bounded(next_ms).filter(|_| !planned.ended)
    }
}
