//! The entries of an agent's `schedules:`.
//!
//! Each has exactly one timing and the policies of its agent where it names none of its own, so a
//! schedule of the model is complete by itself.

use std::collections::HashMap;
use std::time::Duration;

use super::context::Context;
use super::problem::Severity;
use super::reader::{Elsewhere, Fields, Reader};
use super::source::{Span, Spanned};
use super::yaml::Node;
use crate::ids::ScheduleId;
use crate::model::{CatchUp, Overlap, Schedule, Timing, fingerprint};

/// Shortest period of `every`.
pub const MIN_PERIOD: Duration = Duration::from_secs(1);
/// Overlap words of later versions.
const PLANNED_OVERLAPS: &[&str] = &["queue_one", "cancel_previous", "replace"];
/// Keys that are read in later versions, and keys that people look for.
const ELSEWHERE: Elsewhere = Elsewhere {
    planned: &[
        "after",
        "at",
        "on",
        "start",
        "end",
        "max_runs",
        "exclude",
        "dst",
        "jitter",
        "spread",
        "prompt",
        "input",
        "skills",
        "timeout",
        "catch_up_max",
    ],
    hints: &[
        ("tz", "write `timezone:`"),
        ("zone", "write `timezone:`"),
        ("schedule", "write `cron:` or `every:`"),
        ("interval", "write `every:`"),
        ("concurrency", "write `max_concurrent:`"),
        ("misfire", "write `catch_up:`"),
    ],
};

/// What a schedule takes from its agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    /// `overlap:` of the agent.
    pub overlap: Overlap,
    /// `max_concurrent:` of the agent.
    pub max_concurrent: Option<u32>,
}

/// Reads a word of `overlap:`.
pub(super) fn overlap(r: &mut Reader, node: &Spanned<Node>) -> Option<Overlap> {
    let known: Vec<_> = Overlap::ALL.iter().map(|o| o.as_str()).collect();
    r.choice("overlap", node, &known, PLANNED_OVERLAPS)
}

/// Reads the list.
pub(super) fn schedules(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    from: Inherited,
) -> Vec<Schedule> {
    let mut found: Vec<(Schedule, Span)> = Vec::new();
    for item in r.list("schedules", node).unwrap_or_default() {
        if let Node::Text(text) = &item.value {
            let key = if text.contains(['*', ' ', '@']) { "cron" } else { "every" };
            let help = format!("write `- {key}: \"{}\"`", text.escape_debug());
            r.error_help(item.span, "a schedule is a map", help);
            continue;
        }
        let Some(schedule) = schedule(r, cx, item, from) else {
            continue;
        };
        if let Some((_, first)) = found.iter().find(|(other, _)| *other == schedule) {
            let message = format!("this schedule is the same as the one in line {}", first.line);
            r.warn(item.span, message, "remove one of the two: slots at one instant are one run");
        }
        found.push((schedule, item.span));
    }
    let mut ordinals: HashMap<String, usize> = HashMap::new();
    let named = found.into_iter().map(|(schedule, _)| {
        let print = fingerprint(&schedule.timing);
        let ordinal = ordinals.entry(print.clone()).or_default();
        let id = ScheduleId::new(&print, *ordinal);
        *ordinal += 1;
        Schedule { id, ..schedule }
    });
    named.collect()
}

/// One entry, still without its id: that needs the entries before it.
fn schedule(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>, from: Inherited) -> Option<Schedule> {
    let mut fields = r.map("schedule", node)?;
    let timing = timing(r, cx, &mut fields);
    let own_overlap = fields.take("overlap").and_then(|node| overlap(r, node));
    let overlap = own_overlap.unwrap_or(from.overlap);
    let own_max = max_concurrent(r, &mut fields, overlap);
    let catch_up = fields.take("catch_up").and_then(|node| {
        let known: Vec<_> = CatchUp::ALL.iter().map(|c| c.as_str()).collect();
        r.choice("catch_up", node, &known, &["all"])
    });
    let mut time = |key| fields.take(key).and_then(|node| r.some_time(key, node));
    let (window, grace, deadline) = (time("catch_up_window"), time("grace"), time("start_deadline"));
    fields.finish(r, &ELSEWHERE);
    Some(Schedule {
        overlap,
        max_concurrent: own_max.or(from.max_concurrent),
        catch_up: catch_up.unwrap_or(CatchUp::Latest),
        catch_up_window: window,
        grace,
        start_deadline: deadline,
        ..Schedule::plain(ScheduleId::from(String::new()), timing?)
    })
}

/// Reads `max_concurrent:`, which says nothing where slots are skipped.
pub(super) fn max_concurrent(r: &mut Reader, fields: &mut Fields<'_>, overlap: Overlap) -> Option<u32> {
    let node = fields.take("max_concurrent")?;
    let count = r.count("max_concurrent", node);
    if overlap == Overlap::Skip && count.is_some() {
        r.warn(
            node.span,
            "`max_concurrent` has no effect under `overlap: skip`: at most one run is under way",
            "add `overlap: allow` or `overlap: queue`, or remove the key",
        );
    }
    count
}

fn timing(r: &mut Reader, cx: &mut Context, fields: &mut Fields<'_>) -> Option<Timing> {
    let (cron, every) = (fields.take("cron"), fields.take("every"));
    let (zone, phase) = (fields.take("timezone"), fields.take("phase"));
    let span = fields.span;
    match (cron, every) {
        (Some(cron), None) => {
            if let Some(phase) = phase {
                r.error_help(phase.span, "`phase` belongs to `every`", "remove the key");
            }
            cron_timing(r, cx, cron, zone)
        }
        (None, Some(every)) => {
            if let Some(zone) = zone {
                let help = "remove the key, or write a `cron:`";
                r.error_help(zone.span, "`every` counts from the Unix epoch and knows no time zone", help);
            }
            every_timing(r, every, phase)
        }
        (Some(_), Some(every)) => {
            r.error_help(every.span, "a schedule has `cron` or `every`, not both", "write two schedules");
            None
        }
        (None, None) => {
            let later = ["after", "at", "on"].iter().any(|key| fields.key(key).is_some());
            if !later {
                let help = "write e.g. `cron: \"0 9 * * MON-FRI\"` or `every: 15m`";
                r.error_help(span, "this schedule does not say when", help);
            }
            None
        }
    }
}

fn cron_timing(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    zone: Option<&Spanned<Node>>,
) -> Option<Timing> {
    let timezone = match zone {
        Some(zone) => zone_of(r, cx, zone),
        None => Some(cx.timezone.clone()),
    };
    let text = r.filled("cron", node)?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match cx.cron(&text) {
        Ok(cron) => {
            for warning in cron.warnings() {
                r.sentence(node.span, Severity::Warning, &warning);
            }
            Some(Timing::Cron { cron, timezone: timezone? })
        }
        Err(e) => {
            r.sentence(node.span, Severity::Error, &e.to_string());
            None
        }
    }
}

fn zone_of(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>) -> Option<String> {
    let name = r.filled("timezone", node)?;
    match cx.zone(name.trim()) {
        Ok(zone) => Some(zone),
        Err(sentence) => {
            r.sentence(node.span, Severity::Error, &sentence);
            None
        }
    }
}

fn every_timing(r: &mut Reader, node: &Spanned<Node>, phase: Option<&Spanned<Node>>) -> Option<Timing> {
    let period = r.duration("every", node);
    let offset = match phase {
        Some(phase) => r.duration("phase", phase),
        None => Some(Duration::ZERO),
    };
    let period = period?;
    if period < MIN_PERIOD {
        r.error_help(node.span, "`every` is at least 1s", "write e.g. `1s` or `15m`");
        return None;
    }
    let offset = offset?;
    if offset >= period {
        let span = phase.map_or(node.span, |p| p.span);
        let message =
            format!("`phase` must be shorter than the period, {}", crate::time::human_duration(period));
        r.error_help(span, message, "only the rest of the division by the period counts");
        return None;
    }
    Some(Timing::Every { period, phase: offset })
}
