//! Starting executions, and starting one again.

use axum::Json;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::Value;

use super::Body;
use super::read::{find, view};
use super::wire::{ExecuteRequest, Executed, IdRequest, Retried, Status};
use crate::api::execute::idempotency_key;
use crate::api::extract::{flag, text};
use crate::api::{ApiError, App, Caller, content};
use crate::engine::builtin::DEFAULT_AGENT;
use crate::engine::{Entry, Refused, TriggerRequest};
use crate::model::{Executor, Overrides};

/// Starts an execution; its row is on disk when this answers.
#[utoipa::path(
    post,
    path = "/agents/execute",
    operation_id = "kaizen_execute_agent",
    tag = "kaizen",
    request_body = Option<ExecuteRequest>,
    responses(
        (status = 200, description = "The execution is started", body = Executed),
        (status = 409, description = "The agent's file is broken, or the idempotency key was used for something else"),
        (status = 429, description = "The agent's queue is full, or its budget is used up")
    )
)]
pub async fn execute(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Json<Executed>, ApiError> {
    let agent = body.take("agentId", text);
    let items = body.take("content", Ok).unwrap_or_default();
    let mut overrides = Overrides {
        result_schema: body.take("summarySchema", schema).flatten(),
        model: body.take("kaizenVersion", |value| tier(&value)),
        archive: body.take("archiveSessionFiles", flag).unwrap_or(false),
        ..Overrides::default()
    };
    body.finish()?;
    let entry = match agent {
        Some(agent) => named(&app, &caller, &agent)?,
        None if !caller.sees(DEFAULT_AGENT) => return Err(ApiError::no_agent(DEFAULT_AGENT)),
        None => app.core.default_agent().await?,
    };
    let content = content::read(&app, &caller, items).await.map_err(ApiError::as_bad_request)?;
    content.onto(&mut overrides, Some(&entry)).map_err(ApiError::as_bad_request)?;
    if overrides.model.is_none() && matches!(&entry.agent.executor, Executor::Llm(llm) if llm.model.is_none())
    {
        overrides.model = Some(app.core.settings().kaizen_version.clone());
    }
    let key = idempotency_key(&headers)?;
    let agent = entry.agent.id.clone();
    let request = TriggerRequest { agent, overrides, overlap: None, user: Some(caller.who()) };
    let run = app.core.trigger_of(&entry, request, key).await;
    let run = run.map_err(|refused| ApiError::from(in_their_words(refused)).as_bad_request())?;
    let detail = app.core.store.event(run.number).await?.ok_or_else(ApiError::internal)?;
    let plain = entry.agent.policies.session.clone().filter(|session| !session.contains('{'));
    let status = if run.repeated { detail.event.status.into() } else { Status::Enqueued };
    Ok(Json(Executed {
        session_id: plain.unwrap_or(detail.event.session_id),
        execution_id: run.id.to_string(),
        status,
    }))
}

/// What does not fit is told by the fields of this dialect.
fn in_their_words(refused: Refused) -> Refused {
    match refused {
        Refused::Field { pointer, message } => {
            let pointer = match pointer.as_str() {
                "/resultSchema" => "/summarySchema",
                "/prompt" | "/input" | "/skills" | "/files" => "/content",
                other => other,
            };
            Refused::Field { pointer: pointer.to_owned(), message }
        }
        other => other,
    }
}

/// The agent of an id or of its integer.
fn named(app: &App, caller: &Caller, name: &str) -> Result<Arc<Entry>, ApiError> {
    let by_number = || app.core.catalog.by_number(name.parse().ok()?);
    let by_id = || app.core.catalog.get(&name.parse().ok()?);
    let found = by_id().or_else(by_number).filter(|entry| caller.sees(entry.agent.id.as_str()));
    found.ok_or_else(|| ApiError::no_agent(name))
}

/// A schema that asks for nothing is none.
fn schema(value: Value) -> Result<Option<Value>, String> {
    match value {
        Value::Object(fields) if fields.is_empty() => Ok(None),
        Value::Object(_) => Ok(Some(value)),
        _ => Err("a JSON Schema is an object".to_owned()),
    }
}

/// The alias of a tier's model.
fn tier(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some("Full") => Ok("full".to_owned()),
        Some("Lite") => Ok("lite".to_owned()),
        _ => Err("write Full or Lite".to_owned()),
    }
}

/// Starts an execution that has ended again.
#[utoipa::path(
    post,
    path = "/executions/retry",
    operation_id = "kaizen_retry_execution",
    tag = "kaizen",
    request_body = IdRequest,
    responses(
        (status = 200, description = "A new execution of the same is started", body = Retried),
        (status = 409, description = "It has not ended, or the id is a prefix of several"),
        (status = 429, description = "The agent's queue is full, or its budget is used up")
    )
)]
pub async fn retry(State(app): State<App>, caller: Caller, body: Body) -> Result<Json<Retried>, ApiError> {
    let (number, _) = find(&app, &caller, body).await?;
    let run = app.core.retry(number, Some(caller.who())).await?;
    let message = format!("Execution {} repeats it.", run.id);
    let detail = app.core.store.event(run.number).await?.ok_or_else(ApiError::internal)?;
    Ok(Json(Retried { success: true, message, execution: view(&app, detail).await? }))
}
