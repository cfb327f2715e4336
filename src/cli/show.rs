//! One run in full.

use serde_json::Value;

use super::args::ShowFormat;
use super::client::data;
use super::output::{Cell, instant, relative};
use super::{Done, Session, lists};
use crate::api::wire::{AttemptView, EventView};
use crate::time::rfc3339_ms;

/// `matins show`.
pub async fn show(session: &Session, run: &str, format: Option<ShowFormat>) -> Done {
    let answer = session.client.get(&["v1", "events", run], &[]).await?;
    let json = session.out.json || format == Some(ShowFormat::Json);
    if json {
        session.out.document(&answer["data"])?;
    } else if format == Some(ShowFormat::Yaml) {
        session.out.print(&crate::config::to_yaml(&answer["data"]))?;
    } else {
        let view: EventView = data(answer)?;
        session.out.record(&fields(&view, session))?;
    }
    Ok(0)
}

fn fields(view: &EventView, session: &Session) -> Vec<(&'static str, Cell)> {
    let event = &view.event;
    let when = |text: Option<&str>| moment(session, text);
    let mut fields = vec![
        ("run", Cell::text(&event.id)),
        ("agent", Cell::text(&event.agent_id)),
        ("status", Cell::text(event.status.as_str())),
    ];
    if event.gated {
        fields.push(("gate", Cell::text("closed: there was nothing to do")));
    }
    if let Some(code) = &event.failure_code {
        fields.push(("failure", Cell::text(code)));
        fields.push(("why", Cell::maybe(event.failure_explanation.as_ref())));
    }
    fields.extend(event.exit_code.map(|code| ("exit code", Cell::text(code.to_string()))));
    fields.extend(event.signal.map(|signal| ("signal", Cell::text(signal.to_string()))));
    fields.extend(view.log_error.as_ref().map(|why| ("log error", Cell::text(why))));
    fields.push(("trigger", Cell::text(trigger(view))));
    if event.scheduled_for.is_some() {
        fields.push(("scheduled", when(event.scheduled_for.as_deref())));
        fields.push(("lateness", Cell::maybe(event.lateness_ms.map(|ms| format!("{ms} ms")))));
    }
    fields.extend(view.waiting_for.as_ref().map(|w| ("waits for", Cell::text(&w.sentence))));
    fields.push(("created", when(Some(&event.created_at))));
    fields.push(("started", when(event.started_at.as_deref())));
    fields.push(("ended", when(event.completed_at.as_deref())));
    fields.push(("took", lists::took(event, session.out.now_ms)));
    if event.not_before.is_some() && !event.status.is_terminal() {
        let waits = if event.started_at.is_some() { "next attempt" } else { "starts" };
        fields.push((waits, when(event.not_before.as_deref())));
    }
    fields.extend(view.cancel_requested_by.as_ref().map(|by| ("cancelled by", Cell::text(by))));
    fields.extend(view.retry_of.as_ref().map(|run| ("retry of", Cell::text(run))));
    if event.session_id != event.id {
        fields.push(("session", Cell::text(&event.session_id)));
    }
    fields.extend(event.execution_key.as_ref().map(|key| ("execution", Cell::text(key))));
    fields.extend(event.changed.map(|changed| ("changed", Cell::text(if changed { "yes" } else { "no" }))));
    fields.extend(event.cost_usd.map(|usd| ("cost", Cell::text(format!("${usd:.4}")))));
    fields.extend(event.final_model.as_ref().map(|model| ("model", Cell::text(model))));
    fields.push(("definition", Cell::text(&event.definition_sha256)));
    fields.extend(bodies(view));
    fields
}

fn trigger(view: &EventView) -> String {
    let by = view.event.user_id.as_ref().map(|user| format!(" by {user}"));
    format!("{}{}", view.event.trigger, by.unwrap_or_default())
}

/// What only the full record holds.
fn bodies(view: &EventView) -> Vec<(&'static str, Cell)> {
    let mut fields = Vec::new();
    for (name, value) in overrides(view) {
        fields.push((name, Cell::text(value)));
    }
    let result = view.event.result.as_ref().filter(|r| !r.is_null());
    fields.extend(result.map(|r| ("result", Cell::text(r.to_string()))));
    for skill in view.event.skills.iter().flatten() {
        fields.push(("skill", Cell::text(format!("{} sha256:{}", skill.id, skill.sha256))));
    }
    for attempt in &view.attempts {
        let several = view.attempts.len() > 1;
        let number = if several { format!("attempt {}: ", attempt.attempt) } else { String::new() };
        fields.extend(several.then(|| ("attempt", Cell::text(how_it_went(attempt)))));
        fields.push(("stdout", Cell::text(format!("{number}{}", attempt.stdout_log))));
        fields.push(("stderr", Cell::text(format!("{number}{}", attempt.stderr_log))));
    }
    for d in &view.deliveries {
        let attempts =
            if d.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", d.attempts) };
        let error = d.last_error.as_ref().map(|e| format!(", {e}")).unwrap_or_default();
        let text = format!("{} {} {} {} ({attempts}{error})", d.state, d.kind, d.id, d.url);
        fields.push(("delivery", Cell::text(text)));
    }
    fields
}

/// One attempt in a line.
fn how_it_went(attempt: &AttemptView) -> String {
    let begun = attempt.started_at.as_deref().unwrap_or("-");
    let outcome = match (&attempt.failure_code, &attempt.ended_at) {
        (Some(code), _) => {
            let why = attempt.failure_explanation.as_deref().unwrap_or_default();
            format!("{code}: {why}")
        }
        (None, Some(_)) => "it went well".to_owned(),
        (None, None) => "under way".to_owned(),
    };
    format!("{} from {begun}: {outcome}", attempt.attempt)
}

fn overrides(view: &EventView) -> Vec<(&'static str, String)> {
    let overrides = &view.overrides;
    let json = |v: &Value| v.to_string();
    let mut found = Vec::new();
    found.extend(overrides.prompt.clone().map(|prompt| ("prompt", prompt)));
    found.extend(overrides.input.as_ref().map(|input| ("input", json(input))));
    found.extend(overrides.skills.as_ref().map(|skills| ("skills", skills.join(", "))));
    found.extend(overrides.result_schema.as_ref().map(|schema| ("result schema", json(schema))));
    found.extend(overrides.timeout_ms.map(|ms| ("timeout", format!("{} s", ms / 1000))));
    found.extend(overrides.webhook_url.as_ref().map(|url| ("webhook", crate::webhook::shown(url))));
    found
}

/// An instant in full, and how long ago for people.
fn moment(session: &Session, text: Option<&str>) -> Cell {
    let Some(at) = text.and_then(instant) else { return Cell::None };
    if session.out.terminal {
        Cell::text(format!("{} ({})", rfc3339_ms(at), relative(at, session.out.now_ms)))
    } else {
        Cell::text(rfc3339_ms(at))
    }
}
