//! The dialect of tasks: a request is stored as a task and run at once, and can be run again with changes.
//!
//! Who asks may wait for the end, up to the setting `wait_ceiling`; then, or where he does not want to wait, he gets
//! the integers of task and run. A caller who leaves leaves the run. Which agent carries it out is not said here: it is
//! the one of requests that name none.

mod body;
mod wire;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::execute::idempotency_key;
use super::extract::Params;
use super::{ApiError, App, Caller, answer};
use crate::engine::builtin::DEFAULT_AGENT;
use crate::engine::{StepsError, TaskAsk};
use crate::ids::RunId;
use crate::model::{Overrides, ResponseFormat, RunState};
use crate::store::{Found, TaskRow};

use body::{Asked, Unfit};
use wire::{HistoryItem, NewTask, StoredTask, TaskChanges, TaskResponse};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Whether the answer has `cached_workflow`.
    cached_workflow: bool,
}

/// The calls of this dialect.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(run))
        .routes(routes!(task))
        .routes(routes!(again))
}

/// Runs a new task.
#[utoipa::path(
    post,
    path = "/api/runs",
    operation_id = "run_task",
    tag = "tasks",
    request_body = NewTask,
    responses((status = 200, description = "The run, ended or under way", body = TaskResponse))
)]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<TaskResponse>, Unfit> {
    let asked = body::read(&app, &headers, request, true).await?;
    let wait = asked.wait;
    if !caller.sees(DEFAULT_AGENT) {
        return Err(ApiError::no_agent(DEFAULT_AGENT).into());
    }
    let ask = ask(None, asked, &caller, &headers)?;
    Ok(Json(started(&app, ask, wait).await?))
}

/// Runs a known task again.
#[utoipa::path(
    post,
    path = "/api/tasks/{id}/runs",
    operation_id = "run_task_again",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's integer")),
    request_body = Option<TaskChanges>,
    responses((status = 200, description = "The run, ended or under way", body = TaskResponse))
)]
pub async fn again(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<TaskResponse>, Unfit> {
    let task = known(&app, &caller, &id).await?;
    let asked = body::read(&app, &headers, request, false).await?;
    let wait = asked.wait;
    let asked = Asked { request: task.request.overridden(asked.request), ..asked };
    let ask = ask(Some(task.number), asked, &caller, &headers)?;
    Ok(Json(started(&app, ask, wait).await?))
}

/// A task with its newest runs.
#[utoipa::path(
    get,
    path = "/api/tasks/{id}",
    operation_id = "get_task",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's integer")),
    responses((status = 200, description = "The task", body = StoredTask))
)]
pub async fn task(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Json<StoredTask>, Unfit> {
    Ok(Json(known(&app, &caller, &id).await?.into()))
}

/// A run as it stands.
#[utoipa::path(
    get,
    path = "/api/runs/{id}",
    operation_id = "get_task_run",
    tag = "tasks",
    params(("id" = String, Path, description = "The run's integer or id"), RunQuery),
    responses((status = 200, description = "The run", body = TaskResponse))
)]
pub async fn run(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<RunQuery>,
) -> Result<Json<TaskResponse>, Unfit> {
    let number = match (id.parse(), id.parse::<RunId>()) {
        (Ok(number), _) => number,
        (_, Ok(run)) => match app.core.store.find_run(run.to_string(), caller.visible()).await? {
            Found::One(number, _) => number,
            _ => return Err(ApiError::no_event(&id).into()),
        },
        _ => return Err(ApiError::no_event(&id).into()),
    };
    let view = view(&app, &caller, number, query.cached_workflow).await?;
    Ok(Json(view.ok_or_else(|| ApiError::no_event(&id))?))
}

fn ask(task: Option<i64>, asked: Asked, caller: &Caller, headers: &HeaderMap) -> Result<TaskAsk, ApiError> {
    let key = idempotency_key(headers)?;
    Ok(TaskAsk { task, request: asked.request, user: Some(caller.name.to_string()), key })
}

/// Admits a run, and waits for its end where that is wanted.
async fn started(app: &App, ask: TaskAsk, wait: bool) -> Result<TaskResponse, ApiError> {
    let made = app.core.run_task(ask).await?;
    let number = made.run.number;
    if wait {
        let most = app.core.settings().wait_ceiling;
        let state = app.core.wait_for_end(number, most).await?;
        if state.is_some_and(RunState::is_terminal)
            && let Some(told) = told(app, number, false).await?
        {
            return Ok(told);
        }
    }
    Ok(TaskResponse::in_progress(made.task, number))
}

/// A task that exists for this caller.
async fn known(app: &App, caller: &Caller, id: &str) -> Result<TaskRow, ApiError> {
    let found = match id.parse() {
        Ok(number) => app.core.store.task(number).await?,
        Err(_) => None,
    };
    found.filter(|task| caller.sees(&task.agent)).ok_or_else(|| ApiError::no_task(id))
}

/// A run that exists for this caller.
async fn view(
    app: &App,
    caller: &Caller,
    number: i64,
    workflow: bool,
) -> Result<Option<TaskResponse>, ApiError> {
    let detail = app.core.store.event(number).await?;
    if detail.is_none_or(|detail| !caller.sees(&detail.event.agent_id)) {
        return Ok(None);
    }
    told(app, number, workflow).await
}

/// A run as it stands, with its workflow where it, or the caller, asked for that; `None`: it is gone.
async fn told(app: &App, number: i64, workflow: bool) -> Result<Option<TaskResponse>, ApiError> {
    let Some(detail) = app.core.store.event(number).await? else { return Ok(None) };
    let (task, format) = app.core.store.task_of(number).await?.unzip();
    let (event, overrides) = (detail.event, detail.overrides);
    let history = history(app, number, &event.agent_id).await?;
    let mut response = TaskResponse { task_id: task, history, ..TaskResponse::of(number, event.status) };
    if let (RunState::Failed, Some(why), Some(history)) = (event.status, &event.error, &mut response.history)
    {
        history.push(HistoryItem::of_failure(event.failure_code.as_deref(), why));
    }
    if event.status == RunState::Completed {
        let result = event.result.filter(|result| !result.is_null());
        let written = match (&result, event.id.parse()) {
            (None, Ok(run)) if !event.gated => answer::written(
                &app.core,
                vec![answer::Of { run, agent: event.agent_id.clone(), attempt: event.attempt }],
            )
            .await
            .pop(),
            _ => None,
        };
        response.result = wire::result(format.unwrap_or(ResponseFormat::Text), result, written);
    }
    if workflow || overrides.use_workflow == Some(true) {
        let version = event.workflow.and_then(|replay| replay.version);
        response.cached_workflow =
            Some(cached_workflow(app, number, &event.agent_id, version, overrides).await?);
    }
    Ok(Some(response))
}

/// What a run left for later runs, else what it began with; null where there is neither.
async fn cached_workflow(
    app: &App,
    number: i64,
    agent: &str,
    version: Option<i64>,
    overrides: Overrides,
) -> Result<Value, ApiError> {
    let store = &app.core.store;
    let mut found = store.workflow_of_run(number).await?.map(|row| row.workflow);
    if let (None, Some(version), Ok(agent)) = (&found, version, agent.parse())
        && let Some(agent) = store.agent_number(agent).await?
    {
        found = store.workflow(agent, version).await?.map(|row| row.workflow);
    }
    let found = found.or_else(|| overrides.workflow.map(|given| *given));
    Ok(found.and_then(|workflow| serde_json::to_value(workflow).ok()).unwrap_or_default())
}

/// The steps of a run; none where its program has put something else in their place.
async fn history(app: &App, number: i64, agent: &str) -> Result<Option<Vec<HistoryItem>>, ApiError> {
    match app.core.steps(number).await {
        Ok(steps) => Ok(Some(steps.into_iter().map(Into::into).collect())),
        Err(StepsError::Store(e)) => Err(e.into()),
        Err(e @ StepsError::File { run, .. }) => {
            tracing::warn!(run.id = %run, agent, error = %e, "{e}");
            Ok(None)
        }
    }
}
