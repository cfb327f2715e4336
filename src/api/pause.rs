//! Pausing and resuming agents.

use axum::extract::{Path, State};

use super::agents::one;
use super::extract::{Fields, flag, text};
use super::wire::AgentView;
use super::{Answer, App, Caller, data};

/// Pauses an agent.
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
