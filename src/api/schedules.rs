//! The schedules in force, as data: what a changed folder is compared with.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::SchedulesView;
use super::{AGENTS_DEFAULT, App, Caller, Listed, ROWS_MAX};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Query {
    limit: Option<usize>,
    next_token: Option<String>,
}

/// The schedules of every agent, by the agent's id.
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<Query>,
) -> Listed<SchedulesView> {
    let limit = limit(query.limit, AGENTS_DEFAULT, ROWS_MAX)?;
    let after = query.next_token.map(|t| Kind::Agents.decode(&t)).transpose()?.unwrap_or_default();
    let mut agents = app.core.catalog.all();
    agents.retain(|entry| *entry.agent.id.as_str() > *after && caller.sees(entry.agent.id.as_str()));
    agents.sort_by(|a, b| a.agent.id.cmp(&b.agent.id));
    agents.truncate(limit + 1);
    let key = |entry: &std::sync::Arc<crate::engine::Entry>| Kind::Agents.encode(entry.agent.id.as_str());
    Ok(Json(page(agents, limit, key, |entry| SchedulesView::of(&entry))))
}
