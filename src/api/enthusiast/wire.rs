//! What goes over the wire in the dialect of agentic executions, field by field as its original has it.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{answer, media_url};
use crate::model::{Agent, RunFile, RunState, Variant};
use crate::schema;
use crate::store::ExecutionRow;
use crate::time::rfc3339_ms;

/// A kind of execution that an agent knows.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = ExecutionDefinition)]
pub struct Definition {
    /// Its key.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What its input must be.
    #[schema(value_type = Object)]
    pub input_schema: Value,
}

impl Definition {
    /// A variant of an agent.
    pub(super) fn of(key: &str, variant: &Variant, agent: &Agent) -> Self {
        Self {
            key: key.to_owned(),
            name: variant.name.clone(),
            description: variant.description.clone(),
            input_schema: input_schema(variant, agent),
        }
    }
}

/// What the input of an execution must be; any object where its agent does not say.
pub(super) fn input_schema(variant: &Variant, agent: &Agent) -> Value {
    let said = variant.input_schema.as_ref().or(agent.input_schema.as_ref());
    said.filter(|schema| schema.is_object()).map_or_else(|| json!({ "type": "object" }), schema::strict)
}

/// One execution.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Execution)]
pub struct ExecutionView {
    /// The run's integer.
    pub id: i64,
    /// The agent's integer.
    pub agent: i64,
    /// Which of its agent's definitions it is of.
    pub execution_key: String,
    /// The session's integer.
    pub conversation: i64,
    /// `pending`, `in_progress`, `finished` or `failed`.
    pub status: Status,
    /// The input with its defaults; null in a list where it is long.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
    /// What it has answered, where it is finished; null in a list where it is long.
    #[schema(value_type = Value)]
    pub result: Option<Value>,
    /// Code of its failure.
    pub failure_code: Option<String>,
    /// The failure in a sentence.
    pub failure_explanation: Option<String>,
    /// The run's id.
    pub celery_task_id: String,
    /// When it was asked for.
    pub started_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Seconds from the one to the other.
    pub duration_seconds: Option<f64>,
    /// The files that it was given; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<ExecutionFile>>,
}

/// A page of executions.
#[derive(Debug, Clone, Default, Serialize, utoipa::ToSchema)]
pub struct Executions {
    /// How many there are in all.
    pub count: u64,
    /// Address of the next page.
    pub next: Option<String>,
    /// Address of the page before.
    pub previous: Option<String>,
    /// The executions, newest first.
    pub results: Vec<ExecutionView>,
}

/// A file that an execution was given.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ExecutionFile {
    /// Its integer.
    pub id: i64,
    /// Its name.
    pub filename: String,
    /// Where its content is, on this server.
    pub file_url: String,
    /// Its media type.
    pub content_type: String,
}

/// What starts an execution, as the document describes it.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the body is read field by field; this describes it")]
pub struct StartExecution {
    /// One of the agent's definitions.
    execution_key: String,
    /// What it is to work on; `{}` where it is left out.
    #[schema(value_type = Option<Object>, nullable = false)]
    input: Option<Value>,
}

/// The same as a form, which can bring files.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the form is read part by part; this describes it")]
pub struct StartExecutionForm {
    /// One of the agent's definitions.
    execution_key: String,
    /// What it is to work on, as JSON text; `{}` where it is left out.
    #[schema(nullable = false)]
    input: Option<String>,
    /// Files of the types that the definition lists; `files[]` is the same.
    #[schema(value_type = Option<Vec<String>>, nullable = false, content_media_type = "application/octet-stream")]
    files: Option<Vec<u8>>,
}

impl ExecutionFile {
    /// A file of a run in this conversation.
    pub(super) fn of(file: RunFile, conversation: i64) -> Self {
        let file_url = media_url(conversation, &file.name);
        Self { id: file.number, filename: file.name, file_url, content_type: file.media_type }
    }
}

/// The states of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ExecutionStatus)]
pub enum Status {
    /// It waits.
    Pending,
    /// It runs.
    InProgress,
    /// It ended as it should.
    Finished,
    /// It ended otherwise.
    Failed,
}

impl Status {
    /// The status of a run.
    pub(super) fn of(state: RunState) -> Self {
        match state {
            RunState::Pending => Self::Pending,
            RunState::Running => Self::InProgress,
            RunState::Completed => Self::Finished,
            RunState::Failed => Self::Failed,
        }
    }

    /// The state of this word; `None`: there is no such status.
    pub(super) fn state(word: &str) -> Option<RunState> {
        Some(match word {
            "pending" => RunState::Pending,
            "in_progress" => RunState::Running,
            "finished" => RunState::Completed,
            "failed" => RunState::Failed,
            _ => return None,
        })
    }
}

impl From<ExecutionRow> for ExecutionView {
    fn from(row: ExecutionRow) -> Self {
        let failed = row.state == RunState::Failed;
        let took = row.completed_ms.map(|at| {
            std::time::Duration::from_millis(u64::try_from(at.saturating_sub(row.created_ms)).unwrap_or(0))
        });
        Self {
            id: row.number,
            agent: row.agent,
            execution_key: row.key,
            conversation: row.conversation,
            status: Status::of(row.state),
            input: row.input,
            result: row.result.filter(|_| row.state == RunState::Completed),
            failure_code: row.failure_code.filter(|_| failed),
            failure_explanation: row.explanation.filter(|_| failed),
            celery_task_id: row.id.to_string(),
            started_at: instant(row.created_ms),
            finished_at: row.completed_ms.map(instant),
            duration_seconds: took.map(|took| took.as_secs_f64()),
            files: None,
        }
    }
}

/// An instant with microseconds.
fn instant(ms: i64) -> String {
    let text = rfc3339_ms(ms);
    text.strip_suffix('Z').map_or_else(|| text.clone(), |head| format!("{head}000Z"))
}

/// What a program has answered that only wrote: JSON, or an object with its text.
pub(super) fn answered(text: &str) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    Some(answer::parsed(text).unwrap_or_else(|| json!({ "response": text })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_microseconds() {
        assert_eq!(instant(1_744_293_600_000), "2025-04-10T14:00:00.000000Z");
        assert_eq!(instant(1_744_293_600_123), "2025-04-10T14:00:00.123000Z");
    }

    #[test]
    fn who_only_wrote_has_answered_with_that() {
        assert_eq!(answered(""), None);
        assert_eq!(answered("[1, 2]"), Some(json!([1, 2])));
        assert_eq!(answered("done: 3"), Some(json!({ "response": "done: 3" })));
    }

    #[test]
    fn every_state_has_its_status() {
        for state in RunState::ALL {
            let word = serde_json::to_value(Status::of(*state)).unwrap();
            assert_eq!(Status::state(word.as_str().unwrap()), Some(*state));
        }
        assert_eq!(Status::state("COMPLETED"), None);
    }
}
