//! The slot ledger: what became of every due instant.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::SlotView;
use super::{ApiError, App, Caller, Listed, Page, ROWS_DEFAULT, ROWS_MAX, events};
use crate::store::{SlotFilter, SlotRow};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Rows of a page; 50 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// Slots of every agent, newest first.
#[utoipa::path(
    get,
    path = "/v1/slots",
    operation_id = "list_slots",
    tag = "schedules",
    params(Query),
    responses(
        (status = 200, description = "Rows of the ledger, newest first", body = Page<SlotView>)
    )
)]
pub async fn list(State(app): State<App>, caller: Caller, Params(query): Params<Query>) -> Listed<SlotView> {
    Ok(Json(listed(&app, &caller, &query, None).await?))
}

/// Slots of one agent, newest first.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/slots",
    operation_id = "list_agent_slots",
    tag = "schedules",
    params(Query),
    responses(
        (status = 200, description = "Rows of the ledger, newest first", body = Page<SlotView>)
    )
)]
pub async fn of_agent(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<Query>,
) -> Listed<SlotView> {
    let agent = caller.agent(&id)?;
    let page = listed(&app, &caller, &query, Some(id)).await?;
    if page.data.is_empty() {
        events::known(&app, agent).await?;
    }
    Ok(Json(page))
}

async fn listed(
    app: &App,
    caller: &Caller,
    query: &Query,
    agent: Option<String>,
) -> Result<Page<SlotView>, ApiError> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let before = query.next_token.as_deref().map(|t| Kind::Slots.decode_pair(t)).transpose()?;
    let visible = caller.visible();
    let filter = SlotFilter { agent, visible, before, from_ms: None, limit: limit + 1 };
    let rows = app.core.store.slots(filter).await?;
    let key = |row: &SlotRow| Kind::Slots.encode(&format!("{}:{}", row.nominal_ms, row.schedule_number));
    Ok(page(rows, limit, key, Into::into))
}
