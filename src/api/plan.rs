//! What comes next, and why something did or did not run.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::{Data, PlanView, WhyView};
use super::{Answer, ApiError, App, Caller, Listed, Page, ROWS_DEFAULT, data, events};
use crate::engine::forecast::{Outlook, ROWS_MAX, Range};
use crate::engine::why::WhyError;
use crate::ids::AgentId;

/// How far a plan reaches where its end is not given, ms.
const REACH_MS: i64 = 7 * 86_400_000;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// Slots from this time on; now where none is given.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Slots before this time; a week after `from` where none is given.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Rows of a page; 50 where none are asked for.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    /// Whether to foresee when each run starts; true by default.
    forecast: Option<bool>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// The time asked about, RFC 3339, or `09:00` or `yesterday 09:00` in the zone of the schedule; without one the newest slot.
    #[param(
        pattern = "^((yesterday )?([01][0-9]|2[0-3]):[0-5][0-9]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])( |T)([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?Z)?)$"
    )]
    time: Option<String>,
}

/// Future slots of every agent, soonest first.
#[utoipa::path(
    get,
    path = "/v1/plan",
    operation_id = "get_plan",
    tag = "schedules",
    params(PlanQuery),
    responses(
        (status = 200, description = "Future slots, soonest first", body = Page<PlanView>)
    )
)]
pub async fn all(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<PlanQuery>,
) -> Listed<PlanView> {
    Ok(Json(planned(&app, &caller, &query, None).await?))
}

/// Future slots of one agent, soonest first.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/plan",
    operation_id = "get_agent_plan",
    tag = "schedules",
    params(PlanQuery),
    responses(
        (status = 200, description = "Future slots, soonest first", body = Page<PlanView>)
    )
)]
pub async fn of_agent(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<PlanQuery>,
) -> Listed<PlanView> {
    let agent = caller.agent(&id)?;
    let page = planned(&app, &caller, &query, Some(agent.clone())).await?;
    if page.data.is_empty() {
        events::known(&app, agent).await?;
    }
    Ok(Json(page))
}

async fn planned(
    app: &App,
    caller: &Caller,
    query: &PlanQuery,
    agent: Option<AgentId>,
) -> Result<Page<PlanView>, ApiError> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let after = query.next_token.as_deref().map(|t| Kind::Plan.decode_pair(t)).transpose()?;
    let at = |name, text: &Option<String>| text.as_deref().map(|text| events::time(name, text)).transpose();
    let from_ms = at("from", &query.from)?.unwrap_or_else(|| app.core.clock.now_ms());
    let to_ms = at("to", &query.to)?.unwrap_or_else(|| from_ms.saturating_add(REACH_MS));
    if to_ms < from_ms {
        return Err(ApiError::parameter("to", "it lies before `from`"));
    }
    let (visible, foresee) = (caller.visible(), query.forecast.unwrap_or(true));
    let range = Range { agent, visible, from_ms, to_ms, after, limit: limit + 1, foresee };
    let rows = app.core.forecast(&range).await?;
    let key = |row: &Outlook| Kind::Plan.encode(&format!("{}:{}", row.coming.at_ms, row.number));
    Ok(page(rows, limit, key, Into::into))
}

/// One explanation.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/why",
    operation_id = "explain_agent",
    tag = "schedules",
    params(WhyQuery),
    responses(
        (status = 200, description = "The explanation with its evidence", body = Data<WhyView>)
    )
)]
pub async fn why(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<WhyQuery>,
) -> Answer<WhyView> {
    let agent = caller.agent(&id)?;
    let why = app.core.why(&agent, query.time.as_deref()).await.map_err(|e| match e {
        WhyError::UnknownAgent(id) => ApiError::no_agent(id.as_str()),
        WhyError::Time(sentence) => ApiError::parameter("time", &sentence),
        WhyError::Store(e) => e.into(),
    })?;
    Ok(data(WhyView::of(&agent, why)))
}
