//! Triggers: a run by hand, on the same path as a scheduled one, and a run that is run again.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::events::find;
use super::extract::{Fields, duration_ms, flag, text, texts, word};
use super::wire::{Data, ExecuteRequest, Executed, Nothing};
use super::{ApiError, App, Caller, FieldError, content, data};
use crate::engine::{Entry, TriggerRequest, Triggered};
use crate::ids::AgentId;
use crate::model::{Executor, Overlap, Overrides};

/// Admits a run; its PENDING row is on disk when this answers.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/execute",
    operation_id = "execute_agent",
    tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request: a repetition within a day starts nothing", max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")),
    request_body = Option<ExecuteRequest>,
    responses(
        (status = 202, description = "The run is admitted: its row is on disk", body = Data<Executed>),
        (status = 409, description = "It runs already and skips, its file is broken, or the key was used for another request"),
        (status = 429, description = "Its queue is full, or its budget is used up")
    )
)]
pub async fn execute(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Fields,
) -> Result<(StatusCode, Json<Data<Executed>>), ApiError> {
    let agent: AgentId = caller.agent(&id)?;
    let (mut overrides, overlap, items) = read(body)?;
    let content = content::read(&app, &caller, items).await?;
    content.onto(&mut overrides, app.core.catalog.get(&agent).as_deref())?;
    check_model(&app, &agent, &overrides)?;
    check_others(&app, &caller, &agent, &overrides, overlap).await?;
    let user = Some(caller.who());
    let key = idempotency_key(&headers)?;
    let request = TriggerRequest { agent, overrides, overlap, user };
    let run = app.core.trigger_once(request, key).await?;
    Ok((StatusCode::ACCEPTED, data(executed(&run, id))))
}

/// Runs an ended run again.
#[utoipa::path(
    post,
    path = "/v1/events/{id}/retry",
    operation_id = "retry_event",
    tag = "runs",
    request_body = Option<Nothing>,
    responses(
        (status = 202, description = "A new run with the same definition, prompt and input is admitted", body = Data<Executed>),
        (status = 409, description = "The run has not ended, or the agent cannot take another"),
        (status = 429, description = "Its queue is full, or its budget is used up")
    )
)]
pub async fn retry(
    State(app): State<App>,
    Path(name): Path<String>,
    caller: Caller,
    body: Fields,
) -> Result<(StatusCode, Json<Data<Executed>>), ApiError> {
    body.finish()?;
    let (number, _) = find(&app, &caller, &name).await?;
    let user = Some(caller.who());
    let run = app.core.retry(number, user).await?;
    let agent = run.agent.to_string();
    Ok((StatusCode::ACCEPTED, data(executed(&run, agent))))
}

fn executed(run: &Triggered, agent_id: String) -> Executed {
    let message = if run.repeated {
        "This key has been used for this request already. Poll events for its status."
    } else {
        "Execution started. Poll events for status."
    };
    Executed {
        message: message.to_owned(),
        request_id: run.id.to_string(),
        agent_id,
        event_id: run.id.to_string(),
    }
}

fn read(mut body: Fields) -> Result<(Overrides, Option<Overlap>, Value), ApiError> {
    let overrides = Overrides {
        prompt: body.take("prompt", text),
        input: body.take("input", object),
        skills: body.take("skills", texts),
        result_schema: body.take("resultSchema", Ok),
        timeout_ms: body.take("timeout", duration_ms),
        model: body.take("model", model),
        webhook_url: body.take("webhookUrl", text),
        session_id: body.take("sessionId", text),
        execution_key: body.take("executionKey", text),
        use_workflow: body.take("useCachedWorkflow", flag),
        workflow: body.take_workflow("cachedWorkflow"),
        ..Overrides::default()
    };
    let overlap = body.take("overlap", |v| word(v, Overlap::ALL));
    let items = body.take("content", Ok).unwrap_or_default();
    body.finish()?;
    Ok((overrides, overlap, items))
}

fn object(value: Value) -> Result<Value, String> {
    if value.is_object() { Ok(value) } else { Err("the input is a JSON object".to_owned()) }
}

/// Longest name of a model, bytes.
const MODEL_MAX: usize = 200;

fn model(value: Value) -> Result<String, String> {
    let name = text(value)?;
    let fits = !name.is_empty() && name.len() <= MODEL_MAX && name.chars().all(|c| c.is_ascii_graphic());
    if fits {
        Ok(name)
    } else {
        Err(format!("a model's name has 1 to {MODEL_MAX} printable characters, no spaces"))
    }
}

/// A program of the agent's own asks no model of ours and uses no browser of ours: what changed nothing would deceive
/// its caller.
fn check_model(app: &App, agent: &AgentId, overrides: &Overrides) -> Result<(), ApiError> {
    let command = |entry: &Entry| matches!(entry.agent.executor, Executor::Command { .. });
    let asked = [
        ("/model", overrides.model.is_some(), "model"),
        ("/useCachedWorkflow", overrides.use_workflow == Some(true), "workflow"),
        ("/cachedWorkflow", overrides.workflow.is_some(), "workflow"),
    ];
    if !asked.iter().any(|(_, asked, _)| *asked)
        || !app.core.catalog.get(agent).is_some_and(|entry| command(&entry))
    {
        return Ok(());
    }
    let wrong = asked.into_iter().filter(|(_, asked, _)| *asked).map(|(pointer, _, what)| FieldError {
        pointer: pointer.to_owned(),
        message: format!("agent {agent} runs a program of its own, which takes no {what}"),
    });
    Err(ApiError::fields(wrong.collect()))
}

/// Somebody for whom some agents only exist reaches no others by way of one of them: neither the workspace of
/// their sessions, nor their runs through a concurrency key that the files let them share.
async fn check_others(
    app: &App,
    caller: &Caller,
    agent: &AgentId,
    overrides: &Overrides,
    overlap: Option<Overlap>,
) -> Result<(), ApiError> {
    let Some(visible) = caller.visible() else { return Ok(()) };
    let ends_others = matches!(overlap, Some(Overlap::QueueOne | Overlap::CancelPrevious | Overlap::Replace));
    let shares_key = |entry: &Entry| entry.agent.policies.concurrency_key.is_some();
    if ends_others && app.core.catalog.get(agent).is_some_and(|entry| shares_key(&entry)) {
        let why = "runs of this concurrency key may be of agents that your token is not for; \
                   let overlap be queue, skip or allow";
        return Err(ApiError::forbidden(why.to_owned()));
    }
    let Some(name) = &overrides.session_id else { return Ok(()) };
    let configured = app.core.catalog.all().iter().any(|entry| {
        let agent = &entry.agent;
        agent.policies.session.as_ref() == Some(name) && !caller.sees(agent.id.as_str())
    });
    if configured || app.core.store.session_of_others(name.clone(), visible).await? {
        let message = "this session is of agents that your token is not for; name another".to_owned();
        return Err(ApiError::fields(vec![FieldError { pointer: "/sessionId".to_owned(), message }]));
    }
    Ok(())
}

/// The caller's own name for this request.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key =
        key.to_str().map_err(|_| ApiError::malformed("the header Idempotency-Key is not plain text"))?;
    Ok(Some(key.trim().to_owned()))
}
