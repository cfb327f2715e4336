//! Admission: the only place where a run is born.
//!
//! A schedule's pass is admitted as a whole: the watermark moves from exactly the value that the
//! pass was computed from, and the slots up to it get their rows, in one transaction. If the
//! watermark has moved meanwhile the pass is void and changes nothing. So no slot is decided twice,
//! and none is passed over.
//!
//! Whether a slot runs beside, behind or instead of another run is decided here, where no other
//! write can come in between.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::idempotency::{self, Used};
use super::overlap::{Scope, clear};
use super::{
    Budgets, Error, IdempotencyKey, LostSlots, Store, TellLost, UsedUp, Way, archives, breaker, budget,
    outbox, sessions, to_json, uploads,
};
use crate::ids::{FileId, RunId};
use crate::model::{NotRun, Overlap, Overrides, Priority, Trigger, Window};

/// What a run needs to be born.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The agent's number.
    pub agent: i64,
    /// The definition's number.
    pub definition: i64,
    /// What it does when the agent is busy.
    pub overlap: Overlap,
    /// Runs at once under `queue` and `allow`; `None` is one under `queue`, unbounded under `allow`.
    pub max_concurrent: Option<u32>,
    /// Runs of this key stand in its way, of whichever agent; `None`: those of its agent.
    pub concurrency: Option<String>,
    /// Pool in which it takes a place.
    pub pool: Option<String>,
    /// Its order among those that wait; that of a catch-up is the last.
    pub priority: Priority,
    /// Unix ms after which it may no longer start.
    pub start_deadline_ms: Option<i64>,
    /// Unix ms before which it may not start.
    pub not_before_ms: Option<i64>,
    /// The run that it repeats.
    pub retry_of: Option<i64>,
    /// What may be used up in a day; nothing is counted where none says so.
    pub budgets: Budgets,
}

impl NewRun {
    /// A run that asks for nothing but its place in the queue of its agent.
    #[must_use]
    pub fn plain(id: RunId, agent: i64, definition: i64, overlap: Overlap) -> Self {
        Self {
            id,
            agent,
            definition,
            overlap,
            max_concurrent: None,
            concurrency: None,
            pool: None,
            priority: Priority::Normal,
            start_deadline_ms: None,
            not_before_ms: None,
            retry_of: None,
            budgets: Budgets::default(),
        }
    }

    /// Runs that may be under way in its scope, itself included; `None`: any number.
    fn most(&self) -> Option<u32> {
        match self.overlap {
            Overlap::Allow => self.max_concurrent,
            Overlap::Queue => Some(self.max_concurrent.unwrap_or(1)),
            Overlap::Skip | Overlap::QueueOne | Overlap::CancelPrevious | Overlap::Replace => Some(1),
        }
    }
}

/// What the plan wants done with one slot, or one stretch of slots.
#[derive(Debug, Clone)]
pub enum Choice {
    /// Run it, unless the agent is paused, busy or its queue is full.
    Run(Box<SlotRun>),
    /// Leave it out.
    NotRun {
        /// First nominal instant, Unix ms.
        nominal_ms: i64,
        /// Last nominal instant, Unix ms.
        until_ms: i64,
        /// Slots in the stretch.
        count: u64,
        /// Why.
        reason: NotRun,
        /// Whether the run of this very pass stands for it, as far as that comes to be.
        into_own_run: bool,
        /// A run of another schedule of the agent, earlier in the list of passes, that stands for it.
        into_pass: Option<usize>,
    },
}

impl Choice {
    /// Nominal instant of its first slot, Unix ms.
    #[must_use]
    pub fn nominal_ms(&self) -> i64 {
        match self {
            Self::Run(slot) => slot.window.end_ms,
            Self::NotRun { nominal_ms, .. } => *nominal_ms,
        }
    }
}

/// A slot that is to run.
#[derive(Debug, Clone)]
pub struct SlotRun {
    /// The run.
    pub run: NewRun,
    /// `Schedule` in time, `CatchUp` when made up for.
    pub trigger: Trigger,
    /// The nominal instants it stands for.
    pub window: Window,
}

/// One pass of one schedule.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The schedule's number.
    pub schedule: i64,
    /// The agent's number.
    pub agent: i64,
    /// The watermark that the pass was computed from.
    pub from_ms: i64,
    /// The watermark after it.
    pub to_ms: i64,
    /// Slots, ascending.
    pub choices: Vec<Choice>,
    /// Why every slot of it is left out, whatever the choices say.
    pub all_not_run: Option<NotRun>,
    /// Runs in all after which the schedule is over.
    pub max_runs: Option<u32>,
    /// Makes the messages of its slots that are lost.
    pub tell: Option<TellLost>,
}

/// What became of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It was written; the number of its run, where it made one.
    Done(Option<i64>),
    /// As `Done`, of a schedule that counts its runs: it made at least one, and they are so many now.
    /// Where these are all, later slots of the pass do not exist.
    Counted {
        /// The number of its last run.
        run: i64,
        /// Runs of the schedule.
        runs: u32,
    },
    /// The watermark was no longer where the pass began; nothing was written.
    Void,
}

/// What became of a list of passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admissions {
    /// One answer for each.
    pub each: Vec<Admitted>,
    /// What they have to clear away.
    pub way: Way,
}

/// A manual trigger.
#[derive(Debug, Clone)]
pub struct Manual {
    /// The run.
    pub run: NewRun,
    /// Who asked.
    pub user: Option<String>,
    /// What is changed for this run.
    pub overrides: Overrides,
    /// The caller's own name for what he asks.
    pub key: Option<IdempotencyKey>,
}

/// A run that a manual trigger made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualRun {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// Whether it was made by an earlier request of the same key.
    pub repeated: bool,
    /// What it has to clear away.
    pub way: Way,
}

/// Why a manual trigger made no run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManualRefusal {
    /// Under `skip`: this run is in the way.
    Overlap(RunId),
    /// As many runs wait as may wait.
    QueueFull,
    /// A budget is used up.
    Budget(UsedUp),
    /// The key was used for something else, of which this run came.
    KeyReused(RunId),
    /// A file that it was to get does not exist any more.
    NoFile(FileId),
}

impl Store {
    /// Admits passes in their order. The writer has them when this returns; the future is for its answer.
    pub fn admit_passes(
        &self,
        passes: Vec<Admission>,
        now_ms: i64,
    ) -> impl Future<Output = Result<Admissions, Error>> + Send + use<> {
        self.writer.write(move |db| {
            let mut done = Admissions { each: Vec::with_capacity(passes.len()), way: Way::default() };
            for pass in &passes {
                admit_pass(db, pass, &mut done, now_ms)?;
            }
            Ok(done)
        })
    }

    /// Admits a manual run.
    pub async fn admit_manual(
        &self,
        manual: Manual,
        now_ms: i64,
    ) -> Result<Result<ManualRun, ManualRefusal>, Error> {
        self.writer.write(move |db| admit_manual(db, &manual, now_ms)).await
    }
}

/// What an agent's slots meet.
struct Gate {
    /// Why none of them runs.
    closed: Option<NotRun>,
    /// Whether the next one that runs is the probe of an open breaker.
    probe: bool,
    /// A run of the agent that has not ended.
    active: Option<i64>,
}

fn gate(db: &Connection, agent: i64, now_ms: i64) -> Result<Gate, Error> {
    let sql = "SELECT paused_by, probe_at,
                      (SELECT number FROM runs WHERE agent = ?1 AND completed_at IS NULL AND backfill = 0 LIMIT 1)
               FROM agents WHERE number = ?1";
    let gate = db.prepare_cached(sql)?.query_row([agent], |row| {
        let (closed, probe) = breaker::gate(row.get_ref(0)?.as_str_or_null()?, row.get(1)?, now_ms);
        Ok(Gate { closed, probe, active: row.get(2)? })
    })?;
    Ok(gate)
}

fn admit_pass(db: &Connection, pass: &Admission, done: &mut Admissions, now_ms: i64) -> Result<(), Error> {
    let sql = "UPDATE schedules SET watermark = ?3 WHERE number = ?1 AND watermark = ?2 AND active = 1";
    if db.prepare_cached(sql)?.execute(params![pass.schedule, pass.from_ms, pass.to_ms])? != 1 {
        done.each.push(Admitted::Void);
        return Ok(());
    }
    decide(db, pass, done, now_ms)
}

/// Decides about the slots of a pass, whose watermark stands where it should.
pub(super) fn decide(
    db: &Connection,
    pass: &Admission,
    done: &mut Admissions,
    now_ms: i64,
) -> Result<(), Error> {
    let mut gate = gate(db, pass.agent, now_ms)?;
    let forced = pass.all_not_run.or(gate.closed);
    // The run first: coalesced slots name it.
    let mut own_run = None;
    let (mut last_ms, mut counted) = (None, None);
    for choice in &pass.choices {
        if let Choice::Run(slot) = choice {
            // Behind a probe the breaker is open again.
            let forced = pass.all_not_run.or(gate.closed);
            own_run = admit_slot(db, pass, slot, forced, &gate, &mut done.way, now_ms)?;
            if own_run.is_some() && std::mem::take(&mut gate.probe) {
                gate.closed = Some(NotRun::Breaker);
                breaker::probe(db, pass.agent)?;
            }
            if let (Some(run), Some(max)) = (own_run, pass.max_runs) {
                let runs = count_run(db, pass.schedule)?;
                counted = Some(Admitted::Counted { run, runs });
                if runs >= max {
                    last_ms = Some(slot.window.end_ms);
                    break;
                }
            }
        }
    }
    let exists = |choice: &&Choice| last_ms.is_none_or(|last| choice.nominal_ms() < last);
    for choice in pass.choices.iter().filter(exists) {
        if let Choice::NotRun { nominal_ms, until_ms, count, reason, into_own_run, into_pass } = choice {
            let other = into_pass.and_then(|index| done.each.get(index));
            let into = match other {
                Some(Admitted::Done(run)) => *run,
                Some(Admitted::Counted { run, .. }) => Some(*run),
                _ if *into_own_run => own_run,
                _ => None,
            };
            let stretch = Stretch { nominal_ms: *nominal_ms, until_ms: *until_ms, count: *count };
            // What is excluded would not have run whatever else was the matter.
            let reason = forced.filter(|_| *reason != NotRun::Excluded).unwrap_or(*reason);
            insert_not_run(db, pass.schedule, stretch, reason, into, now_ms)?;
        }
    }
    if forced.is_none() {
        tell_missed(db, pass, now_ms)?;
    }
    done.each.push(counted.unwrap_or(Admitted::Done(own_run)));
    Ok(())
}

/// Counts a run of a schedule that says how many it has.
fn count_run(db: &Connection, schedule: i64) -> Result<u32, Error> {
    let sql = "UPDATE schedules SET runs = runs + 1 WHERE number = ?1 RETURNING runs";
    Ok(db.prepare_cached(sql)?.query_row([schedule], |row| row.get(0))?)
}

/// What a pass finds lost is told of as one stretch.
fn tell_missed(db: &Connection, pass: &Admission, now_ms: i64) -> Result<(), Error> {
    let Some(tell) = &pass.tell else { return Ok(()) };
    let lost = pass.choices.iter().filter_map(|choice| match choice {
        Choice::NotRun { nominal_ms, until_ms, count, reason: NotRun::MissedWindow, .. } => {
            Some((*nominal_ms, *until_ms, *count))
        }
        _ => None,
    });
    let whole = lost.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1), a.2.saturating_add(b.2)));
    let Some((first_ms, last_ms, count)) = whole else { return Ok(()) };
    let reason = NotRun::MissedWindow;
    tell_lost(
        db,
        tell,
        &LostSlots { first_ms, last_ms, count, reason, in_the_way: None, since_ms: None },
        now_ms,
    )
}

fn tell_lost(db: &Connection, tell: &TellLost, lost: &LostSlots, now_ms: i64) -> Result<(), Error> {
    (tell.0)(lost).iter().try_for_each(|delivery| outbox::insert(db, delivery, None, now_ms))
}

/// Tells of a slot that this transaction left out.
fn tell_skipped(
    db: &Connection,
    agent: i64,
    tell: &TellLost,
    nominal_ms: i64,
    reason: NotRun,
    in_the_way: Option<i64>,
    now_ms: i64,
) -> Result<(), Error> {
    let id = |number| {
        let sql = "SELECT id FROM runs WHERE number = ?1";
        db.prepare_cached(sql)?.query_row([number], |row| super::run_id(row, "id")).optional()
    };
    let in_the_way = in_the_way.map(id).transpose()?.flatten();
    let since = "SELECT paused_at FROM agents WHERE number = ?1";
    let since_ms = match reason {
        NotRun::Breaker => db.prepare_cached(since)?.query_row([agent], |row| row.get(0))?,
        _ => None,
    };
    let lost =
        LostSlots { first_ms: nominal_ms, last_ms: nominal_ms, count: 1, reason, in_the_way, since_ms };
    tell_lost(db, tell, &lost, now_ms)
}

fn admit_slot(
    db: &Connection,
    pass: &Admission,
    slot: &SlotRun,
    forced: Option<NotRun>,
    gate: &Gate,
    way: &mut Way,
    now_ms: i64,
) -> Result<Option<i64>, Error> {
    let (schedule, nominal_ms) = (pass.schedule, slot.window.end_ms);
    let scope = Scope::of(&slot.run);
    let active = match scope {
        Scope::Agent(_) => gate.active,
        Scope::Key(_) if forced.is_none() => scope.active(db)?,
        Scope::Key(_) => None,
    };
    let refused = match (forced, slot.run.overlap) {
        (Some(reason), _) => Some((reason, None)),
        (None, Overlap::Skip) if active.is_some() => Some((NotRun::Overlap, active)),
        (None, Overlap::QueueOne | Overlap::Queue | Overlap::Allow) if scope.is_full(db)? => {
            Some((NotRun::QueueFull, active))
        }
        _ if budget::used_up(db, slot.run.agent, slot.run.budgets, now_ms)?.is_some() => {
            Some((NotRun::Budget, None))
        }
        _ => None,
    };
    if let Some((reason, evidence)) = refused {
        let stretch = Stretch { nominal_ms, until_ms: nominal_ms, count: 1 };
        insert_not_run(db, schedule, stretch, reason, evidence, now_ms)?;
        if let Some(tell) = &pass.tell {
            tell_skipped(db, pass.agent, tell, nominal_ms, reason, evidence, now_ms)?;
        }
        return Ok(None);
    }
    let run = insert_run(db, &slot.run, Some((schedule, slot)), None, now_ms)?;
    let sql = "INSERT INTO slots (schedule, nominal, until, count, outcome, run, decided_at)
               VALUES (?1, ?2, ?2, 1, 'run', ?3, ?4)";
    db.prepare_cached(sql)?.execute(params![schedule, nominal_ms, run, now_ms])?;
    super::tally::slots(None, 1, now_ms);
    if active.is_some() {
        clear(db, &slot.run, run, now_ms, way)?;
    }
    Ok(Some(run))
}

#[derive(Clone, Copy)]
struct Stretch {
    nominal_ms: i64,
    until_ms: i64,
    count: u64,
}

fn insert_not_run(
    db: &Connection,
    schedule: i64,
    stretch: Stretch,
    reason: NotRun,
    evidence: Option<i64>,
    now_ms: i64,
) -> Result<(), Error> {
    let sql = "INSERT INTO slots (schedule, nominal, until, count, outcome, reason, run, decided_at)
               VALUES (?1, ?2, ?3, ?4, 'not_run', ?5, ?6, ?7)";
    let count = i64::try_from(stretch.count).unwrap_or(i64::MAX);
    db.prepare_cached(sql)?.execute(params![
        schedule,
        stretch.nominal_ms,
        stretch.until_ms,
        count,
        reason.as_str(),
        evidence,
        now_ms
    ])?;
    super::tally::slots(Some(reason), stretch.count, now_ms);
    Ok(())
}

pub(super) fn insert_run(
    db: &Connection,
    run: &NewRun,
    slot: Option<(i64, &SlotRun)>,
    user: Option<&str>,
    now_ms: i64,
) -> Result<i64, Error> {
    let trigger = slot.map_or(Trigger::Manual, |(_, slot)| slot.trigger);
    let window = slot.map(|(_, slot)| slot.window);
    let backfill = trigger == Trigger::Backfill;
    // What was due long ago on purpose is not late.
    let lateness_ms = window.filter(|_| !backfill).map(|w| now_ms.saturating_sub(w.end_ms));
    let sql = "INSERT INTO runs (id, agent, definition, trigger, state, overlap, max_concurrent, concurrency, pool,
                                 priority, user, retry_of, schedule, nominal, window_start, window_slots, lateness_ms,
                                 start_deadline, not_before, parked, backfill, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, 'PENDING', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,
                       ?20, ?21, ?21)";
    db.prepare_cached(sql)?.execute(params![
        run.id.as_bytes().as_slice(),
        run.agent,
        run.definition,
        if backfill { Trigger::CatchUp } else { trigger }.as_str(),
        run.overlap.as_str(),
        run.most(),
        run.concurrency,
        run.pool,
        class(run.priority, trigger),
        user,
        run.retry_of,
        slot.map(|(schedule, _)| schedule),
        window.map(|w| w.end_ms),
        window.map(|w| w.start_ms),
        window.map(|w| i64::try_from(w.slots).unwrap_or(i64::MAX)),
        lateness_ms,
        run.start_deadline_ms,
        run.not_before_ms,
        run.not_before_ms.is_some_and(|at| at > now_ms),
        backfill,
        now_ms,
    ])?;
    let number = db.last_insert_rowid();
    super::run::transition(db, number, crate::model::RunState::Pending, 0, now_ms)?;
    super::spends::reserve(db, number, run.agent, run.budgets)?;
    Ok(number)
}

/// The class in which it waits. The past goes last: making up for it must not delay the present.
fn class(priority: Priority, trigger: Trigger) -> i64 {
    match (trigger, priority) {
        (Trigger::CatchUp | Trigger::Backfill, _) => 3,
        (_, Priority::High) => 0,
        (_, Priority::Normal) => 1,
        (_, Priority::Low) => 2,
    }
}

pub(super) fn admit_manual(
    db: &Connection,
    manual: &Manual,
    now_ms: i64,
) -> Result<Result<ManualRun, ManualRefusal>, Error> {
    let run = &manual.run;
    if let Some(key) = &manual.key {
        match idempotency::used(db, run.agent, key, now_ms)? {
            Some(Used::Same(number, id)) => {
                return Ok(Ok(ManualRun { number, id, repeated: true, way: Way::default() }));
            }
            Some(Used::Other(id)) => return Ok(Err(ManualRefusal::KeyReused(id))),
            None => {}
        }
    }
    let (number, way) = match admit_new(db, manual, now_ms)? {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(key) = &manual.key {
        idempotency::keep(db, run.agent, key, number, now_ms)?;
    }
    Ok(Ok(ManualRun { number, id: run.id, repeated: false, way }))
}

fn admit_new(
    db: &Connection,
    manual: &Manual,
    now_ms: i64,
) -> Result<Result<(i64, Way), ManualRefusal>, Error> {
    let run = &manual.run;
    let scope = Scope::of(run);
    let active = match run.overlap {
        Overlap::Queue | Overlap::Allow => None,
        _ => scope.active(db)?,
    };
    match (run.overlap, active) {
        (Overlap::Skip, Some(number)) => {
            let sql = "SELECT id FROM runs WHERE number = ?1";
            let id = db.prepare_cached(sql)?.query_row([number], |row| super::run_id(row, "id"))?;
            return Ok(Err(ManualRefusal::Overlap(id)));
        }
        (Overlap::Queue | Overlap::QueueOne | Overlap::Allow, _) if scope.is_full(db)? => {
            return Ok(Err(ManualRefusal::QueueFull));
        }
        _ => {}
    }
    if let Some(used_up) = budget::used_up(db, run.agent, run.budgets, now_ms)? {
        return Ok(Err(ManualRefusal::Budget(used_up)));
    }
    let files = manual.overrides.files.as_deref().unwrap_or_default();
    if let Some(missing) = uploads::missing(db, files)? {
        return Ok(Err(ManualRefusal::NoFile(missing)));
    }
    let number = insert_run(db, run, None, manual.user.as_deref(), now_ms)?;
    let Overrides { session_id, execution_key, .. } = &manual.overrides;
    if session_id.is_some() || execution_key.is_some() {
        let sql = "UPDATE runs SET session = ?2, execution_key = ?3 WHERE number = ?1";
        db.prepare_cached(sql)?.execute(params![number, session_id, execution_key])?;
    }
    if let Some(session) = session_id {
        sessions::touch(db, number, session, now_ms)?;
    }
    uploads::attach(db, number, files)?;
    if manual.overrides.archive {
        archives::want(db, number)?;
    }
    if !manual.overrides.is_empty() {
        let body = to_json("run_details", &manual.overrides)?;
        let sql = "INSERT INTO run_details (run, overrides) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute(params![number, body])?;
    }
    let mut way = Way::default();
    if active.is_some() {
        clear(db, run, number, now_ms, &mut way)?;
    }
    Ok(Ok((number, way)))
}
