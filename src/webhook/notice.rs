//! What a message says to a person: a title, a few lines, and the command that shows more.
//!
//! It is made from the data of the message and nothing else, so the shapes for people can say no more
//! than the signed one: no result, no log, no secret. Every part has a length, because chat services
//! refuse what is too long, and a refused alarm is none.

use std::time::Duration;

use serde_json::Value;

use crate::model::WebhookEvent;
use crate::time::human_duration;

/// Longest title, characters.
pub(super) const TITLE_MAX: usize = 150;
/// Longest line, characters.
pub(super) const LINE_MAX: usize = 1000;
/// A run that begins later than this after its instant is late.
const LATE: Duration = Duration::from_mins(1);
/// Places of a change that are named.
const CHANGES_NAMED: usize = 3;

/// How loud a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Somebody should look.
    Bad,
}

/// A message as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub tone: Tone,
    pub title: String,
    pub lines: Vec<String>,
    /// The commands that show more, or that help.
    pub look: Vec<String>,
}

impl Notice {
    /// The notice of a message.
    pub fn of(kind: WebhookEvent, data: &Value) -> Self {
        let agent = text(data, "agentId").unwrap_or("matins");
        let mut notice = match kind {
            WebhookEvent::RunCompleted => completed(agent, data),
            WebhookEvent::RunFailed => failed(agent, data),
            WebhookEvent::RunMissed => missed(agent, data),
            WebhookEvent::RunSkipped => skipped(agent, data),
            WebhookEvent::BreakerOpened => breaker_opened(agent, data),
            WebhookEvent::AgentOverdue => overdue(agent, data),
            WebhookEvent::EndpointDisabled => disabled(data),
            WebhookEvent::Ping => Self {
                tone: Tone::Good,
                title: "matins: a test message".to_owned(),
                lines: vec!["This endpoint can be reached.".to_owned()],
                look: Vec::new(),
            },
        };
        notice.title = plain(&notice.title, TITLE_MAX);
        notice.lines = notice.lines.iter().map(|line| plain(line, LINE_MAX)).collect();
        notice
    }
}

fn text<'v>(data: &'v Value, key: &str) -> Option<&'v str> {
    data.get(key)?.as_str()
}

fn number(data: &Value, key: &str) -> Option<u64> {
    data.get(key)?.as_u64()
}

fn flag(data: &Value, key: &str) -> bool {
    data.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// One line without control characters, at most `max` characters.
fn plain(line: &str, max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if line.chars().count() <= max {
        return line.chars().map(clean).collect();
    }
    line.chars().take(max - 1).map(clean).chain(['…']).collect()
}

fn completed(agent: &str, data: &Value) -> Notice {
    let title = match () {
        () if flag(data, "gated") => format!("{agent}: nothing to do"),
        () if flag(data, "recovered") => format!("{agent} completed again"),
        () => format!("{agent} completed"),
    };
    let lines = [changes(data), late(data)].into_iter().flatten().collect();
    Notice { tone: Tone::Good, title, lines, look: show(data).into_iter().collect() }
}

fn failed(agent: &str, data: &Value) -> Notice {
    let code = text(data, "failureCode").unwrap_or("unknown");
    let attempt = number(data, "attempt").filter(|n| *n > 1).map(|n| format!("After {n} attempts."));
    let why = text(data, "failureExplanation").map(str::to_owned);
    let paused = flag(data, "agentPaused");
    let until =
        paused.then(|| format!("{agent} is paused now: its slots come to nothing until it is resumed."));
    let lines = [why, attempt, late(data), until].into_iter().flatten().collect();
    let resume = paused.then(|| resume(agent));
    // Who cancelled it knows.
    let tone = if code == "cancelled" { Tone::Note } else { Tone::Bad };
    Notice {
        tone,
        title: format!("{agent} failed: {code}"),
        lines,
        look: show(data).into_iter().chain(resume).collect(),
    }
}

fn show(data: &Value) -> Option<String> {
    text(data, "id").map(|id| format!("matins show {id}"))
}

fn resume(agent: &str) -> String {
    format!("matins resume {agent}")
}

fn late(data: &Value) -> Option<String> {
    let late = Duration::from_secs(number(data, "latenessMs")? / 1000);
    let at = text(data, "scheduledFor")?;
    (late >= LATE)
        .then(|| format!("Late by {}: it was scheduled for {}.", human_duration(late), time(data, at)))
}

fn changes(data: &Value) -> Option<String> {
    let paths: Vec<&str> =
        data.get("changes")?.as_array()?.iter().filter_map(|op| op.get("path")?.as_str()).collect();
    let named = paths.iter().take(CHANGES_NAMED).map(|p| if p.is_empty() { "all of it" } else { p });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = paths.len().saturating_sub(CHANGES_NAMED);
    match (paths.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("Its result changed: {named}.")),
        (false, more) => Some(format!("Its result changed: {named} and {more} more.")),
    }
}

fn several(data: &Value) -> bool {
    number(data, "count").is_some_and(|n| n > 1)
}

/// A time of the data in the zone of the schedule, as people read it.
fn time(data: &Value, at: &str) -> String {
    let zone = text(data, "timezone").unwrap_or("UTC");
    let tz = crate::time::zone(zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let read = |at: jiff::Timestamp| at.to_zoned(tz).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    at.parse().map_or_else(|_| at.to_owned(), read)
}

fn stretch(data: &Value) -> String {
    let (first, last) = (text(data, "first").unwrap_or_default(), text(data, "last").unwrap_or_default());
    let (first, last) = (time(data, first), time(data, last));
    let was = if several(data) { "They were" } else { "It was" };
    if first == last {
        format!("{was} scheduled for {first}")
    } else {
        format!("{was} scheduled from {first} to {last}")
    }
}

fn runs(n: u64) -> String {
    if n == 1 { "a run".to_owned() } else { format!("{n} runs") }
}

fn missed(agent: &str, data: &Value) -> Notice {
    Notice {
        tone: Tone::Bad,
        title: format!("{agent} missed {}", runs(number(data, "count").unwrap_or(1))),
        lines: vec![format!(
            "{}, and {} not made up for.",
            stretch(data),
            if several(data) { "are" } else { "is" }
        )],
        look: vec![format!("matins next {agent}")],
    }
}

fn skipped(agent: &str, data: &Value) -> Notice {
    let reason = text(data, "reason").unwrap_or_default();
    let why = match reason {
        "overlap" => "the run before had not ended",
        "queue_full" => "too many of its runs wait already",
        "budget" => "its budget is used up",
        "breaker" => "it is paused after too many failures, and no later one is told of",
        other => other,
    };
    let look = text(data, "inTheWay")
        .map_or_else(|| format!("matins events {agent}"), |run| format!("matins show {run}"));
    Notice {
        tone: Tone::Note,
        title: format!("{agent} skipped {}", runs(number(data, "count").unwrap_or(1))),
        lines: vec![format!("{}: {why}.", stretch(data))],
        look: std::iter::once(look).chain((reason == "breaker").then(|| resume(agent))).collect(),
    }
}

fn breaker_opened(agent: &str, data: &Value) -> Notice {
    let failures = number(data, "failures").map(|n| format!(" after {n} failed runs in a row"));
    let until = match text(data, "probeAt") {
        Some(at) => {
            format!("Its slots come to nothing until a probe is well, the first at {at}, or it is resumed.")
        }
        None => "Its slots come to nothing until it is resumed.".to_owned(),
    };
    Notice {
        tone: Tone::Bad,
        title: format!("{agent} is paused{}", failures.unwrap_or_default()),
        lines: text(data, "reason").map(str::to_owned).into_iter().chain([until]).collect(),
        look: vec![format!("matins events {agent}"), resume(agent)],
    }
}

fn overdue(agent: &str, data: &Value) -> Notice {
    let within = human_duration(Duration::from_secs(number(data, "expectedWithinMs").unwrap_or(0) / 1000));
    let line = match text(data, "lastSuccessAt") {
        Some(at) => format!("Its last success was at {}; one is expected within {within}.", time(data, at)),
        None => format!("It never had a success; one is expected within {within}."),
    };
    let paused = flag(data, "paused").then(|| "It is paused.".to_owned());
    Notice {
        tone: Tone::Bad,
        title: format!("{agent} is overdue"),
        lines: [Some(line), paused].into_iter().flatten().collect(),
        look: vec![format!("matins events {agent}")],
    }
}

fn disabled(data: &Value) -> Notice {
    let host = text(data, "host").unwrap_or("an endpoint");
    Notice {
        tone: Tone::Note,
        title: format!("{host} gets no more messages"),
        lines: vec!["It said that it is gone.".to_owned()],
        look: vec!["matins status".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_says_what_why_and_how_to_look() {
        let data = json!({
            "id": "0192", "agentId": "price-watch", "failureCode": "timeout", "attempt": 3,
            "failureExplanation": "it ran\nlonger than 10m", "latenessMs": 240_500,
            "scheduledFor": "2026-03-02T09:00:00.000Z", "timezone": "Europe/Berlin",
        });
        let notice = Notice::of(WebhookEvent::RunFailed, &data);
        assert_eq!(notice.tone, Tone::Bad);
        assert_eq!(notice.title, "price-watch failed: timeout");
        assert_eq!(
            notice.lines,
            [
                "it ran longer than 10m",
                "After 3 attempts.",
                "Late by 4m: it was scheduled for 2026-03-02 10:00:00 CET."
            ]
        );
        assert_eq!(notice.look, ["matins show 0192"]);
    }

    #[test]
    fn what_pauses_an_agent_says_how_to_resume_it() {
        let data = json!({ "id": "0192", "agentId": "a", "failureCode": "timeout", "agentPaused": true });
        let failed = Notice::of(WebhookEvent::RunFailed, &data);
        assert_eq!(failed.look, ["matins show 0192", "matins resume a"]);
        assert!(failed.lines[0].starts_with("a is paused now"), "{failed:?}");
        let data = json!({ "agentId": "a", "failures": 5, "reason": "r", "probeAt": "soon" });
        let opened = Notice::of(WebhookEvent::BreakerOpened, &data);
        assert_eq!(opened.look, ["matins events a", "matins resume a"]);
        assert!(opened.lines[1].contains("the first at soon"), "{opened:?}");
    }

    #[test]
    fn nothing_of_the_result_is_said_but_where_it_changed() {
        let change = |n: usize| json!({ "op": "replace", "path": format!("/p/{n}"), "value": "hidden" });
        let data = json!({
            "agentId": "a", "result": "hidden", "changes": (0..5).map(change).collect::<Vec<_>>(), "latenessMs": 900,
            "scheduledFor": "x",
        });
        let notice = Notice::of(WebhookEvent::RunCompleted, &data);
        assert_eq!(notice.lines, ["Its result changed: /p/0, /p/1, /p/2 and 2 more."]);
        assert!(!format!("{notice:?}").contains("hidden"));
    }

    #[test]
    fn every_type_has_its_sentence_and_its_bound() {
        for kind in WebhookEvent::ALL {
            let bare = Notice::of(*kind, &Value::Null);
            assert!(!bare.title.is_empty(), "{kind}");
            let long = "x".repeat(100_000);
            let data = json!({ "agentId": "a", "failureExplanation": long, "reason": long, "host": long });
            let notice = Notice::of(*kind, &data);
            assert!(notice.title.chars().count() <= TITLE_MAX, "{kind}");
            assert!(notice.lines.iter().all(|l| l.chars().count() <= LINE_MAX), "{kind}");
        }
        let data = json!({ "agentId": "a", "first": "t1", "last": "t2", "count": 3, "reason": "overlap" });
        assert_eq!(Notice::of(WebhookEvent::RunMissed, &data).title, "a missed 3 runs");
        let skipped = Notice::of(WebhookEvent::RunSkipped, &data);
        assert_eq!(skipped.lines, ["They were scheduled from t1 to t2: the run before had not ended."]);
    }
}
