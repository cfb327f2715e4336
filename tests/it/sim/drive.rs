//! Carries the steps out, in the world and in the model, and compares the two after each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use matins::engine::Refused;
use matins::engine::reload::By;
use rusqlite::Connection;

use super::check::Ends;
use super::dump::{self, Dump};
use super::launchers::{End, Point};
use super::model::{Checked, Model, Outcome};
use super::plan::{Due, ms};
use super::receivers::Mode;
use super::rng::Rng;
use super::scenario::{ENDPOINTS, Scenario};
use super::step::{During, Step};
use super::world::World;

/// Instants that lie further ahead are not gone to.
const FAR_MS: i64 = 400 * 86_400_000;

/// What a key was used for: the run, the overlap that was asked for, and when.
type Used = (i64, Option<&'static str>, i64);

/// One simulation.
pub struct Sim {
    world: World,
    model: Model,
    db: Connection,
    dump: Dump,
    keys: BTreeMap<(String, u8), Used>,
    /// How long the daemon may take to come to rest.
    patience: Duration,
    /// One line for each moment at which world and model were compared.
    pub trace: Vec<String>,
}

/// What the model goes through beside what is due.
#[derive(Debug, Clone)]
enum Beside {
    Nothing,
    Reload(Box<Scenario>),
    /// The slots of an agent that a resume has decided anew.
    Replay(usize),
    /// The daemon is down: whether it had come to its pass is open.
    Down,
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub steps: usize,
    pub slots: u64,
    pub runs: usize,
    pub deliveries: usize,
}

impl Sim {
    /// A daemon that has started on `scenario`.
    pub fn start(seed: u64, scenario: &Scenario, patience: Duration) -> Result<Self, String> {
        let mut world = World::new(seed, scenario);
        world.write(scenario);
        world.start();
        let db = dump::open(&world.database());
        let (model, trace) = (Model::new(scenario), Vec::new());
        let mut sim =
            Self { world, model, db, dump: Dump::default(), keys: BTreeMap::new(), patience, trace };
        sim.settle(&Beside::Nothing)?;
        Ok(sim)
    }

    /// Carries one step out and compares.
    pub fn step(&mut self, step: &Step) -> Checked {
        let now = self.world.now();
        match *step {
            Step::Advance(seconds) => self.world.set(now + ms(seconds)),
            Step::Back(seconds) => {
                self.model.set_back = true;
                self.world.set(now - ms(seconds));
            }
            Step::Instants(times) => return self.instants(times),
            Step::Trigger { agent, key, overlap } => self.trigger(agent, key, overlap)?,
            Step::Cancel(n) => self.cancel(n)?,
            Step::End(n, code) => self.end(n, End::Exit(code)),
            Step::Vanish(n) => self.end(n, End::Vanished),
            Step::EndAll(code) => return self.end_all(code),
            Step::Pause(n) => self.pause(n),
            Step::Resume { agent, catch_up } => return self.resume(agent, catch_up),
            Step::Receiver(n, mode) => self.world.receivers.set(n, mode),
            Step::Reload(seed) => return self.reload(seed),
            Step::Crash { point, during, down_s, fates, breaks } => {
                self.crash(point, during)?;
                self.fates(fates);
                return self.come_back(down_s, breaks);
            }
            Step::Restart { down_s } => {
                self.stop()?;
                return self.come_back(down_s, None);
            }
        }
        self.settle(&Beside::Nothing)
    }

    fn instants(&mut self, times: u32) -> Checked {
        for _ in 0..times {
            let now = self.world.now();
            if let Some(next) = self.model.next(now).filter(|next| next - now < FAR_MS) {
                self.world.set(next);
                self.settle(&Beside::Nothing)?;
            }
        }
        Ok(())
    }

    fn agent(&self, n: usize) -> String {
        let agents = &self.model.scenario.agents;
        agents[n % agents.len()].id.clone()
    }

    fn trigger(&mut self, n: usize, key: Option<u8>, overlap: Option<&'static str>) -> Checked {
        let (agent, now) = (self.agent(n), self.world.now());
        let asked = overlap.unwrap_or("queue");
        let known = key.and_then(|key| self.keys.get(&(agent.clone(), key)).copied());
        let known = known.filter(|(_, _, at)| at + ms(86_400) > now);
        let wanted = self.model.manual(&agent, asked, now, &self.dump);
        let answer = self.world.trigger(&agent, key.map(|k| format!("key {k}")).as_deref(), overlap);
        let said = match &answer {
            Ok(run) if run.repeated => "repeated",
            Ok(_) => "run",
            Err(Refused::InvalidAgent(_)) => "invalid",
            Err(Refused::Overlap { .. }) => "overlap",
            Err(Refused::QueueFull { .. }) => "queue_full",
            Err(Refused::Budget { .. }) => "budget",
            Err(Refused::KeyReused { .. }) => "other",
            Err(e) => return Err(format!("a trigger of {agent} failed: {e}")),
        };
        let must = match (wanted, known) {
            (Err("invalid"), _) => "invalid",
            (_, Some((_, then, _))) if then == overlap => "repeated",
            (_, Some(_)) => "other",
            (Ok(()), None) => "run",
            (Err(why), None) => why,
        };
        if said != must || known.is_some_and(|(run, ..)| answer.as_ref().is_ok_and(|a| a.number != run)) {
            return Err(format!(
                "a trigger of {agent} ({key:?}, {overlap:?}) came to {said} and not to {must}"
            ));
        }
        if let (Ok(run), "run") = (answer, said) {
            self.dump = Dump::read(&self.db);
            self.model.made(&agent, asked, run.number, &self.dump);
            if let Some(key) = key {
                self.keys.insert((agent, key), (run.number, overlap, now));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, n: usize) -> Checked {
        let open: Vec<i64> = self.model.open.keys().copied().collect();
        let Some(&number) = open.get(n % open.len().max(1)) else { return Ok(()) };
        let id = matins::ids::RunId::from_slice(&self.model.open[&number].id).unwrap();
        self.model.asked.insert(number);
        let answer = self.world.block_on(self.world.core().cancel(id, "ann".to_owned()));
        match answer {
            Ok(matins::engine::CancelAnswer::Accepted) => Ok(()),
            other => Err(format!("a cancel of run {number} came to {other:?}")),
        }
    }

    /// Programs that run, in the order in which their runs were made.
    fn running(&self) -> Vec<(matins::ids::RunId, u32)> {
        let mut running = self.world.launchers.running();
        let made = |id: &matins::ids::RunId| self.dump.runs.values().position(|r| r.id == id.as_bytes());
        running.sort_by_key(|(id, _)| made(id));
        running
    }

    fn end(&self, n: usize, how: End) {
        let running = self.running();
        if let Some((run, number)) = running.get(n % running.len().max(1)) {
            self.world.launchers.end(*run, *number, how);
        }
    }

    /// One after the other, so that who starts next does not depend on which end is written first.
    fn end_all(&mut self, code: i32) -> Checked {
        for (run, number) in self.running() {
            self.world.launchers.end(run, number, End::Exit(code));
            self.settle(&Beside::Nothing)?;
        }
        Ok(())
    }

    fn book(&self, n: usize) -> usize {
        let id = self.agent(n);
        self.model.books.iter().position(|b| b.agent.id == id).unwrap()
    }

    fn pause(&mut self, n: usize) {
        let (id, index, now) = (self.agent(n), self.book(n), self.world.now());
        self.world.block_on(self.world.core().pause(&id.parse().unwrap(), "ann", None)).unwrap();
        let book = &mut self.model.books[index];
        // A pause that is said again goes on.
        book.paused_at = book.paused.map_or(now, |_| book.paused_at);
        (book.paused, book.probe_at) = (Some("user"), None);
    }

    fn resume(&mut self, n: usize, catch_up: bool) -> Checked {
        let (id, index) = (self.agent(n), self.book(n));
        let resumed = self.world.block_on(self.world.core().resume(&id.parse().unwrap(), "ann", catch_up));
        if let Err(e) = resumed {
            return Err(format!("agent {id} is not resumed: {e}"));
        }
        let book = &mut self.model.books[index];
        let replays = catch_up && book.valid && book.paused.is_some();
        (book.paused, book.probe_at, book.failures) = (None, None, 0);
        self.settle(&if replays { Beside::Replay(index) } else { Beside::Nothing })
    }

    fn reload(&mut self, seed: u64) -> Checked {
        let mut scenario = self.model.scenario.clone();
        scenario.mutate(&mut Rng::new(seed), self.world.now());
        self.world.broken.clear();
        self.world.write(&scenario);
        let done = self.world.block_on(self.world.core().reload(By::Somebody("ann".to_owned())));
        if let Err(e) = done {
            let last = self.world.core().reloads.last();
            let said: Vec<String> =
                last.iter().flat_map(|r| &r.problems).map(|p| p.rendered.clone()).collect();
            return Err(format!("a reload failed: {e}: {}", said.join("\n")));
        }
        self.settle(&Beside::Reload(Box::new(scenario)))
    }

    fn crash(&mut self, point: Point, during: During) -> Checked {
        if point != Point::Now {
            self.world.launchers.arm(point);
        }
        let now = self.world.now();
        match during {
            During::Advance(seconds) => self.world.set(now + ms(seconds)),
            During::Instant => {
                let next = self.model.next(now).filter(|next| next - now < FAR_MS);
                self.world.set(next.unwrap_or(now));
            }
            During::Trigger(agent) => self.trigger(agent, None, None)?,
            During::EndAll(code) => {
                for (run, number) in self.running() {
                    self.world.launchers.end(run, number, End::Exit(code));
                }
            }
        }
        if point != Point::Now {
            self.world.quiet();
        }
        self.world.crash();
        self.settle(&Beside::Down)
    }

    fn stop(&mut self) -> Checked {
        for n in 0..ENDPOINTS {
            if self.world.receivers.mode(n) == Mode::Hangs {
                self.world.receivers.set(n, Mode::Bad);
            }
        }
        self.settle(&Beside::Nothing)?;
        self.world.stop();
        self.settle(&Beside::Down)
    }

    /// What happens to the programs while no daemon is there: some go on, the others end alike.
    fn fates(&self, fates: u64) {
        let how =
            [End::Exit(0), End::Exit(0), End::Exit(1), End::Vanished][usize::try_from(fates % 4).unwrap()];
        for (n, (run, number)) in self.running().into_iter().enumerate() {
            if fates >> (8 + n % 32) & 1 == 1 {
                self.world.launchers.end(run, number, how);
            }
        }
    }

    fn come_back(&mut self, down_s: i64, breaks: Option<usize>) -> Checked {
        let now = self.world.now() + ms(down_s);
        self.world.set(now);
        if let Some(agent) = breaks.and_then(|n| self.model.scenario.agents.get(n)) {
            self.world.broken.insert(agent.id.clone());
        }
        self.world.write(&self.model.scenario);
        for run in self.model.open.values_mut() {
            // What was claimed and had not begun waits again.
            let id = matins::ids::RunId::from_slice(&run.id).unwrap();
            let attempt = u32::try_from(run.attempt).unwrap();
            let begun = self.world.launchers.with(id, attempt, |a| !a.released.is_empty()) == Some(true);
            if run.state == "PENDING" || !begun {
                run.claimed = None;
                run.started = run.started.filter(|_| run.attempt > 1);
            }
        }
        self.world.start();
        self.model.started(now, &self.world.broken);
        self.settle(&Beside::Nothing)
    }

    /// Waits until the daemon stands where the model says that it must.
    fn settle(&mut self, beside: &Beside) -> Checked {
        let begun = Instant::now();
        if self.world.is_up() {
            self.world.turn();
        }
        loop {
            if self.world.is_up() {
                self.world.quiet();
            }
            let dump = Dump::read(&self.db);
            let mut next = self.model.clone();
            match absorb(&mut next, &dump, &self.world, beside) {
                Ok(()) => {
                    let late = |r: &&dump::Run| {
                        r.started.is_none() && r.deadline.is_some_and(|d| d < self.world.now())
                    };
                    let late: Vec<i64> = next.open.values().filter(late).map(|r| r.number).collect();
                    for run in late {
                        *next.overdue.entry(run).or_default() += 1;
                    }
                    (self.model, self.dump) = (next, dump);
                    self.trace.push(line(&self.model, &self.dump, self.world.now()));
                    return Ok(());
                }
                Err(why) if begun.elapsed() > self.patience || !self.world.is_up() => return Err(why),
                Err(_) => super::super::support::wait::pace(Duration::from_millis(1)),
            }
        }
    }

    /// Lets everything come to its end: no run and no message may be left.
    pub fn finish(&mut self) -> Result<Counts, String> {
        for n in 0..ENDPOINTS {
            self.world.receivers.set(n, Mode::Good);
        }
        for n in 0..self.model.scenario.agents.len() {
            self.pause(n);
            self.settle(&Beside::Nothing)?;
        }
        for _ in 0..60 {
            while !self.running().is_empty() {
                self.end_all(0)?;
            }
            let waits = self.dump.deliveries.values().any(|d| d.state == "PENDING");
            if self.model.open.is_empty() && !waits {
                return self.last();
            }
            self.world.set(self.world.now() + ms(7 * 3600));
            self.settle(&Beside::Nothing)?;
        }
        let left: Vec<_> = self.model.open.values().collect();
        Err(format!(
            "what is left never ends: {left:?}, {:?}",
            self.dump.deliveries.values().find(|d| d.state == "PENDING")
        ))
    }

    fn last(&mut self) -> Result<Counts, String> {
        let whole = self.world.block_on(self.world.core().store.integrity_check()).unwrap();
        if whole != "ok" {
            return Err(format!("the database is not whole: {whole}"));
        }
        self.stop()?;
        let (slots, runs, deliveries) =
            (self.model.checked, self.dump.runs.len(), self.dump.deliveries.len());
        Ok(Counts { steps: 0, slots, runs, deliveries })
    }
}

/// What one moment looks like: the same in two simulations of one seed.
fn line(model: &Model, dump: &Dump, now: i64) -> String {
    let mut hash = DefaultHasher::new();
    for ((schedule, nominal), slot) in &dump.slots {
        (schedule, nominal, &slot.reason, slot.run, slot.decided).hash(&mut hash);
    }
    for run in dump.runs.values() {
        (run.number, &run.state, run.attempt, &run.code, run.completed).hash(&mut hash);
    }
    // Not how far they are: attempts take real time.
    let mut messages: Vec<_> = dump.deliveries.values().map(|d| (d.run, &d.url[d.url.len() - 1..])).collect();
    messages.sort_unstable();
    messages.hash(&mut hash);
    let mut line = format!("{now} {:016x}", hash.finish());
    write!(line, " {} slots {} ended, open", dump.slots.len(), model.ended.len()).unwrap();
    for run in model.open.values() {
        write!(line, " {}:{}:{}", run.number, run.state, run.attempt).unwrap();
    }
    line
}

/// Takes in what the world shows, or says what is wrong with it.
fn absorb(model: &mut Model, dump: &Dump, world: &World, beside: &Beside) -> Checked {
    let now = world.now();
    model.ends(Ends::Own, dump, world)?;
    if let Beside::Replay(index) = beside {
        replay(model, *index, now, dump)?;
    }
    if matches!(beside, Beside::Down) {
        let mut passed = model.clone();
        if model.check_ledger(dump).is_err() {
            passed.admit(now, dump)?;
            passed.check_ledger(dump)?;
            *model = passed;
        }
    } else {
        model.admit(now, dump)?;
    }
    if let Beside::Reload(scenario) = beside {
        model.take_over(scenario, now);
        // A bound that was lifted lets slots come due.
        model.admit(now, dump)?;
    }
    model.ends(Ends::Caused, dump, world)?;
    for (number, run) in &mut model.open {
        *run = dump.runs.get(number).ok_or_else(|| format!("run {number} is gone"))?.clone();
    }
    model.check_ledger(dump)?;
    model.check_books(dump)?;
    model.check_causes(dump)?;
    Model::check_states(dump)?;
    if matches!(beside, Beside::Down) {
        return Ok(());
    }
    if let Some(run) = model.open.values().find(|r| r.ended()) {
        return Err(format!("a run has ended and nobody knows why: {run:?}"));
    }
    model.check_progress(dump, world)?;
    model.check_outbox(dump, world)
}

/// What a resume has decided anew: slots of the pause within the window, and nothing else.
fn replay(model: &mut Model, index: usize, now: i64, dump: &Dump) -> Checked {
    let book = model.books[index].clone();
    let numbers = Model::numbers(dump, &book.agent.id);
    for (entry, number) in book.entries.iter().zip(numbers) {
        let known = model.ledger.get(&number).cloned().unwrap_or_default();
        let open = |outcome: &Outcome| matches!(outcome, Outcome::Not("paused" | "breaker"));
        let newest = known.iter().rev().find(|(_, (outcome, _))| *outcome != Outcome::Not("excluded"));
        let same = |outcome: &Outcome, row: &dump::Slot| match outcome {
            Outcome::Run(run) => row.reason.is_none() && row.run == Some(*run),
            Outcome::Not(reason) => row.reason.as_deref() == Some(*reason),
        };
        let of = Due { agent: &book.agent, schedule: &entry.schedule, calendar: &entry.calendar };
        for (nominal, (outcome, decided)) in &known {
            let row = dump.slots.range(..=(number, *nominal)).next_back();
            let Some((_, row)) = row.filter(|((s, _), row)| *s == number && row.until >= *nominal) else {
                continue;
            };
            let window = of.patience(newest.map_or(*nominal, |(at, _)| *at)).1;
            let due = entry.active && entry.calendar.is_calendar() && entry.schedule.catch_up != "none";
            let must = due
                && newest.is_some_and(|(at, _)| at == nominal)
                && *nominal >= now - window
                && *decided >= book.paused_at;
            if row.decided != now || same(outcome, row) {
                if must && open(outcome) && row.decided != now {
                    return Err(format!(
                        "slot {nominal} of schedule {number} was paused and is not made up for"
                    ));
                }
                if row.decided == now {
                    model.ledger.entry(number).or_default().insert(*nominal, (outcome.clone(), now));
                }
                continue;
            }
            let fits = (open(outcome) || *outcome == Outcome::Not("excluded")) && due;
            let new = match (&row.reason, row.run) {
                (None, Some(run)) => {
                    if dump.runs.get(&run).is_none_or(|r| r.trigger != "catch_up") || *nominal < now - window
                    {
                        return Err(format!("run {run} of slot {nominal} is no catch-up of a pause"));
                    }
                    model.adopt(&book.agent, &entry.schedule, run, dump);
                    Outcome::Run(run)
                }
                (Some(reason), _) => Outcome::Not(
                    ["coalesced", "excluded", "overlap", "queue_full", "budget", "paused", "breaker"]
                        .into_iter()
                        .find(|known| known == reason)
                        .ok_or_else(|| {
                            format!("slot {nominal} of schedule {number} was paused and became {reason}")
                        })?,
                ),
                _ => return Err(format!("{row:?}")),
            };
            if !fits {
                return Err(format!(
                    "slot {nominal} of schedule {number} was {outcome:?} and became {new:?}"
                ));
            }
            model.ledger.entry(number).or_default().insert(*nominal, (new, now));
        }
    }
    Ok(())
}
