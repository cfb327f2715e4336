//! The entries of an agent's `schedules:`.
//!
//! Each has exactly one timing and the policies of its agent where it names none of its own, so a
//! schedule of the model is complete by itself: `overlap`, `max_concurrent` and `exclude` of the
//! agent are merged in here, the agent's exclusions before its own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::codes::Warning;
use super::context::Context;
use super::reader::{Fields, Reader};
use super::source::{Span, Spanned};
use super::timing::{self, Keys};
use super::yaml::{self, Node};
use super::{agent, exclude, keys, prompt};
use crate::ids::ScheduleId;
use crate::model::{
    CatchUp, Dst, Exclusions, Overlap, Schedule, SlotOverrides, Timeout, Timing, fingerprint,
};

/// Most missed slots that one schedule may make up for at once.
const MAX_CATCH_UP: u64 = 10_000;
/// Keys that people look for.
const HINTS: &[(&str, &str)] = &[
    ("tz", "write `timezone:`"),
    ("zone", "write `timezone:`"),
    ("schedule", "write `cron:` or `every:`"),
    ("interval", "write `every:`"),
    ("concurrency", "write `max_concurrent:`"),
    ("misfire", "write `catch_up:`"),
    ("model", "write it under `executor:`"),
    ("until", "write `end:`"),
];

/// What a schedule takes from its agent.
pub(super) struct Inherited<'a> {
    /// Directory of the agent's file.
    pub dir: &'a Path,
    /// `overlap:` of the agent.
    pub overlap: Overlap,
    /// `max_concurrent:` of the agent.
    pub max_concurrent: Option<u32>,
    /// `exclude:` of the agent.
    pub exclude: Vec<exclude::Entry>,
    /// Where that key stands.
    pub exclude_span: Option<Span>,
    /// `env:` of the agent, whose names a prompt sees.
    pub env: &'a BTreeMap<String, String>,
    /// `input_schema:` of the agent.
    pub input_schema: Option<&'a Value>,
}

/// Reads a word of `overlap:`.
pub(super) fn overlap(r: &mut Reader, node: &Spanned<Node>) -> Option<Overlap> {
    let known: Vec<_> = Overlap::ALL.iter().map(|o| o.as_str()).collect();
    r.choice("overlap", node, &known, &[])
}

/// Reads the list.
pub(super) fn schedules(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    from: &Inherited<'_>,
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
            r.warn(
                Warning::SameSchedule,
                item.span,
                message,
                "remove one of the two: slots at one instant are one run",
            );
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
fn schedule(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    from: &Inherited<'_>,
) -> Option<Schedule> {
    let mut f = r.map(&keys::SCHEDULE, "schedule", node)?;
    let keys = Keys::take(&mut f);
    let own = match f.take("exclude") {
        Some(node) => exclude::exclude(r, cx, node, from.dir),
        None => Vec::new(),
    };
    let excludes = !own.is_empty() || !from.exclude.is_empty() || f.key("exclude").is_some();
    let zone = keys.zone(r, cx, excludes);
    let bounds = keys.bounds(r, cx.now, zone.as_deref());
    let exclude = zone.as_deref().map_or_else(Vec::new, |zone| {
        let mut all = exclude::resolve(&from.exclude, zone);
        all.extend(exclude::resolve(&own, zone));
        all
    });
    let exclusions = Exclusions::compile(&exclude).ok().flatten();
    let timing = keys.timing(r, cx, zone.as_deref(), bounds, exclusions.as_ref());
    if let (Some(timing), Some(exclusions)) = (&timing, &exclusions)
        && timing::all_excluded(timing, bounds, exclusions, cx.now)
    {
        let span = f.key("exclude").or(from.exclude_span).unwrap_or(f.span);
        let message = format!("`exclude` covers every slot of the schedule in line {}", f.span.line);
        r.warn(
            Warning::AllExcluded,
            span,
            message,
            "nothing of it runs: remove the schedule, or exclude less",
        );
    }
    let own_overlap = f.take("overlap").and_then(|node| overlap(r, node));
    let overlap = own_overlap.unwrap_or(from.overlap);
    let own_max = max_concurrent(r, &mut f, overlap);
    let missed = missed(r, &mut f, timing.as_ref());
    let dst = dst(r, &mut f, timing.as_ref());
    let (jitter, spread) = delays(r, &mut f, timing.as_ref());
    let overrides = overrides(r, cx, &mut f, from);
    f.finish(r, HINTS);
    Some(Schedule {
        overlap,
        max_concurrent: own_max.or(from.max_concurrent),
        catch_up: missed.catch_up,
        catch_up_window: missed.window,
        grace: missed.grace,
        start_deadline: missed.start_deadline,
        catch_up_max: missed.max.unwrap_or(Schedule::DEFAULT_CATCH_UP_MAX),
        bounds,
        exclude,
        dst,
        jitter,
        spread,
        overrides,
        ..Schedule::plain(ScheduleId::from(String::new()), timing?)
    })
}

/// Reads `max_concurrent:`, which says nothing where one run is under way at most.
pub(super) fn max_concurrent(r: &mut Reader, fields: &mut Fields<'_>, overlap: Overlap) -> Option<u32> {
    let node = fields.take("max_concurrent")?;
    let count = r.count("max_concurrent", node);
    if !matches!(overlap, Overlap::Queue | Overlap::Allow) && count.is_some() {
        let message = format!(
            "`max_concurrent` has no effect under `overlap: {overlap}`: at most one run is under way"
        );
        r.warn(
            Warning::NoEffect,
            node.span,
            message,
            "add `overlap: allow` or `overlap: queue`, or remove the key",
        );
    }
    count
}

/// What happens to slots that were missed or have to wait.
struct Missed {
    catch_up: CatchUp,
    window: Option<Duration>,
    max: Option<u32>,
    grace: Option<Duration>,
    start_deadline: Option<Duration>,
}

fn missed(r: &mut Reader, f: &mut Fields<'_>, timing: Option<&Timing>) -> Missed {
    let nodes = [f.take("catch_up"), f.take("catch_up_window"), f.take("catch_up_max"), f.take("grace")];
    let [word, window, max, grace] = nodes;
    let catch_up = word
        .and_then(|node| {
            let known: Vec<_> = CatchUp::ALL.iter().map(|c| c.as_str()).collect();
            r.choice("catch_up", node, &known, &[])
        })
        .unwrap_or(CatchUp::Latest);
    if matches!(timing, Some(Timing::After { .. } | Timing::Startup)) {
        let names = ["catch_up", "catch_up_window", "catch_up_max", "grace"];
        for (name, node) in names.iter().zip(nodes).filter_map(|(name, node)| Some((name, node?))) {
            let message = format!("`{name}` has no effect here: a schedule `after` or `on` misses nothing");
            r.warn(Warning::NoEffect, node.span, message, "remove the key");
        }
    } else if let Some(node) = max.filter(|_| catch_up != CatchUp::All) {
        let message = format!("`catch_up_max` has no effect under `catch_up: {catch_up}`");
        r.warn(Warning::NoEffect, node.span, message, "add `catch_up: all`, or remove the key");
    }
    let max = max.and_then(|node| r.whole("catch_up_max", node, 1, MAX_CATCH_UP));
    Missed {
        catch_up,
        window: window.and_then(|node| r.some_time("catch_up_window", node)),
        max: max.and_then(|n| u32::try_from(n).ok()),
        grace: grace.and_then(|node| r.some_time("grace", node)),
        start_deadline: f.take("start_deadline").and_then(|node| r.some_time("start_deadline", node)),
    }
}

fn dst(r: &mut Reader, f: &mut Fields<'_>, timing: Option<&Timing>) -> Dst {
    let Some(node) = f.take("dst") else {
        return Dst::default();
    };
    if timing.is_some_and(|t| !matches!(t, Timing::Cron { .. })) {
        r.error_help(node.span, "`dst` belongs to `cron`", "remove the key");
    }
    let Some(mut fields) = r.map(&keys::DST, "dst", node) else {
        return Dst::default();
    };
    let gap = fields.take("gap").and_then(|node| r.choice("gap", node, &["after", "skip"], &[]));
    let overlap =
        fields.take("overlap").and_then(|node| r.choice("overlap", node, &["first", "last", "both"], &[]));
    fields.finish(r, &[]);
    Dst { gap: gap.unwrap_or_default(), overlap: overlap.unwrap_or_default() }
}

fn delays(
    r: &mut Reader,
    f: &mut Fields<'_>,
    timing: Option<&Timing>,
) -> (Option<Duration>, Option<Duration>) {
    let mut delay = |key: &'static str| {
        let node = f.take(key)?;
        let time = r.some_time(key, node)?;
        if let Some(Timing::Every { period, .. }) = timing
            && time >= *period
        {
            let period = crate::time::human_duration(*period);
            let message = format!("`{key}` is not shorter than the period, {period}: it is cut to that");
            r.warn(Warning::NoEffect, node.span, message, "write a shorter time");
        }
        Some(time)
    };
    (delay("jitter"), delay("spread"))
}

fn overrides(r: &mut Reader, cx: &mut Context, f: &mut Fields<'_>, from: &Inherited<'_>) -> SlotOverrides {
    let prompt = f.take("prompt").and_then(|node| prompt::template(r, "prompt", node, from.env));
    let input = f.take("input").and_then(|node| {
        r.names("input", node)?;
        let input = yaml::to_json(&node.value);
        if let Some(schema) = from.input_schema {
            agent::check_input(r, cx, node, f.key("input"), &input, schema);
        }
        Some(input)
    });
    let skills = f.take("skills").map(|node| agent::skills(r, cx, node));
    let timeout = f.take("timeout").and_then(|node| {
        if node.value == Node::Text("none".to_owned()) {
            return Some(Timeout::None);
        }
        r.some_time("timeout", node).map(Timeout::Within)
    });
    SlotOverrides { prompt, input, skills, timeout }
}
