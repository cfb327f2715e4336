//! What comes next, and why something did or did not run.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::client::{data, rows};
use super::failure::{Failure, USAGE};
use super::output::{Cell, instant, length};
use super::{Done, Session};
use crate::api::wire::{ForecastView, PlanView, WhyView};
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
        session.out.aside("hint: nothing is due in this time; --from and --to choose another");
    }
    if let Some(hint) = unknown(&planned) {
        session.out.aside(&hint);
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
    vec![
        fire(&row.at, &row.timezone),
        Cell::text(&row.agent_id),
        Cell::text(what),
        Cell::text(&row.timing),
        Cell::maybe(notes(row)),
    ]
}

/// What is to be said of a row beside its time.
fn notes(row: &PlanView) -> Option<String> {
    let until = (row.until != row.at).then(|| format!("until {}", row.until));
    let starts = (row.starts_at != row.at).then(|| format!("starts {}", row.starts_at));
    let forecast = row.forecast.as_ref().and_then(|forecast| foreseen(row, forecast));
    let notes: Vec<String> = [until, starts, row.note.clone(), forecast].into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// What is foreseen of a run, where it is not that it runs at its time.
fn foreseen(row: &PlanView, forecast: &ForecastView) -> Option<String> {
    let took = forecast.took_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
    let took = took.map_or_else(String::new, |took| format!(" (its runs take {})", length(took)));
    let waits = forecast.waits_for.as_ref().filter(|_| forecast.starts_at != row.starts_at);
    let told = match (&forecast.reason, waits) {
        (Some(reason), _) if forecast.outcome == "not_run" => format!("left out by {reason}{took}"),
        (Some(reason), _) => format!("ends {reason}{took}"),
        (None, Some(what)) => {
            let at = instant(&forecast.starts_at)?;
            let wait = Duration::from_millis(u64::try_from(at - instant(&row.starts_at)?).ok()?);
            format!("waits {} for {what}", length(wait))
        }
        (None, None) => return None,
    };
    Some(format!("forecast: {told}"))
}

/// Of which agents nothing can be foreseen, in one sentence.
fn unknown(planned: &[PlanView]) -> Option<String> {
    let new = |row: &&PlanView| row.forecast.as_ref().is_some_and(|forecast| forecast.took_ms.is_none());
    let agents: BTreeSet<&str> = planned.iter().filter(new).map(|row| row.agent_id.as_str()).collect();
    let named: Vec<&str> = agents.iter().copied().take(5).collect();
    let more = agents.len().saturating_sub(named.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let hint = "no run has told yet how long it takes, so overlaps are not foreseen";
    (!agents.is_empty()).then(|| format!("hint: {hint}: {}{more}", named.join(", ")))
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
        let query = [("limit", limit.to_string()), ("to", to.clone()), ("forecast", "false".to_owned())];
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
        let note = Cell::maybe(notes(row));
        vec![fire(&row.at, &row.timezone), second, Cell::text(&row.timing), Cell::text(&row.agent_id), note]
    };
    let table: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    session.out.table(&["NEXT", "LEFT", "SCHEDULE", "AGENT", "NOTE"], &table)?;
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
    match parse_duration(text) {
        Ok(ahead) => Ok(rfc3339_ms(now_ms.saturating_add(millis(ahead)))),
        Err(_) => time(flag, text, now_ms),
    }
}

/// As [`moment`]; a duration leads back from now.
pub(super) fn past(flag: &str, text: &str, now_ms: i64) -> Result<String, Failure> {
    match parse_duration(text) {
        Ok(back) => Ok(rfc3339_ms(now_ms.saturating_sub(millis(back)))),
        Err(_) => time(flag, text, now_ms),
    }
}

fn time(flag: &str, text: &str, now_ms: i64) -> Result<String, Failure> {
    let tz = jiff::tz::TimeZone::system();
    let civil = text.replace(' ', "T");
    let local = civil
        .parse::<jiff::civil::DateTime>()
        .or_else(|e| civil.parse::<jiff::civil::Date>().map(Into::into).map_err(|_| e))
        .ok()
        .and_then(|at| tz.to_ambiguous_timestamp(at).compatible().ok());
    let named = || {
        let when = crate::engine::why::when::parse(text, crate::time::from_ms(now_ms), &tz).ok()?;
        Some(crate::time::from_ms(when.from_ms))
    };
    let found = text.parse::<Timestamp>().ok().or(local).or_else(named);
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
        let day = |text: &str| instant(&read(text).unwrap()).unwrap();
        assert_eq!(
            day("tomorrow 10:00") - day("yesterday 10:00"),
            2 * 86_400_000,
            "as `matins why` reads it"
        );
        assert!((day("10:00") - now).abs() < 86_400_000);
        for bad in ["", "soon", "-5m", "2026-13-01"] {
            assert_eq!(read(bad).unwrap_err().code, USAGE, "{bad}");
        }
    }
}
