//! What comes next: the future slots of all agents in one order, each with what is known of its
//! outcome already.
//!
//! Nothing is stored and nothing is promised: a forecast is the plan of now, with the words of the
//! ledger. It is merged from the calendars slot by slot and stops at its limit, so a range of years
//! costs no more than the rows that are shown. What the ledger will say is known as far as calendar,
//! exclusions and pauses decide it; what runs will meet is guessed from the past ([`Foreseen`]).

mod foresee;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::catalog::{Entry, ScheduleEntry};
use super::{Core, budgets};
use crate::ids::{AgentGlob, AgentId, ScheduleId};
use crate::model::NotRun;
use crate::plan::{self, Coming, Event};
use crate::store::{self, Quota, Spending};

use foresee::{Bounds, Play, Turn};
pub use foresee::{Fate, Foreseen, WaitsFor};

/// Most rows of one forecast.
pub const ROWS_MAX: usize = 10_000;
/// Most slots that are played through for what is foreseen. What lies behind them is shown without.
pub const PLAYED_MAX: usize = 100_000;

/// Which slots are asked for.
#[derive(Debug, Clone)]
pub struct Range {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those of agents that the asker may see; `None`: all.
    pub visible: Option<AgentGlob>,
    /// From this instant on, Unix ms; what has passed is in the ledger and not here.
    pub from_ms: i64,
    /// Before this instant, Unix ms.
    pub to_ms: i64,
    /// Only what comes after this nominal instant and schedule number: where the page before ended.
    pub after: Option<(i64, i64)>,
    /// At most so many rows.
    pub limit: usize,
    /// Whether what the runs will meet is foreseen.
    pub foresee: bool,
}

/// One future slot, or a stretch of excluded ones.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The agent.
    pub agent: AgentId,
    /// The schedule.
    pub schedule: ScheduleId,
    /// Its number.
    pub number: i64,
    /// Its timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// The slots.
    pub coming: Coming,
    /// When its run may start: later than nominal by jitter and spread, Unix ms.
    pub starts_ms: i64,
    /// Why it will not run, as far as that is known; `None`: it will.
    pub reason: Option<NotRun>,
    /// What is foreseen of its run, where it will run and that is asked for.
    pub foreseen: Option<Foreseen>,
}

/// A row with whose it is.
struct Row {
    agent: Arc<Entry>,
    position: usize,
    outlook: Outlook,
}

/// One schedule in the merge.
struct Source {
    agent: Arc<Entry>,
    position: usize,
    coming: Coming,
    /// Fires that `max_runs` leaves it.
    left: u64,
}

impl Source {
    fn entry(&self) -> &ScheduleEntry {
        &self.agent.schedules[self.position]
    }
}

impl Core {
    /// The future slots in a range, by nominal instant and schedule.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forecast(&self, range: &Range) -> Result<Vec<Outlook>, store::Error> {
        let paused = self.store.paused_agents().await?;
        let mut agents = match &range.agent {
            Some(id) => self.catalog.get(id).into_iter().collect(),
            None => self.catalog.all(),
        };
        if let Some(seen) = &range.visible {
            agents.retain(|entry| seen.matches(entry.agent.id.as_str()));
        }
        let now_ms = self.clock.now_ms();
        let page = |rows: Vec<Row>| rows.into_iter().map(|row| row.outlook).collect();
        if !range.foresee {
            return Ok(page(merge(agents, range, now_ms, &paused)));
        }
        // What a run meets depends on all before it, those of the pages before too.
        let most = if range.after.is_some() { PLAYED_MAX } else { range.limit };
        let whole = Range { after: None, limit: most, ..range.clone() };
        let mut rows = merge(agents.clone(), &whole, now_ms, &paused);
        let full = rows.len() == most;
        let shown = |row: &Row| {
            range.after.is_none_or(|after| (row.outlook.coming.at_ms, row.outlook.number) > after)
        };
        let first = rows.partition_point(|row| !shown(row));
        if full && rows.len() - first < range.limit {
            return Ok(page(merge(agents, range, now_ms, &paused)));
        }
        rows.truncate(first.saturating_add(range.limit));
        self.foresee(&mut rows, now_ms).await?;
        Ok(page(rows.split_off(first)))
    }

    /// Plays the runs of `rows` through.
    async fn foresee(&self, rows: &mut [Row], now_ms: i64) -> Result<(), store::Error> {
        let mut agents: Vec<Arc<Entry>> = rows.iter().map(|row| Arc::clone(&row.agent)).collect();
        agents.sort_by_key(|agent| agent.number);
        agents.dedup_by_key(|agent| agent.number);
        let (max_running, pools, daemon) = {
            let settings = self.settings();
            (settings.max_running, settings.places(), budgets::quota(&settings.budget))
        };
        let counted = |agent: &Arc<Entry>| agent.agent.policies.budget.runs_per_day.is_some();
        let asked = agents.iter().map(|agent| (agent.number, counted(agent))).collect();
        let habits = self.store.habits(asked, now_ms).await?;
        let admitted = if daemon.runs.is_some() { self.store.admitted(now_ms).await? } else { Vec::new() };
        let bounds = Bounds { max_running, pools, daemon };
        let spendings = self.spendings(&agents, daemon, now_ms).await?;
        let mut play = Play::new(bounds, habits, &agents, admitted, now_ms).spending(spendings);
        let mut played = Vec::new();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.outlook.reason.is_none()) {
            let schedule = &row.agent.schedules[row.position];
            let (at_ms, starts_ms) = (row.outlook.coming.at_ms, row.outlook.starts_ms);
            play.turn(&Turn { agent: &row.agent, schedule, at_ms, starts_ms });
            played.push(index);
        }
        for (index, foreseen) in played.into_iter().zip(play.into_rows()) {
            rows[index].outlook.foreseen = Some(foreseen);
        }
        Ok(())
    }
}

/// What budgets of tokens and money are held against; empty where there are none.
impl Core {
    async fn spendings(
        &self,
        agents: &[Arc<Entry>],
        daemon: Quota,
        now_ms: i64,
    ) -> Result<HashMap<i64, Spending>, store::Error> {
        let counts = |quota: Quota| quota.tokens.is_some() || quota.microdollars.is_some();
        let of_all = counts(daemon);
        let own = |agent: &Arc<Entry>| counts(budgets::quota(&agent.agent.policies.budget));
        let asked = agents.iter().map(|agent| (agent.number, own(agent)));
        let asked: Vec<(i64, bool)> = asked.filter(|(_, own)| *own || of_all).collect();
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        self.store.spendings(asked, of_all, now_ms).await
    }
}

fn merge(agents: Vec<Arc<Entry>>, range: &Range, now_ms: i64, paused: &HashSet<i64>) -> Vec<Row> {
    let mut sources = Vec::new();
    let mut heap = BinaryHeap::new();
    for agent in agents {
        for position in 0..agent.schedules.len() {
            let entry = &agent.schedules[position];
            let mut after_ms = range.from_ms.saturating_sub(1).max(now_ms);
            if let Some((at, number)) = range.after {
                after_ms = after_ms.max(if entry.number <= number { at } else { at.saturating_sub(1) });
            }
            let left = entry.runs_left();
            if let Some(coming) = first(entry, after_ms, range.to_ms).filter(|_| left > 0) {
                heap.push(Reverse((coming.at_ms, entry.number, sources.len())));
                sources.push(Source { agent: Arc::clone(&agent), position, coming, left });
            }
        }
    }
    let mut rows = Vec::new();
    while let Some(Reverse((_, _, index))) = heap.pop().filter(|_| rows.len() < range.limit) {
        let source = &mut sources[index];
        let row = Row {
            agent: Arc::clone(&source.agent),
            position: source.position,
            outlook: outlook(source, paused),
        };
        let (until_ms, runs) = (row.outlook.coming.until_ms, row.outlook.reason.is_none());
        source.left -= u64::from(runs);
        let entry = source.entry();
        let calendar_goes_on = entry.calendar.event().is_none() && source.left > 0;
        let next = calendar_goes_on
            .then(|| plan::coming(&entry.calendar, until_ms, range.to_ms.saturating_sub(1)))
            .flatten();
        if let Some(next) = next {
            heap.push(Reverse((next.at_ms, entry.number, index)));
            source.coming = next;
        }
        rows.push(row);
    }
    rows
}

fn first(entry: &ScheduleEntry, after_ms: i64, to_ms: i64) -> Option<Coming> {
    match entry.calendar.event() {
        None => plan::coming(&entry.calendar, after_ms, to_ms.saturating_sub(1)),
        Some(Event::Startup) => None,
        Some(Event::RunEnd(_)) => {
            let at_ms = entry.next_ms().filter(|at| *at > after_ms && *at < to_ms)?;
            let excluded = entry.calendar.excludes(at_ms);
            Some(Coming { at_ms, until_ms: at_ms, count: 1, excluded, note: None })
        }
    }
}

fn outlook(source: &Source, paused: &HashSet<i64>) -> Outlook {
    let (agent, entry, coming) = (&source.agent, source.entry(), &source.coming);
    let reason = if coming.excluded {
        Some(NotRun::Excluded)
    } else if !agent.valid {
        Some(NotRun::ConfigError)
    } else if paused.contains(&agent.number) {
        Some(NotRun::Paused)
    } else {
        runs_with_another(agent, source.position, coming.at_ms).then_some(NotRun::Coalesced)
    };
    let starts_ms = super::submit::starts(agent, entry, coming.at_ms);
    Outlook {
        agent: agent.agent.id.clone(),
        schedule: entry.schedule.id.clone(),
        number: entry.number,
        timing: entry.schedule.timing.describe(),
        timezone: entry.schedule.timing.timezone().to_owned(),
        coming: coming.clone(),
        starts_ms: if reason.is_none() { starts_ms } else { coming.at_ms },
        reason,
        foreseen: None,
    }
}

/// Whether an earlier schedule of the file runs at this instant and asks for the same run.
fn runs_with_another(agent: &Entry, position: usize, at_ms: i64) -> bool {
    let own = &agent.schedules[position].schedule;
    agent.schedules[..position].iter().any(|other| {
        other.schedule.asks_as(own)
            && other.runs_left() > 0
            && other.calendar.next_after(at_ms - 1) == Some(at_ms)
            && !other.calendar.excludes(at_ms)
    })
}

/// When the schedules of an agent fire next, soonest first, with the schedule's zone: (Unix ms, zone).
#[must_use]
pub fn next_fires(agent: &Entry, after_ms: i64, n: usize) -> Vec<(i64, String)> {
    let mut fires = Vec::new();
    for entry in &agent.schedules {
        let zone = entry.schedule.timing.timezone();
        let left = usize::try_from(entry.runs_left()).unwrap_or(usize::MAX).min(n);
        let of_calendar = plan::fires(&entry.calendar, after_ms, left);
        let of_event = entry.calendar.event().and(entry.next_ms()).filter(|at| *at > after_ms && left > 0);
        fires.extend(of_calendar.into_iter().chain(of_event).map(|at| (at, zone.to_owned())));
    }
    fires.sort();
    fires.dedup_by_key(|(at, _)| *at);
    fires.truncate(n);
    fires
}
