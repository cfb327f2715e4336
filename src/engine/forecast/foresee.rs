//! What is foreseen of future runs: how long each takes, what it meets, and whether it comes to be.
//!
//! The runs of a plan are played through in the order of their slots, each as long as the median of
//! its agent's last runs: overlap policies, pools, `max_running`, budgets and start
//! deadlines leave out or delay what they would; what a run uses up of models is the mean of those. It is a guess and is shown as one. It knows neither
//! priorities nor retries nor runs by hand, and a run of which nothing is known takes no time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::engine::budgets::{limits, quota};
use crate::engine::catalog::{Entry, ScheduleEntry};
use crate::model::{NotRun, Overlap};
use crate::store::{ALL_AGENTS, Amount, Budgets, DAY_MS, Habit, Quota, Shortage, Spending, Takes};

/// What is foreseen of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Median time that the last runs of its agent took, ms; `None` where there is none.
    pub took_ms: Option<i64>,
    /// Of how many runs that is the median.
    pub of: usize,
    /// When it starts, Unix ms.
    pub starts_ms: i64,
    /// What it waits for until then.
    pub waits_for: Option<WaitsFor>,
    /// Why it does not come to its own end.
    pub fate: Option<Fate>,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// The runs in its way: those of its agent, or of its concurrency key.
    Others,
    /// A place in this pool.
    Pool(String),
    /// A place among all runs.
    Running,
}

impl std::fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Others => f.write_str("the runs before it"),
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Running => f.write_str("max_running"),
        }
    }
}

/// Why a run does not come to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its slot is left out.
    NotRun(NotRun),
    /// It waits for longer than it may.
    Deadline,
    /// A newer run takes its place in the queue.
    Superseded,
    /// A newer run ends it.
    Cancelled,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotRun(reason) => reason.as_str(),
            Self::Deadline => "deadline",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Who stands in each other's way: the runs of a key that is no template, else those of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Agent(i64),
    Key(String),
}

/// A run that is played through; `row` is that of the plan, where it is one of them.
#[derive(Debug, Clone, Copy)]
struct Played {
    start_ms: i64,
    end_ms: i64,
    overlap: Overlap,
    row: Option<usize>,
}

/// What bounds all runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) max_running: u32,
    pub(super) pools: BTreeMap<String, u32>,
    /// What all agents together may use up in a day.
    pub(super) daemon: Quota,
}

/// The runs so far.
pub(super) struct Play {
    bounds: Bounds,
    habits: HashMap<i64, Habit>,
    runs: Vec<Played>,
    /// Indices of runs that may not have ended.
    scopes: HashMap<Scope, Vec<usize>>,
    pools: HashMap<String, Vec<usize>>,
    running: Vec<usize>,
    /// Admissions of the last day, oldest first.
    admitted: VecDeque<i64>,
    of_agents: HashMap<i64, VecDeque<i64>>,
    spendings: HashMap<i64, Spent>,
    rows: Vec<Foreseen>,
}

/// What an agent, or all together, use up.
struct Spent {
    takes: Takes,
    settled: VecDeque<(i64, Amount)>,
    /// That and what is reserved, together.
    used: Amount,
}

impl Spent {
    /// What counts at an instant; what is a day old by then is forgotten.
    fn used(&mut self, at_ms: i64) -> Amount {
        while let Some((spent_ms, amount)) = self.settled.front()
            && spent_ms.saturating_add(DAY_MS) <= at_ms
        {
            self.used = self.used.minus(*amount);
            self.settled.pop_front();
        }
        self.used
    }

    fn add(&mut self, at_ms: i64, amount: Amount) {
        self.used = self.used.plus(amount);
        self.settled.push_back((at_ms, amount));
    }
}

/// A slot whose turn it is.
pub(super) struct Turn<'a> {
    pub(super) agent: &'a Entry,
    pub(super) schedule: &'a ScheduleEntry,
    pub(super) at_ms: i64,
    pub(super) starts_ms: i64,
}

impl Play {
    /// Begins with what is under way at `now_ms`; `admitted` are the runs of the last day.
    pub(super) fn new(
        bounds: Bounds,
        habits: HashMap<i64, Habit>,
        agents: &[std::sync::Arc<Entry>],
        admitted: Vec<i64>,
        now_ms: i64,
    ) -> Self {
        let mut play = Self {
            bounds,
            habits,
            runs: Vec::new(),
            scopes: HashMap::new(),
            pools: HashMap::new(),
            running: Vec::new(),
            admitted: admitted.into(),
            of_agents: HashMap::new(),
            spendings: HashMap::new(),
            rows: Vec::new(),
        };
        for agent in agents {
            let Some(habit) = play.habits.get(&agent.number) else { continue };
            play.of_agents.insert(agent.number, habit.admitted_ms.iter().copied().collect());
            let took_ms = habit.took_ms.unwrap_or(0);
            let under_way: Vec<i64> = habit.started_ms.clone();
            for start_ms in under_way {
                let end_ms = start_ms.saturating_add(took_ms).max(now_ms);
                play.put(agent, Played { start_ms, end_ms, overlap: Overlap::Allow, row: None });
            }
        }
        play
    }

    /// Holds budgets of tokens and money against what was used up.
    pub(super) fn spending(mut self, spendings: HashMap<i64, Spending>) -> Self {
        let spent = |Spending { takes, settled, reserved }: Spending| {
            let used = settled.iter().fold(reserved, |sum, (_, amount)| sum.plus(*amount));
            Spent { takes, settled: settled.into(), used }
        };
        self.spendings = spendings.into_iter().map(|(whose, spending)| (whose, spent(spending))).collect();
        self
    }

    /// What is foreseen of each run, in the order of their turns.
    pub(super) fn into_rows(self) -> Vec<Foreseen> {
        self.rows
    }

    /// Plays one slot that is due.
    pub(super) fn turn(&mut self, turn: &Turn<'_>) {
        let habit = self.habits.get(&turn.agent.number);
        let (took_ms, of) = habit.map_or((None, 0), |habit| (habit.took_ms, habit.of));
        let row = self.rows.len();
        self.rows.push(Foreseen { took_ms, of, starts_ms: turn.starts_ms, ..Foreseen::default() });
        if let Some(reason) = self.refusal(turn) {
            self.rows[row].fate = Some(Fate::NotRun(reason));
            return;
        }
        let (of_agent, of_all) = budgets(turn.agent, &self.bounds);
        if of_all.is_some() {
            self.admitted.push_back(turn.at_ms);
        }
        if of_agent.is_some() {
            self.of_agents.entry(turn.agent.number).or_default().push_back(turn.at_ms);
        }
        self.spend(turn);
        self.clear(turn);
        let (start_ms, waits_for) = self.start(turn);
        self.rows[row].starts_ms = start_ms;
        self.rows[row].waits_for = waits_for;
        if deadline(turn).is_some_and(|deadline| start_ms > deadline) {
            self.rows[row].fate = Some(Fate::Deadline);
            return;
        }
        let end_ms = start_ms.saturating_add(took_ms.unwrap_or(0));
        let overlap = turn.schedule.schedule.overlap;
        self.put(turn.agent, Played { start_ms, end_ms, overlap, row: Some(row) });
    }

    /// Why the slot is left out.
    fn refusal(&mut self, turn: &Turn<'_>) -> Option<NotRun> {
        let at_ms = turn.at_ms;
        let in_way = self.in_way(turn.agent, at_ms);
        let waiting = in_way.iter().filter(|index| self.runs[**index].start_ms > at_ms).count();
        let full = i64::try_from(waiting).is_ok_and(|waiting| waiting >= Overlap::QUEUE_CAP);
        match turn.schedule.schedule.overlap {
            Overlap::Skip if !in_way.is_empty() => return Some(NotRun::Overlap),
            Overlap::Queue | Overlap::QueueOne | Overlap::Allow if full => return Some(NotRun::QueueFull),
            _ => {}
        }
        let (of_agent, of_all) = budgets(turn.agent, &self.bounds);
        let own = self.of_agents.entry(turn.agent.number).or_default();
        let used = used_up(own, of_agent, at_ms) || used_up(&mut self.admitted, of_all, at_ms);
        (used || self.is_short(turn)).then_some(NotRun::Budget)
    }

    /// Whether a budget of tokens or money leaves too little for the slot.
    fn is_short(&mut self, turn: &Turn<'_>) -> bool {
        let Some(own) = self.spendings.get(&turn.agent.number) else { return false };
        let agent = &turn.agent.agent;
        let run = Budgets { run: limits(agent), ..Budgets::default() };
        let wanted = run.wanted(own.takes.most);
        let quotas = [(turn.agent.number, quota(&agent.policies.budget)), (ALL_AGENTS, self.bounds.daemon)];
        quotas.into_iter().any(|(whose, quota)| {
            let Some(spent) = self.spendings.get_mut(&whose) else { return false };
            let used = spent.used(turn.at_ms);
            Shortage::of(quota.tokens, used.tokens, wanted.tokens).is_some()
                || Shortage::of(quota.microdollars, used.microdollars, wanted.microdollars).is_some()
        })
    }

    /// The slot's run takes what one of its agent takes on average.
    fn spend(&mut self, turn: &Turn<'_>) {
        let Some(mean) = self.spendings.get(&turn.agent.number).map(|own| own.takes.mean) else { return };
        for whose in [turn.agent.number, ALL_AGENTS] {
            if let Some(spent) = self.spendings.get_mut(&whose) {
                spent.add(turn.at_ms, mean);
            }
        }
    }

    /// Runs of its scope that have not ended at `at_ms`.
    fn in_way(&mut self, agent: &Entry, at_ms: i64) -> Vec<usize> {
        let runs = &self.runs;
        let Some(scope) = self.scopes.get_mut(&scope(agent)) else { return Vec::new() };
        scope.retain(|index| runs[*index].end_ms > at_ms);
        scope.clone()
    }

    /// Ends what the slot does not stand beside.
    fn clear(&mut self, turn: &Turn<'_>) {
        let overlap = turn.schedule.schedule.overlap;
        let ends = matches!(overlap, Overlap::CancelPrevious | Overlap::Replace);
        if !ends && overlap != Overlap::QueueOne {
            return;
        }
        for index in self.in_way(turn.agent, turn.at_ms) {
            let run = &mut self.runs[index];
            let waits = run.start_ms > turn.at_ms;
            if !(ends || waits && run.overlap == Overlap::QueueOne) {
                continue;
            }
            run.end_ms = turn.at_ms;
            run.start_ms = run.start_ms.min(turn.at_ms);
            if let Some(row) = run.row {
                self.rows[row].fate = Some(if waits { Fate::Superseded } else { Fate::Cancelled });
            }
        }
    }

    /// When there is room for it, and what it waits for last.
    fn start(&mut self, turn: &Turn<'_>) -> (i64, Option<WaitsFor>) {
        let (mut start_ms, mut waits_for) = (turn.starts_ms, None);
        let schedule = &turn.schedule.schedule;
        let most = match schedule.overlap {
            Overlap::Allow => schedule.max_concurrent,
            Overlap::Queue => Some(schedule.max_concurrent.unwrap_or(1)),
            _ => Some(1),
        };
        let pool = turn.agent.agent.policies.pool.as_ref();
        let places = pool.and_then(|pool| Some((pool, *self.bounds.pools.get(pool)?)));
        let mut later = |free_ms: i64, what: WaitsFor| {
            if free_ms > start_ms {
                (start_ms, waits_for) = (free_ms, Some(what));
            }
        };
        if let (Some(most), Some(scope)) = (most, self.scopes.get_mut(&scope(turn.agent))) {
            later(free(&self.runs, scope, most, turn.at_ms), WaitsFor::Others);
        }
        if let Some((pool, places)) = places
            && let Some(of_pool) = self.pools.get_mut(pool)
        {
            later(free(&self.runs, of_pool, places, turn.at_ms), WaitsFor::Pool(pool.clone()));
        }
        later(free(&self.runs, &mut self.running, self.bounds.max_running, turn.at_ms), WaitsFor::Running);
        (start_ms, waits_for)
    }

    fn put(&mut self, agent: &Entry, run: Played) {
        let index = self.runs.len();
        self.runs.push(run);
        self.scopes.entry(scope(agent)).or_default().push(index);
        if let Some(pool) = &agent.agent.policies.pool {
            self.pools.entry(pool.clone()).or_default().push(index);
        }
        self.running.push(index);
    }
}

fn scope(agent: &Entry) -> Scope {
    let key = agent.agent.policies.concurrency_key.as_ref().filter(|key| !key.contains('{'));
    key.map_or(Scope::Agent(agent.number), |key| Scope::Key(key.clone()))
}

/// The budgets of runs: of the agent and of all.
fn budgets(agent: &Entry, bounds: &Bounds) -> (Option<u64>, Option<u64>) {
    (agent.agent.policies.budget.runs_per_day, bounds.daemon.runs)
}

/// Whether a budget leaves nothing at `at_ms`; admissions that are a day old are forgotten.
fn used_up(admitted: &mut VecDeque<i64>, budget: Option<u64>, at_ms: i64) -> bool {
    let Some(budget) = budget else { return false };
    while admitted.front().is_some_and(|at| at.saturating_add(DAY_MS) <= at_ms) {
        admitted.pop_front();
    }
    admitted.len() as u64 >= budget
}

/// When one of `places` is free; runs that have ended at `at_ms` are forgotten.
fn free(runs: &[Played], taken: &mut Vec<usize>, places: u32, at_ms: i64) -> i64 {
    taken.retain(|index| runs[*index].end_ms > at_ms);
    let places = usize::try_from(places).unwrap_or(usize::MAX).max(1);
    if taken.len() < places {
        return at_ms;
    }
    let mut ends: Vec<i64> = taken.iter().map(|index| runs[*index].end_ms).collect();
    ends.sort_unstable();
    ends[ends.len() - places]
}

/// Until when its run may wait, as the admission will say.
fn deadline(turn: &Turn<'_>) -> Option<i64> {
    let schedule = &turn.schedule.schedule;
    if let Some(deadline) = schedule.start_deadline {
        return Some(turn.starts_ms.saturating_add(crate::time::millis(deadline)));
    }
    let bounded = matches!(schedule.overlap, Overlap::Skip | Overlap::Allow);
    bounded.then(|| turn.schedule.calendar.next_after(turn.at_ms)).flatten()
}
