//! The transcript of a run: every exchange of the built-in agent with its model, as `matins replay` plays it again.

use axum::extract::{Path, State};
use axum::response::Response;

use super::files::content;
use super::{ApiError, App, Caller, events};
use crate::exec;
use crate::task::blocking;

/// The transcript of the latest attempt of a run that the built-in agent carries out: NDJSON, without secrets.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/transcript",
    operation_id = "get_transcript",
    tag = "runs",
    responses(
        (status = 200, description = "The lines, oldest first", body = String, content_type = "application/x-ndjson"),
        (status = 409, description = "The id is a prefix of several, or something else lies where the transcript was")
    )
)]
pub async fn transcript(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let (number, id) = events::find(&app, &caller, &name).await?;
    let attempt = app.core.store.attempts_of(number).await?.map_or(0, |(_, attempt)| attempt);
    let runs = app.core.state_dir().join("runs");
    match blocking(move || exec::open_transcript(&runs, id, attempt)).await? {
        Ok(Some(file)) => Ok(content(file, "transcript.ndjson", "application/x-ndjson")),
        Ok(None) => Err(ApiError::no_transcript(id)),
        Err(_) => Err(ApiError::history_replaced(id)),
    }
}
