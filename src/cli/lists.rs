//! Lists: agents, their next fires, runs, deliveries.

use std::time::Duration;

use super::client::rows;
use super::failure::Failure;
use super::output::{Cell, instant};
use super::{Done, Session};
use crate::api::wire::{AgentView, DeliveryView};
use crate::ids::AgentId;
use crate::model::{DeliveryState, Event, RunState};
use crate::time::{millis, parse_duration, rfc3339_ms};

/// `matins agents`.
pub async fn agents(session: &Session, only: Option<AgentId>) -> Done {
    let fires = [("fires", "1".to_owned())];
    let found = match only {
        None => session.client.list(&["v1", "agents"], &fires, usize::MAX).await?,
        Some(agent) => {
            let mut one = session.client.get(&["v1", "agents", agent.as_str()], &fires).await?;
            vec![one["data"].take()]
        }
    };
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let agents: Vec<AgentView> = rows(&found)?;
    let mut table: Vec<Vec<Cell>> = agents.iter().map(agent_row).collect();
    let mut columns = vec!["AGENT", "STATUS", "LAST", "WHEN", "NEXT", "NAME"];
    // Who paused one and why is a column only where there is something to say.
    if agents.iter().any(|agent| agent.paused_by.is_some()) {
        columns.push("WHY");
        table.iter_mut().zip(&agents).for_each(|(row, agent)| row.push(Cell::maybe(paused(agent))));
    }
    session.out.table(&columns, &table)?;
    if agents.is_empty() {
        session.out.aside("hint: no agents yet; put a first file into the directory of agents");
    }
    Ok(0)
}

/// Who paused an agent, since when and why.
fn paused(agent: &AgentView) -> Option<String> {
    let (by, at) = (agent.paused_by.as_ref()?, agent.paused_at.as_ref()?);
    let why = agent.pause_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("paused by {by} since {at}{why}"))
}

fn agent_row(agent: &AgentView) -> Vec<Cell> {
    let last = agent.last_run.as_ref();
    let when =
        last.map(|e| e.completed_at.as_ref().or(e.started_at.as_ref()).unwrap_or(&e.created_at).as_str());
    vec![
        Cell::text(&agent.id),
        Cell::text(&agent.status),
        Cell::maybe(last.map(|e| e.failure_code.clone().unwrap_or_else(|| e.status.to_string()))),
        Cell::time(when),
        Cell::time(agent.next_fires.first().map(|f| f.at.as_str())),
        Cell::text(&agent.name),
    ]
}

/// What `matins events` lists.
#[derive(Debug)]
pub struct Events {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those in this state.
    pub status: Option<RunState>,
    /// Only those started since then.
    pub since: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// `matins events`.
pub async fn events(session: &Session, wanted: &Events) -> Done {
    let mut query = Vec::new();
    query.extend(wanted.status.map(|s| ("status", s.to_string())));
    if let Some(since) = &wanted.since {
        query.push(("startedAfter", started_after(since, session.out.now_ms)?));
    }
    let path = match &wanted.agent {
        Some(agent) => vec!["v1", "agents", agent.as_str(), "events"],
        None => vec!["v1", "events"],
    };
    let found = session.client.list(&path, &query, wanted.limit).await?;
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let events: Vec<Event> = rows(&found)?;
    let table: Vec<Vec<Cell>> = events.iter().map(|e| event_row(e, session.out.now_ms)).collect();
    session.out.table(&["RUN", "AGENT", "STATUS", "TRIGGER", "STARTED", "TOOK", "WHY"], &table)?;
    Ok(0)
}

/// How long a run took, or takes by now.
pub fn took(event: &Event, now_ms: i64) -> Cell {
    let Some(started) = event.started_at.as_deref().and_then(instant) else {
        return Cell::None;
    };
    let ended = event.completed_at.as_deref().and_then(instant).unwrap_or(now_ms);
    Cell::Length(Duration::from_millis(u64::try_from(ended.saturating_sub(started)).unwrap_or(0)))
}

fn event_row(event: &Event, now_ms: i64) -> Vec<Cell> {
    vec![
        Cell::text(&event.id),
        Cell::text(&event.agent_id),
        Cell::text(event.status.as_str()),
        Cell::text(event.trigger.as_str()),
        Cell::time(event.started_at.as_deref()),
        took(event, now_ms),
        Cell::maybe(event.failure_code.as_ref()),
    ]
}

/// A duration back from now, or a time.
fn started_after(since: &str, now_ms: i64) -> Result<String, Failure> {
    if let Ok(back) = parse_duration(since) {
        return Ok(rfc3339_ms(now_ms.saturating_sub(millis(back))));
    }
    super::plan::moment("--since", since, now_ms)
}

/// `matins deliveries`.
pub async fn deliveries(session: &Session, state: Option<DeliveryState>, limit: usize) -> Done {
    let query: Vec<_> = state.map(|s| ("state", s.to_string())).into_iter().collect();
    let found = session.client.list(&["v1", "deliveries"], &query, limit).await?;
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let deliveries: Vec<DeliveryView> = rows(&found)?;
    print_deliveries(session, &deliveries)?;
    if state == Some(DeliveryState::Exhausted) && !deliveries.is_empty() {
        session.out.aside("hint: `matins deliveries --redeliver ID` sends one again");
    }
    Ok(0)
}

/// Prints deliveries as a table.
pub fn print_deliveries(session: &Session, deliveries: &[DeliveryView]) -> Result<(), Failure> {
    let row = |d: &DeliveryView| {
        vec![
            Cell::text(&d.id),
            Cell::text(d.kind.as_str()),
            Cell::text(d.state.as_str()),
            Cell::text(d.attempts.to_string()),
            Cell::time(Some(&d.created_at)),
            Cell::time(d.next_attempt_at.as_deref()),
            Cell::text(&d.url),
            answer(d),
        ]
    };
    let table: Vec<Vec<Cell>> = deliveries.iter().map(row).collect();
    session
        .out
        .table(&["DELIVERY", "TYPE", "STATE", "ATTEMPTS", "MADE", "NEXT", "URL", "LAST ANSWER"], &table)
}

/// What came of the last attempt.
pub fn answer(delivery: &DeliveryView) -> Cell {
    match (delivery.last_status, &delivery.last_error) {
        (_, Some(error)) => Cell::text(error),
        (Some(status), None) => Cell::text(status.to_string()),
        (None, None) => Cell::None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::USAGE;
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now = 1_772_442_000_000;
        assert_eq!(started_after("2h", now).unwrap(), "2026-03-02T07:00:00.000Z");
        assert_eq!(started_after("2026-03-01T09:00:00Z", now).unwrap(), "2026-03-01T09:00:00.000Z");
        for bad in ["", "yesterday", "5", "-2h"] {
            assert_eq!(started_after(bad, now).unwrap_err().code, USAGE, "{bad}");
        }
    }
}
