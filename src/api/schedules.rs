//! The schedules in force, as data: what a changed folder is compared with.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::SchedulesView;
use super::{AGENTS_DEFAULT, App, Caller, Listed, Page, ROWS_MAX};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Rows of a page; 100 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// The schedules of every agent, by the agent's id.
#[utoipa::path(
    get,
    path = "/v1/schedules",
    operation_id = "list_schedules",
    tag = "schedules",
    params(Query),
    responses(
        (status = 200, description = "The schedules in force, by agent", body = Page<SchedulesView>)
    )
)]
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
