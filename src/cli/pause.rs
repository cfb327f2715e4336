//! Pausing and resuming agents.

use serde_json::{Value, json};

use super::client::data;
use super::{Done, Session};
use crate::api::wire::AgentView;
use crate::ids::AgentId;

/// `matins pause`.
pub async fn pause(session: &Session, agent: &AgentId, reason: Option<String>) -> Done {
    let answer =
        session.client.post(&["v1", "agents", agent.as_str(), "pause"], &json!({ "reason": reason })).await?;
    told(session, answer, |agent| {
        format!("hint: slots that come due now end not_run:paused; `matins resume {}` ends that", agent.id)
    })
}

/// `matins resume`.
pub async fn resume(session: &Session, agent: &AgentId, catch_up: bool) -> Done {
    let body = json!({ "catchUp": catch_up });
    let answer = session.client.post(&["v1", "agents", agent.as_str(), "resume"], &body).await?;
    told(session, answer, |agent| match agent.next_fires.first() {
        Some(fire) => format!("hint: it fires next at {}", fire.at),
        None => "hint: it has no coming fire; `matins run` runs it".to_owned(),
    })
}

fn told(session: &Session, answer: Value, hint: impl FnOnce(&AgentView) -> String) -> Done {
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let agent: AgentView = data(answer)?;
    session.out.print(&format!("{} is {}\n", agent.id, agent.status))?;
    session.out.aside(&hint(&agent));
    Ok(0)
}
