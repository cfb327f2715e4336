//! What comes next, and why something did or did not run.

use jiff::Timestamp;
use serde_json::Value;

use super::client::{data, rows};
use super::failure::{Failure, USAGE};
use super::output::{Cell, instant};
use super::{Done, Session};
use crate::api::wire::{PlanView, WhyView};
use crate::ids::AgentId;
use crate::time::{millis, parse_duration, rfc3339_ms};

/// Rows asked for at once: the most that the daemon gives.
const ROWS: usize = crate::engine::forecast::ROWS_MAX;
/// How far `next` looks for the fires that it was asked for, ms.
const YEARS_MS: i64 = 5 * 366 * 86_400_000;

/// `matins plan`.
pub async fn plan(session: &Session, agent: Option<AgentId>, from: Option<&str>, to: Option<&str>) -> Done {
    let now_ms = session.out.now_ms;
    let mut query = vec![("limit", ROWS.to_string())];
    if let Some(from) = from {
        query.push(("from", moment("--from", from, now_ms)?));
    }
    if let Some(to) = to {
        query.push(("to", moment("--to", to, now_ms)?));
    }
    let (found, more) = ask(session, agent.as_ref(), &query).await?;
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let planned: Vec<PlanView> = rows(&found)?;
    let table: Vec<Vec<Cell>> = planned.iter().map(plan_row).collect();
    session.out.table(&["DUE", "AGENT", "WHAT", "SCHEDULE", "NOTE"], &table)?;
    if planned.is_empty() {
        session.out.aside("hint: nothing is due in this time; --to 30d looks further");
    }
    if more {
        session.out.aside(&format!("hint: only the first {ROWS} rows are shown; --to shortens the time"));
    }
    Ok(0)
}

async fn ask(
    session: &Session,
    agent: Option<&AgentId>,
    query: &[(&str, String)],
) -> Result<(Vec<Value>, bool), Failure> {
    let path = match agent {
        Some(agent) => vec!["v1", "agents", agent.as_str(), "plan"],
        None => vec!["v1", "plan"],
    };
    let mut answer = session.client.get(&path, query).await?;
    let more = answer["nextToken"].is_string();
    let Value::Array(found) = answer["data"].take() else { return Ok((Vec::new(), false)) };
    Ok((found, more))
}

fn plan_row(row: &PlanView) -> Vec<Cell> {
    let what = match (row.reason, row.count) {
        (None, _) => "run".to_owned(),
        (Some(reason), 1) => reason.to_string(),
        (Some(reason), count) => format!("{reason}, {count} slots"),
    };
    let mut notes = Vec::new();
    if row.until != row.at {
        notes.push(format!("until {}", row.until));
    }
    if row.starts_at != row.at {
        notes.push(format!("starts {}", row.starts_at));
    }
    notes.extend(row.note.clone());
    let note = Some(notes.join("; ")).filter(|n| !n.is_empty());
    vec![
        fire(&row.at, &row.timezone),
        Cell::text(&row.agent_id),
        Cell::text(what),
        Cell::text(&row.timing),
        Cell::maybe(note),
    ]
}

fn fire(at: &str, zone: &str) -> Cell {
    instant(at).map_or(Cell::None, |at| Cell::Fire(at, zone.to_owned()))
}

/// `matins next`: the next runs of all agents, or of one, in one list.
pub async fn next(session: &Session, agent: Option<AgentId>, n: usize) -> Done {
    let to = rfc3339_ms(session.out.now_ms.saturating_add(YEARS_MS));
    // Slots that will not run are asked for too, and left out here.
    let mut limit = n.saturating_mul(4).clamp(1, ROWS);
    let (found, next) = loop {
        let query = [("limit", limit.to_string()), ("to", to.clone())];
        let (found, more) = ask(session, agent.as_ref(), &query).await?;
        let next: Vec<PlanView> = rows(&found)?;
        let runs = next.iter().filter(|row| row.reason.is_none()).count();
        if runs >= n || !more || limit == ROWS {
            break (found, next);
        }
        limit = limit.saturating_mul(8).min(ROWS);
    };
    let shown: Vec<(&Value, &PlanView)> =
        found.iter().zip(&next).filter(|(_, row)| row.reason.is_none()).take(n).collect();
    if session.out.json {
        let shown: Vec<&Value> = shown.iter().map(|(value, _)| *value).collect();
        return session.out.document(&shown).map(|()| 0);
    }
    let row = |(_, row): &(&Value, &PlanView)| {
        // For people the first column tells the zone.
        let left = instant(&row.at).map_or(Cell::None, Cell::Time);
        let second = if session.out.terminal { left } else { Cell::text(&row.timezone) };
        vec![fire(&row.at, &row.timezone), second, Cell::text(&row.timing), Cell::text(&row.agent_id)]
    };
    let table: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    session.out.table(&["NEXT", "LEFT", "SCHEDULE", "AGENT"], &table)?;
    if shown.is_empty() {
        session.out.aside("hint: nothing is due; `matins why AGENT` tells the reason");
    }
    Ok(0)
}

/// `matins why`.
pub async fn why(session: &Session, agent: &AgentId, time: &[String]) -> Done {
    let time = time.join(" ");
    let query: Vec<(&str, String)> = if time.is_empty() { Vec::new() } else { vec![("time", time)] };
    let answer = session.client.get(&["v1", "agents", agent.as_str(), "why"], &query).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let why: WhyView = data(answer)?;
    session.out.print(&why.sentences.iter().map(|s| super::failure::clean(s) + "\n").collect::<String>())?;
    Ok(0)
}

/// A time for the daemon: a duration from now, a date and time of this machine's zone, or RFC 3339.
pub(super) fn moment(flag: &str, text: &str, now_ms: i64) -> Result<String, Failure> {
    if let Ok(ahead) = parse_duration(text) {
        return Ok(rfc3339_ms(now_ms.saturating_add(millis(ahead))));
    }
    let tz = jiff::tz::TimeZone::system();
    let civil = text.replace(' ', "T");
    let local = civil
        .parse::<jiff::civil::DateTime>()
        .or_else(|e| civil.parse::<jiff::civil::Date>().map(Into::into).map_err(|_| e))
        .ok()
        .and_then(|at| tz.to_ambiguous_timestamp(at).compatible().ok());
    let found = text.parse::<Timestamp>().ok().or(local);
    let message = || format!("{flag} {text:?} is neither a duration nor a time");
    let found = found.ok_or_else(|| {
        Failure::new(USAGE, message()).hint(format!("write e.g. {flag} 30d or {flag} 2026-12-01"))
    })?;
    Ok(rfc3339_ms(found.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_a_plan_are_durations_or_times() {
        let now = instant("2026-03-02T09:00:00Z").unwrap();
        let read = |text: &str| moment("--to", text, now);
        assert_eq!(read("30d").unwrap(), "2026-04-01T09:00:00.000Z");
        assert_eq!(read("2026-12-01T09:00:00+01:00").unwrap(), "2026-12-01T08:00:00.000Z");
        assert!(read("2026-12-01").unwrap().ends_with("00.000Z"));
        for bad in ["", "soon", "-5m", "2026-13-01"] {
            assert_eq!(read(bad).unwrap_err().code, USAGE, "{bad}");
        }
    }
}
