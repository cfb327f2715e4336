//! The circuit breaker of an agent: failed runs in a row pause it.
//!
//! The count moves in the transaction that ends a run, and so does the breaker: the run that opens it
//! is the last one whose slot was let through. While it is open and has a time to probe, one slot is
//! admitted from then on; how that run ends closes the breaker or opens it for another while.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, NewDelivery, outbox};
use crate::model::{Breaker, NotRun};
use crate::time::millis;

/// Who is said to have paused an agent whose breaker is open.
pub const BREAKER: &str = "breaker";

/// What the end of a run means for the breaker of its agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it should.
    Success,
    /// It failed by its own doing.
    Failure,
    /// Nothing: it was cancelled, interrupted, never started, or found nothing to do.
    #[default]
    Neither,
}

/// What the end of a run does to the breaker of its agent.
#[derive(Debug, Clone, Default)]
pub struct BreakerStep {
    /// What the end means.
    pub verdict: Verdict,
    /// The agent's rule.
    pub rule: Breaker,
    /// Why the agent is paused, if it is.
    pub reason: String,
    /// The messages that tell of it, if it is.
    pub deliveries: Vec<NewDelivery>,
    /// The messages of the run's end that say so, in place of the others, if it is.
    pub of_the_run: Vec<NewDelivery>,
}

/// Moves the breaker of `agent`; whether it has opened.
pub(super) fn step(db: &Connection, agent: i64, step: &BreakerStep, at_ms: i64) -> Result<bool, Error> {
    match step.verdict {
        Verdict::Success => succeed(db, agent, step.rule, at_ms).map(|()| false),
        Verdict::Failure => fail(db, agent, step, at_ms),
        Verdict::Neither => {
            // If it was the probe, the next slot is one.
            if step.rule.probe_after.is_some() {
                probe_from(db, agent, Some(at_ms))?;
            }
            Ok(false)
        }
    }
}

/// The count begins anew with what the agent remembers of each end; here only an open breaker closes.
fn succeed(db: &Connection, agent: i64, rule: Breaker, at_ms: i64) -> Result<(), Error> {
    if rule.probe_after.is_none() {
        return Ok(());
    }
    let sql = "UPDATE agents SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, probe_at = NULL, updated_at = ?3
               WHERE number = ?1 AND paused_by = ?2";
    db.prepare_cached(sql)?.execute(params![agent, BREAKER, at_ms])?;
    Ok(())
}

fn fail(db: &Connection, agent: i64, step: &BreakerStep, at_ms: i64) -> Result<bool, Error> {
    let sql = "UPDATE agents SET failures = failures + 1 WHERE number = ?1 RETURNING failures, paused_by";
    let moved = db
        .prepare_cached(sql)?
        .query_row([agent], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)))
        .optional()?;
    let Some((failures, paused_by)) = moved else { return Ok(false) };
    let probe_at = step.rule.probe_after.map(|after| at_ms.saturating_add(millis(after)));
    match paused_by.as_deref() {
        Some(BREAKER) => probe_from(db, agent, probe_at).map(|()| false),
        // Somebody paused it and decides when it goes on.
        Some(_) => Ok(false),
        None if step.rule.failures == 0 || failures < i64::from(step.rule.failures) => Ok(false),
        None => open(db, agent, step, probe_at, at_ms).map(|()| true),
    }
}

/// Sets the time of the next probe where none is set: one is on its way then.
fn probe_from(db: &Connection, agent: i64, at_ms: Option<i64>) -> Result<(), Error> {
    let sql = "UPDATE agents SET probe_at = ?3 WHERE number = ?1 AND paused_by = ?2 AND probe_at IS NULL";
    db.prepare_cached(sql)?.execute(params![agent, BREAKER, at_ms])?;
    Ok(())
}

fn open(
    db: &Connection,
    agent: i64,
    step: &BreakerStep,
    probe_at: Option<i64>,
    at_ms: i64,
) -> Result<(), Error> {
    let sql =
        "UPDATE agents SET paused_at = ?2, paused_by = ?3, pause_reason = ?4, probe_at = ?5, updated_at = ?2
               WHERE number = ?1 RETURNING id";
    let id: String = db
        .prepare_cached(sql)?
        .query_row(params![agent, at_ms, BREAKER, step.reason, probe_at], |row| row.get(0))?;
    let sql = "INSERT INTO notices (at, kind, text) VALUES (?1, 'breaker_opened', ?2)";
    db.prepare_cached(sql)?.execute(params![at_ms, format!("agent {id} is paused: {}", step.reason)])?;
    for delivery in &step.deliveries {
        outbox::insert(db, delivery, None, at_ms)?;
    }
    Ok(())
}

/// What a pause says to a slot: why it does not run, or that it may as a probe.
pub(super) fn gate(paused_by: Option<&str>, probe_at: Option<i64>, now_ms: i64) -> (Option<NotRun>, bool) {
    match paused_by {
        None => (None, false),
        Some(BREAKER) if probe_at.is_some_and(|at| at <= now_ms) => (None, true),
        Some(BREAKER) => (Some(NotRun::Breaker), false),
        Some(_) => (Some(NotRun::Paused), false),
    }
}

/// A probe is on its way: the slots after it wait for its end.
pub(super) fn probe(db: &Connection, agent: i64) -> Result<(), Error> {
    db.prepare_cached("UPDATE agents SET probe_at = NULL WHERE number = ?1")?.execute([agent])?;
    Ok(())
}
