//! Starting an execution, by JSON or by a form with files.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::form::{self, Upload};
use super::wire::{ExecutionView, StartExecution, StartExecutionForm, Status};
use super::{Refusal, agent_of, detail, input, sees};
use crate::api::execute::idempotency_key;
use crate::api::extract::check_type;
use crate::api::files::is_form;
use crate::api::{ApiError, App, BODY_DEADLINE, BODY_MAX, Caller};
use crate::engine::{Entry, Refused, TriggerRequest};
use crate::model::{Overrides, Variant};

/// What is asked for.
#[derive(Default)]
pub(super) struct Asked {
    /// `execution_key`.
    pub(super) key: Option<Value>,
    /// `input`.
    pub(super) input: Option<Value>,
    /// Files, of a form.
    pub(super) files: Vec<Upload>,
}

/// Starts an execution of an agent; its row is on disk when this answers.
#[utoipa::path(
    post,
    path = "/api/agents/{agent_id}/agentic-executions/",
    operation_id = "start_agentic_execution",
    tag = "enthusiast",
    params(("agent_id" = String, Path, description = "The agent's integer or id")),
    request_body(content((StartExecution = "application/json"), (StartExecutionForm = "multipart/form-data"))),
    responses(
        (status = 202, description = "The execution as it was admitted", body = ExecutionView),
        (status = 400, description = "The key is unknown or another agent's, or the input does not fit"),
        (status = 409, description = "The agent's file is broken, or the idempotency key was used for something else")
    )
)]
pub async fn start(
    State(app): State<App>,
    Path(agent): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<(StatusCode, Json<ExecutionView>), Refusal> {
    let entry = agent_of(&app, &caller, &agent)?;
    let once = idempotency_key(&headers)?;
    let user = caller.name.to_string();
    let asked = if is_form(&headers) {
        form::read(&app, &entry, &user, request).await?
    } else {
        of_json(&headers, request).await?
    };
    let (key, variant) = variant(&app, &caller, &entry, asked.key)?;
    let input = input::input(asked.input, variant, &entry.agent)?;
    if once.is_some() && !asked.files.is_empty() {
        // Each upload is another file, so the same request would never be known again.
        let why = "The header Idempotency-Key cannot be used with files.";
        return Err(Refusal::detail(StatusCode::BAD_REQUEST, why));
    }
    let files = form::keep(variant, asked.files).await?;
    let overrides = Overrides { input: Some(input), execution_key: Some(key), files, ..Overrides::default() };
    let agent = entry.agent.id.clone();
    let request = TriggerRequest { agent, overrides, overlap: None, user: Some(user.clone()) };
    let run = app.core.trigger_once(request, once).await?;
    let row = app.core.store.execution(run.number.to_string(), user).await?;
    let missing = || {
        // The key was used by another user, whose runs are not this one's to see.
        if run.repeated { Refused::KeyReused { run: run.id }.into() } else { ApiError::internal() }
    };
    let told = detail(&app, row.ok_or_else(missing)?).await?;
    // It may have begun meanwhile; what is answered is what was admitted.
    let told = if run.repeated { told } else { told.admitted() };
    Ok((StatusCode::ACCEPTED, Json(told)))
}

/// The body, which has no other bound here: that of a form is another.
async fn bounded(request: Request) -> Result<Vec<u8>, ApiError> {
    let (mut bytes, mut pieces) = (Vec::new(), request.into_body().into_data_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| ApiError::malformed(format!("the body broke off: {e}")))?;
        if bytes.len() + piece.len() > BODY_MAX {
            return Err(ApiError::too_large(BODY_MAX));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn of_json(headers: &HeaderMap, request: Request) -> Result<Asked, Refusal> {
    let bytes = tokio::time::timeout(BODY_DEADLINE, bounded(request)).await;
    let bytes = bytes.map_err(|_| ApiError::slow_body(BODY_DEADLINE.as_secs()))??;
    check_type(headers).map_err(|e| Refusal::detail(e.status(), e.message()))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Asked::default());
    }
    let body: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Refusal::detail(StatusCode::BAD_REQUEST, format!("JSON parse error - {e}")))?;
    let Value::Object(mut fields) = body else {
        let message = "Invalid data. Expected a dictionary.";
        return Err(Refusal::bad(json!({ "non_field_errors": [message] })));
    };
    let key = given(&mut fields, "execution_key");
    Ok(Asked { key, input: fields.remove("input"), files: Vec::new() })
}

fn given(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !value.is_null())
}

/// The definition of a key, which is one of this agent's.
fn variant<'a>(
    app: &App,
    caller: &Caller,
    entry: &'a Entry,
    key: Option<Value>,
) -> Result<(String, &'a Variant), Refusal> {
    let key = match key {
        None => String::new(),
        Some(Value::String(key)) => key,
        Some(_) => return Err(Refusal::bad(json!({ "execution_key": ["Not a valid string."] }))),
    };
    if let Some(variant) = entry.agent.policies.executions.get(&key) {
        return Ok((key, variant));
    }
    let of_another =
        app.core.catalog.all().iter().any(|other| {
            other.agent.policies.executions.contains_key(&key) && sees(app, caller, other.number)
        });
    let why = if of_another {
        format!("Execution '{key}' does not belong to this agent.")
    } else {
        format!("No execution definition class registered with EXECUTION_KEY='{key}'.")
    };
    Err(Refusal::detail(StatusCode::BAD_REQUEST, why))
}

impl ExecutionView {
    /// As it was when it was admitted.
    fn admitted(self) -> Self {
        Self {
            status: Status::Pending,
            result: None,
            failure_code: None,
            failure_explanation: None,
            finished_at: None,
            duration_seconds: None,
            ..self
        }
    }
}
