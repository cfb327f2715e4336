//! The dialect of agentic executions: an agent's `executions:` are its definitions, a run with an execution key
//! is an execution.
//!
//! It adds no behaviour: input is held to the definition's schema by the letter and stored with its defaults, and
//! from there a run is a run. Agents and executions have integers; a path takes a name or a UUID as well. A caller sees
//! the executions that it has asked for itself, and no others, whoever it is.

mod form;
mod input;
mod list;
mod start;
mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, App, Caller, answer};
use crate::engine::Entry;
use crate::model::RunState;
use crate::store::ExecutionRow;

use wire::{Definition, ExecutionFile, ExecutionView};

/// The calls of this dialect.
pub(super) fn router() -> OpenApiRouter<App> {
    // A form may be as long as its files: what is not a file is bounded where it is read.
    let start = OpenApiRouter::new().routes(routes!(start::start)).layer(DefaultBodyLimit::disable());
    start.routes(routes!(definitions)).routes(routes!(list::list)).routes(routes!(execution))
}

/// A request that is not carried out: in words of this dialect alone, or as everywhere.
#[derive(Debug)]
pub enum Refusal {
    /// This body.
    Body(StatusCode, Value),
    /// An error of the daemon.
    Error(ApiError),
}

impl Refusal {
    fn detail(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::Body(status, serde_json::json!({ "detail": detail.into() }))
    }

    fn bad(body: Value) -> Self {
        Self::Body(StatusCode::BAD_REQUEST, body)
    }
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Body(status, body) => (status, Json(body)).into_response(),
            Self::Error(error) => error.into_response(),
        }
    }
}

/// The execution definitions of an agent.
#[utoipa::path(
    get,
    path = "/api/agents/{agent_id}/agentic-execution-definitions/",
    operation_id = "list_agentic_execution_definitions",
    tag = "enthusiast",
    params(("agent_id" = String, Path, description = "The agent's integer or id")),
    responses((status = 200, description = "The definitions, by key", body = Vec<Definition>))
)]
pub async fn definitions(
    State(app): State<App>,
    Path(agent): Path<String>,
    caller: Caller,
) -> Result<Json<Vec<Definition>>, Refusal> {
    let entry = agent_of(&app, &caller, &agent)?;
    let executions = &entry.agent.policies.executions;
    Ok(Json(executions.iter().map(|(key, variant)| Definition::of(key, variant, &entry.agent)).collect()))
}

/// One execution.
#[utoipa::path(
    get,
    path = "/api/agentic-executions/{id}/",
    operation_id = "get_agentic_execution",
    tag = "enthusiast",
    params(("id" = String, Path, description = "The run's integer or id")),
    responses((status = 200, description = "The execution with its files", body = ExecutionView))
)]
pub async fn execution(
    State(app): State<App>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Json<ExecutionView>, Refusal> {
    let row = app.core.store.execution(name.clone(), caller.name.to_string()).await?;
    let row = row.filter(|row| sees(&app, &caller, row.agent)).ok_or_else(|| ApiError::no_event(&name))?;
    Ok(Json(detail(&app, row).await?))
}

/// The agent of a path: by its integer, or by its id.
fn agent_of(app: &App, caller: &Caller, name: &str) -> Result<Arc<Entry>, ApiError> {
    let catalog = &app.core.catalog;
    let by_number = name.parse().ok().and_then(|number| catalog.by_number(number));
    let found = by_number.or_else(|| catalog.get(&name.parse().ok()?));
    found.filter(|entry| sees(app, caller, entry.number)).ok_or_else(|| ApiError::no_agent(name))
}

/// Whether an agent exists for a caller. One whose file has gone exists for who sees all.
fn sees(app: &App, caller: &Caller, agent: i64) -> bool {
    match app.core.catalog.by_number(agent) {
        Some(entry) => caller.sees(entry.agent.id.as_str()),
        None => caller.visible().is_none(),
    }
}

/// An execution with its files.
async fn detail(app: &App, row: ExecutionRow) -> Result<ExecutionView, ApiError> {
    let mut told = told(app, vec![row]).await?;
    let execution = told.pop().ok_or_else(ApiError::internal)?;
    let files = app.core.store.run_files(execution.id).await?;
    let file = |file| ExecutionFile::of(file, execution.conversation);
    Ok(ExecutionView { files: Some(files.into_iter().map(file).collect()), ..execution })
}

/// Rows as they are answered. Who has given no result has answered with what it wrote.
async fn told(app: &App, mut rows: Vec<ExecutionRow>) -> Result<Vec<ExecutionView>, ApiError> {
    let silent = |row: &ExecutionRow| {
        row.state == RunState::Completed && row.result.is_none() && !row.gated && !row.cut
    };
    let read = rows.iter().filter(|row| silent(row));
    let agent =
        |number| app.core.catalog.by_number(number).map_or_else(String::new, |e| e.agent.id.to_string());
    let read =
        read.map(|row| answer::Of { run: row.id, agent: agent(row.agent), attempt: row.attempt }).collect();
    let mut written = answer::written(&app.core, read).await.into_iter();
    for row in rows.iter_mut().filter(|row| silent(row)) {
        row.result = written.next().as_deref().and_then(wire::answered);
    }
    let mut told = Vec::with_capacity(rows.len());
    for mut row in rows {
        if row.input.is_none() && !row.cut {
            let definition = app.core.catalog.definition(&app.core.store, row.agent, row.definition).await?;
            row.input = Some(definition.input.clone());
        }
        told.push(ExecutionView::from(row));
    }
    Ok(told)
}
