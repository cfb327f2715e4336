//! Pausing and resuming agents by hand.

use std::sync::Arc;

use super::catalog::{Entry, ScheduleEntry};
use super::{Core, submit};
use crate::ids::AgentId;
use crate::model::CatchUp;
use crate::plan::{self, Policy};
use crate::store::{self, Pause, Replay, Resumed};
use crate::time::millis;

/// Longest reason, bytes.
pub const REASON_MAX: usize = 1000;
/// How often a resume that meets a slot that comes due begins again.
const RESUME_TRIES: usize = 10;

/// Why an agent is neither paused nor resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(AgentId),
    /// The reason is too long.
    #[error("the reason has {0} bytes; at most {REASON_MAX} are taken")]
    LongReason(usize),
    /// Its slots come due faster than they can be read.
    #[error("slots of agent {0} come due while they are read; try again")]
    Moving(AgentId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Core {
    /// Pauses an agent: its slots end `not_run:paused` until it is resumed.
    ///
    /// # Errors
    /// [`PauseError`] says why it is not paused.
    pub async fn pause(&self, agent: &AgentId, by: &str, reason: Option<String>) -> Result<(), PauseError> {
        if let Some(reason) = reason.as_ref().filter(|r| r.len() > REASON_MAX) {
            return Err(PauseError::LongReason(reason.len()));
        }
        // Nobody passes for the breaker: its pauses are lifted by itself.
        let by = if by == store::BREAKER { format!("user {by}") } else { by.to_owned() };
        tracing::info!(agent = %agent, "{by} paused agent {agent}");
        let pause = Pause { since_ms: self.clock.now_ms(), by, reason };
        if self.store.pause(agent.clone(), pause).await? {
            self.changed();
            return Ok(());
        }
        Err(PauseError::UnknownAgent(agent.clone()))
    }

    /// Lets an agent fire again; what it was paused by, where it was. With `catch_up` the slots that
    /// the pause has left out are decided anew, as its schedules' `catch_up` says.
    ///
    /// # Errors
    /// [`PauseError`] says why it is not resumed.
    pub async fn resume(
        self: &Arc<Self>,
        agent: &AgentId,
        by: &str,
        catch_up: bool,
    ) -> Result<Option<Pause>, PauseError> {
        for _ in 0..RESUME_TRIES {
            let now_ms = self.clock.now_ms();
            let entry = self.catalog.get(agent).filter(|entry| catch_up && entry.valid);
            let replays = match entry {
                Some(entry) => self.replays(&entry, now_ms).await?,
                None => Vec::new(),
            };
            match self.store.resume(agent.clone(), replays, now_ms).await? {
                Resumed::Unknown => return Err(PauseError::UnknownAgent(agent.clone())),
                Resumed::Moved => {}
                Resumed::Done { before, way } => {
                    if before.is_some() {
                        tracing::info!(agent = %agent, "{by} resumed agent {agent}");
                    }
                    self.clear_the_way(way);
                    self.wake.dispatcher.notify_one();
                    self.changed();
                    return Ok(before);
                }
            }
        }
        Err(PauseError::Moving(agent.clone()))
    }

    /// What becomes of the slots that the pause of an agent has left out. Those that are older than
    /// the longest time that their schedule makes up for stay left out.
    async fn replays(&self, agent: &Arc<Entry>, now_ms: i64) -> Result<Vec<Replay>, store::Error> {
        let window = |entry: &ScheduleEntry| entry.schedule.catch_up_window.unwrap_or(plan::WINDOW_MAX);
        let longest = agent.schedules.iter().map(window).max().unwrap_or_default();
        let left_out = self.store.left_out(agent.number, now_ms.saturating_sub(millis(longest))).await?;
        let mut replays = Vec::new();
        for slots in left_out {
            let Some(entry) = agent.schedules.iter().find(|s| s.number == slots.schedule) else { continue };
            if entry.schedule.catch_up == CatchUp::None || entry.calendar.event().is_some() {
                continue;
            }
            let policy = Policy::from(entry.schedule.as_ref());
            let decisions = plan::replay(&entry.calendar, &policy, slots.after_ms, slots.until_ms, now_ms);
            let choose = |decision| submit::choice(self, agent, entry, decision, now_ms, None);
            replays.push(Replay { slots, choices: decisions.into_iter().map(choose).collect() });
        }
        Ok(replays)
    }
}
