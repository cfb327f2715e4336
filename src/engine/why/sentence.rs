//! The sentences of an explanation. Each names its evidence and, where something can be done, what.

use super::when::{When, distance};
use crate::engine::catalog::{Entry, ScheduleEntry};
use crate::ids::AgentId;
use crate::model::{CatchUp, Event, Exclude, NotRun, RunState, Schedule, Timing};
use crate::plan;
use crate::store::{AgentSummary, SlotRow};
use crate::time::{from_ms, human_duration, zone};

/// `Mon 2026-03-02 09:00:00 Europe/Berlin`.
pub(super) fn told(at_ms: i64, name: &str) -> String {
    let (tz, name) = zone(name).map_or((jiff::tz::TimeZone::UTC, "UTC"), |tz| (tz, name));
    format!("{} {name}", from_ms(at_ms).to_zoned(tz).strftime("%a %Y-%m-%d %H:%M:%S"))
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
        None => ran(&which, run, zone, now_ms),
        Some(reason) => not_run(&which, slot, reason, schedule, run, zone),
    }
}

fn ran(which: &str, run: Option<&Event>, zone: &str, now_ms: i64) -> Vec<String> {
    let Some(run) = run else {
        return vec![format!("{which} ran; the run is no longer kept.")];
    };
    let late = run.lateness_ms.filter(|ms| *ms >= 1000).map_or_else(String::new, |ms| {
        let late = std::time::Duration::from_secs(ms.unsigned_abs() / 1000);
        format!(", {} late", human_duration(late))
    });
    let trigger = if run.trigger == crate::model::Trigger::CatchUp { " as a catch-up" } else { "" };
    vec![format!("{which} ran{trigger}{late}: {}.", outcome(run, zone, now_ms))]
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
            format!("run {id} waits since {}, {}", told(since, zone), distance(since, now_ms))
        }
        RunState::Running => format!("run {id} is under way since {}", at(run.started_at.as_ref())),
        RunState::Completed => {
            let gated = if run.gated { ", its gate found nothing to do" } else { "" };
            let (started, ended) = (at(run.started_at.as_ref()), at(run.completed_at.as_ref()));
            format!("run {id} started {started} and completed {ended}{gated}")
        }
        RunState::Failed => {
            let code = run.failure_code.as_deref().unwrap_or("unknown");
            let why = run.error.as_deref().unwrap_or("no reason is known");
            format!("run {id} failed {} ({code}): {why}", at(run.completed_at.as_ref()))
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
) -> Vec<String> {
    let decided = told(slot.decided_at_ms, zone);
    let why = match reason {
        NotRun::Overlap => match run {
            Some(run) => format!("was left out, for overlap is skip and {}", in_the_way(run, zone)),
            None => "was left out, for overlap is skip and a run was in the way that is no longer kept".to_owned(),
        },
        NotRun::MissedWindow => missed(slot, schedule, &decided),
        NotRun::Coalesced => match run {
            Some(run) => format!("has no run of its own: run {} stands for it{}", run.id, stands_at(run, zone)),
            None => {
                "has no run of its own: the slot that stands for it got no run either, or its run is no longer kept"
                    .to_owned()
            }
        },
        NotRun::Paused => {
            format!("was left out, for the agent was paused at {decided}; only `matins resume --catch-up` replays it")
        }
        NotRun::Excluded => excluded(slot, schedule),
        NotRun::Budget => format!("was left out, for a budget was used up at {decided}"),
        NotRun::Breaker => {
            format!("was left out, for failed runs in a row had opened the circuit breaker by {decided}")
        }
        NotRun::Draining => format!("was left out, for the daemon was stopping at {decided}"),
        NotRun::QueueFull => format!("was left out, for as many runs waited at {decided} as may wait"),
        NotRun::ConfigError => {
            format!("was left out, for the agent's file could not be read at {decided}; `matins check` shows why")
        }
    };
    let verb = |why: &str| if slot.count > 1 { plural(why) } else { why.to_owned() };
    vec![format!("{which} {}.", verb(&why))]
}

/// The predicate of several slots.
fn plural(why: &str) -> String {
    let why = why.strip_prefix("was ").map_or_else(|| why.to_owned(), |rest| format!("were {rest}"));
    why.strip_prefix("has no run of its own")
        .map_or_else(|| why.clone(), |rest| format!("have no runs of their own{rest}"))
}

fn in_the_way(run: &Event, zone: &str) -> String {
    let from = run.started_at.as_deref().unwrap_or(&run.created_at);
    let began = if run.started_at.is_some() { "started" } else { "was waiting since" };
    let until = match &run.completed_at {
        Some(end) => format!("ended {}", moment(end, zone)),
        None => "has not ended yet".to_owned(),
    };
    format!("run {} was in the way: it {began} {} and {until}", run.id, moment(from, zone))
}

fn stands_at(run: &Event, zone: &str) -> String {
    let slot = run.scheduled_for.as_deref().map(|at| moment(at, zone));
    slot.map_or_else(String::new, |slot| format!(" (that of the slot of {slot}, which is told the window)"))
}

fn missed(slot: &SlotRow, schedule: Option<&Schedule>, decided: &str) -> String {
    let late = slot.decided_at_ms.saturating_sub(slot.until_ms).unsigned_abs();
    let late = human_duration(std::time::Duration::from_secs(late / 1000));
    let policy = schedule.map_or_else(String::new, |s| {
        let of = |d: Option<std::time::Duration>, default: &str| {
            d.map_or_else(|| default.to_owned(), human_duration)
        };
        let window = of(s.catch_up_window, "the default");
        let grace = of(s.grace, "the default");
        let max = if s.catch_up == CatchUp::All {
            format!(", catch_up_max {}", s.catch_up_max)
        } else {
            String::new()
        };
        format!("; catch_up is {} with catch_up_window {window} and grace {grace}{max}", s.catch_up)
    });
    format!(
        "was missed: it was found only at {decided}, {late} late, as after a stop or a sleep of the machine{policy}"
    )
}

fn excluded(slot: &SlotRow, schedule: Option<&Schedule>) -> String {
    let entry = schedule.and_then(|s| s.exclude.iter().find(|entry| covers(entry, slot.nominal_ms)));
    match entry {
        Some(Exclude::Cron { cron, timezone }) => format!("was left out by `exclude: {cron}` ({timezone})"),
        Some(Exclude::Spans(spans)) => {
            let span = spans.iter().find(|(start, end)| (*start..*end).contains(&slot.nominal_ms));
            let zone = schedule.map_or("UTC", |s| s.timing.timezone());
            let (start, end) = span.copied().unwrap_or((slot.nominal_ms, slot.nominal_ms));
            format!("was left out by `exclude`: from {} until {}", told(start, zone), told(end, zone))
        }
        None => "was left out by an `exclude` that the definition has no more".to_owned(),
    }
}

fn covers(entry: &Exclude, at_ms: i64) -> bool {
    let compiled = plan::Exclusions::compile(std::slice::from_ref(entry)).ok().flatten();
    compiled.is_some_and(|exclusions| exclusions.covers(at_ms))
}

/// What a schedule will do at a time that is still to come.
pub(super) fn will(entry: &ScheduleEntry, when: When, zone: &str) -> String {
    let at_ms = entry.calendar.next_after(when.from_ms - 1).unwrap_or(when.from_ms);
    let timing = entry.schedule.timing.describe();
    if entry.calendar.excludes(at_ms) {
        return format!("{} is still to come, and is excluded ({timing}).", told(at_ms, zone));
    }
    format!("{} is still to come, and is due ({timing}).", told(at_ms, zone))
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
    let at = told(when.from_ms, zone);
    if when.from_ms >= now_ms.saturating_sub(1_000) {
        return format!("{at} ({timing}) is being decided right now; ask again.");
    }
    if when.from_ms < summary.created_at_ms {
        let since = told(summary.created_at_ms, zone);
        return format!("{at} ({timing}) lies before this agent, which is known since {since}.");
    }
    format!(
        "{at} ({timing}) is not in the ledger: the schedule began later, as each one does when it is new or its timing is \
         changed, or the row is older than what is kept."
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
pub(super) fn next(entry: &Entry, next: &[(i64, String)], zone: &str, now_ms: i64) -> String {
    if let Some((at, _)) = next.first() {
        return format!("The next slot is {}, {}.", told(*at, zone), distance(*at, now_ms));
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
