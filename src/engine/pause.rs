//! Pausing and resuming agents by hand.

use super::Core;
use crate::ids::AgentId;
use crate::store::{self, Pause};

/// Longest reason, bytes.
pub const REASON_MAX: usize = 1000;
/// Who is said to pause an agent where its circuit breaker does.
pub const BREAKER: &str = "breaker";

/// Why an agent is neither paused nor resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(AgentId),
    /// The reason is too long.
    #[error("the reason has {0} bytes; at most {REASON_MAX} are taken")]
    LongReason(usize),
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
        let by = if by == BREAKER { format!("user {by}") } else { by.to_owned() };
        tracing::info!(agent.id = %agent, "{by} paused agent {agent}");
        let pause = Pause { since_ms: self.clock.now_ms(), by, reason };
        if self.store.pause(agent.clone(), pause).await? {
            self.changed();
            return Ok(());
        }
        Err(PauseError::UnknownAgent(agent.clone()))
    }

    /// Lets an agent fire again; what it was paused by, where it was.
    ///
    /// # Errors
    /// [`PauseError`] says why it is not resumed.
    pub async fn resume(
        &self,
        agent: &AgentId,
        by: &str,
        _catch_up: bool,
    ) -> Result<Option<Pause>, PauseError> {
        let before = self.store.resume(agent.clone(), self.clock.now_ms()).await?;
        let before = before.ok_or_else(|| PauseError::UnknownAgent(agent.clone()))?;
        if before.is_some() {
            tracing::info!(agent.id = %agent, "{by} resumed agent {agent}");
        }
        self.changed();
        Ok(before)
    }
}
