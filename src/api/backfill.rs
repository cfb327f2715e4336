//! Past slots that are run again.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::extract::{Fields, flag, text};
use super::wire::{BackfillRequestBody, BackfillView, Data};
use super::{ApiError, App, Caller, FieldError, data};
use crate::engine::BackfillRequest;

/// Admits runs of past slots, or says which it would admit; the rows are on disk when this answers.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/backfill",
    operation_id = "backfill_agent",
    tag = "runs",
    request_body = BackfillRequestBody,
    responses(
        (status = 200, description = "What it would admit: `dryRun` was true", body = Data<BackfillView>),
        (status = 202, description = "The runs are admitted", body = Data<BackfillView>),
        (status = 409, description = "Its file is broken"),
        (status = 429, description = "Its queue is full")
    )
)]
pub async fn backfill(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    mut body: Fields,
) -> Result<(StatusCode, Json<Data<BackfillView>>), ApiError> {
    let agent = caller.agent(&id)?;
    let (from, to) = (body.take("from", instant), body.take("to", instant));
    let only_missed = body.take("onlyMissed", flag).unwrap_or(false);
    let dry_run = body.take("dryRun", flag).unwrap_or(false);
    body.finish()?;
    let missing = || FieldError { pointer: "/from".to_owned(), message: "it is missing".to_owned() };
    let from_ms = from.ok_or_else(|| ApiError::fields(vec![missing()]))?;
    let to_ms = to.unwrap_or_else(|| app.core.clock.now_ms());
    let user = Some(caller.who());
    let request = BackfillRequest { agent, from_ms, to_ms, only_missed, dry_run, user };
    let done = app.core.backfill(request.clone()).await?;
    let status = if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, data(BackfillView::of(&request, done))))
}

fn instant(value: Value) -> Result<i64, String> {
    let text = text(value)?;
    let at = text.parse::<Timestamp>();
    at.map(Timestamp::as_millisecond).map_err(|_| format!("{text:?} is not an RFC 3339 time"))
}
