//! `matins plan --against DIR`: what a changed folder would fire otherwise, before it is in force.
//!
//! It is compared with what the daemon has in force; where none answers, with the configured folder.
//! Schedules of one timing are the same schedule; what is left of an agent's on both sides is paired
//! in the order of the files and told as changed. The fires of a pair are compared one by one up to a bound, and
//! where it was met that is said. Totals are exact, but for more changes between excluded and not than a bound of
//! their own; then they are the most that there can be. `max_runs` counts from the beginning of the range: the
//! runs that a schedule has had so far are not known here.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::args::Global;
use super::client::{Client, rows};
use super::failure::{CONFIG, Failure, NO_DAEMON};
use super::output::{Cell, Output, zoned};
use super::{Done, plan};
use crate::api::wire::SchedulesView;
use crate::config::{self, Env};
use crate::ids::AgentId;
use crate::model::{Agent, Schedule};
use crate::plan::{Calendar, Comparison, Limited, Only, Total, compare, noted, total};
use crate::time::{Clock as _, SystemClock, rfc3339_ms};

/// How far a comparison reaches where its end is not given: a year, ms.
const REACH_MS: i64 = 365 * 86_400_000;
/// Steps that all pairs of one comparison may take together.
const STEPS_MAX: usize = 1_000_000;
/// Steps over exclusions that all totals of one comparison may take together; each is dearer than one above.
const EXCLUDED_MAX: usize = 200_000;
/// Fewest steps of one pair, and of one total.
const STEPS_MIN: usize = 20;
/// Notes on changes of the clock of one schedule.
const NOTES: usize = 4;

/// What is asked for.
pub struct Asked<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Only this agent.
    pub agent: Option<AgentId>,
    /// Where it begins.
    pub from: Option<&'a str>,
    /// Where it ends.
    pub to: Option<&'a str>,
}

/// A comparison of two sets of agents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    from: String,
    to: String,
    /// `daemon`, or the file of the settings that were read instead.
    base: String,
    agents: Vec<AgentChange>,
    /// Schedules that fire as before.
    unchanged: usize,
}

/// What changes of one agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentChange {
    agent_id: String,
    change: Change,
    schedules: Vec<ScheduleChange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Change {
    Added,
    Removed,
    Changed,
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// What changes of one schedule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleChange {
    change: Change,
    old: Option<Side>,
    new: Option<Side>,
    removed: Fires,
    added: Fires,
    /// Up to where fires were compared one by one; null: to the end.
    compared_to: Option<String>,
}

impl ScheduleChange {
    /// Whether there is anything to tell: another rule may change no fire of a range.
    fn shows(&self) -> bool {
        let fires = self.removed.count + self.added.count;
        let by_event = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.by_event);
        fires > 0
            || self.compared_to.is_some()
            || self.change != Change::Changed
            || by_event(&self.old)
            || by_event(&self.new)
    }
}

/// One schedule as it is or will be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    schedule_id: String,
    timing: String,
    timezone: String,
    /// Whether it follows runs or starts of the daemon, so that nobody knows its fires.
    by_event: bool,
    /// All its fires in the range.
    fires: u64,
    /// Whether `fires` is the most that there can be: there are too many exclusions to take all away.
    at_most: bool,
    /// Fires that a change of the clock touches.
    notes: Vec<Note>,
}

#[derive(Debug, Serialize)]
struct Note {
    at: String,
    note: String,
}

/// Fires of one side alone.
#[derive(Debug, Default, Serialize)]
struct Fires {
    count: u64,
    first: Vec<String>,
}

impl From<Only> for Fires {
    fn from(only: Only) -> Self {
        Self { count: only.count, first: only.first.into_iter().map(rfc3339_ms).collect() }
    }
}

/// The schedules of agents, by the agent's id.
type Set = BTreeMap<String, Vec<Schedule>>;

/// `matins plan --against DIR`.
pub async fn against(asked: &Asked<'_>, global: &Global, env: &Env) -> Done {
    let out = Output::of_process(global.json);
    let from = asked.from.map(|text| plan::moment("--from", text, out.now_ms)).transpose()?;
    let to = asked.to.map(|text| plan::moment("--to", text, out.now_ms)).transpose()?;
    let ms = |text: Option<String>| text.and_then(|text| super::output::instant(&text));
    let from_ms = ms(from).unwrap_or(out.now_ms);
    let to_ms = ms(to).unwrap_or_else(|| from_ms.saturating_add(REACH_MS));
    if to_ms <= from_ms {
        return Err(Failure::new(super::failure::USAGE, "--to does not lie behind --from"));
    }
    let mut new = folder(asked.dir, global, env)?;
    let (base, mut old) = base(global, env).await?;
    if let Some(agent) = &asked.agent {
        new.retain(|id, _| id == agent.as_str());
        old.retain(|id, _| id == agent.as_str());
        if new.is_empty() && old.is_empty() {
            return Err(Failure::new(super::failure::FAILED, format!("agent {agent} is on neither side")));
        }
    }
    let (agents, unchanged) = differ(&old, &new, (from_ms - 1, to_ms - 1), STEPS_MAX);
    let report = Report { from: rfc3339_ms(from_ms), to: rfc3339_ms(to_ms), base, agents, unchanged };
    if out.json {
        out.document(&report)?;
    } else {
        print(&report, &out)?;
    }
    Ok(0)
}

/// The agents of a folder: one with a matins.yaml of its own, or one of agent files, which are read
/// under the settings in use.
fn folder(dir: &Path, global: &Global, env: &Env) -> Result<Set, Failure> {
    let now = SystemClock.now();
    let own = dir.is_file() || dir.join("matins.yaml").exists();
    let (agents, problems) = if own {
        let checked = config::check_path(dir, env, now);
        (checked.agents, checked.problems)
    } else {
        let location = config::locate(global.config.as_deref(), env);
        let (mut settings, mut problems) = config::load_settings(&location, env);
        dir.clone_into(&mut settings.agents_dir);
        let loaded = config::load_agents(&settings, env, now);
        problems.merge(loaded.problems);
        (loaded.agents, problems)
    };
    if problems.has_errors() {
        let message = format!("{} has errors, so a reload would change nothing", dir.display());
        let mut failure = Failure::new(CONFIG, message);
        match problems.to_json() {
            serde_json::Value::Array(details) if global.json => failure.details = details,
            _ => super::output::say(&problems.render(false)),
        }
        return Err(failure);
    }
    Ok(set(agents.iter().map(AsRef::as_ref)))
}

fn set<'a>(agents: impl Iterator<Item = &'a Agent>) -> Set {
    agents.map(|agent| (agent.id.to_string(), agent.schedules.clone())).collect()
}

/// What is in force, and from where that is known.
async fn base(global: &Global, env: &Env) -> Result<(String, Set), Failure> {
    match Client::connect(global, env).await {
        Ok(client) => {
            let found = client.list(&["v1", "schedules"], &[], usize::MAX).await?;
            let found: Vec<SchedulesView> = rows(&found)?;
            let of = |view: SchedulesView| (view.agent_id, view.schedules);
            Ok(("daemon".to_owned(), found.into_iter().filter(|view| view.valid).map(of).collect()))
        }
        Err(failure) if failure.code == NO_DAEMON => {
            let location = config::locate(global.config.as_deref(), env);
            let (settings, _) = config::load_settings(&location, env);
            let loaded = config::load_agents(&settings, env, SystemClock.now());
            Ok((location.file.display().to_string(), set(loaded.agents.iter().map(AsRef::as_ref))))
        }
        Err(failure) => Err(failure),
    }
}

/// Two schedules that stand for each other, or one that stands alone.
type Pair<'a> = (Option<&'a Schedule>, Option<&'a Schedule>);

/// What one schedule may cost.
#[derive(Debug, Clone, Copy)]
struct Steps {
    /// Of the fires of a pair.
    pair: usize,
    /// Over the exclusions of one side.
    excluded: usize,
}

/// What changes, by agent, in a range `(after, until]`, with about so many steps; and how many
/// schedules fire as before.
fn differ(old: &Set, new: &Set, range: (i64, i64), steps: usize) -> (Vec<AgentChange>, usize) {
    let none = Vec::new();
    let mut ids: Vec<&String> = old.keys().chain(new.keys()).collect();
    ids.sort();
    ids.dedup();
    let mut changed: Vec<(&String, Change, Vec<Pair<'_>>)> = Vec::new();
    let mut unchanged = 0;
    for id in ids {
        let change = match (old.contains_key(id), new.contains_key(id)) {
            (true, true) => Change::Changed,
            (true, false) => Change::Removed,
            (false, _) => Change::Added,
        };
        let (pairs, same) = pairs(old.get(id).unwrap_or(&none), new.get(id).unwrap_or(&none));
        unchanged += same;
        if !pairs.is_empty() {
            changed.push((id, change, pairs));
        }
    }
    let both = changed.iter().flat_map(|(_, _, pairs)| pairs).filter(|(a, b)| a.is_some() && b.is_some());
    let totals = changed.iter().flat_map(|(_, _, pairs)| pairs).count() * 2;
    let steps = Steps {
        pair: (steps / both.count().max(1)).max(STEPS_MIN),
        excluded: (EXCLUDED_MAX / totals.max(1)).max(STEPS_MIN),
    };
    let agents = changed.into_iter().map(|(id, change, pairs)| AgentChange {
        agent_id: id.clone(),
        change,
        schedules: pairs.into_iter().map(|pair| one(pair, range, steps)).collect(),
    });
    let mut agents: Vec<AgentChange> = agents.collect();
    for agent in &mut agents {
        let before = agent.schedules.len();
        agent.schedules.retain(ScheduleChange::shows);
        unchanged += before - agent.schedules.len();
    }
    agents.retain(|agent| !agent.schedules.is_empty());
    (agents, unchanged)
}

/// Pairs what differs; and how many schedules are the same.
fn pairs<'a>(old: &'a [Schedule], new: &'a [Schedule]) -> (Vec<Pair<'a>>, usize) {
    let same = |a: &Schedule, b: &Schedule| {
        (&a.timing, &a.bounds, &a.exclude, a.dst) == (&b.timing, &b.bounds, &b.exclude, b.dst)
    };
    let mut left: Vec<&Schedule> = new.iter().collect();
    let mut found: Vec<Pair<'a>> = Vec::new();
    let mut alone: Vec<&Schedule> = Vec::new();
    let mut unchanged = 0;
    for a in old {
        let at =
            left.iter().position(|b| same(a, b)).or_else(|| left.iter().position(|b| a.timing == b.timing));
        match at.map(|at| left.remove(at)) {
            Some(b) if same(a, b) => unchanged += 1,
            Some(b) => found.push((Some(a), Some(b))),
            None => alone.push(a),
        }
    }
    let mut left = left.into_iter();
    found.extend(alone.into_iter().map(|a| (Some(a), left.next())));
    found.extend(left.map(|b| (None, Some(b))));
    (found, unchanged)
}

fn limited<'a>(schedule: Option<&Schedule>, calendar: Option<&'a Calendar>) -> Option<Limited<'a>> {
    let most = schedule.and_then(|s| s.bounds.max_runs);
    calendar.map(|calendar| Limited { calendar, most })
}

fn one((old, new): Pair<'_>, (after_ms, until_ms): (i64, i64), steps: Steps) -> ScheduleChange {
    // What was read from a file or stored has been compiled before.
    let calendar = |schedule: Option<&Schedule>| schedule.and_then(|s| Calendar::of(s).ok());
    let (a, b) = (calendar(old), calendar(new));
    let (limited_old, limited_new) = (limited(old, a.as_ref()), limited(new, b.as_ref()));
    let all = |of: Option<Limited<'_>>| {
        of.map(|of| total(of, after_ms, until_ms, steps.excluded)).unwrap_or_default()
    };
    let (of_old, of_new) = (all(limited_old), all(limited_new));
    let side = |schedule: Option<&Schedule>, calendar: &Option<Calendar>, all: &Total| {
        let (schedule, calendar) = (schedule?, calendar.as_ref()?);
        let timezone = schedule.timing.timezone();
        let notes = noted(calendar, timezone, after_ms, until_ms, NOTES);
        let note =
            |(at, note): (i64, crate::model::ClockNote)| Note { at: rfc3339_ms(at), note: note.to_string() };
        Some(Side {
            schedule_id: schedule.id.to_string(),
            timing: schedule.timing.describe(),
            timezone: timezone.to_owned(),
            by_event: calendar.event().is_some(),
            fires: all.fires.count,
            at_most: all.at_most,
            notes: notes.into_iter().map(note).collect(),
        })
    };
    let (old, new) = (side(old, &a, &of_old), side(new, &b, &of_new));
    let (change, found) = match (limited_old, limited_new) {
        (Some(a), Some(b)) => (Change::Changed, compare(a, b, after_ms, until_ms, steps.pair)),
        (None, _) => (Change::Added, Comparison { added: of_new.fires, ..Comparison::default() }),
        (_, None) => (Change::Removed, Comparison { removed: of_old.fires, ..Comparison::default() }),
    };
    ScheduleChange {
        change,
        old,
        new,
        removed: found.removed.into(),
        added: found.added.into(),
        compared_to: found.compared_ms.map(rfc3339_ms),
    }
}

fn print(report: &Report, out: &Output) -> Result<(), Failure> {
    let mut table = Vec::new();
    for agent in &report.agents {
        for schedule in &agent.schedules {
            table.push(row(agent, schedule));
        }
    }
    out.table(&["AGENT", "CHANGE", "SCHEDULE", "FIRES", "FIRST", "NOTE"], &table)?;
    out.aside(&format!(
        "hint: from {} to {}, compared with {}; {} schedules fire as before",
        report.from, report.to, report.base, report.unchanged
    ));
    Ok(())
}

fn row(agent: &AgentChange, schedule: &ScheduleChange) -> Vec<Cell> {
    let timing = |side: &Option<Side>| side.as_ref().map(|side| side.timing.clone());
    let named = match (timing(&schedule.old), timing(&schedule.new)) {
        (Some(a), Some(b)) if a != b => format!("{a} -> {b}"),
        (a, b) => b.or(a).unwrap_or_default(),
    };
    let cut = if schedule.compared_to.is_some() { "+" } else { "" };
    let fires = format!("-{}{cut} +{}{cut}", schedule.removed.count, schedule.added.count);
    let zone = schedule.new.as_ref().or(schedule.old.as_ref()).map_or("UTC", |side| &side.timezone);
    let first = |sign: &str, fires: &Fires| {
        let at: jiff::Timestamp = fires.first.first()?.parse().ok()?;
        Some(format!("{sign} {}", zoned(at.as_millisecond(), zone)))
    };
    let first: Vec<String> =
        first("-", &schedule.removed).into_iter().chain(first("+", &schedule.added)).collect();
    let change = if agent.change == Change::Changed {
        schedule.change.as_str().to_owned()
    } else {
        format!("agent {}", agent.change.as_str())
    };
    vec![
        Cell::text(&agent.agent_id),
        Cell::text(change),
        Cell::text(named),
        Cell::text(fires),
        Cell::text(first.join("; ")),
        Cell::text(note(schedule, zone)),
    ]
}

/// Where the comparison ended, the totals then, and what changes of the clock do.
fn note(schedule: &ScheduleChange, zone: &str) -> String {
    let mut parts = Vec::new();
    if let Some(to) = &schedule.compared_to {
        let fires = |side: &Option<Side>| match side {
            Some(Side { fires, at_most: true, .. }) => format!("at most {fires}"),
            side => side.as_ref().map_or(0, |side| side.fires).to_string(),
        };
        let (old, new) = (fires(&schedule.old), fires(&schedule.new));
        parts.push(format!("compared up to {to}; {old} fires in all, then {new}"));
    } else if [&schedule.old, &schedule.new].into_iter().flatten().any(|side| side.at_most)
        && schedule.change != Change::Changed
    {
        parts.push("at most: it has too many exclusions to take all away".to_owned());
    }
    let notes = schedule.new.iter().flat_map(|side| &side.notes);
    parts.extend(notes.filter_map(|note| {
        let at: jiff::Timestamp = note.at.parse().ok()?;
        Some(format!("{}: {}", zoned(at.as_millisecond(), zone), note.note))
    }));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ScheduleId;
    use crate::model::{Cron, Dst, DstGap, Exclude, Timing};

    fn schedule(text: &str) -> Schedule {
        let timing = Timing::Cron { cron: Cron::parse(text).unwrap(), timezone: "Europe/Berlin".to_owned() };
        let id = ScheduleId::from(crate::model::fingerprint(&timing));
        Schedule::plain(id, timing)
    }

    fn set(agents: &[(&str, Vec<Schedule>)]) -> Set {
        agents.iter().map(|(id, schedules)| ((*id).to_owned(), schedules.clone())).collect()
    }

    /// 2026, in Unix ms.
    const YEAR: (i64, i64) = (1_767_225_599_999, 1_798_761_599_999);

    #[test]
    fn schedules_are_paired_by_timing_then_by_place() {
        let skips = Schedule { dst: Dst { gap: DstGap::Skip, ..Dst::default() }, ..schedule("30 2 * * *") };
        let old = set(&[
            ("a", vec![schedule("0 9 * * *"), schedule("30 2 * * *"), schedule("0 12 * * MON")]),
            ("gone", vec![schedule("0 0 1 * *")]),
            ("same", vec![schedule("0 0 * * *"), schedule("0 1 * * *")]),
        ]);
        let new = set(&[
            ("a", vec![schedule("0 12 * * MON"), skips, schedule("0 10 * * *"), schedule("0 0 1 1 *")]),
            ("new", vec![schedule("0 0 1 * *")]),
            ("same", vec![schedule("0 1 * * *"), schedule("0 0 * * *")]),
        ]);
        let (agents, unchanged) = differ(&old, &new, YEAR, 10_000);
        assert_eq!(unchanged, 3);
        let told: Vec<_> = agents
            .iter()
            .flat_map(|a| {
                a.schedules.iter().map(|s| (a.agent_id.as_str(), s.change, s.removed.count, s.added.count))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", Change::Changed, 1, 0),
                ("a", Change::Changed, 365, 365),
                ("a", Change::Added, 0, 1),
                ("gone", Change::Removed, 12, 0),
                ("new", Change::Added, 0, 12),
            ]
        );
        let gap = &agents[0].schedules[0];
        assert_eq!(gap.removed.first, ["2026-03-29T01:00:00.000Z"]);
        assert_eq!(gap.old.as_ref().unwrap().notes.len(), 2);
        assert_eq!(gap.new.as_ref().unwrap().notes.len(), 1);
    }

    #[test]
    fn many_schedules_of_every_minute_are_compared_within_the_bound() {
        let all =
            |text: &str| -> Set { (0..1_000).map(|n| (format!("a{n}"), vec![schedule(text)])).collect() };
        let (agents, _) = differ(&all("* * * * *"), &all("*/2 * * * *"), YEAR, 20_000);
        assert_eq!(agents.len(), 1_000);
        for agent in &agents {
            let schedule = &agent.schedules[0];
            assert_eq!((schedule.removed.count, schedule.added.count), (10, 0));
            assert_eq!(schedule.compared_to.as_deref(), Some("2026-01-01T00:19:59.999Z"));
            let fires = |side: &Option<Side>| side.as_ref().unwrap().fires;
            assert_eq!((fires(&schedule.old), fires(&schedule.new)), (525_600, 262_800));
        }
    }

    #[test]
    fn totals_of_many_exclusions_are_the_most_that_there_can_be() {
        let zone = "Europe/Berlin".to_owned();
        let not = Exclude::Cron { cron: Cron::parse("0-9 * * * *").unwrap(), timezone: zone };
        let excluded = |text: &str| Schedule { exclude: vec![not.clone()], ..schedule(text) };
        let all = |text: &str| -> Set { (0..100).map(|n| (format!("a{n}"), vec![excluded(text)])).collect() };
        let (agents, _) = differ(&all("* * * * *"), &all("*/2 * * * *"), YEAR, 10_000);
        let side = agents[0].schedules[0].old.as_ref().unwrap();
        assert!(side.at_most && side.fires > 438_000, "{side:?}");
        let told = note(&agents[0].schedules[0], "UTC");
        assert!(told.contains("at most"), "{told}");
    }

    #[test]
    fn runs_beyond_max_runs_are_no_fires() {
        let mut few = schedule("0 9 * * *");
        few.bounds.max_runs = Some(3);
        let (agents, _) =
            differ(&set(&[("a", vec![few])]), &set(&[("a", vec![schedule("0 9 * * *")])]), YEAR, 10_000);
        let only = &agents[0].schedules[0];
        assert_eq!((only.removed.count, only.added.count), (0, 362));
        assert_eq!(only.old.as_ref().unwrap().fires, 3);
    }
}
