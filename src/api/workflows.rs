//! Workflows of an agent: what its runs did in their browsers, in versions, for later runs to do again.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extract::Fields;
use super::wire::{Data, Nothing};
use super::{Answer, ApiError, App, Caller, Listed, Page, data};
use crate::engine::Change;
use crate::ids::AgentId;
use crate::model::workflow::{WorkflowCost, WorkflowResult};
use crate::store::WorkflowRow;
use crate::time::rfc3339_ms;

/// One version of a workflow.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Workflow)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowView {
    /// Its number among the agent's, from 1; none comes twice.
    pub version: i64,
    /// Digest of the prompt, the result schema and the tools that it is for, in lower-case hexadecimal.
    pub purpose: String,
    /// Whether runs of this purpose begin with it.
    pub current: bool,
    /// Whether it stays so whatever is newer.
    pub pinned: bool,
    /// How many steps it has.
    pub steps: u64,
    /// Whether its result is made of what it extracts; else it is the model's.
    pub makes_result: bool,
    /// Values of the input that it takes, by their JSON pointers.
    pub parameters: Vec<String>,
    /// Calls of a model that the run took which it was recorded from.
    pub recorded_model_calls: u64,
    /// Tokens of that run, sent and received.
    pub recorded_tokens: u64,
    /// That run; null: it is gone.
    pub event_id: Option<String>,
    /// When it was recorded.
    pub created_at: String,
    /// The workflow, as `cached_workflow` of the task API takes it; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub workflow: Option<Value>,
}

/// What differs between two versions.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkflowDiff {
    /// From the first to the second, by JSON pointers into the workflow.
    pub changes: Vec<Change>,
    /// Whether there are more than are listed.
    pub truncated: bool,
}

/// What was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Forgotten {
    /// How many versions.
    pub forgotten: u64,
}

impl WorkflowView {
    fn of(row: &WorkflowRow) -> Self {
        let WorkflowCost { model_calls, tokens } = row.workflow.recorded;
        Self {
            version: row.number,
            purpose: row.purpose.clone(),
            current: row.current,
            pinned: row.pinned,
            steps: row.workflow.steps.len() as u64,
            makes_result: row.workflow.result != WorkflowResult::Model,
            parameters: row.workflow.parameters.iter().cloned().collect(),
            recorded_model_calls: model_calls,
            recorded_tokens: tokens,
            event_id: row.run.map(|run| run.to_string()),
            created_at: rfc3339_ms(row.created_ms),
            workflow: None,
        }
    }

    fn whole(row: &WorkflowRow) -> Self {
        Self { workflow: serde_json::to_value(&row.workflow).ok(), ..Self::of(row) }
    }
}

/// An agent that exists for the caller, by its number.
async fn number_of(app: &App, caller: &Caller, id: &str) -> Result<(AgentId, i64), ApiError> {
    let agent = caller.agent(id)?;
    let number = app.core.store.agent_number(agent.clone()).await?;
    Ok((agent, number.ok_or_else(|| ApiError::no_agent(id))?))
}

async fn version_of(app: &App, agent: i64, version: &str) -> Result<WorkflowRow, ApiError> {
    let found = match version.parse() {
        Ok(number) => app.core.store.workflow(agent, number).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| ApiError::no_workflow(version))
}

/// The versions of an agent, newest first.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/workflows",
    operation_id = "list_workflows",
    tag = "agents",
    responses((status = 200, description = "The versions, newest first", body = Page<WorkflowView>))
)]
pub async fn list(State(app): State<App>, Path(id): Path<String>, caller: Caller) -> Listed<WorkflowView> {
    let (_, agent) = number_of(&app, &caller, &id).await?;
    let rows = app.core.store.workflows(agent).await?;
    Ok(Json(Page { data: rows.iter().map(WorkflowView::of).collect(), next_token: None }))
}

/// One version in full.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/workflows/{version}",
    operation_id = "get_workflow",
    tag = "agents",
    responses((status = 200, description = "The version", body = Data<WorkflowView>))
)]
pub async fn get(
    State(app): State<App>,
    Path((id, version)): Path<(String, String)>,
    caller: Caller,
) -> Answer<WorkflowView> {
    let (_, agent) = number_of(&app, &caller, &id).await?;
    Ok(data(WorkflowView::whole(&version_of(&app, agent, &version).await?)))
}

/// What differs between two versions.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/workflows/{version}/diff/{other}",
    operation_id = "diff_workflows",
    tag = "agents",
    responses((status = 200, description = "What differs, from the first to the second", body = Data<WorkflowDiff>))
)]
pub async fn diff(
    State(app): State<App>,
    Path((id, a, b)): Path<(String, String, String)>,
    caller: Caller,
) -> Answer<WorkflowDiff> {
    let (_, agent) = number_of(&app, &caller, &id).await?;
    let (a, b) = (version_of(&app, agent, &a).await?, version_of(&app, agent, &b).await?);
    let (changes, truncated) = crate::engine::workflow_changes(&a.workflow, &b.workflow);
    Ok(data(WorkflowDiff { changes, truncated }))
}

/// Has runs begin with this version whatever is newer.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/workflows/{version}/pin",
    operation_id = "pin_workflow",
    tag = "agents",
    request_body = Option<Nothing>,
    responses((status = 200, description = "The version, pinned", body = Data<WorkflowView>))
)]
pub async fn pin(
    State(app): State<App>,
    Path((id, version)): Path<(String, String)>,
    caller: Caller,
    body: Fields,
) -> Answer<WorkflowView> {
    body.finish()?;
    pinned(&app, &caller, &id, &version, true).await
}

/// Has runs begin with the newest version again.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/workflows/{version}/unpin",
    operation_id = "unpin_workflow",
    tag = "agents",
    request_body = Option<Nothing>,
    responses((status = 200, description = "The version, not pinned", body = Data<WorkflowView>))
)]
pub async fn unpin(
    State(app): State<App>,
    Path((id, version)): Path<(String, String)>,
    caller: Caller,
    body: Fields,
) -> Answer<WorkflowView> {
    body.finish()?;
    pinned(&app, &caller, &id, &version, false).await
}

async fn pinned(app: &App, caller: &Caller, id: &str, version: &str, pinned: bool) -> Answer<WorkflowView> {
    let (_, agent) = number_of(app, caller, id).await?;
    let number = version_of(app, agent, version).await?.number;
    app.core.store.pin_workflow(agent, number, pinned).await?;
    Ok(data(WorkflowView::of(&version_of(app, agent, version).await?)))
}

/// Forgets a version.
#[utoipa::path(
    delete,
    path = "/v1/agents/{id}/workflows/{version}",
    operation_id = "forget_workflow",
    tag = "agents",
    responses((status = 200, description = "How many were forgotten: this one", body = Data<Forgotten>))
)]
pub async fn forget(
    State(app): State<App>,
    Path((id, version)): Path<(String, String)>,
    caller: Caller,
) -> Answer<Forgotten> {
    let (_, agent) = number_of(&app, &caller, &id).await?;
    let number = version_of(&app, agent, &version).await?.number;
    let forgotten = app.core.store.forget_workflows(agent, Some(number)).await?;
    Ok(data(Forgotten { forgotten: forgotten as u64 }))
}

/// Forgets all versions of an agent: its next run is the model's.
#[utoipa::path(
    delete,
    path = "/v1/agents/{id}/workflows",
    operation_id = "forget_workflows",
    tag = "agents",
    responses((status = 200, description = "How many were forgotten", body = Data<Forgotten>))
)]
pub async fn forget_all(State(app): State<App>, Path(id): Path<String>, caller: Caller) -> Answer<Forgotten> {
    let (_, agent) = number_of(&app, &caller, &id).await?;
    let forgotten = app.core.store.forget_workflows(agent, None).await?;
    Ok(data(Forgotten { forgotten: forgotten as u64 }))
}
