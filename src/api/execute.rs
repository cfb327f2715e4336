//! Triggers: a run by hand, on the same path as a scheduled one.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde_json::Value;

use super::extract::{Fields, duration_ms, text, texts, word};
use super::wire::{Data, Executed};
use super::{ApiError, App, Caller, data};
use crate::engine::TriggerRequest;
use crate::model::{Overlap, Overrides};

/// Admits a run; its PENDING row is on disk when this answers.
pub async fn execute(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Fields,
) -> Result<(StatusCode, Json<Data<Executed>>), ApiError> {
    not_idempotent(&headers)?;
    let agent = id.parse().map_err(|_| ApiError::no_agent(&id))?;
    let (overrides, overlap) = read(body)?;
    let user = caller.map(|Extension(caller)| caller.name.to_string());
    let run = app.core.trigger(TriggerRequest { agent, overrides, overlap, user }).await?;
    let executed = Executed {
        message: "Execution started. Poll events for status.".to_owned(),
        request_id: run.id.to_string(),
        agent_id: id,
        event_id: run.id.to_string(),
    };
    Ok((StatusCode::ACCEPTED, data(executed)))
}

fn read(mut body: Fields) -> Result<(Overrides, Option<Overlap>), ApiError> {
    let overrides = Overrides {
        prompt: body.take("prompt", text),
        input: body.take("input", object),
        skills: body.take("skills", texts),
        result_schema: body.take("resultSchema", Ok),
        timeout_ms: body.take("timeout", duration_ms),
        webhook_url: body.take("webhookUrl", text),
        session_id: body.take("sessionId", text),
        execution_key: body.take("executionKey", text),
    };
    let overlap = body.take("overlap", |v| word(v, Overlap::ALL));
    body.finish()?;
    Ok((overrides, overlap))
}

fn object(value: Value) -> Result<Value, String> {
    if value.is_object() { Ok(value) } else { Err("the input is a JSON object".to_owned()) }
}

/// A key that is ignored would run twice what its caller wants once.
fn not_idempotent(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key("idempotency-key") {
        return Err(ApiError::malformed(
            "the header Idempotency-Key is not available in this version; leave it out",
        ));
    }
    Ok(())
}
