//! Agents: the files' agents with what the store and the calendar know of them.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::{AgentIndexView, AgentView, Data};
use super::{AGENTS_DEFAULT, Answer, ApiError, App, Caller, Page, ROWS_MAX, data};
use crate::engine::Entry;
use crate::ids::AgentId;
use crate::store::{AgentGlance, AgentSummary};

/// Future fires shown of each agent where none are asked for.
const FIRES_DEFAULT: usize = 5;
/// Most rows of the index in one answer.
pub const INDEX_MAX: usize = 20_000;
/// Most future fires shown of each agent.
const FIRES_MAX: usize = 100;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Rows of a page; where none are asked for 100, of the index 20000.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
    /// Part of an id, a name or a description, in any case.
    q: Option<String>,
    /// Future fires shown of each agent; 5 where none are asked for.
    #[param(maximum = 100)]
    fires: Option<usize>,
    /// `index`: short rows, for an overview of many agents.
    #[param(inline)]
    view: Option<View>,
}

/// How much of each agent is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum View {
    /// Short rows.
    Index,
}

/// A page of agents, in either view.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum AgentsPage {
    /// Agents with their schedules and their last run.
    Full(Page<AgentView>),
    /// Short rows.
    Index(Page<AgentIndexView>),
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
        (status = 200, description = "The agents, by id", body = AgentsPage)
    )
)]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Result<Json<AgentsPage>, ApiError> {
    let after = query.next_token.map(|t| Kind::Agents.decode(&t)).transpose()?.unwrap_or_default();
    let wanted = query.q.unwrap_or_default().to_lowercase();
    if query.view == Some(View::Index) {
        if query.fires.is_some() {
            return Err(ApiError::parameter("fires", "the index shows the next fire of each agent"));
        }
        let limit = limit(query.limit, INDEX_MAX, ROWS_MAX)?;
        return Ok(Json(AgentsPage::Index(index(&app, &caller, after, &wanted, limit).await?)));
    }
    let limit = limit(query.limit, AGENTS_DEFAULT, ROWS_MAX)?;
    let fires = fires(query.fires)?;
    let rows = if wanted.is_empty() {
        app.core.store.agents_page(after, limit + 1, caller.visible()).await?
    } else {
        let found = named(&app, &caller, after, &wanted, limit + 1).await?;
        app.core.store.agents_of(found.into_iter().map(|a| a.number).collect()).await?
    };
    let now_ms = app.core.clock.now_ms();
    let rows: Vec<Row> = rows.into_iter().map(|a| with_entry(&app, a)).collect();
    let wire = |(a, e): Row| AgentView::of(a, e.as_deref(), now_ms, fires);
    let mut page = page(rows, limit, |(a, _)| Kind::Agents.encode(&a.id), wire);
    let entries = page.data.iter().filter_map(|agent| app.core.catalog.by_number(agent.number));
    let mut standings = app.core.standings_of(&entries.collect::<Vec<_>>()).await?;
    for agent in &mut page.data {
        agent.budget = standings.remove(&agent.number).map(Into::into);
    }
    Ok(Json(AgentsPage::Full(page)))
}

/// Short rows, from the first agent after `after`.
async fn index(
    app: &App,
    caller: &Caller,
    after: String,
    wanted: &str,
    limit: usize,
) -> Result<Page<AgentIndexView>, ApiError> {
    let rows = named(app, caller, after, wanted, limit + 1).await?;
    let now_ms = app.core.clock.now_ms();
    let wire = |a: AgentGlance| {
        let entry = app.core.catalog.by_number(a.number);
        AgentIndexView::of(a, entry.as_deref(), now_ms)
    };
    Ok(page(rows, limit, |a| Kind::Agents.encode(&a.id), wire))
}

/// The first agents after `after` whose id, name or description holds `wanted`.
async fn named(
    app: &App,
    caller: &Caller,
    mut after: String,
    wanted: &str,
    limit: usize,
) -> Result<Vec<AgentGlance>, ApiError> {
    let mut found = Vec::new();
    loop {
        let batch = if wanted.is_empty() { limit } else { INDEX_MAX };
        let rows = app.core.store.agents_at_a_glance(after, batch, caller.visible()).await?;
        let last = (rows.len() == batch).then(|| rows.last().map(|a| a.id.clone())).flatten();
        let holds = |a: &AgentGlance| {
            wanted.is_empty() || matches(&a.id, app.core.catalog.by_number(a.number).as_deref(), wanted)
        };
        let left = limit - found.len();
        found.extend(rows.into_iter().filter(holds).take(left));
        match last {
            Some(id) if found.len() < limit => after = id,
            _ => return Ok(found),
        }
    }
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
    let budget = match entry.as_deref() {
        Some(entry) => app.core.standing(Some(entry)).await?.map(Into::into),
        None => None,
    };
    Ok(AgentView { budget, ..AgentView::of(summary, entry.as_deref(), app.core.clock.now_ms(), fires) })
}

/// An agent as the store and, unless its file was never readable, the catalog have it.
type Row = (AgentSummary, Option<std::sync::Arc<Entry>>);

fn with_entry(app: &App, summary: AgentSummary) -> Row {
    let entry = app.core.catalog.by_number(summary.number);
    (summary, entry)
}

fn matches(id: &str, entry: Option<&Entry>, wanted: &str) -> bool {
    let holds = |text: &str| text.to_lowercase().contains(wanted);
    let of_file = |e: &Entry| holds(&e.agent.name) || e.agent.description.as_deref().is_some_and(holds);
    holds(id) || entry.is_some_and(of_file)
}

fn fires(asked: Option<usize>) -> Result<usize, ApiError> {
    match asked {
        None => Ok(FIRES_DEFAULT),
        Some(n) if n <= FIRES_MAX => Ok(n),
        Some(n) => Err(ApiError::parameter("fires", &format!("{n} is more than {FIRES_MAX}"))),
    }
}
