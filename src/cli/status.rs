//! The daemon at a glance.

use std::time::Duration;

use super::client::data;
use super::output::{Cell, length};
use super::{Done, Session};
use crate::api::wire::{BudgetView, PausedView, ReloadView, StatusView};
use crate::config;

/// `matins status`.
pub async fn status(session: &Session) -> Done {
    let answer = session.client.get(&["v1", "status"], &[]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let status: StatusView = data(answer)?;
    session.out.record(&fields(&status))?;
    for problem in status.alerting.problems() {
        session.out.print(&format!("alerting: {problem}\n"))?;
    }
    if status.last_reload.as_ref().is_some_and(|r| !r.ok) {
        session.out.aside("hint: `matins reload` shows what is wrong with the files");
    }
    if status.agents.invalid > 0 {
        session.out.aside("hint: `matins check` shows what is wrong with the invalid agents");
    }
    Ok(0)
}

fn fields(s: &StatusView) -> Vec<(&'static str, Cell)> {
    let state = if s.draining { "draining: it takes no new runs" } else { "running" };
    let up = length(Duration::from_millis(u64::try_from(s.uptime_ms).unwrap_or(0)));
    let late = s.lateness.as_ref().map(|late| match (late.p50_ms, late.p99_ms) {
        (Some(p50), Some(p99)) => format!("p50 {p50} ms, p99 {p99} ms, of {} slots", late.count),
        _ => "no slot has fired yet".to_owned(),
    });
    let agents =
        format!("{} active, {} paused, {} invalid", s.agents.active, s.agents.paused, s.agents.invalid);
    let runs = s.runs.as_ref();
    let runs =
        runs.map(|r| format!("{} pending, {} running of at most {}", r.pending, r.running, s.max_running));
    let told = s.deliveries.as_ref().map(|d| format!("{} pending, {} given up", d.pending, d.exhausted));
    let store = s.store.as_ref().map(|store| format!("{} writes in {} commits", store.jobs, store.commits));
    let mut fields = vec![
        ("daemon", Cell::text(format!("matins {}, pid {}, {state}", s.version, s.pid))),
        ("up", Cell::text(up)),
        ("settings", Cell::text(&s.settings_file)),
        ("state", Cell::text(&s.state_dir)),
        ("http", s.http.as_ref().map_or_else(|| Cell::text("not answered"), Cell::text)),
        ("agents", Cell::text(agents)),
        ("runs", Cell::maybe(runs)),
        ("deliveries", Cell::maybe(told)),
        ("lateness", Cell::maybe(late)),
        ("store", Cell::maybe(store)),
    ];
    if let Some(budget) = &s.budget {
        fields.push(("budget", Cell::text(budgeted(budget))));
    }
    if let Some(reload) = &s.last_reload {
        fields.push(("reloaded", Cell::text(reloaded(reload))));
    }
    fields.extend(s.waiting.iter().map(|w| {
        let text = format!("{} of {} for {}", w.event_id, w.agent_id, w.waiting_for.sentence);
        ("waiting", Cell::text(text))
    }));
    fields.extend(s.paused.iter().map(|p| ("paused", Cell::text(paused(p)))));
    fields
}

fn budgeted(b: &BudgetView) -> String {
    let tokens = b.tokens_per_day.map(|budget| format!("{} of {budget} tokens", b.tokens_used));
    let usd = b.usd_per_day.map(|budget| format!("{:.2} of {budget:.2} US dollars", b.usd_used));
    let parts: Vec<String> = tokens.into_iter().chain(usd).collect();
    format!("{} of 24 hours used or reserved", parts.join(", "))
}

fn paused(p: &PausedView) -> String {
    let reason = p.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} by {} since {}{reason}", p.agent_id, p.by, p.at)
}

fn reloaded(reload: &ReloadView) -> String {
    if reload.ok {
        return format!("{} by {}: {}", reload.at, reload.by, reload.changes.sentence());
    }
    let errors = config::count(reload.errors, "error");
    format!("{} by {}: refused for {errors}; the last good files are in force", reload.at, reload.by)
}
