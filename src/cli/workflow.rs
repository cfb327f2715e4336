//! Workflows of an agent: what its runs did in their browsers, in versions.

use serde_json::{Value, json};

use super::args::WorkflowCommand;
use super::client::{data, rows};
use super::diff::change_rows;
use super::failure::{FAILED, Failure};
use super::output::Cell;
use super::{Done, Session};
use crate::api::{Forgotten, WorkflowDiff, WorkflowView};
use crate::ids::AgentId;

/// `matins workflow`.
pub async fn workflow(session: &Session, command: WorkflowCommand) -> Done {
    match command {
        WorkflowCommand::List { agent } => list(session, &agent).await,
        WorkflowCommand::Show { agent, version } => show(session, &agent, version).await,
        WorkflowCommand::Diff { agent, a, b } => diff(session, &agent, a, b).await,
        WorkflowCommand::Pin { agent, version, off } => pin(session, &agent, version, off).await,
        WorkflowCommand::Forget { agent, version: Some(version), .. } => {
            forgotten(session, &["v1", "agents", agent.as_str(), "workflows", &version.to_string()]).await
        }
        WorkflowCommand::Forget { agent, version: None, .. } => {
            forgotten(session, &["v1", "agents", agent.as_str(), "workflows"]).await
        }
    }
}

async fn list(session: &Session, agent: &AgentId) -> Done {
    let found = versions(session, agent).await?;
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let row = |w: &WorkflowView| {
        let used = match (w.pinned, w.current) {
            (true, _) => "pinned",
            (false, true) => "current",
            (false, false) => "",
        };
        vec![
            Cell::text(w.version.to_string()),
            Cell::text(used),
            Cell::text(w.steps.to_string()),
            Cell::text(if w.makes_result { "extracted" } else { "model" }),
            Cell::text(format!("{} calls, {} tokens", w.recorded_model_calls, w.recorded_tokens)),
            Cell::text(w.purpose.chars().take(8).collect::<String>()),
            Cell::maybe(w.event_id.as_ref()),
            Cell::time(Some(&w.created_at)),
        ]
    };
    let table: Vec<Vec<Cell>> = rows::<WorkflowView>(&found)?.iter().map(row).collect();
    session.out.table(&["VERSION", "USED", "STEPS", "RESULT", "SAVES", "PURPOSE", "RUN", "MADE"], &table)?;
    if table.is_empty() {
        session
            .out
            .aside("hint: a run that completes leaves one, if it used the tool `browser` and no other");
    }
    Ok(0)
}

/// Prints the workflow itself: it can be edited and given to a run.
async fn show(session: &Session, agent: &AgentId, version: Option<i64>) -> Done {
    let version = match version {
        Some(version) => version,
        None => newest(session, agent).await?,
    };
    let path = ["v1", "agents", agent.as_str(), "workflows", &version.to_string()];
    let answer = session.client.get(&path, &[]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    session.out.document(&answer["data"]["workflow"]).map(|()| 0)
}

/// All versions: the list is short, and one page.
async fn versions(session: &Session, agent: &AgentId) -> Result<Vec<Value>, Failure> {
    data(session.client.get(&["v1", "agents", agent.as_str(), "workflows"], &[]).await?)
}

/// The version that runs begin with, the newest of several.
async fn newest(session: &Session, agent: &AgentId) -> Result<i64, Failure> {
    let found = versions(session, agent).await?;
    let found = rows::<WorkflowView>(&found)?.into_iter().find(|row| row.current);
    let none = || Failure::new(FAILED, format!("agent {agent} has no workflow"));
    found.map(|row| row.version).ok_or_else(none)
}

async fn diff(session: &Session, agent: &AgentId, a: i64, b: i64) -> Done {
    let (a, b) = (a.to_string(), b.to_string());
    let answer =
        session.client.get(&["v1", "agents", agent.as_str(), "workflows", &a, "diff", &b], &[]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let diff: WorkflowDiff = data(answer)?;
    session.out.table(&["WHERE", &a, &b], &change_rows(&diff.changes, session.out.terminal))?;
    if diff.changes.is_empty() {
        session.out.aside("the two versions are the same");
    }
    Ok(0)
}

async fn pin(session: &Session, agent: &AgentId, version: i64, off: bool) -> Done {
    let verb = if off { "unpin" } else { "pin" };
    let path = ["v1", "agents", agent.as_str(), "workflows", &version.to_string(), verb];
    let answer: Value = session.client.post(&path, &json!({})).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    session.out.print(&format!("{version}\n"))?;
    session.out.aside(if off {
        "hint: runs begin with the newest version again"
    } else {
        "hint: runs of its purpose begin with it, whatever is newer; `--off` ends that"
    });
    Ok(0)
}

async fn forgotten(session: &Session, path: &[&str]) -> Done {
    let answer = session.client.delete(path).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let gone: Forgotten = data(answer)?;
    session.out.print(&format!("{}\n", gone.forgotten))?;
    Ok(0)
}
