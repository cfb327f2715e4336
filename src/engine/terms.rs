//! What holds for one run, wherever it was said: by the trigger, by the variant that it is of, by the schedule
//! that it is a slot of, or by the agent, in this order.
//!
//! All of it is read from the definition that the run was admitted with, so a run whose agent was changed
//! meanwhile, or that a later daemon takes up, is judged by the terms under which it began.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Core;
use crate::exec::RunDirs;
use crate::model::{Agent, Failure, FailureCode, Overrides, SlotOverrides, Timeout};
use crate::store;

/// What bounds and judges a run.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Longest time of one attempt.
    pub(super) timeout: Option<Duration>,
    /// What its result must be.
    pub(super) result_schema: Option<Value>,
    /// Working directory.
    pub(super) cwd: PathBuf,
}

impl Terms {
    /// The terms of a run of this session.
    pub(super) fn of(
        agent: &Agent,
        overrides: &Overrides,
        slot: Option<&SlotOverrides>,
        dirs: &RunDirs,
        session: &str,
    ) -> Self {
        let asked = overrides.timeout_ms.map(Duration::from_millis);
        let of_agent = || slot.and_then(|s| s.timeout).map_or(agent.timeout, Timeout::bound);
        Self {
            timeout: asked.or_else(of_agent),
            result_schema: agent.promised(overrides).cloned(),
            cwd: agent.cwd.clone().unwrap_or_else(|| dirs.workspace(session)),
        }
    }

    /// The longest time that the programs of one attempt may take together, without their graces.
    pub(super) fn longest(&self, agent: &Agent) -> Option<Duration> {
        let policies = &agent.policies;
        let hooks = [policies.gate.as_ref(), policies.success_when.verify.as_ref()];
        let hooks: Duration = hooks.into_iter().flatten().map(|hook| hook.timeout).sum();
        let each = self.timeout.map(|timeout| timeout.saturating_add(hooks));
        each.into_iter().chain(policies.total_timeout).min()
    }
}

/// What the schedule of a run, or of the one that it repeats, says otherwise than the agent; read only
/// where any of them does.
pub(super) async fn slot<'a>(
    core: &Core,
    agent: &'a Agent,
    number: i64,
) -> Result<Option<&'a SlotOverrides>, store::Error> {
    let plain = SlotOverrides::default();
    if agent.schedules.iter().all(|s| s.overrides == plain) {
        return Ok(None);
    }
    let id = core.store.schedule_of(number).await?;
    let of = |id: String| agent.schedules.iter().find(|s| s.id.to_string() == id);
    Ok(id.and_then(of).map(|schedule| &schedule.overrides))
}

/// A failure of the store before a start.
pub(super) fn unread(e: &store::Error) -> Failure {
    Failure::new(FailureCode::RuntimeError, format!("its record cannot be read: {e}"))
}
