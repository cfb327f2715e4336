//! What must hold after every step, whatever the rules decided: how runs end, that what can start has
//! started and no limit is passed, that every row has its cause, that every message is on its way.

use std::collections::BTreeMap;

use matins::ids::RunId;

use super::dump::{Dump, Run};
use super::launchers::End;
use super::model::{Book, Checked, Model, Outcome, Row};
use super::plan::ms;
use super::receivers::Mode;
use super::scenario::{Agent, POOLS};
use super::world::{UNIT, World};

/// Seconds before each attempt of a delivery, counted from the end of the one before.
const BACK_OFF_S: [f64; 8] = [0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0];
/// `Retry-After` of receivers that ask for it, seconds.
pub const LATER_S: u64 = 1000;

/// Rows in a row that end alike: those of a pause are coalesced, missed and the newest, each a stretch.
const ALIKE_MAX: usize = 202;

/// When ends of runs are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Those that a pass over the schedules may know of.
    Own,
    /// Those that the pass has caused, or that race with it.
    Caused,
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds of some hours")]
fn spread_ms(seconds: f64) -> i64 {
    (seconds * 1000.0 * (0.8 + 0.4 * UNIT)).round() as i64
}

fn id(run: &Run) -> RunId {
    RunId::from_slice(&run.id).unwrap()
}

/// How the present attempt of a run ended.
fn end(world: &World, run: &Run) -> Option<End> {
    world.launchers.with(id(run), u32::try_from(run.attempt).unwrap(), |a| a.end).flatten()
}

/// Attempts in all that an agent allows after this end.
fn most_attempts(agent: &Agent, end: End) -> i64 {
    match (end, &agent.retry) {
        (End::Exit(_), retry) => retry.as_ref().map_or(1, |r| r.max),
        (_, retry) if agent.retry_interrupted => retry.as_ref().map_or(3, |r| r.max),
        _ => 1,
    }
}

impl Model {
    /// Takes in the runs that have ended since.
    pub fn ends(&mut self, which: Ends, dump: &Dump, world: &World) -> Checked {
        for (number, state, at) in &dump.transitions {
            if !matches!(state.as_str(), "COMPLETED" | "FAILED") || !self.open.contains_key(number) {
                continue;
            }
            let row = dump.runs.get(number).ok_or_else(|| format!("run {number} has ended and is gone"))?;
            let own = match row.code.as_deref() {
                Some("superseded" | "deadline") => false,
                Some("cancelled") => self.asked.contains(number),
                _ => true,
            };
            if own == (which == Ends::Own) {
                self.check_end(row, world)?;
                self.open.remove(number);
                self.ended.insert(*number, row.clone());
                self.end_of(row, *at, dump);
            }
        }
        Ok(())
    }

    fn check_end(&self, row: &Run, world: &World) -> Checked {
        let (agent, last) = (&self.definitions[&row.number], end(world, row));
        let cleared = self.cleared.get(&row.number).copied();
        let asked = self.asked.contains(&row.number);
        let spent = last.is_some_and(|last| row.attempt >= most_attempts(agent, last));
        let fits = match row.code.as_deref() {
            None => row.state == "COMPLETED" && last == Some(End::Exit(0)),
            Some("runtime_error") => matches!(last, Some(End::Exit(code)) if code != 0) && spent,
            Some("interrupted") => matches!(last, Some(End::Vanished | End::Cancelled)) && spent && !asked,
            // One that waited and may start in the very moment is found waiting or claimed.
            Some("cancelled") => asked || cleared.is_some(),
            Some("superseded") => cleared == Some("superseded") && row.started.is_none(),
            Some("deadline") => {
                row.started.is_none() && row.deadline.is_some_and(|d| row.completed.unwrap() > d)
            }
            Some(_) => false,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("a run ended as it must not: {row:?}, its program {last:?}, cleared {cleared:?}"))
        }
    }

    /// What the end of a run means for its agent.
    fn end_of(&mut self, row: &Run, at: i64, dump: &Dump) {
        let id = dump.agents.iter().find(|(_, a)| a.number == row.agent).unwrap().0;
        // The breaker is that of the definition that the run was admitted with.
        let breaker = self.definitions[&row.number].breaker;
        let book = self.books.iter_mut().find(|b| b.agent.id == *id).unwrap();
        book.last_ended = Some(at);
        let (most, probe_after) = breaker.unwrap_or((5, None));
        match row.code.as_deref() {
            None => succeed(book, probe_after),
            Some("cancelled" | "interrupted" | "deadline" | "superseded") => {
                if book.paused == Some("breaker") && probe_after.is_some() && book.probe_at.is_none() {
                    book.probe_at = Some(at);
                }
            }
            Some(_) => fail(book, most, probe_after, at),
        }
    }

    /// The whole ledger, slot by slot.
    pub fn check_ledger(&self, dump: &Dump) -> Checked {
        let mut found: BTreeMap<i64, usize> = BTreeMap::new();
        let (mut before, mut alike) = ((0, i64::MIN), 0);
        let mut last: Option<(&Option<String>, i64)> = None;
        for (&(schedule, nominal), row) in &dump.slots {
            if schedule == before.0 && nominal <= before.1 {
                return Err(format!("rows of schedule {schedule} overlap at {nominal}: {row:?}"));
            }
            alike =
                if schedule == before.0 && row.reason.is_some() && last == Some((&row.reason, row.decided)) {
                    alike + 1
                } else {
                    1
                };
            (before, last) = ((schedule, row.until), Some((&row.reason, row.decided)));
            let own = self.ledger.get(&schedule);
            let slots: Vec<_> = own.into_iter().flat_map(|rows| rows.range(nominal..=row.until)).collect();
            // Where the newest slot of a row lies far, the others do too.
            let (far, last_slot) = (std::cell::OnceCell::new(), slots.last().map(|(at, _)| **at));
            let same = |(outcome, decided): &Row| {
                let outcome = match (outcome, &row.reason) {
                    (Outcome::Run(run), None) => row.run == Some(*run),
                    (Outcome::Not("excluded"), Some(own)) if own != "excluded" => {
                        *far.get_or_init(|| last_slot.is_some_and(|at| is_far(&self.ledger[&schedule], at)))
                    }
                    (Outcome::Not(reason), Some(own)) => own == reason,
                    _ => false,
                };
                outcome && *decided == row.decided
            };
            let wrong = slots.iter().find(|(_, slot)| !same(slot));
            if i64::try_from(slots.len()).unwrap() != row.count
                || wrong.is_some()
                || (!self.rewound && (2..=100).contains(&row.count))
                || alike > ALIKE_MAX
            {
                let n = slots.len();
                return Err(format!(
                    "schedule {schedule}, slot {nominal}: {row:?}; the model has {n} slots there, one of them {wrong:?}"
                ));
            }
            *found.entry(schedule).or_default() += slots.len();
        }
        for (schedule, rows) in &self.ledger {
            if found.get(schedule).copied().unwrap_or(0) != rows.len() {
                let missing = rows.iter().find(|(at, _)| !dump.slots.contains_key(&(*schedule, **at)));
                return Err(format!(
                    "schedule {schedule} lacks a slot; one without a row of its own is {missing:?}"
                ));
            }
        }
        Ok(())
    }

    /// What the books say of agents and schedules.
    pub fn check_books(&self, dump: &Dump) -> Checked {
        for book in &self.books {
            let id = &book.agent.id;
            let row = dump.agents.get(id).ok_or_else(|| format!("agent {id} is not stored"))?;
            let paused = row.paused_by.as_deref().map(|by| if by == "breaker" { by } else { "user" });
            let status = if book.valid { "ACTIVE" } else { "INVALID" };
            if (paused, row.probe_at, row.failures, row.status.as_str())
                != (book.paused, book.probe_at, book.failures, status)
            {
                return Err(format!(
                    "agent {id} is {row:?}, not paused {:?} probe {:?} failures {} {status}",
                    book.paused, book.probe_at, book.failures
                ));
            }
            let numbers = Self::numbers(dump, id);
            for (entry, number) in book.entries.iter().zip(&numbers) {
                let row = &dump.schedules[number];
                let runs = entry.schedule.max_runs.is_none() || row.runs == entry.runs;
                if row.active != entry.active || row.watermark != entry.watermark || !runs {
                    return Err(format!(
                        "schedule {number} of {id} is {row:?}, not active {} at {} with {} runs",
                        entry.active, entry.watermark, entry.runs
                    ));
                }
            }
            if numbers.len() != book.entries.len() {
                return Err(format!(
                    "agent {id} has {} schedules, not {}",
                    numbers.len(),
                    book.entries.len()
                ));
            }
        }
        Ok(())
    }

    /// Every run has its cause, and what has ended stays as it was.
    pub fn check_causes(&self, dump: &Dump) -> Checked {
        let of_slots: BTreeMap<i64, i64> = self
            .ledger
            .iter()
            .flat_map(|(schedule, rows)| rows.values().map(move |row| (row, *schedule)))
            .filter_map(
                |((outcome, _), schedule)| {
                    if let Outcome::Run(run) = outcome { Some((*run, schedule)) } else { None }
                },
            )
            .collect();
        for (number, row) in &dump.runs {
            let caused = match row.schedule {
                Some(schedule) => of_slots.get(number) == Some(&schedule) || self.early.contains(number),
                None => self.manual.contains(number),
            };
            if !caused {
                return Err(format!("a run without a cause: {row:?}"));
            }
            if self.ended.get(number).is_some_and(|then| then != row) {
                return Err(format!("a run that had ended was changed: {row:?}"));
            }
        }
        match self.ended.keys().chain(self.open.keys()).find(|n| !dump.runs.contains_key(n)) {
            Some(number) => Err(format!("run {number} is gone")),
            None => Ok(()),
        }
    }

    /// States go one way: waiting, under way, ended once.
    pub fn check_states(dump: &Dump) -> Checked {
        let mut states: BTreeMap<i64, &str> = BTreeMap::new();
        for (run, state, _) in &dump.transitions {
            let before = states.insert(*run, state);
            let fits = match before {
                None => state == "PENDING",
                // Back to waiting: a launcher that was held when the daemon died.
                Some("PENDING") => state != "COMPLETED" && state != "PENDING",
                Some("RUNNING") => true,
                Some(_) => false,
            };
            if !fits {
                return Err(format!("run {run} goes from {before:?} to {state}"));
            }
        }
        for (number, row) in &dump.runs {
            let failed = dump.attempts.get(number).map_or(&[][..], Vec::as_slice);
            let contiguous = failed.iter().zip(1..).all(|((n, ..), expected)| *n == expected);
            let kept = i64::try_from(failed.len()).unwrap();
            if states.get(number) != Some(&row.state.as_str())
                || !contiguous
                || row.attempt < kept
                || row.attempt > kept + 1
            {
                return Err(format!(
                    "{row:?} with failed attempts {failed:?}, last said to be {:?}",
                    states.get(number)
                ));
            }
        }
        Ok(())
    }

    /// No limit is passed, nothing waits that could start, and programs and rows agree.
    pub fn check_progress(&self, dump: &Dump, world: &World) -> Checked {
        let now = world.now();
        let under_way: Vec<&Run> = dump.runs.values().filter(|r| r.under_way()).collect();
        let catch_ups = under_way.iter().filter(|r| r.class == 3).count();
        if under_way.len() > self.scenario.max_running || catch_ups > 1 {
            return Err(format!("{} runs are under way, {catch_ups} of them catch-ups", under_way.len()));
        }
        let pool = |run: &Run| under_way.iter().filter(|r| r.pool.is_some() && r.pool == run.pool).count();
        let places =
            |run: &Run| POOLS.iter().find(|(name, _)| run.pool.as_deref() == Some(name)).map(|(_, n)| *n);
        let beside = |run: &Run| -> i64 {
            let same = |r: &&&Run| match &run.key {
                Some(key) => r.key.as_ref() == Some(key),
                None => r.agent == run.agent,
            };
            i64::try_from(under_way.iter().filter(same).count()).unwrap()
        };
        let running = world.launchers.running();
        for run in &under_way {
            if !running.iter().any(|(own, n)| *own == id(run) && i64::from(*n) == run.attempt) {
                return Err(format!("no program of {run:?} runs"));
            }
            if places(run).is_some_and(|n| pool(run) > n) {
                return Err(format!("pool of {run:?} is overfull"));
            }
            // The last that started saw all the others.
            let patient = |r: &&&Run| {
                let same = if run.key.is_some() { r.key == run.key } else { r.agent == run.agent };
                same && r.most.is_none_or(|most| most >= beside(r))
            };
            if !under_way.iter().any(|r| patient(&r)) {
                return Err(format!("{run:?} runs beside {} others", beside(run) - 1));
            }
        }
        if running.len() != under_way.len() {
            return Err(format!("{} programs run for {} runs", running.len(), under_way.len()));
        }
        for run in dump.runs.values().filter(|r| !r.ended() && r.claimed.is_none()) {
            if run.started.is_none() && run.deadline.is_some_and(|d| d < now) {
                // It is looked for each second: a look that was under way when the clock moved misses it.
                if self.overdue.get(&run.number).is_some_and(|looks| *looks > 5) {
                    return Err(format!("its deadline is over and it waits at {now}: {run:?}"));
                }
                continue;
            }
            let blocked = run.not_before.is_some_and(|at| at > now)
                || under_way.len() >= self.scenario.max_running
                || (run.class == 3 && catch_ups > 0)
                || run.most.is_some_and(|most| beside(run) >= most)
                || places(run).is_some_and(|n| pool(run) >= n);
            if !blocked {
                return Err(format!("it could start and waits at {now}: {run:?}"));
            }
            self.check_wait(run, dump)?;
        }
        world.launchers.wrong().map_or(Ok(()), Err)
    }

    /// The wait between two attempts.
    fn check_wait(&self, run: &Run, dump: &Dump) -> Checked {
        let Some((n, ended, code)) = dump.attempts.get(&run.number).and_then(|a| a.last()) else {
            return Ok(());
        };
        let retry = self.definitions[&run.number].retry.clone();
        let initial = retry.map_or(30, |r| r.initial_s);
        #[expect(clippy::cast_precision_loss, reason = "some seconds")]
        let plain = ((initial << (n - 1)) as f64).min(900.0);
        let wait = spread_ms(plain);
        let exact = run.not_before.is_some_and(|at| (at - ended - wait).abs() <= 1);
        // A launcher that was held when the daemon died, and a clock that was set back, end a wait.
        let now = run.not_before.is_some_and(|at| at <= run.updated);
        if exact || now || self.rewound {
            Ok(())
        } else {
            Err(format!(
                "{run:?} waits {:?} after attempt {n} ({code}), not {wait}",
                run.not_before.map(|at| at - ended)
            ))
        }
    }

    /// The outbox: a row for each endpoint that hears of an end, attempts by the back-off.
    pub fn check_outbox(&self, dump: &Dump, world: &World) -> Checked {
        let mut of_runs: BTreeMap<i64, Vec<(&str, &str)>> = BTreeMap::new();
        for delivery in dump.deliveries.values() {
            let run = delivery.run.ok_or_else(|| format!("a message of no run: {delivery:?}"))?;
            of_runs.entry(run).or_default().push((&delivery.kind, &delivery.url));
        }
        for (number, run) in &self.ended {
            let kind = if run.state == "COMPLETED" { "run.completed" } else { "run.failed" };
            let hears =
                |(_, good, bad): &&(usize, bool, bool)| if run.state == "COMPLETED" { *good } else { *bad };
            let hooks = self.definitions[number].hooks.iter().filter(hears);
            let wanted: Vec<(&str, &str)> =
                hooks.map(|(n, ..)| (kind, world.receivers.urls[*n].as_str())).collect();
            let mut found = of_runs.remove(number).unwrap_or_default();
            found.sort_by_key(|(_, url)| world.receivers.urls.iter().position(|u| u == url));
            if found != wanted {
                return Err(format!("run {number} tells {found:?}, not {wanted:?}"));
            }
        }
        if let Some(run) = of_runs.keys().next() {
            return Err(format!("run {run} tells of its end and has none"));
        }
        dump.deliveries.values().try_for_each(|delivery| self.check_delivery(delivery, dump, world))
    }

    fn check_delivery(&self, delivery: &super::dump::Delivery, dump: &Dump, world: &World) -> Checked {
        let wrong = |what: &str| Err(format!("{what} at {}: {delivery:?}", world.now()));
        let mut due = delivery.created;
        for (n, (at, took, status)) in delivery.attempts.iter().enumerate() {
            if *at < due && !self.set_back {
                return wrong("an attempt came before its time");
            }
            let later = if *status == Some(503) { ms(i64::try_from(LATER_S).unwrap()) } else { 0 };
            due = at + took + BACK_OFF_S.get(n + 1).map_or(0, |s| spread_ms(*s)).max(later);
        }
        let (came, taken) = world.receivers.seen(&delivery.url, &delivery.id);
        let attempts = u32::try_from(delivery.attempts.len()).unwrap();
        let last = delivery.attempts.last().and_then(|(.., status)| *status);
        let disabled = dump.disabled.contains(&delivery.url);
        // A message that failed once is not tried again where no agent names its endpoint any more.
        let place = world.receivers.urls.iter().position(|u| *u == delivery.url).unwrap();
        let unnamed = !self.scenario.agents.iter().any(|a| a.hooks.iter().any(|(hook, ..)| *hook == place));
        let unsent = delivery.attempts.last().is_some_and(|(_, took, status)| *took == 0 && status.is_none());
        let given_up = unnamed && unsent && attempts > 1;
        let state = match last {
            Some(204) => "DELIVERED",
            Some(410) => "EXHAUSTED",
            _ if attempts >= 8 || disabled || given_up => "EXHAUSTED",
            _ => "PENDING",
        };
        // An attempt without an answer may have ended before it got there.
        let answered = delivery.attempts.iter().filter(|(.., status)| status.is_some()).count();
        if delivery.state != state || usize::try_from(came).unwrap() < answered {
            return wrong(&format!("it must be {state}, it came in {came} times"));
        }
        if state == "DELIVERED" && taken == 0 {
            return wrong("nobody has it");
        }
        if state == "PENDING" {
            if !self.rewound && delivery.next_at.is_none_or(|at| (at - due).abs() > 2) {
                return wrong(&format!("it must be due at {due}"));
            }
            // One that an endpoint does not answer stays so; every other is awaited.
            let stays = world.receivers.mode(place) == Mode::Hangs && world.receivers.held(place) > 0;
            if delivery.next_at.is_some_and(|at| at <= world.now()) && !stays {
                return wrong("it is due and not on its way");
            }
        }
        Ok(())
    }
}

/// Whether a slot lies beyond 200 changes between excluded and not of one pass: these are not told apart.
fn is_far(rows: &BTreeMap<i64, Row>, at: i64) -> bool {
    let decided = rows[&at].1;
    let newer = rows.range(at..).take_while(|(_, row)| row.1 == decided);
    let excluded: Vec<bool> = newer.map(|(_, row)| row.0 == Outcome::Not("excluded")).collect();
    excluded.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 199
}

fn succeed(book: &mut Book, probe_after: Option<i64>) {
    book.failures = 0;
    if probe_after.is_some() && book.paused == Some("breaker") {
        (book.paused, book.probe_at) = (None, None);
    }
}

fn fail(book: &mut Book, most: i64, probe_after: Option<i64>, at: i64) {
    book.failures += 1;
    let probe = probe_after.map(|s| at + ms(s));
    match book.paused {
        Some("breaker") => book.probe_at = book.probe_at.or(probe),
        None if most > 0 && book.failures >= most => {
            (book.paused, book.paused_at, book.probe_at) = (Some("breaker"), at, probe);
        }
        _ => {}
    }
}
