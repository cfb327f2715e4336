//! `matins resume --catch-up`: the slots that a pause has left out are decided again, as if the daemon
//! had been down instead.
//!
//! Each schedule decides by its own `catch_up` and `catch_up_window`: what runs is a catch-up, what one
//! run stands for is `coalesced` into it, and the rest stays as the pause has left it. `after` and
//! `on: startup` have nothing to make up for. A replay does not count towards `max_runs`.
//!
//! It comes before the pause is lifted: a daemon that dies in between leaves the agent paused and what
//! was replayed in the books, so asking again runs nothing twice.

use std::sync::Arc;

use super::catalog::{Entry, ScheduleEntry};
use super::{Core, submit};
use crate::ids::AgentId;
use crate::model::NotRun;
use crate::plan::{self, Decision, Policy};
use crate::store::{self, Choice, PausedRow, Replay};

impl Core {
    /// Replays what the present pause of an agent has left out; how many runs that makes. To be called
    /// while the agent is still paused.
    ///
    /// # Errors
    /// Those of the store; the schedules before the one that failed are replayed.
    pub async fn replay_paused(self: &Arc<Self>, agent: &AgentId) -> Result<usize, store::Error> {
        let Some(entry) = self.catalog.get(agent).filter(|entry| entry.valid) else {
            return Ok(0);
        };
        let mut runs = 0;
        for schedule in entry.schedules.iter().filter(|s| s.calendar.event().is_none()) {
            let now_ms = self.clock.now_ms();
            let rows = self.store.paused_rows(schedule.number).await?;
            let Some(replay) = self.plan_replay(&entry, schedule, &rows, now_ms) else { continue };
            let (made, way) = self.store.replay(replay, now_ms).await?;
            self.clear_the_way(way);
            runs += made;
        }
        if runs > 0 {
            self.wake.dispatcher.notify_one();
            self.changed();
        }
        Ok(runs)
    }

    fn plan_replay(
        &self,
        entry: &Arc<Entry>,
        schedule: &ScheduleEntry,
        rows: &[PausedRow],
        now_ms: i64,
    ) -> Option<Replay> {
        let (first, last) = (rows.first()?, rows.last()?);
        let policy = Policy::from(schedule.schedule.as_ref());
        let decisions =
            plan::replay(&schedule.calendar, &policy, first.nominal_ms - 1, last.until_ms, now_ms);
        let (mut gone, mut choices) = (Vec::new(), Vec::new());
        for row in rows {
            if let Some(pieces) = self.pieces(entry, schedule, row, &decisions, now_ms) {
                gone.push(*row);
                choices.extend(pieces);
            }
        }
        let pass = submit::admission(self, entry, schedule, choices, now_ms);
        (!gone.is_empty()).then_some(Replay { rows: gone, pass })
    }

    /// What stands in the place of a row; `None` where it stays.
    fn pieces(
        &self,
        entry: &Arc<Entry>,
        schedule: &ScheduleEntry,
        row: &PausedRow,
        decisions: &[Decision],
        now_ms: i64,
    ) -> Option<Vec<Choice>> {
        let from = decisions.partition_point(|d| d.until_ms() < row.nominal_ms);
        let inside = decisions[from..].iter().take_while(|d| d.nominal_ms() <= row.until_ms);
        let (mut pieces, mut count, mut changes) = (Vec::new(), 0, false);
        for decision in inside {
            let reason = match *decision {
                Decision::Run { .. } => {
                    pieces.push(submit::choice(self, entry, schedule, *decision, now_ms, None));
                    (count, changes) = (count + 1, true);
                    continue;
                }
                Decision::NotRun { reason: NotRun::Coalesced, .. } => NotRun::Coalesced,
                Decision::NotRun { .. } => row.reason,
            };
            changes |= reason == NotRun::Coalesced;
            let from_ms = decision.nominal_ms().max(row.nominal_ms);
            let stretch = schedule.calendar.count(from_ms - 1, decision.until_ms().min(row.until_ms))?;
            count += stretch.count;
            pieces.push(Choice::NotRun {
                nominal_ms: stretch.first_ms,
                until_ms: stretch.last_ms,
                count: stretch.count,
                reason,
                into_own_run: reason == NotRun::Coalesced,
                into_pass: None,
            });
        }
        // A row of a timing that means other slots by now stays what it is.
        (changes && count == row.count).then_some(pieces)
    }
}
