//! The reference model: what the ledger and the books of the agents must say, by the rules alone.
//!
//! It keeps every slot as a row of its own. It does not guess what chance or the machine decides
//! (which waiting run starts, when a program ends) but takes that from the rows and checks it
//! elsewhere; everything that the rules decide it decides itself and compares.

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::Calendar;
use super::dump::{Dump, Run};
use super::plan::{Decided, Due, Wanted, ms};
use super::scenario::{Agent, Scenario, Schedule, Timing};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One schedule of an agent, known by its timing and its ordinal among equal ones.
#[derive(Debug, Clone)]
pub struct Entry {
    pub identity: (String, usize),
    pub schedule: Schedule,
    pub calendar: Calendar,
    pub watermark: i64,
    pub active: bool,
    pub runs: u32,
    /// Place in the file.
    pub place: usize,
    /// When it is due because the daemon started.
    pub startup: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Book {
    pub agent: Agent,
    pub valid: bool,
    pub paused: Option<&'static str>,
    pub paused_at: i64,
    pub probe_at: Option<i64>,
    pub failures: i64,
    pub last_ended: Option<i64>,
    pub entries: Vec<Entry>,
}

/// How a slot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Run(i64),
    Not(&'static str),
}

/// What became of a slot, and when that was decided.
pub type Row = (Outcome, i64);

#[derive(Debug, Clone)]
pub struct Model {
    pub scenario: Scenario,
    pub books: Vec<Book>,
    /// By the number of the schedule in the database, then by nominal instant.
    pub ledger: BTreeMap<i64, BTreeMap<i64, Row>>,
    /// Runs that have ended, as they were then.
    pub ended: BTreeMap<i64, Run>,
    /// Runs that have not.
    pub open: BTreeMap<i64, Run>,
    /// The definition that each run was admitted with.
    pub definitions: BTreeMap<i64, Agent>,
    /// Runs that were made by hand.
    pub manual: BTreeSet<i64>,
    /// Runs of slots that a wrong clock had decided.
    pub early: BTreeSet<i64>,
    /// Runs whose end somebody asked for.
    pub asked: BTreeSet<i64>,
    /// Runs whose end a newer one asked for: cancelled, superseded.
    pub cleared: BTreeMap<i64, &'static str>,
    pub last: i64,
    /// What the clock said last; `None`: the daemon has not looked since its start.
    pub seen: Option<i64>,
    /// How often a run was found to wait beyond its deadline.
    pub overdue: BTreeMap<i64, u32>,
    /// Whether the clock has ever been set back.
    pub set_back: bool,
    /// Whether it has been by much.
    pub rewound: bool,
    pub checked: u64,
}

pub type Checked = Result<(), String>;

fn identities(agent: &Agent) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for schedule in &agent.schedules {
        let text = schedule.timing.text();
        let ordinal = found.iter().filter(|(t, _)| *t == text).count();
        found.push((text, ordinal));
    }
    found
}

impl Model {
    /// The model of a daemon that starts for the first time.
    pub fn new(scenario: &Scenario) -> Self {
        let now = scenario.start_ms;
        let mut model = Self {
            scenario: scenario.clone(),
            books: Vec::new(),
            ledger: BTreeMap::new(),
            ended: BTreeMap::new(),
            open: BTreeMap::new(),
            definitions: BTreeMap::new(),
            manual: BTreeSet::new(),
            early: BTreeSet::new(),
            asked: BTreeSet::new(),
            cleared: BTreeMap::new(),
            last: now,
            seen: None,
            overdue: BTreeMap::new(),
            set_back: false,
            rewound: false,
            checked: 0,
        };
        model.take_over(scenario, now);
        model.started(now, &BTreeSet::new());
        model
    }

    /// The files take the place of what was read before.
    pub fn take_over(&mut self, scenario: &Scenario, now: i64) {
        self.scenario = scenario.clone();
        for agent in &scenario.agents {
            let known = self.books.iter().position(|b| b.agent.id == agent.id);
            let index = known.unwrap_or_else(|| {
                self.books.push(Book {
                    agent: agent.clone(),
                    valid: true,
                    paused: None,
                    paused_at: 0,
                    probe_at: None,
                    failures: 0,
                    last_ended: None,
                    entries: Vec::new(),
                });
                self.books.len() - 1
            });
            let book = &mut self.books[index];
            (book.agent, book.valid) = (agent.clone(), true);
            let identities = identities(agent);
            book.entries.iter_mut().for_each(|e| e.active &= identities.contains(&e.identity));
            for (place, (identity, schedule)) in identities.into_iter().zip(&agent.schedules).enumerate() {
                let calendar = Calendar::new(&schedule.timing, schedule.dst, schedule.start, schedule.end);
                match book.entries.iter_mut().find(|e| e.identity == identity) {
                    Some(entry) => {
                        if !entry.active {
                            // One that comes back begins anew, now.
                            (entry.runs, entry.startup) = (0, None);
                            entry.watermark = entry.watermark.max(now);
                        }
                        if schedule.max_runs.is_some_and(|most| entry.runs >= most) {
                            entry.startup = None;
                        }
                        (entry.active, entry.place) = (true, place);
                        (entry.schedule, entry.calendar) = (schedule.clone(), calendar);
                    }
                    None => book.entries.push(Entry {
                        identity,
                        schedule: schedule.clone(),
                        calendar,
                        watermark: now,
                        active: true,
                        runs: 0,
                        place,
                        startup: None,
                    }),
                }
            }
        }
        self.look_ahead();
    }

    /// The daemon has started.
    pub fn started(&mut self, now: i64, broken: &BTreeSet<String>) {
        for book in &mut self.books {
            book.valid = !broken.contains(&book.agent.id);
            for entry in book.entries.iter_mut().filter(|e| e.schedule.timing == Timing::Startup) {
                // One that has had all its runs hears of no start, also where its bound is lifted later.
                let over = entry.schedule.max_runs.is_some_and(|most| entry.runs >= most);
                entry.startup = (entry.active && !over).then(|| now.max(entry.watermark + 1));
            }
        }
        (self.last, self.seen) = (now, None);
        self.look_ahead();
    }

    /// The watermarks know the time that it was.
    fn look_ahead(&mut self) {
        let newest = self.entries().map(|e| e.watermark).max();
        self.last = newest.unwrap_or(self.last).max(self.last);
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.books.iter().flat_map(|b| &b.entries).filter(|e| e.active)
    }

    /// The next nominal instant of any schedule.
    pub fn next(&self, now: i64) -> Option<i64> {
        let after = |e: &Entry| e.calendar.next(e.watermark.max(now));
        self.entries().filter(|e| e.calendar.is_calendar()).filter_map(after).min()
    }

    /// Numbers of an agent's schedules in the database, in the order in which they were first seen.
    pub fn numbers(dump: &Dump, agent: &str) -> Vec<i64> {
        let Some(of) = dump.agents.get(agent) else { return Vec::new() };
        dump.schedules.iter().filter(|(_, s)| s.agent == of.number).map(|(number, _)| *number).collect()
    }

    /// A clock that went back by much: everything goes on from now, and what a wrong clock has decided of
    /// the time to come is decided anew when it comes. Of a schedule that is out of force a row that began
    /// before stays whole. Where only a schedule that came back is far ahead, small steps stay as they are.
    pub fn watch_clock(&mut self, now: i64, dump: &Dump) {
        let (back, seen) = (self.last - now, self.seen);
        (self.last, self.seen) = (now, Some(now));
        let ahead = self.entries().any(|e| e.watermark - now > 3 * HOUR_MS);
        if back <= 0 || (back <= 3 * HOUR_MS && !ahead) {
            return;
        }
        let by_clock = seen.is_none_or(|seen| seen - now > 3 * HOUR_MS);
        let beyond = if by_clock { now } else { now + 3 * HOUR_MS };
        self.rewound = true;
        for book in &mut self.books {
            // The wait of a breaker keeps its length.
            let ended = book.last_ended.filter(|at| *at > now);
            book.probe_at =
                book.probe_at.map(|at| ended.filter(|_| at > now).map_or(at, |ended| at - ended + now));
            book.last_ended = book.last_ended.map(|at| at.min(now));
            book.paused_at = book.paused_at.min(now);
            let numbers = Self::numbers(dump, &book.agent.id);
            for (entry, number) in book.entries.iter_mut().zip(numbers) {
                if entry.watermark > beyond {
                    let stays = dump.slots.range(..=(number, now)).next_back();
                    let stays = stays.filter(|((schedule, _), _)| *schedule == number && !entry.active);
                    let until = stays.map_or(now, |(_, row)| row.until.max(now));
                    entry.watermark = until;
                    let ahead = self.ledger.entry(number).or_default().split_off(&(until + 1));
                    let made =
                        |(outcome, _): Row| if let Outcome::Run(run) = outcome { Some(run) } else { None };
                    self.early.extend(ahead.into_values().filter_map(made));
                }
                entry.startup = entry.startup.map(|_| now.max(entry.watermark + 1));
            }
        }
    }

    /// Decides everything that is due at `now`.
    pub fn admit(&mut self, now: i64, dump: &Dump) -> Checked {
        self.watch_clock(now, dump);
        for index in 0..self.books.len() {
            self.admit_agent(index, now, dump)?;
        }
        Ok(())
    }

    fn admit_agent(&mut self, index: usize, now: i64, dump: &Dump) -> Checked {
        let numbers = Self::numbers(dump, &self.books[index].agent.id);
        let mut places: Vec<usize> = (0..self.books[index].entries.len()).collect();
        places.sort_by_key(|e| self.books[index].entries[*e].place);
        let busy = self.open.values().any(|r| dump.agents[&self.books[index].agent.id].number == r.agent);
        let mut decided: Vec<(usize, Vec<Decided>, i64)> = Vec::new();
        for at in places {
            let book = &self.books[index];
            let entry = &book.entries[at];
            if let Some((slots, watermark)) = due(book, entry, now, busy) {
                decided.push((at, slots, watermark));
            }
        }
        coalesce(&self.books[index], &mut decided);
        for (at, slots, watermark) in decided {
            let number = *numbers.get(at).ok_or("a schedule has no row")?;
            self.pass(index, at, number, &slots, now, dump)?;
            let entry = &mut self.books[index].entries[at];
            (entry.watermark, entry.startup) = (watermark, None);
        }
        Ok(())
    }

    /// One pass of one schedule: runs first, oldest first, then what gets none.
    fn pass(
        &mut self,
        index: usize,
        at: usize,
        number: i64,
        slots: &[Decided],
        now: i64,
        dump: &Dump,
    ) -> Checked {
        let book = &self.books[index];
        let (mut closed, mut probe) = match book.paused {
            _ if !book.valid => (Some("config_error"), false),
            None => (None, false),
            Some("breaker") if book.probe_at.is_some_and(|p| p <= now) => (None, true),
            Some("breaker") => (Some("breaker"), false),
            Some(_) => (Some("paused"), false),
        };
        let (first_closed, max) = (closed, book.entries[at].schedule.max_runs);
        // Catch-ups of this very pass do not stand in the way of the newest slot.
        let before: BTreeSet<i64> = self.open.keys().copied().collect();
        let mut last = i64::MAX;
        for Decided { nominal, wanted } in slots {
            let Wanted::Run { catch_up, after, slots } = *wanted else { continue };
            let outcome = match closed {
                Some(reason) => Outcome::Not(reason),
                None => self.admit_slot((index, at), (number, *nominal), catch_up, &before, now, dump)?,
            };
            if let Outcome::Run(run) = outcome {
                self.check_run(index, at, run, (number, *nominal), (catch_up, after, slots), now, dump)?;
                if std::mem::take(&mut probe) {
                    closed = Some("breaker");
                    self.books[index].probe_at = None;
                }
                if let Some(max) = max {
                    let entry = &mut self.books[index].entries[at];
                    entry.runs += 1;
                    if entry.runs >= max {
                        last = *nominal;
                    }
                }
            }
            self.write(number, *nominal, outcome, now);
            if last == *nominal {
                break;
            }
        }
        for Decided { nominal, wanted } in slots {
            let Wanted::Not(reason) = *wanted else { continue };
            if *nominal < last {
                let reason = first_closed.filter(|_| reason != "excluded").unwrap_or(reason);
                self.write(number, *nominal, Outcome::Not(reason), now);
            }
        }
        Ok(())
    }

    fn write(&mut self, schedule: i64, nominal: i64, outcome: Outcome, now: i64) {
        self.checked += 1;
        self.ledger.entry(schedule).or_default().insert(nominal, (outcome, now));
    }

    /// Runs of the scope of `agent` that have not ended.
    fn in_scope<'a>(&'a self, agent: &Agent, dump: &Dump) -> impl Iterator<Item = &'a Run> {
        let (key, number) = (agent.key, dump.agents[&agent.id].number);
        self.open.values().filter(move |r| match key {
            Some(key) => r.key.as_deref() == Some(key),
            None => r.agent == number,
        })
    }

    fn waiting(&self, agent: &Agent, dump: &Dump) -> usize {
        self.in_scope(agent, dump).filter(|r| r.claimed.is_none()).count()
    }

    /// Whether a budget leaves no run.
    fn used_up(&self, agent: &Agent, now: i64, dump: &Dump) -> bool {
        let number = dump.agents[&agent.id].number;
        // A run is at least as old as those that came after it, whatever the clock said.
        let recent = |own: bool| {
            let all = self.open.values().chain(self.ended.values());
            let mut made: Vec<(i64, i64)> = all
                .filter(|r| (!own || r.agent == number) && r.created <= now + DAY_MS)
                .map(|r| (r.number, r.created))
                .collect();
            made.sort_unstable();
            made.iter().rev().take_while(|(_, created)| *created > now - DAY_MS).count()
        };
        let own = agent.runs_per_day.is_some_and(|n| recent(true) >= n);
        own || self.scenario.runs_per_day.is_some_and(|n| recent(false) >= n)
    }

    fn admit_slot(
        &mut self,
        (index, at): (usize, usize),
        slot: (i64, i64),
        catch_up: bool,
        before: &BTreeSet<i64>,
        now: i64,
        dump: &Dump,
    ) -> Result<Outcome, String> {
        let agent = self.books[index].agent.clone();
        let schedule = &self.books[index].entries[at].schedule;
        let overlap = effective(schedule, catch_up);
        let known = |r: &&Run| agent.key.is_some() || before.contains(&r.number);
        let in_way: Vec<&Run> = self.in_scope(&agent, dump).filter(known).collect();
        // What waited beyond its deadline is ended by whoever comes first.
        let overdue = |r: &&Run| r.started.is_none() && r.deadline.is_some_and(|d| d < now);
        let row = dump.slots.get(&slot).filter(|s| s.decided == now);
        let doubtful = !in_way.is_empty() && in_way.iter().all(overdue);
        let busy = if doubtful {
            row.is_some_and(|s| s.reason.as_deref() == Some("overlap"))
        } else {
            !in_way.is_empty()
        };
        let (meets, waits) = (!in_way.is_empty(), matches!(overlap, "queue" | "queue_one" | "allow"));
        Ok(match overlap {
            "skip" if busy => Outcome::Not("overlap"),
            _ if waits && self.waiting(&agent, dump) >= 100 => Outcome::Not("queue_full"),
            _ if self.used_up(&agent, now, dump) => Outcome::Not("budget"),
            _ => {
                let run = row.and_then(|s| s.run).filter(|_| row.is_some_and(|s| s.reason.is_none()));
                let run = run.ok_or_else(|| {
                    let said = dump.slots.get(&slot);
                    format!(
                        "{}: slot {} of schedule {} must be a run and is {said:?}",
                        agent.id, slot.1, slot.0
                    )
                })?;
                self.clear(&agent, if meets { overlap } else { "allow" }, run, dump);
                Outcome::Run(run)
            }
        })
    }

    /// What a new run does to those in its way.
    fn clear(&mut self, agent: &Agent, overlap: &str, run: i64, dump: &Dump) {
        let in_way: Vec<Run> = self.in_scope(agent, dump).cloned().collect();
        for other in in_way {
            let waits = other.claimed.is_none() && other.started.is_none();
            match overlap {
                "queue_one" if waits && other.overlap == "queue_one" => {
                    self.cleared.insert(other.number, "superseded")
                }
                "cancel_previous" | "replace" if waits => self.cleared.insert(other.number, "superseded"),
                "cancel_previous" | "replace" => self.cleared.insert(other.number, "cancelled"),
                _ => None,
            };
        }
        if let Some(row) = dump.runs.get(&run) {
            // As it was born: waiting.
            let born =
                Run { claimed: None, started: None, completed: None, state: "PENDING".into(), ..row.clone() };
            self.open.insert(run, born);
        }
        self.definitions.insert(run, agent.clone());
    }

    /// The row of a run that a slot made.
    #[expect(clippy::too_many_arguments, reason = "each of them is compared")]
    fn check_run(
        &self,
        index: usize,
        at: usize,
        run: i64,
        slot: (i64, i64),
        (catch_up, after, slots): (bool, i64, i64),
        now: i64,
        dump: &Dump,
    ) -> Checked {
        let book = &self.books[index];
        let entry = &book.entries[at];
        let row = dump.runs.get(&run).ok_or_else(|| format!("run {run} of a slot does not exist"))?;
        let overlap = effective(&entry.schedule, catch_up);
        let most = match overlap {
            "allow" => entry.schedule.max_concurrent,
            "queue" => Some(entry.schedule.max_concurrent.unwrap_or(1)),
            _ => Some(1),
        };
        let class = match (catch_up, book.agent.priority) {
            (true, _) => 3,
            (_, "high") => 0,
            (_, "normal") => 1,
            _ => 2,
        };
        let same = [
            (row.schedule == Some(slot.0) && row.nominal == Some(slot.1), "slot"),
            (row.trigger == if catch_up { "catch_up" } else { "schedule" }, "trigger"),
            (row.overlap == overlap, "overlap"),
            (row.most == most.map(i64::from), "max_concurrent"),
            (row.class == class, "priority"),
            (row.key.as_deref() == book.agent.key && row.pool.as_deref() == book.agent.pool, "key or pool"),
            (row.created == now, "created_at"),
            (
                !entry.calendar.is_calendar()
                    || (row.window_start, row.window_slots) == (Some(after), Some(slots)),
                "window",
            ),
            (deadline_fits(entry, row, catch_up, now), "start_deadline"),
        ];
        match same.iter().find(|(fits, _)| !fits) {
            Some((_, what)) => Err(format!(
                "{}: the {what} of {row:?} is wrong; after {after}, slots {slots}",
                book.agent.id
            )),
            None => Ok(()),
        }
    }

    /// What a trigger by hand must come to: `Ok` for a new run.
    pub fn manual(&self, agent: &str, overlap: &str, now: i64, dump: &Dump) -> Result<(), &'static str> {
        let book = self.books.iter().find(|b| b.agent.id == agent).unwrap();
        match overlap {
            _ if !book.valid => Err("invalid"),
            "skip" if self.in_scope(&book.agent, dump).next().is_some() => Err("overlap"),
            "queue" | "queue_one" | "allow" if self.waiting(&book.agent, dump) >= 100 => Err("queue_full"),
            _ if self.used_up(&book.agent, now, dump) => Err("budget"),
            _ => Ok(()),
        }
    }

    /// A run was made by a slot that was decided anew.
    pub fn adopt(&mut self, agent: &Agent, schedule: &Schedule, run: i64, dump: &Dump) {
        self.clear(agent, effective(schedule, true), run, dump);
    }

    /// A run was made by hand.
    pub fn made(&mut self, agent: &str, overlap: &str, run: i64, dump: &Dump) {
        let agent = self.books.iter().find(|b| b.agent.id == agent).unwrap().agent.clone();
        self.clear(&agent, overlap, run, dump);
        self.manual.insert(run);
    }
}

fn effective(schedule: &Schedule, catch_up: bool) -> &'static str {
    match schedule.overlap {
        "allow" => "allow",
        _ if catch_up && schedule.catch_up == "all" => "queue",
        own => own,
    }
}

/// The slots of a schedule that are due, and its watermark after them.
fn due(book: &Book, entry: &Entry, now: i64, busy: bool) -> Option<(Vec<Decided>, i64)> {
    let over = entry.schedule.max_runs.is_some_and(|max| entry.runs >= max);
    if !entry.active || over {
        return None;
    }
    let of = Due { agent: &book.agent, schedule: &entry.schedule, calendar: &entry.calendar };
    let alone = |nominal: i64| {
        let run = Wanted::Run { catch_up: false, after: entry.watermark.min(nominal - 1), slots: 1 };
        vec![Decided { nominal, wanted: if of.excluded(nominal) { Wanted::Not("excluded") } else { run } }]
    };
    match entry.schedule.timing {
        Timing::After(delay_s) => {
            let ended = book.last_ended.map_or(i64::MIN, |at| at.min(now));
            let nominal = ended.max(entry.watermark).saturating_add(ms(delay_s));
            (!busy && nominal <= now).then(|| (alone(nominal), now.max(nominal)))
        }
        Timing::Startup => {
            let nominal = entry.startup.filter(|at| *at <= now)?;
            (entry.watermark < nominal).then(|| (alone(nominal), nominal))
        }
        _ => {
            let slots = of.decide(entry.watermark, now);
            let last = slots.last()?.nominal;
            Some((slots, last))
        }
    }
}

/// Of one agent's schedules that run at one instant and ask for the same the first runs.
fn coalesce(book: &Book, decided: &mut [(usize, Vec<Decided>, i64)]) {
    let mut first = Vec::new();
    for (at, slots, _) in decided {
        let Schedule { prompt, overlap, max_concurrent, catch_up, .. } = book.entries[*at].schedule.clone();
        let asks = (prompt, overlap, max_concurrent, catch_up);
        for slot in slots {
            if matches!(slot.wanted, Wanted::Run { .. }) {
                if first.contains(&(slot.nominal, asks)) {
                    slot.wanted = Wanted::Not("coalesced");
                } else {
                    first.push((slot.nominal, asks));
                }
            }
        }
    }
}

fn deadline_fits(entry: &Entry, row: &Run, catch_up: bool, now: i64) -> bool {
    let schedule = &entry.schedule;
    let nominal = row.nominal.unwrap_or_default();
    let next = entry.calendar.next(nominal);
    let delayed = schedule.jitter_s.is_some() || schedule.spread_s.is_some();
    let longest = ms(schedule.jitter_s.unwrap_or(0) + schedule.spread_s.unwrap_or(0));
    let latest = next.map_or(nominal + longest, |n| (nominal + longest).min(n - 1));
    let starts_late = row.not_before.is_none_or(|at| delayed && at > now && at >= nominal && at <= latest);
    let deadline = match schedule.deadline_s {
        Some(s) => {
            let from = |start: i64| row.deadline == Some(start + ms(s));
            // The wait between two attempts takes the place of the first one's.
            if delayed {
                row.deadline.is_some_and(|d| d >= now + ms(s) && d <= latest.max(now) + ms(s))
            } else {
                from(now)
            }
        }
        None if catch_up || !matches!(schedule.overlap, "skip" | "allow") => row.deadline.is_none(),
        None if !entry.calendar.is_calendar() => row.deadline.is_none(),
        None => row.deadline == entry.calendar.next(now.max(entry.watermark)),
    };
    deadline && (starts_late || row.attempt > 0)
}
