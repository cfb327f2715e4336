//! The life of a run in statements: claim, start, cancel, finish. Each names the state and the
//! epoch it moves from; zero changed rows is [`Error::Stale`], never silence.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, NewDelivery, Store, json, outbox, run_id, to_json, word};
use crate::ids::{Epoch, RunId};
use crate::model::{Outcome, Overlap, Overrides, RunState, SeededSkill, Trigger, Window};
use crate::proc::Identity;

/// A run that was claimed for execution.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The agent's number.
    pub agent: i64,
    /// The definition's number.
    pub definition: i64,
    /// The epoch of this claim; every later write names it.
    pub epoch: Epoch,
    /// Number of the attempt that now begins, from 1.
    pub attempt: i64,
    /// What made it.
    pub trigger: Trigger,
    /// Who triggered it.
    pub user: Option<String>,
    /// Nominal instant, Unix ms.
    pub nominal_ms: Option<i64>,
    /// The slots it stands for.
    pub window: Option<Window>,
    /// When it was admitted, Unix ms.
    pub created_ms: Option<i64>,
    /// What the trigger changed.
    pub overrides: Overrides,
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The run's number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The epoch that is held.
    pub epoch: Epoch,
    /// How it ended.
    pub outcome: Outcome,
    /// The messages that tell of it.
    pub deliveries: Vec<NewDelivery>,
    /// Whether its result differs from that of the success before, where somebody asked.
    pub changed: Option<bool>,
    /// When it ended, Unix ms.
    pub at_ms: i64,
}

/// What a cancel met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The run had not started: it must now be finished as cancelled by whoever asked, under this epoch.
    Pending(Box<Claim>),
    /// The request is stored; the run's own task ends it.
    Running,
    /// It had ended already.
    Ended(RunState),
    /// No such run.
    Unknown,
}

/// A claim that was taken to end a run that never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The run's number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The epoch of the claim.
    pub epoch: Epoch,
}

impl Store {
    /// Claims up to `limit` runs that may start now, in the order of priority and age. At most
    /// `catch_ups` of them are catch-ups.
    pub async fn claim_next(
        &self,
        limit: usize,
        catch_ups: usize,
        now_ms: i64,
    ) -> Result<Vec<Claimed>, Error> {
        self.writer.write(move |db| claim_next(db, limit, catch_ups, now_ms)).await
    }

    /// Gives a claim back that came to nothing: the run waits again.
    pub async fn unclaim(&self, number: i64, id: RunId, epoch: Epoch, now_ms: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET claimed_at = NULL, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL
                             AND (state = 'PENDING' OR (state = 'RUNNING' AND not_before IS NOT NULL))";
                changed_one(db.prepare_cached(sql)?.execute(params![number, epoch.0, now_ms])?, id, epoch)
            })
            .await
    }

    /// PENDING -> RUNNING, or the next attempt of a run between two: stores the launcher's identity. Only
    /// then may the launcher be released.
    pub async fn start(
        &self,
        number: i64,
        id: RunId,
        epoch: Epoch,
        identity: Identity,
        skills: Vec<SeededSkill>,
        now_ms: i64,
    ) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET state = 'RUNNING', started_at = coalesce(started_at, ?3), attempt = attempt + 1, attempt_at = ?3,
                                  boot_id = ?4, pid = ?5, start_ticks = ?6, pidfd_inode = ?7, not_before = NULL, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL
                             AND (state = 'PENDING' OR (state = 'RUNNING' AND not_before IS NOT NULL))";
                let changed = db.prepare_cached(sql)?.execute(params![
                    number,
                    epoch.0,
                    now_ms,
                    identity.boot_id.as_str(),
                    identity.pid,
                    identity.start_ticks.cast_signed(),
                    identity.pidfd_inode.cast_signed(),
                ])?;
                changed_one(changed, id, epoch)?;
                if !skills.is_empty() {
                    let sql = "INSERT INTO run_details (run, skills) VALUES (?1, ?2)
                               ON CONFLICT (run) DO UPDATE SET skills = excluded.skills";
                    db.prepare_cached(sql)?.execute(params![number, to_json("run_details", &skills)?])?;
                }
                transition(db, number, RunState::Running, epoch.0, now_ms)
            })
            .await
    }

    /// RUNNING -> PENDING: the launcher was never released, so nothing of the run has happened. A later
    /// attempt waits again as one.
    pub async fn unstart(&self, number: i64, id: RunId, epoch: Epoch, now_ms: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET state = iif(attempt > 1, 'RUNNING', 'PENDING'),
                                  started_at = iif(attempt > 1, started_at, NULL), claimed_at = NULL,
                                  not_before = iif(attempt > 1, ?3, NULL), attempt = attempt - 1, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND state = 'RUNNING' AND not_before IS NULL";
                changed_one(db.prepare_cached(sql)?.execute(params![number, epoch.0, now_ms])?, id, epoch)?;
                let state: RunState = db
                    .prepare_cached("SELECT state FROM runs WHERE number = ?1")?
                    .query_row([number], |row| word(row, "state"))?;
                transition(db, number, state, epoch.0, now_ms)
            })
            .await
    }

    /// Ends a run: state, transition, attempt, result and outbox in one transaction. The only place
    /// where a run ends.
    pub async fn finish(&self, finish: Finish) -> Result<(), Error> {
        self.writer.write(move |db| end(db, &finish)).await
    }

    /// Stores that somebody wants the run ended. `by` is shown to people.
    pub async fn request_cancel(&self, id: RunId, by: String, now_ms: i64) -> Result<Cancelled, Error> {
        self.writer.write(move |db| request_cancel(db, id, &by, now_ms)).await
    }

    /// Claims every PENDING run whose start deadline has passed, so that the caller ends them.
    pub async fn claim_overdue(&self, now_ms: i64) -> Result<Vec<Claim>, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET claimed_at = ?1, epoch = epoch + 1, updated_at = ?1
                           WHERE completed_at IS NULL AND claimed_at IS NULL AND state = 'PENDING' AND start_deadline < ?1
                           RETURNING number, id, epoch";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([now_ms], |row| {
                    Ok(Claim { number: row.get(0)?, id: run_id(row, "id")?, epoch: Epoch(row.get(2)?) })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The earliest start deadline of a waiting run, Unix ms.
    pub async fn next_deadline(&self) -> Result<Option<i64>, Error> {
        let sql = "SELECT min(start_deadline) FROM runs
                   WHERE completed_at IS NULL AND claimed_at IS NULL AND state = 'PENDING'";
        self.readers.read(move |db| Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)).await
    }

    /// Who asked for the end of a run, if anybody did.
    pub async fn cancel_requested(&self, number: i64) -> Result<Option<String>, Error> {
        let sql = "SELECT cancel_by FROM runs WHERE number = ?1";
        self.readers
            .read(move |db| {
                Ok(db.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()?.flatten())
            })
            .await
    }
}

pub(super) fn changed_one(changed: usize, run: RunId, epoch: Epoch) -> Result<(), Error> {
    if changed == 1 { Ok(()) } else { Err(Error::Stale { run, epoch }) }
}

pub(super) fn transition(
    db: &Connection,
    run: i64,
    state: RunState,
    epoch: i64,
    at_ms: i64,
) -> Result<(), Error> {
    let sql = "INSERT INTO transitions (run, state, epoch, at) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute(params![run, state.as_str(), epoch, at_ms])?;
    Ok(())
}

struct Waiting {
    claimed: Claimed,
    overlap: Overlap,
    max_concurrent: Option<i64>,
}

fn claim_next(db: &Connection, limit: usize, catch_ups: usize, now_ms: i64) -> Result<Vec<Claimed>, Error> {
    let sql =
        "SELECT number, id, agent, definition, epoch + 1, attempt + 1, trigger, user, nominal, window_start,
                      window_slots, created_at, overlap, max_concurrent
               FROM runs INDEXED BY runs_queue
               WHERE completed_at IS NULL AND claimed_at IS NULL
                 AND (start_deadline IS NULL OR start_deadline >= ?1 OR state = 'RUNNING')
                 AND (not_before IS NULL OR not_before <= ?1)
               ORDER BY priority, number";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([now_ms])?;
    let mut room = Rooms::default();
    let mut picked = Vec::new();
    let mut left_catch_ups = catch_ups;
    while picked.len() < limit {
        let Some(row) = rows.next()? else { break };
        let waiting = waiting(row)?;
        let catch_up = waiting.claimed.trigger == Trigger::CatchUp;
        if (!catch_up || left_catch_ups > 0) && room.take(db, &waiting)? {
            left_catch_ups -= usize::from(catch_up);
            picked.push(waiting.claimed);
        }
    }
    drop(rows);
    for claimed in &mut picked {
        claim(db, claimed, now_ms)?;
    }
    Ok(picked)
}

fn waiting(row: &rusqlite::Row<'_>) -> Result<Waiting, rusqlite::Error> {
    let claimed = Claimed {
        number: row.get(0)?,
        id: run_id(row, "id")?,
        agent: row.get(2)?,
        definition: row.get(3)?,
        epoch: Epoch(row.get(4)?),
        attempt: row.get(5)?,
        trigger: word(row, "trigger")?,
        user: row.get(7)?,
        nominal_ms: row.get(8)?,
        window: window(row)?,
        created_ms: row.get(11)?,
        overrides: Overrides::default(),
    };
    Ok(Waiting { claimed, overlap: word(row, "overlap")?, max_concurrent: row.get(13)? })
}

/// Runs of each agent that are under way, counted once a pass.
#[derive(Default)]
struct Rooms(HashMap<i64, i64>);

impl Rooms {
    /// Whether one more run of the agent may start; if so it is counted.
    fn take(&mut self, db: &Connection, waiting: &Waiting) -> Result<bool, Error> {
        let most = match (waiting.max_concurrent, waiting.overlap) {
            (Some(most), _) => most,
            (None, Overlap::Allow) => return Ok(true),
            (None, _) => 1,
        };
        let under_way = match self.0.entry(waiting.claimed.agent) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let sql = "SELECT count(*) FROM runs INDEXED BY runs_active
                           WHERE agent = ?1 AND completed_at IS NULL AND claimed_at IS NOT NULL";
                unknown.insert(db.prepare_cached(sql)?.query_row([waiting.claimed.agent], |row| row.get(0))?)
            }
        };
        if *under_way >= most {
            return Ok(false);
        }
        *under_way += 1;
        Ok(true)
    }
}

/// Takes one waiting run. No RETURNING: it costs a table of its own each time.
fn claim(db: &Connection, claimed: &mut Claimed, now_ms: i64) -> Result<(), Error> {
    let sql = "UPDATE runs SET claimed_at = ?3, epoch = ?2, updated_at = ?3
               WHERE number = ?1 AND epoch = ?2 - 1 AND state IN ('PENDING', 'RUNNING') AND claimed_at IS NULL";
    let changed = db.prepare_cached(sql)?.execute(params![claimed.number, claimed.epoch.0, now_ms])?;
    changed_one(changed, claimed.id, claimed.epoch)?;
    if claimed.trigger == Trigger::Manual {
        let sql = "SELECT overrides FROM run_details WHERE run = ?1";
        let kept =
            db.prepare_cached(sql)?.query_row([claimed.number], |row| json(row, "overrides")).optional()?;
        claimed.overrides = kept.flatten().unwrap_or_default();
    }
    Ok(())
}

fn window(row: &rusqlite::Row<'_>) -> Result<Option<Window>, rusqlite::Error> {
    let (end, start, slots): (Option<i64>, Option<i64>, Option<i64>) =
        (row.get(8)?, row.get(9)?, row.get(10)?);
    Ok(match (start, end, slots) {
        (Some(start_ms), Some(end_ms), Some(slots)) => {
            Some(Window { start_ms, end_ms, slots: slots.cast_unsigned() })
        }
        _ => None,
    })
}

const COMPLETE: &str =
    "UPDATE runs SET state = ?3, failure_code = ?4, explanation = ?5, final_model = ?6, steps = ?7,
        completed_at = ?8, updated_at = ?8, exit_code = ?9, signal = ?10, gated = ?11, changed = ?12,
        cost_usd = coalesce(?13, cost_usd)
    WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND state = 'RUNNING'";
const FAIL: &str =
    "UPDATE runs SET state = ?3, failure_code = ?4, explanation = ?5, final_model = ?6, steps = ?7,
        completed_at = ?8, updated_at = ?8, exit_code = ?9, signal = ?10, gated = ?11, changed = ?12,
        cost_usd = coalesce(?13, cost_usd)
    WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND state IN ('PENDING', 'RUNNING')";

fn end(db: &Connection, finish: &Finish) -> Result<(), Error> {
    let Finish { number, id, epoch, outcome, at_ms, .. } = finish;
    // A run that never started can only fail; one that is RUNNING can end either way.
    let sql = if outcome.failure.is_some() { FAIL } else { COMPLETE };
    let changed = db.prepare_cached(sql)?.execute(params![
        number,
        epoch.0,
        outcome.state().as_str(),
        outcome.failure.as_ref().map(|f| f.code.as_str()),
        outcome.failure.as_ref().map(|f| f.explanation.as_str()),
        outcome.final_model,
        outcome.steps.map(u64::cast_signed),
        at_ms,
        outcome.exit_code,
        outcome.signal,
        outcome.gated,
        finish.changed,
        outcome.cost_usd,
    ])?;
    changed_one(changed, *id, *epoch)?;
    transition(db, *number, outcome.state(), epoch.0, *at_ms)?;
    note_end(db, *number, outcome, *at_ms)?;
    let started = "SELECT started_at FROM runs WHERE number = ?1";
    let started: Option<i64> = db.prepare_cached(started)?.query_row([number], |row| row.get(0))?;
    super::tally::ended(outcome.state(), started.map(|at| at_ms.saturating_sub(at)));
    if outcome.result.is_some() || outcome.usage.is_some() || outcome.log_error.is_some() {
        let result = outcome.result.as_ref().map(|r| to_json("run_details", r)).transpose()?;
        let usage = outcome.usage.as_ref().map(|u| to_json("run_details", u)).transpose()?;
        let sql = "INSERT INTO run_details (run, result, usage, log_error) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (run) DO UPDATE SET result = excluded.result, log_error = excluded.log_error,
                                                   usage = coalesce(excluded.usage, usage)";
        db.prepare_cached(sql)?.execute(params![number, result, usage, outcome.log_error])?;
    }
    for delivery in &finish.deliveries {
        outbox::insert(db, delivery, Some(*number), *at_ms)?;
    }
    Ok(())
}

/// What the agent remembers of its runs.
fn note_end(db: &Connection, run: i64, outcome: &Outcome, at_ms: i64) -> Result<(), Error> {
    let success = outcome.failure.is_none() && !outcome.gated;
    let sql = "UPDATE agents SET last_ended_at = ?2, last_success = iif(?3, ?1, last_success),
                      last_success_at = iif(?3, ?2, last_success_at)
               WHERE number = (SELECT agent FROM runs WHERE number = ?1)";
    db.prepare_cached(sql)?.execute(params![run, at_ms, success])?;
    Ok(())
}

fn request_cancel(db: &Connection, id: RunId, by: &str, now_ms: i64) -> Result<Cancelled, Error> {
    let sql = "SELECT number, state, claimed_at IS NULL FROM runs WHERE id = ?1";
    let found = db
        .prepare_cached(sql)?
        .query_row([id.as_bytes().as_slice()], |row| {
            Ok((row.get::<_, i64>(0)?, word::<RunState>(row, "state")?, row.get::<_, bool>(2)?))
        })
        .optional()?;
    let Some((number, state, unclaimed)) = found else {
        return Ok(Cancelled::Unknown);
    };
    if state.is_terminal() {
        return Ok(Cancelled::Ended(state));
    }
    let sql = "UPDATE runs SET cancel_by = coalesce(cancel_by, ?2), cancel_at = coalesce(cancel_at, ?3), updated_at = ?3,
                      epoch = epoch + ?4, claimed_at = coalesce(claimed_at, ?3)
               WHERE number = ?1 RETURNING epoch";
    let epoch = db
        .prepare_cached(sql)?
        .query_row(params![number, by, now_ms, i64::from(unclaimed)], |row| row.get(0))?;
    if unclaimed {
        return Ok(Cancelled::Pending(Box::new(Claim { number, id, epoch: Epoch(epoch) })));
    }
    Ok(Cancelled::Running)
}
