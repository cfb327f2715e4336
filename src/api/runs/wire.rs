//! What goes over the wire in the dialect of tasks, field by field as its original has it.

use serde::Serialize;
use serde_json::Value;

use crate::api::answer;
use crate::model::{ResponseFormat, RunState, Step, StepAction, TaskRequest, Wire};
use crate::store::TaskRow;
use crate::time::rfc3339_ms;

/// The status of a task's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It ended as it should.
    Success,
    /// It ended otherwise.
    Failure,
    /// It has not ended.
    InProgress,
}

impl TaskStatus {
    fn of(state: RunState) -> Self {
        match state {
            RunState::Pending | RunState::Running => Self::InProgress,
            RunState::Completed => Self::Success,
            RunState::Failed => Self::Failure,
        }
    }
}

/// A run of a task.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct TaskResponse {
    /// The task; null of a run that is of none.
    pub task_id: Option<i64>,
    /// The run.
    pub task_run_id: Option<i64>,
    /// What it did, step by step; null where it was not asked.
    pub history: Option<Vec<HistoryItem>>,
    /// What it has answered; null until it is done.
    #[schema(value_type = Value)]
    pub result: Option<Value>,
    /// Whether it has ended.
    pub is_done: Option<bool>,
    /// Whether it ended well; null until it is done.
    pub is_successful: Option<bool>,
    /// How it stands.
    pub status: TaskStatus,
    /// What it did in its browser, for later runs to do again: what it recorded or, where nothing is new, began with; null
    /// where there is none. There only where it was asked for: by `use_cached_workflow`, or in the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub cached_workflow: Option<Value>,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct HistoryItem {
    /// What was done, for people.
    pub description: String,
    /// What was done, one by one.
    pub actions: Vec<StepAction>,
}

impl HistoryItem {
    /// How a run failed: what the shape has no other place for.
    pub(super) fn of_failure(code: Option<&str>, why: &str) -> Self {
        let action = StepAction {
            name: code.unwrap_or("failed").to_owned(),
            is_done: true,
            success: Some(false),
            error: Some(why.to_owned()),
            ..StepAction::default()
        };
        Self { description: "The run failed".to_owned(), actions: vec![action] }
    }
}

impl From<Step> for HistoryItem {
    fn from(step: Step) -> Self {
        Self { description: step.description, actions: step.actions }
    }
}

impl TaskResponse {
    /// A run in this state.
    pub(super) fn of(run: i64, state: RunState) -> Self {
        let done = state.is_terminal();
        Self {
            task_id: None,
            task_run_id: Some(run),
            history: Some(Vec::new()),
            result: None,
            is_done: Some(done),
            is_successful: done.then_some(state == RunState::Completed),
            status: TaskStatus::of(state),
            cached_workflow: None,
        }
    }

    /// The answer to who does not wait: the integers.
    pub(super) fn in_progress(task: i64, run: i64) -> Self {
        Self { task_id: Some(task), history: None, ..Self::of(run, RunState::Pending) }
    }
}

/// The result in the shape that was asked for: one text, or JSON. `written` is what a program wrote that has given
/// no result.
pub(super) fn result(
    format: ResponseFormat,
    result: Option<Value>,
    written: Option<String>,
) -> Option<Value> {
    let written = written.filter(|text| !text.is_empty());
    match (format, result, written) {
        (ResponseFormat::Text, Some(text @ Value::String(_)), _) => Some(text),
        (ResponseFormat::Text, Some(other), _) => Some(Value::String(other.to_string())),
        (ResponseFormat::Json, Some(result), _) => Some(result),
        (ResponseFormat::Text, None, text) => text.map(Value::String),
        (ResponseFormat::Json, None, text) => {
            text.map(|text| answer::parsed(&text).unwrap_or(Value::String(text)))
        }
    }
}

/// A stored request.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Task)]
pub struct StoredTask {
    /// The task.
    pub task_id: i64,
    /// What is to be done.
    pub prompt: Option<String>,
    /// The model; null: the agent's.
    pub model: Option<String>,
    /// Who provides it; null: the agent's.
    pub provider: Option<String>,
    /// Who hears of the end.
    pub webhook_url: Option<String>,
    /// The shape of the result.
    pub response_format: ResponseFormat,
    /// What the result must be.
    #[schema(value_type = Option<Object>)]
    pub json_schema: Option<Value>,
    /// When it was asked for.
    pub created_at: String,
    /// Its newest runs, newest first.
    pub runs: Vec<TaskRunItem>,
}

/// What a new task is made of, as the document describes it.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the body is read field by field; this describes it")]
pub struct NewTask {
    /// What is to be done.
    #[schema(min_length = 3)]
    prompt: String,
    /// The model by its provider's name; without it and `provider` the agent's own, else `o3`.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    /// Who provides the model; `openai` where only the model is named.
    provider: Option<Wire>,
    /// Whether to wait for the end, as long as the setting `wait_ceiling` lets; true where it is left out.
    wait_for_completion: Option<bool>,
    /// Who hears of the end.
    #[schema(pattern = "^https?://[^ ]+$")]
    webhook_url: Option<String>,
    /// The shape of the result; `text` where it is left out.
    response_format: Option<ResponseFormat>,
    /// What the result must be: a JSON Schema, or its text.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Value>,
    /// Whether the run first does again, without a model, what an earlier run of the same prompt, schema and tools did
    /// in its browser; left out: as the agent's `executor.cache` says. The answer then has `cached_workflow`.
    use_cached_workflow: Option<bool>,
    /// The workflow to begin with in the place of that, as an answer had it; an empty one is none.
    #[schema(value_type = Option<Object>)]
    cached_workflow: Option<Value>,
}

/// What a run of a known task says otherwise, as the document describes it.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the body is read field by field; this describes it")]
pub struct TaskChanges {
    /// What is to be done.
    #[schema(min_length = 3)]
    prompt: Option<String>,
    /// The model by its provider's name.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    /// Who provides the model.
    provider: Option<Wire>,
    /// Whether to wait for the end, as long as the setting `wait_ceiling` lets; true where it is left out.
    wait_for_completion: Option<bool>,
    /// Who hears of the end.
    #[schema(pattern = "^https?://[^ ]+$")]
    webhook_url: Option<String>,
    /// The shape of the result.
    response_format: Option<ResponseFormat>,
    /// What the result must be: a JSON Schema, or its text.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Value>,
    /// Whether the run first does again, without a model, what an earlier run of the same prompt, schema and tools did
    /// in its browser; left out: as the agent's `executor.cache` says. The answer then has `cached_workflow`.
    use_cached_workflow: Option<bool>,
    /// The workflow to begin with in the place of that, as an answer had it; an empty one is none.
    #[schema(value_type = Option<Object>)]
    cached_workflow: Option<Value>,
}

/// A run of a task in short.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct TaskRunItem {
    /// The run.
    pub task_run_id: i64,
    /// How it stands.
    pub status: TaskStatus,
}

impl From<TaskRow> for StoredTask {
    fn from(row: TaskRow) -> Self {
        let response_format = row.request.format();
        let TaskRequest { prompt, model, provider, webhook_url, json_schema, .. } = row.request;
        let item = |(task_run_id, state)| TaskRunItem { task_run_id, status: TaskStatus::of(state) };
        Self {
            task_id: row.number,
            prompt,
            model,
            provider,
            webhook_url: webhook_url.as_deref().map(crate::webhook::shown),
            response_format,
            json_schema,
            created_at: rfc3339_ms(row.created_ms),
            runs: row.runs.into_iter().map(item).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn success_is_said_of_what_is_done_only() {
        let told = |state| serde_json::to_value(TaskResponse::of(7, state)).unwrap();
        for (state, done, successful, status) in [
            (RunState::Pending, false, Value::Null, "in_progress"),
            (RunState::Running, false, Value::Null, "in_progress"),
            (RunState::Completed, true, json!(true), "success"),
            (RunState::Failed, true, json!(false), "failure"),
        ] {
            let told = told(state);
            assert_eq!((&told["is_done"], &told["is_successful"]), (&json!(done), &successful), "{state}");
            assert_eq!(told["status"], status);
        }
    }

    #[test]
    fn a_result_has_the_shape_that_was_asked_for() {
        let text = |r: Option<Value>, w: Option<&str>| result(ResponseFormat::Text, r, w.map(Into::into));
        let json = |r: Option<Value>, w: Option<&str>| result(ResponseFormat::Json, r, w.map(Into::into));
        assert_eq!(text(Some(json!("a")), None), Some(json!("a")));
        assert_eq!(text(Some(json!({"a": 1})), None), Some(json!("{\"a\":1}")));
        assert_eq!(text(None, Some("{\"a\":1}")), Some(json!("{\"a\":1}")));
        assert_eq!(json(Some(json!({"a": 1})), None), Some(json!({"a": 1})));
        assert_eq!(json(None, Some("{\"a\":1}")), Some(json!({"a": 1})));
        assert_eq!(json(None, Some("plain")), Some(json!("plain")));
        assert_eq!((text(None, Some("")), json(None, None)), (None, None));
    }
}
