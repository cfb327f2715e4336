//! The sentences of an explanation. Each names its evidence: the word of the ledger, by which `matins
//! explain` finds it, when it was decided, the policy and the run with its state; and, where something can be
//! done, what.

use std::collections::HashMap;

use super::when::{When, distance};
use crate::engine::catalog::{Entry, ScheduleEntry};
use crate::ids::AgentId;
use crate::model::{CatchUp, Event, Exclude, Exclusions, NotRun, RunState, Schedule, Timing};
use crate::store::{AgentSummary, Earlier, SlotRow};
use crate::time::{from_ms, human_duration, zone};

/// `Mon 2026-03-02 09:00:00 Europe/Berlin`.
pub(super) fn told(at_ms: i64, name: &str) -> String {
    let (tz, name) = zone(name).map_or((jiff::tz::TimeZone::UTC, "UTC"), |tz| (tz, name));
    format!("{} {name}", from_ms(at_ms).to_zoned(tz).strftime("%a %Y-%m-%d %H:%M:%S"))
}

/// The stretch that was asked for: `in the minute of Mon 2026-03-02 09:00 Europe/Berlin`.
pub(super) fn at(when: When, name: &str) -> String {
    if when.to_ms - when.from_ms < 60_000 {
        return format!("at {}", told(when.from_ms, name));
    }
    let (tz, name) = zone(name).map_or((jiff::tz::TimeZone::UTC, "UTC"), |tz| (tz, name));
    let minute = from_ms(when.from_ms).to_zoned(tz).strftime("%a %Y-%m-%d %H:%M").to_string();
    format!("in the minute of {minute} {name}")
}

/// That there is more than is told.
pub(super) fn several(when: When, told: usize, zone: &str) -> String {
    format!(
        "More slots were due {} than are told here; these are the last {told}. For another one write its second, as in \
         09:00:30.",
        at(when, zone)
    )
}

/// A time of the API as people read it.
fn moment(text: &str, zone: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |at: jiff::Timestamp| told(at.as_millisecond(), zone))
}

pub(super) fn never_read(agent: &AgentId) -> String {
    format!(
        "The file of {agent} could never be read, so it has no schedule; `matins check` shows what is wrong."
    )
}

/// What became of one row of the ledger.
pub(super) fn slot(
    slot: &SlotRow,
    schedule: Option<&ScheduleEntry>,
    run: Option<&Event>,
    zone: &str,
    now_ms: i64,
) -> Vec<String> {
    let timing = schedule.map_or_else(
        || format!("schedule {}, which the agent has no more", slot.schedule),
        |s| s.schedule.timing.describe(),
    );
    let which = if slot.count > 1 {
        let (from, to) = (told(slot.nominal_ms, zone), told(slot.until_ms, zone));
        format!("The {} slots from {from} to {to} ({timing})", slot.count)
    } else {
        format!("The slot of {} ({timing})", told(slot.nominal_ms, zone))
    };
    let schedule = schedule.map(|s| s.schedule.as_ref());
    match slot.reason {
        None => vec![ran(&which, run, zone, now_ms)],
        Some(reason) => vec![not_run(&which, slot, reason, schedule, run, zone)],
    }
}

fn ran(which: &str, run: Option<&Event>, zone: &str, now_ms: i64) -> String {
    let Some(run) = run else {
        return format!("{which} became a run, which is no longer kept.");
    };
    let late = run.lateness_ms.filter(|ms| *ms >= 1000).map_or_else(String::new, |ms| {
        let late = std::time::Duration::from_secs(ms.unsigned_abs() / 1000);
        format!(", {} late", human_duration(late))
    });
    let trigger = if run.trigger == crate::model::Trigger::CatchUp { " as a catch-up" } else { "" };
    // One that waits, or never got to start, did not run.
    let verb = if run.started_at.is_some() { "ran" } else { "became a run" };
    let outcome = outcome(run, zone, now_ms);
    format!("{which} {verb}{trigger}{late}: {}.", outcome.trim_end_matches('.'))
}

/// What backfills have done about the slots of a row.
pub(super) fn again(backfills: &HashMap<i64, Earlier>) -> Option<String> {
    let one = backfills.values().next()?;
    Some(match (backfills.len(), one.pending) {
        (1, true) => format!("A backfill runs it again as run {}, which has not ended.", one.run),
        (1, false) => format!("A backfill has run it again: run {} completed.", one.run),
        (n, _) => format!("Backfills run or have run {n} of them again."),
    })
}

/// Why a run that was admitted does not start yet.
pub(super) fn delayed(starts_ms: i64, zone: &str, now_ms: i64) -> String {
    format!(
        "Its `jitter` and `spread` let it start {}, {}.",
        distance(starts_ms, now_ms),
        told(starts_ms, zone)
    )
}

/// Where a run stands.
fn outcome(run: &Event, zone: &str, now_ms: i64) -> String {
    let id = &run.id;
    let at = |time: Option<&String>| time.map_or_else(String::new, |t| moment(t, zone));
    match run.status {
        RunState::Pending => {
            let since = run.created_at.parse().map_or(now_ms, jiff::Timestamp::as_millisecond);
            format!("run {id} is PENDING since {}, {}", told(since, zone), distance(since, now_ms))
        }
        RunState::Running => format!("run {id} is RUNNING since {}", at(run.started_at.as_ref())),
        RunState::Completed => {
            let gated = if run.gated { "; its gate found nothing to do" } else { "" };
            let (started, ended) = (at(run.started_at.as_ref()), at(run.completed_at.as_ref()));
            format!("run {id} started {started} and ended COMPLETED {ended}{gated}")
        }
        RunState::Failed => {
            let code = run.failure_code.as_deref().unwrap_or("unknown");
            let why = run.error.as_deref().unwrap_or("no reason is known");
            let started = run.started_at.as_ref();
            let started = started
                .map_or_else(|| "never started".to_owned(), |at| format!("started {}", moment(at, zone)));
            format!("run {id} {started} and ended FAILED {} ({code}): {why}", at(run.completed_at.as_ref()))
        }
    }
}

fn not_run(
    which: &str,
    slot: &SlotRow,
    reason: NotRun,
    schedule: Option<&Schedule>,
    run: Option<&Event>,
    zone: &str,
) -> String {
    let id = &slot.agent;
    let why = match reason {
        NotRun::Overlap => overlapped(slot, run, zone),
        NotRun::MissedWindow => missed(slot, schedule),
        NotRun::Coalesced => coalesced(slot, run, zone),
        NotRun::Excluded => excluded(slot, schedule),
        NotRun::Paused => {
            format!(
                "the agent was paused then; `matins resume {id} --catch-up` makes up for it as `catch_up` says"
            )
        }
        NotRun::Budget => "a budget of 24 hours (`budget:`) was used up then".to_owned(),
        NotRun::Breaker => format!(
            "failed runs in a row had opened the agent's circuit breaker (`breaker:`) before; `matins resume {id}` closes it"
        ),
        NotRun::Draining => "the daemon was stopping then".to_owned(),
        NotRun::QueueFull => "as many runs of the agent waited then as may wait".to_owned(),
        NotRun::ConfigError => {
            "the agent's file had errors then; `matins check` shows those that it has now".to_owned()
        }
    };
    let subject = match (reason, slot.count) {
        (NotRun::Coalesced, 1) => "has no run of its own",
        (NotRun::Coalesced, _) => "have no runs of their own",
        _ => "did not run",
    };
    format!("{which} {subject} ({reason}): {why}. Decided {}.", told(slot.decided_at_ms, zone))
}

/// The run that stands for slots.
fn coalesced(slot: &SlotRow, run: Option<&Event>, zone: &str) -> String {
    let Some(run) = run else {
        return "the slot that stands for it got no run either, or its run is no longer kept".to_owned();
    };
    let own = run.scheduled_for.as_deref().map(|at| moment(at, zone));
    let own = own.map_or_else(String::new, |own| format!(", which is that of the slot of {own},"));
    let them = if slot.count > 1 { "them" } else { "it" };
    format!("run {}{own} stands for {them} and is told the whole window; it is {}", run.id, run.status)
}

/// The run in the way, and what it was doing then.
fn overlapped(slot: &SlotRow, run: Option<&Event>, zone: &str) -> String {
    const POLICY: &str = "and `overlap: skip` leaves out a slot that finds the agent busy";
    let Some(run) = run else {
        return format!("a run that is no longer kept was in the way, {POLICY}");
    };
    let ms = |text: &Option<String>| text.as_deref()?.parse().ok().map(jiff::Timestamp::as_millisecond);
    let (state, since) = match (&run.started_at, ms(&run.started_at)) {
        (Some(started), Some(at)) if at <= slot.decided_at_ms => ("RUNNING", started),
        _ => ("PENDING", &run.created_at),
    };
    let until = match &run.completed_at {
        Some(end) => format!("it ended {} {}", run.status, moment(end, zone)),
        None if run.status.as_str() == state => "it still is".to_owned(),
        None => format!("it is {} now", run.status),
    };
    format!("run {} was {state} since {} ({until}), {POLICY}", run.id, moment(since, zone))
}

fn missed(slot: &SlotRow, schedule: Option<&Schedule>) -> String {
    let late = slot.decided_at_ms.saturating_sub(slot.until_ms).unsigned_abs();
    let late = human_duration(std::time::Duration::from_secs(late / 1000));
    let policy = schedule.map_or_else(String::new, |s| {
        let of = |d: Option<std::time::Duration>| {
            d.map_or_else(|| "of the default length".to_owned(), |d| format!("of {}", human_duration(d)))
        };
        let (window, grace) = (of(s.catch_up_window), of(s.grace));
        let max = if s.catch_up == CatchUp::All {
            format!(", `catch_up_max: {}`", s.catch_up_max)
        } else {
            String::new()
        };
        format!(
            "; `catch_up: {}` with a `catch_up_window` {window} and a `grace` {grace}{max} makes up for none that is so \
             late",
            s.catch_up
        )
    });
    format!("the daemon or the machine was down when it came due, and it was found {late} late{policy}")
}

fn excluded(slot: &SlotRow, schedule: Option<&Schedule>) -> String {
    let entry = schedule.and_then(|s| s.exclude.iter().find(|entry| covers(entry, slot.nominal_ms)));
    match entry {
        Some(Exclude::Cron { cron, timezone }) => format!("`exclude: {cron}` ({timezone}) covers it"),
        Some(Exclude::Spans(spans)) => {
            let span = spans.iter().find(|(start, end)| (*start..*end).contains(&slot.nominal_ms));
            let zone = schedule.map_or("UTC", |s| s.timing.timezone());
            let (start, end) = span.copied().unwrap_or((slot.nominal_ms, slot.nominal_ms));
            format!("`exclude` covers it, from {} until {}", told(start, zone), told(end, zone))
        }
        None => "an `exclude` that the definition has no more covered it".to_owned(),
    }
}

fn covers(entry: &Exclude, at_ms: i64) -> bool {
    let compiled = Exclusions::compile(std::slice::from_ref(entry)).ok().flatten();
    compiled.is_some_and(|exclusions| exclusions.covers(at_ms))
}

/// What a schedule will do at a time that is still to come.
pub(super) fn will(entry: &ScheduleEntry, when: When, zone: &str) -> String {
    let at_ms = entry.calendar.next_after(when.from_ms - 1).unwrap_or(when.from_ms);
    let timing = entry.schedule.timing.describe();
    if entry.calendar.excludes(at_ms) {
        return format!(
            "The slot of {} ({timing}) is still to come; `exclude` covers it, so it will not run.",
            told(at_ms, zone)
        );
    }
    format!("The slot of {} ({timing}) is still to come.", told(at_ms, zone))
}

/// Why a time that the timing names has no row.
pub(super) fn no_row(
    entry: &ScheduleEntry,
    summary: &AgentSummary,
    when: When,
    zone: &str,
    now_ms: i64,
) -> String {
    let timing = entry.schedule.timing.describe();
    let slot = format!(
        "The slot of {} ({timing})",
        told(entry.calendar.next_after(when.from_ms - 1).unwrap_or(when.from_ms), zone)
    );
    if when.from_ms >= now_ms.saturating_sub(1_000) {
        return format!("{slot} is being decided right now; ask again.");
    }
    if when.from_ms < summary.created_at_ms {
        let since = told(summary.created_at_ms, zone);
        return format!("{slot} lies before this agent, which is known since {since}.");
    }
    format!(
        "{slot} is not in the ledger: either the schedule began later, as each one does when it is new or its timing is \
         changed, or the row is older than `retention` keeps."
    )
}

/// What keeps the agent from running at all.
pub(super) fn state(entry: &Entry, summary: &AgentSummary, zone: &str, now_ms: i64) -> Vec<String> {
    let mut sentences = Vec::new();
    if !entry.valid {
        sentences.push(
            "The agent is INVALID: its file cannot be read, and its slots end as config_error until it can; \
             `matins check` shows what is wrong."
                .to_owned(),
        );
    }
    if let Some(pause) = &summary.pause {
        let reason = pause.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
        sentences.push(format!(
            "The agent is paused since {}, {}, by {}{reason}; `matins resume {}` lets it run again.",
            told(pause.since_ms, zone),
            distance(pause.since_ms, now_ms),
            pause.by,
            entry.agent.id
        ));
    }
    sentences
}

/// When it fires next, or why it never does.
pub(super) fn next(
    entry: &Entry,
    summary: &AgentSummary,
    next: &[(i64, String)],
    zone: &str,
    now_ms: i64,
) -> String {
    if let Some((at, _)) = next.first() {
        // One that is paused by its breaker may be probed then.
        let probed =
            |by: &str| by == crate::store::BREAKER && entry.agent.policies.breaker.probe_after.is_some();
        let paused = summary.pause.as_ref().filter(|pause| !probed(&pause.by));
        let left = paused.map_or("", |_| " It will be left out, unless the agent is resumed before");
        let dot = if left.is_empty() { "" } else { "." };
        return format!("The next slot is {}, {}.{left}{dot}", told(*at, zone), distance(*at, now_ms));
    }
    let id = &entry.agent.id;
    if entry.schedules.is_empty() {
        return format!(
            "{id} has no schedule: it runs only when somebody triggers it, as with `matins run {id}`."
        );
    }
    let has = |wanted: fn(&Timing) -> bool| entry.schedules.iter().any(|s| wanted(&s.schedule.timing));
    if has(|t| matches!(t, Timing::After { .. })) {
        return format!("{id} is due again after the end of the run that waits or is under way.");
    }
    if has(|t| matches!(t, Timing::Startup)) {
        return format!("{id} is due when the daemon starts the next time.");
    }
    format!("{id} is never due again: its schedules are over.")
}
