//! Agents: the files' agents with what the store and the calendar know of them.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::{AgentView, Data};
use super::{AGENTS_DEFAULT, Answer, ApiError, App, Caller, Listed, Page, ROWS_MAX, data};
use crate::engine::Entry;
use crate::ids::AgentId;
use crate::store::AgentSummary;

/// Future fires shown of each agent where none are asked for.
const FIRES_DEFAULT: usize = 5;
/// Most future fires shown of each agent.
const FIRES_MAX: usize = 100;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Rows of a page; 100 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
    /// Part of an id, a name or a description, in any case.
    q: Option<String>,
    /// Future fires shown of each agent; 5 where none are asked for.
    #[param(maximum = 100)]
    fires: Option<usize>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OneQuery {
    /// Future fires shown of each agent; 5 where none are asked for.
    #[param(maximum = 100)]
    fires: Option<usize>,
}

/// Every agent that has a file, by id.
#[utoipa::path(
    get,
    path = "/v1/agents",
    operation_id = "list_agents",
    tag = "agents",
    params(ListQuery),
    responses(
        (status = 200, description = "The agents, by id", body = Page<AgentView>)
    )
)]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Listed<AgentView> {
    let limit = limit(query.limit, AGENTS_DEFAULT, ROWS_MAX)?;
    let fires = fires(query.fires)?;
    let after = query.next_token.map(|t| Kind::Agents.decode(&t)).transpose()?.unwrap_or_default();
    let wanted = query.q.unwrap_or_default().to_lowercase();
    let rows = app
        .core
        .store
        .agents()
        .await?
        .into_iter()
        .filter(|a| a.id > after && caller.sees(&a.id))
        .map(|a| with_entry(&app, a));
    let rows = rows.filter(|(a, entry)| matches(a, entry.as_deref(), &wanted)).take(limit + 1).collect();
    let now_ms = app.core.clock.now_ms();
    let wire = |(a, e): Row| AgentView::of(a, e.as_deref(), now_ms, fires);
    Ok(Json(page(rows, limit, |(a, _)| Kind::Agents.encode(&a.id), wire)))
}

/// One agent.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}",
    operation_id = "get_agent",
    tag = "agents",
    params(OneQuery),
    responses(
        (status = 200, description = "The agent", body = Data<AgentView>)
    )
)]
pub async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<OneQuery>,
) -> Answer<AgentView> {
    let fires = fires(query.fires)?;
    let agent = caller.agent(&id)?;
    Ok(data(with_fires(&app, agent, fires).await?))
}

/// One agent as it is now, for calls that change it.
pub(super) async fn one(app: &App, agent: AgentId) -> Result<AgentView, ApiError> {
    with_fires(app, agent, FIRES_DEFAULT).await
}

async fn with_fires(app: &App, agent: AgentId, fires: usize) -> Result<AgentView, ApiError> {
    let found = app.core.store.agent(agent.clone()).await?;
    let (summary, entry) = with_entry(app, found.ok_or_else(|| ApiError::no_agent(agent.as_str()))?);
    Ok(AgentView::of(summary, entry.as_deref(), app.core.clock.now_ms(), fires))
}

/// An agent as the store and, unless its file was never readable, the catalog have it.
type Row = (AgentSummary, Option<std::sync::Arc<Entry>>);

fn with_entry(app: &App, summary: AgentSummary) -> Row {
    let entry = app.core.catalog.by_number(summary.number);
    (summary, entry)
}

fn matches(summary: &AgentSummary, entry: Option<&Entry>, wanted: &str) -> bool {
    let holds = |text: &str| text.to_lowercase().contains(wanted);
    let of_file = |e: &Entry| holds(&e.agent.name) || e.agent.description.as_deref().is_some_and(holds);
    holds(&summary.id) || entry.is_some_and(of_file)
}

fn fires(asked: Option<usize>) -> Result<usize, ApiError> {
    match asked {
        None => Ok(FIRES_DEFAULT),
        Some(n) if n <= FIRES_MAX => Ok(n),
        Some(n) => Err(ApiError::parameter("fires", &format!("{n} is more than {FIRES_MAX}"))),
    }
}
