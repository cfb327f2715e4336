//! Skills and sessions: what runs are seeded with, and where they meet.

use axum::Json;
use axum::extract::{Path, State};

use super::wire::{SessionView, SkillView};
use super::{Answer, ApiError, App, Caller, Listed, Page, ROWS_DEFAULT, data};
use crate::config;
use crate::task;

/// The skills that there are.
#[utoipa::path(
    get,
    path = "/v1/skills",
    operation_id = "list_skills",
    tag = "files",
    responses((status = 200, description = "The skills by id", body = Page<SkillView>))
)]
pub async fn list(State(app): State<App>, caller: Caller) -> Listed<SkillView> {
    let dir = app.core.settings().skills_dir.clone();
    // Without a folder there are none.
    let described = task::blocking(move || config::describe_skills(&dir).unwrap_or_default()).await?;
    let entries = app.core.catalog.all();
    let users = |id: &str| {
        let uses = entries.iter().filter(|e| e.agent.skills.iter().any(|s| s.id == id));
        let mut agents: Vec<String> =
            uses.map(|e| e.agent.id.to_string()).filter(|agent| caller.sees(agent)).collect();
        agents.sort();
        agents
    };
    let view = |skill: config::SkillHead| SkillView {
        agents: users(&skill.id),
        id: skill.id,
        name: skill.name,
        description: skill.description,
    };
    Ok(Json(Page { data: described.into_iter().map(view).collect(), next_token: None }))
}

/// A session, by its name, its integer, or the id of a run that has one of its own.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    operation_id = "get_session",
    tag = "runs",
    responses((status = 200, description = "The session with its newest runs", body = super::Data<SessionView>))
)]
pub async fn session(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<SessionView> {
    let found = app.core.store.session(name.clone(), caller.visible(), ROWS_DEFAULT).await?;
    let session = found.ok_or_else(|| ApiError::no_session(&name))?;
    if session.events.is_empty() {
        return Err(ApiError::no_session(&name));
    }
    let folder = app.core.state_dir().join("sessions").join(&session.id).join("workspace");
    Ok(data(SessionView::of(session, folder.display().to_string())))
}
