//! Pausing and resuming agents.

use axum::extract::{Path, State};

use super::agents::one;
use super::extract::{Fields, flag, text};
use super::wire::{AgentView, Data, PauseRequest, ResumeRequest};
use super::{Answer, App, Caller, data};

/// Pauses an agent.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/pause",
    operation_id = "pause_agent",
    tag = "agents",
    request_body = Option<PauseRequest>,
    responses(
        (status = 200, description = "The agent, paused", body = Data<AgentView>)
    )
)]
pub async fn pause(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    mut body: Fields,
) -> Answer<AgentView> {
    let reason = body.take("reason", text);
    body.finish()?;
    let agent = caller.agent(&id)?;
    app.core.pause(&agent, &caller.name, reason).await?;
    Ok(data(one(&app, agent).await?))
}

/// Lets an agent fire again.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/resume",
    operation_id = "resume_agent",
    tag = "agents",
    request_body = Option<ResumeRequest>,
    responses(
        (status = 200, description = "The agent, which fires again", body = Data<AgentView>)
    )
)]
pub async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    mut body: Fields,
) -> Answer<AgentView> {
    let catch_up = body.take("catchUp", flag).unwrap_or(false);
    body.finish()?;
    let agent = caller.agent(&id)?;
    app.core.resume(&agent, &caller.name, catch_up).await?;
    Ok(data(one(&app, agent).await?))
}
