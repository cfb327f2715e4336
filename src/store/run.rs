//! The life of a run in statements, from its claim on: start, cancel, finish. Each names the state and the
//! epoch it moves from; zero changed rows is [`Error::Stale`], never silence.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    BreakerStep, Claim, Compared, Error, Finished, NewDelivery, Store, breaker, notes, outbox, previous,
    run_id, spends, to_json, word, workflows,
};
use crate::ids::{Epoch, RunId};
use crate::model::{Outcome, RunState, SeededSkill};
use crate::proc::Identity;

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
    /// What it does to the breaker of its agent.
    pub breaker: BreakerStep,
    /// Whether its result differs from that of the success before, where somebody asked.
    pub changed: Option<bool>,
    /// What the messages and `changed` were made from.
    pub compared: Compared,
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

/// Whether a run is still to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Wanted {
    /// It is, and was moved.
    Yes,
    /// Somebody asked for its end; it was not moved and is to be ended.
    No,
}

impl Store {
    /// Gives a claim back that came to nothing: the run waits again, unless its end was asked for.
    pub async fn unclaim(&self, number: i64, id: RunId, epoch: Epoch, now_ms: i64) -> Result<Wanted, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET claimed_at = NULL, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND cancel_by IS NULL
                             AND (state = 'PENDING' OR (state = 'RUNNING' AND not_before IS NOT NULL))";
                let changed = db.prepare_cached(sql)?.execute(params![number, epoch.0, now_ms])?;
                wanted(db, changed, number, id, epoch)
            })
            .await
    }

    /// PENDING -> RUNNING, or the next attempt of a run between two: stores the launcher's identity. Only
    /// then may the launcher be released. A run whose end was asked for after its claim does not start:
    /// the cancel may have come before there was anybody to tell.
    pub async fn start(
        &self,
        number: i64,
        id: RunId,
        epoch: Epoch,
        identity: Identity,
        skills: Vec<SeededSkill>,
        now_ms: i64,
    ) -> Result<Wanted, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET state = 'RUNNING', started_at = coalesce(started_at, ?3), attempt = attempt + 1, attempt_at = ?3,
                                  boot_id = ?4, pid = ?5, start_ticks = ?6, pidfd_inode = ?7, not_before = NULL, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND cancel_by IS NULL
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
                if wanted(db, changed, number, id, epoch)? == Wanted::No {
                    return Ok(Wanted::No);
                }
                if !skills.is_empty() {
                    let sql = "INSERT INTO run_details (run, skills) VALUES (?1, ?2)
                               ON CONFLICT (run) DO UPDATE SET skills = excluded.skills";
                    db.prepare_cached(sql)?.execute(params![number, to_json("run_details", &skills)?])?;
                }
                super::listing::note_start(db, number, now_ms)?;
                transition(db, number, RunState::Running, epoch.0, now_ms)?;
                Ok(Wanted::Yes)
            })
            .await
    }

    /// RUNNING -> PENDING: the launcher was never released, so nothing of the run has happened. A later
    /// attempt waits again as one. A run whose end was asked for stays as it is.
    pub async fn unstart(&self, number: i64, id: RunId, epoch: Epoch, now_ms: i64) -> Result<Wanted, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET state = iif(attempt > 1, 'RUNNING', 'PENDING'),
                                  started_at = iif(attempt > 1, started_at, NULL), claimed_at = NULL,
                                  not_before = iif(attempt > 1, ?3, NULL), attempt = attempt - 1, updated_at = ?3
                           WHERE number = ?1 AND epoch = ?2 AND state = 'RUNNING' AND not_before IS NULL
                             AND cancel_by IS NULL";
                let changed = db.prepare_cached(sql)?.execute(params![number, epoch.0, now_ms])?;
                if wanted(db, changed, number, id, epoch)? == Wanted::No {
                    return Ok(Wanted::No);
                }
                let state: RunState = db
                    .prepare_cached("SELECT state FROM runs WHERE number = ?1")?
                    .query_row([number], |row| word(row, "state"))?;
                transition(db, number, state, epoch.0, now_ms)?;
                Ok(Wanted::Yes)
            })
            .await
    }

    /// Ends a run: state, transition, attempt, result and outbox in one transaction. The only place
    /// where a run ends.
    pub async fn finish(&self, finish: impl Into<Arc<Finish>>) -> Result<Finished, Error> {
        let finish = finish.into();
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

/// After a move that a cancel prevents: whether it was made.
fn wanted(db: &Connection, changed: usize, number: i64, id: RunId, epoch: Epoch) -> Result<Wanted, Error> {
    if changed == 1 {
        return Ok(Wanted::Yes);
    }
    let sql = "SELECT 1 FROM runs WHERE number = ?1 AND epoch = ?2 AND completed_at IS NULL AND claimed_at IS NOT NULL
                                    AND cancel_by IS NOT NULL";
    let asked = db.prepare_cached(sql)?.exists(params![number, epoch.0])?;
    if asked { Ok(Wanted::No) } else { Err(Error::Stale { run: id, epoch }) }
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

const COMPLETE: &str =
    "UPDATE runs SET state = ?3, failure_code = ?4, explanation = ?5, final_model = ?6, steps = ?7,
        completed_at = ?8, updated_at = ?8, exit_code = ?9, signal = ?10, gated = ?11, changed = ?12,
        cost_usd = coalesce(?13, cost_usd), browser_steps = iif(?14 IS NULL, browser_steps, coalesce(browser_steps, 0) + ?14),
        browser_ms = iif(?15 IS NULL, browser_ms, coalesce(browser_ms, 0) + ?15), replay = ?16, saved_calls = ?17,
        saved_tokens = ?18
    WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND state = 'RUNNING'";
const FAIL: &str =
    "UPDATE runs SET state = ?3, failure_code = ?4, explanation = ?5, final_model = ?6, steps = ?7,
        completed_at = ?8, updated_at = ?8, exit_code = ?9, signal = ?10, gated = ?11, changed = ?12,
        cost_usd = coalesce(?13, cost_usd), browser_steps = iif(?14 IS NULL, browser_steps, coalesce(browser_steps, 0) + ?14),
        browser_ms = iif(?15 IS NULL, browser_ms, coalesce(browser_ms, 0) + ?15), replay = ?16, saved_calls = ?17,
        saved_tokens = ?18
    WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL AND state IN ('PENDING', 'RUNNING')";

fn end(db: &Connection, finish: &Finish) -> Result<Finished, Error> {
    let Finish { number, id, epoch, outcome, at_ms, .. } = finish;
    if !previous::is_current(db, *number, finish.compared)? {
        return Ok(Finished::Overtaken);
    }
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
        outcome.browser.map(|(steps, _)| steps.cast_signed()),
        outcome.browser.map(|(_, ms)| ms.cast_signed()),
        outcome.cached.replay.as_ref().map(|replay| to_json("runs", replay)).transpose()?,
        outcome.cached.saved_model_calls.map(u64::cast_signed),
        outcome.cached.saved_tokens.map(u64::cast_signed),
    ])?;
    changed_one(changed, *id, *epoch)?;
    transition(db, *number, outcome.state(), epoch.0, *at_ms)?;
    let sql = "SELECT agent, started_at FROM runs WHERE number = ?1";
    let (agent, started): (i64, Option<i64>) =
        db.prepare_cached(sql)?.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
    note_end(db, *number, agent, outcome, *at_ms)?;
    spends::settle(db, *number, agent, outcome, *at_ms)?;
    notes::keep(db, agent, *number, &outcome.notes, *at_ms)?;
    if let (None, Some(made)) = (&outcome.failure, &outcome.cached.made) {
        workflows::keep(db, agent, *number, made, *at_ms)?;
    }
    super::tally::ended(agent, outcome, started.map(|at| at_ms.saturating_sub(at)), *at_ms);
    if outcome.result.is_some() || outcome.usage.is_some() || outcome.log_error.is_some() {
        let result = outcome.result.as_ref().map(|r| to_json("run_details", r)).transpose()?;
        let usage = outcome.usage.as_ref().map(|u| to_json("run_details", u)).transpose()?;
        let sql = "INSERT INTO run_details (run, result, usage, log_error) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (run) DO UPDATE SET result = excluded.result, log_error = excluded.log_error,
                                                   usage = coalesce(excluded.usage, usage)";
        db.prepare_cached(sql)?.execute(params![number, result, usage, outcome.log_error])?;
    }
    let breaker_opened = breaker::step(db, agent, &finish.breaker, *at_ms)?;
    for delivery in if breaker_opened { &finish.breaker.of_the_run } else { &finish.deliveries } {
        outbox::insert(db, delivery, Some(*number), *at_ms)?;
    }
    Ok(Finished::Done { breaker_opened })
}

/// What the agent remembers of its runs.
fn note_end(db: &Connection, run: i64, agent: i64, outcome: &Outcome, at_ms: i64) -> Result<(), Error> {
    let success = outcome.failure.is_none() && !outcome.gated;
    let sql = "UPDATE agents SET last_ended_at = ?2, last_success = iif(?3, ?1, last_success),
                      last_success_at = iif(?3, ?2, last_success_at), failures = iif(?3, 0, failures),
                      recent = substr(?5 || recent, 1, ?6)
               WHERE number = ?4";
    let (letter, most) = (super::tally::letter(outcome), super::RECENT_MAX.cast_signed());
    db.prepare_cached(sql)?.execute(params![run, at_ms, success, agent, letter, most])?;
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
