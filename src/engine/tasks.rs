//! Tasks: requests that are stored, run at once and can be run again.
//!
//! A run of a task is a run like any other, admitted on the same path; it only knows which request it is of.

use std::sync::Arc;

use super::Core;
use super::submit::{Refused, TriggerRequest, Triggered};
use crate::model::TaskRequest;
use crate::store::OfTask;

/// What is asked to be run of a task.
#[derive(Debug, Clone)]
pub struct TaskAsk {
    /// The known task; `None`: the request becomes a new one.
    pub task: Option<i64>,
    /// The request as this run is to be.
    pub request: TaskRequest,
    /// Who asks.
    pub user: Option<String>,
    /// The caller's own name for what he asks.
    pub key: Option<String>,
}

/// A run of a task. Its row is on disk.
#[derive(Debug, Clone)]
pub struct TaskRun {
    /// The task.
    pub task: i64,
    /// The run.
    pub run: Triggered,
}

impl Core {
    /// Admits a run of a task, by the agent of requests that name none.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn run_task(self: &Arc<Self>, asked: TaskAsk) -> Result<TaskRun, Refused> {
        let entry = self.default_agent().await?;
        let agent = entry.agent.id.clone();
        let format = asked.request.format();
        let overrides = asked.request.overrides();
        let of = asked.task.map_or_else(|| OfTask::New(Box::new(asked.request)), OfTask::Known);
        let request = TriggerRequest { agent: agent.clone(), overrides, overlap: None, user: asked.user };
        let (manual, now_ms) = self.manual(&entry, request, asked.key)?;
        let (run, task) = match self.store.admit_of_task(manual, of, format, now_ms).await? {
            Ok((run, task)) => (Ok(run), task),
            Err(refusal) => (Err(refusal), 0),
        };
        Ok(TaskRun { task, run: self.admitted(run, &agent, now_ms)? })
    }
}
