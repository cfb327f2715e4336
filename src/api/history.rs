//! The history of a run: the steps that its program reported.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::cursor::{Kind, limit};
use super::extract::Params;
use super::{ApiError, App, Caller, Listed, Page, events};
use crate::engine::{STEPS_MAX, StepsError};
use crate::ids::RunId;
use crate::model::Step;

/// Steps of a page where none are asked for.
const STEPS_DEFAULT: usize = 1_000;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Steps of a page; 1000 where none are asked for.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// The steps of a run, oldest first, over all its attempts.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/history",
    operation_id = "get_history",
    tag = "runs",
    params(Query),
    responses(
        (status = 200, description = "The steps, oldest first", body = Page<Step>),
        (status = 409, description = "The id is a prefix of several, or something else lies where the events file was")
    )
)]
pub async fn history(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Params(query): Params<Query>,
) -> Listed<Step> {
    let limit = limit(query.limit, STEPS_DEFAULT, STEPS_MAX)?;
    let from = query.next_token.as_deref().map(position).transpose()?.unwrap_or_default();
    let (number, id) = events::find(&app, &caller, &name).await?;
    let found = match app.core.steps_after(number, from, limit).await {
        Ok(found) => found,
        Err(e) => return Err(refused(&app, number, id, e).await?),
    };
    let last = found.steps.last().filter(|_| found.more);
    let next_token = last.map(|s| Kind::Steps.encode(&format!("{}:{}", s.attempt, s.index + 1)));
    Ok(Json(Page { data: found.steps, next_token }))
}

/// Where a page begins: attempt and index.
fn position(token: &str) -> Result<(u32, u64), ApiError> {
    let (attempt, index) = Kind::Steps.decode_pair(token)?;
    let foreign = || ApiError::parameter("nextToken", "it is not a cursor of this list; begin without one");
    Ok((u32::try_from(attempt).map_err(|_| foreign())?, u64::try_from(index).map_err(|_| foreign())?))
}

async fn refused(app: &App, number: i64, id: RunId, error: StepsError) -> Result<ApiError, ApiError> {
    match error {
        StepsError::File { source, .. } => {
            let agent = app.core.store.event(number).await?.map(|detail| detail.event.agent_id);
            tracing::warn!(run.id = %id, agent, error = %source, "the steps of run {id} cannot be read: {source}");
            Ok(ApiError::history_replaced(id))
        }
        StepsError::Store(e) => Err(e.into()),
    }
}
