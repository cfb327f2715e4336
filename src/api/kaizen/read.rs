//! One execution: its record, and what happened in it.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Body;
use super::wire::{
    Archive, Download, Downloads, EventsOf, Execution, Found, Happened, IdRequest, Status, Workflow,
};
use crate::api::answer::{self, Of};
use crate::api::{ApiError, App, Caller, artefacts, events};
use crate::engine::{StepsError, most_attempts};
use crate::ids::RunId;
use crate::model::{Event, Step};
use crate::store::EventDetail;

/// Characters of a response that are shown where it is shortened.
const SHORT: usize = 1_000;

/// The run that a body names, which the caller may see.
pub(super) async fn find(app: &App, caller: &Caller, body: Body) -> Result<(i64, RunId), ApiError> {
    events::find(app, caller, &body.id()?).await
}

/// One execution.
#[utoipa::path(
    post,
    path = "/executions/get",
    operation_id = "kaizen_get_execution",
    tag = "kaizen",
    request_body = IdRequest,
    responses(
        (status = 200, description = "The execution", body = Found),
        (status = 409, description = "The id is a prefix of several")
    )
)]
pub async fn get(State(app): State<App>, caller: Caller, body: Body) -> Result<Json<Found>, ApiError> {
    let (number, _) = find(&app, &caller, body).await?;
    let detail = app.core.store.event(number).await?.ok_or_else(|| ApiError::no_event("of this id"))?;
    Ok(Json(Found { execution: view(&app, detail).await? }))
}

/// What happened in an execution, step by step.
#[utoipa::path(
    post,
    path = "/executions/getEvents",
    operation_id = "kaizen_get_execution_events",
    tag = "kaizen",
    request_body = IdRequest,
    responses(
        (status = 200, description = "Its steps, oldest first", body = EventsOf),
        (status = 409, description = "The id is a prefix of several, or something else lies where the steps were")
    )
)]
pub async fn get_events(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Json<EventsOf>, ApiError> {
    let (number, id) = find(&app, &caller, body).await?;
    let steps = match app.core.steps(number).await {
        Ok(steps) => steps,
        Err(StepsError::Store(e)) => return Err(e.into()),
        Err(StepsError::File { .. }) => return Err(ApiError::history_replaced(id)),
    };
    let ends: Vec<Option<String>> = steps.iter().skip(1).map(|step| step.at.clone()).collect();
    let ends = ends.into_iter().chain(std::iter::repeat(None));
    Ok(Json(EventsOf {
        events: steps.into_iter().zip(ends).map(|(step, end)| happened(step, end)).collect(),
    }))
}

fn happened(step: Step, end_time: Option<String>) -> Happened {
    let span_id = format!("{}-{}", step.attempt, step.index);
    let failed = step.actions.iter().any(|action| action.error.is_some());
    let actions = step.actions.into_iter().enumerate();
    let events = actions.map(|(n, action)| Happened {
        kind: action.name,
        span_id: format!("{span_id}-{n}"),
        block: action.extracted_content.or(action.error.clone()),
        start_time: step.at.clone(),
        end_time: end_time.clone(),
        events: Vec::new(),
        level: level(action.error.is_some()),
    });
    Happened {
        events: events.collect(),
        kind: step.kind.unwrap_or_else(|| "step".to_owned()),
        block: Some(step.description),
        start_time: step.at,
        end_time,
        level: level(failed),
        span_id,
    }
}

fn level(failed: bool) -> String {
    if failed { "Error" } else { "Info" }.to_owned()
}

/// An execution as lists show it: without what has to be read from its folders, and with the attempts that
/// its agent allows now.
pub(super) fn row(app: &App, event: Event) -> Execution {
    let entry = event.agent_id.parse().ok().and_then(|id| app.core.catalog.get(&id));
    let name = entry.as_ref().map_or_else(|| event.agent_id.clone(), |e| e.agent.name.clone());
    let most = entry.map_or(1, |e| most_attempts(&e.agent.policies));
    let mut execution = Execution {
        workflow: Workflow { id: event.agent_id.clone(), name: name.clone() },
        batch: None,
        logins: Vec::new(),
        authentications: Vec::new(),
        context_authentications: Vec::new(),
        params: event.input.clone().filter(Value::is_object),
        metadata: json!({ "agentId": event.agent_id, "trigger": event.trigger, "userId": event.user_id }),
        name,
        start_block: None,
        agent_conversation_thread_id: event.conversation.to_string(),
        attempts: event.attempt,
        total_attempts: 0,
        is_last_attempt: false,
        is_test: false,
        live_view_url: None,
        browser_session_id: None,
        parent_execution_id: None,
        downloads: Downloads {
            status: Status::from(event.status),
            files: Vec::new(),
            message: Some("lists name no files: /executions/get does".to_owned()),
        },
        start_time: event.started_at.clone(),
        duration_ms: duration(event.started_at.as_deref(), event.completed_at.as_deref()),
        end_time: event.completed_at,
        response: None,
        truncated_response: None,
        response_file: None,
        failure_code: event.failure_code,
        failure_explanation: event.failure_explanation,
        session_archive: None,
        status: event.status.into(),
        session_id: event.session_id,
        id: event.id,
    };
    allow(&mut execution, most);
    execution
}

/// Says how many attempts it may have.
fn allow(execution: &mut Execution, most: u32) {
    execution.total_attempts = i64::from(most).max(execution.attempts);
    execution.is_last_attempt = execution.attempts >= execution.total_attempts;
}

fn duration(from: Option<&str>, to: Option<&str>) -> Option<i64> {
    let ms = |text: &str| Some(text.parse::<Timestamp>().ok()?.as_millisecond());
    Some(ms(to?)? - ms(from?)?)
}

/// An execution in full.
pub(super) async fn view(app: &App, detail: EventDetail) -> Result<Execution, ApiError> {
    let event = detail.event;
    let id: RunId = event.id.parse().map_err(|_| ApiError::internal())?;
    let (number, ended, attempt) = (event.number, event.status.is_terminal(), event.attempt);
    let (result, retry_of, session) = (event.result.clone(), detail.retry_of, event.session_id.clone());
    let given: Vec<String> =
        event.files.iter().flatten().map(|file| format!("files/{}", file.name)).collect();
    let succeeded = event.status == crate::model::RunState::Completed;
    // The run goes by the definition that it was admitted with.
    let of = app.core.catalog.get(&event.agent_id.parse().map_err(|_| ApiError::internal())?);
    let of = of.map_or(0, |entry| entry.number);
    let definition = app.core.catalog.definition(&app.core.store, of, detail.definition).await?;
    let mut execution = row(app, event);
    execution.params.get_or_insert_with(|| json!({}));
    execution.downloads.message = None;
    allow(&mut execution, most_attempts(&definition.policies));
    execution.parent_execution_id = retry_of.map(|id| id.to_string());
    execution.session_archive = app.core.store.archive(number).await?.map(|archive| Archive::of(id, archive));
    if ended {
        let made = artefacts::of_run(app, id, &execution.workflow.id, session).await?.into_iter();
        let files = made.filter(|file| file.path.starts_with("files/") && !given.contains(&file.path));
        execution.downloads.files = files.map(|file| Download::of(id, &file.path, file.bytes)).collect();
    }
    if succeeded {
        let response = match result {
            Some(Value::Object(fields)) => fields,
            Some(Value::Null) | None => {
                let written = answer::written(
                    &app.core,
                    vec![Of { run: id, agent: execution.workflow.id.clone(), attempt }],
                )
                .await;
                let text = written.into_iter().next().unwrap_or_default();
                Map::from_iter([("response".to_owned(), Value::String(text))])
            }
            Some(other) => Map::from_iter([("response".to_owned(), other)]),
        };
        let response = Value::Object(response);
        execution.truncated_response = Some(response.to_string().chars().take(SHORT).collect());
        execution.response = Some(response);
    }
    Ok(execution)
}
