//! Attempts inside a run: the failed ones, and the wait before the next.
//!
//! Between two attempts a run is RUNNING, unclaimed, and says when it goes on (`not_before`). That is one
//! row in the same queue as everything that waits, so the wait outlives the daemon, takes no place, and is
//! cancelled and claimed by the statements that cancel and claim the rest. `not_before` stays until the next
//! attempt has started: a claimed run with it has no living launcher, whatever its row says of the last one.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store, json, notes, run_id, spends, to_json};
use crate::ids::{Epoch, RunId};
use crate::model::{Failure, Outcome, RunState, Usage};

/// A failed attempt that is followed by another.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The run's number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The epoch that is held.
    pub epoch: Epoch,
    /// How the attempt ended, with what all attempts so far consumed.
    pub outcome: Outcome,
    /// Its failure.
    pub failure: Failure,
    /// When it ended, Unix ms.
    pub at_ms: i64,
    /// When the next one may start, Unix ms.
    pub not_before_ms: i64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// The run waits.
    Waits,
    /// Its end had been asked for: nothing was written, it must be finished.
    Cancelled,
}

/// One failed attempt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAttempt {
    /// Its number, from 1.
    pub attempt: i64,
    /// When it began, Unix ms.
    pub started_at_ms: i64,
    /// When it ended, Unix ms; `None`: it has not.
    pub ended_at_ms: Option<i64>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it failed; `None`: it did not, or has not ended.
    pub failure: Option<Failure>,
}

/// What the attempts before consumed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Tokens.
    pub usage: Option<Usage>,
    /// US dollars.
    pub cost_usd: Option<f64>,
}

impl Store {
    /// RUNNING -> RUNNING: keeps the failed attempt and lets the run wait for the next, in one transaction.
    pub async fn retry(&self, retry: Retry) -> Result<Retried, Error> {
        self.writer.write(move |db| wait(db, &retry)).await
    }

    /// A run's id and how many attempts it has begun, by its number.
    pub async fn attempts_of(&self, number: i64) -> Result<Option<(RunId, u32)>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT id, attempt FROM runs WHERE number = ?1";
                let row = db.prepare_cached(sql)?.query_row([number], |r| Ok((run_id(r, "id")?, r.get(1)?)));
                Ok(row.optional()?)
            })
            .await
    }

    /// When a run's first attempt started, Unix ms.
    pub async fn first_start(&self, number: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT started_at FROM runs WHERE number = ?1";
        self.readers
            .read(move |db| {
                Ok(db.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()?.flatten())
            })
            .await
    }

    /// What the attempts of a run before the present one consumed.
    pub async fn spent(&self, number: i64) -> Result<Spent, Error> {
        let sql = "SELECT r.cost_usd, x.usage FROM runs r LEFT JOIN run_details x ON x.run = r.number WHERE r.number = ?1";
        self.readers
            .read(move |db| {
                let found = db.prepare_cached(sql)?.query_row([number], |row| {
                    Ok(Spent { cost_usd: row.get(0)?, usage: json(row, "usage")? })
                });
                Ok(found.optional()?.unwrap_or_default())
            })
            .await
    }

    /// The id of the schedule that a run, or the one that it repeats, is a slot of.
    pub async fn schedule_of(&self, number: i64) -> Result<Option<String>, Error> {
        let sql = "WITH RECURSIVE repeated (run) AS (
                     SELECT ?1 UNION SELECT r.retry_of FROM runs r JOIN repeated ON r.number = run
                                     WHERE r.retry_of IS NOT NULL)
                   SELECT s.id FROM repeated JOIN runs r ON r.number = run JOIN schedules s ON s.number = r.schedule";
        self.readers
            .read(move |db| Ok(db.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()?))
            .await
    }

    /// The newest success of an agent that was not gated: its run's number.
    pub async fn last_success(&self, agent: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT last_success FROM agents WHERE number = ?1";
        self.readers
            .read(move |db| {
                Ok(db.prepare_cached(sql)?.query_row([agent], |row| row.get(0)).optional()?.flatten())
            })
            .await
    }
}

fn wait(db: &Connection, retry: &Retry) -> Result<Retried, Error> {
    let Retry { number, id, epoch, outcome, failure, at_ms, not_before_ms } = retry;
    let sql = "UPDATE runs SET claimed_at = NULL, not_before = ?3, parked = 1, updated_at = ?4,
                      cost_usd = coalesce(?5, cost_usd),
                      browser_steps = iif(?6 IS NULL, browser_steps, coalesce(browser_steps, 0) + ?6),
                      browser_ms = iif(?7 IS NULL, browser_ms, coalesce(browser_ms, 0) + ?7)
               WHERE number = ?1 AND epoch = ?2 AND state = 'RUNNING' AND claimed_at IS NOT NULL AND cancel_by IS NULL";
    let (steps, ms) = outcome.browser.map(|(steps, ms)| (steps.cast_signed(), ms.cast_signed())).unzip();
    let values = params![number, epoch.0, not_before_ms, at_ms, outcome.known_cost(), steps, ms];
    let changed = db.prepare_cached(sql)?.execute(values)?;
    if changed == 0 {
        let sql =
            "SELECT cancel_by IS NOT NULL FROM runs WHERE number = ?1 AND epoch = ?2 AND state = 'RUNNING'";
        let cancelled = db.prepare_cached(sql)?.query_row(params![number, epoch.0], |row| row.get(0));
        return match cancelled.optional()? {
            Some(true) => Ok(Retried::Cancelled),
            _ => Err(Error::Stale { run: *id, epoch: *epoch }),
        };
    }
    let sql = "INSERT INTO attempts (run, attempt, epoch, started_at, ended_at, exit_code, signal, failure_code, explanation)
               SELECT number, attempt, epoch, coalesce(attempt_at, started_at), ?2, ?3, ?4, ?5, ?6 FROM runs WHERE number = ?1";
    db.prepare_cached(sql)?.execute(params![
        number,
        at_ms,
        outcome.exit_code,
        outcome.signal,
        failure.code,
        failure.explanation
    ])?;
    if let Some(usage) = &outcome.usage {
        let sql = "INSERT INTO run_details (run, usage) VALUES (?1, ?2)
                   ON CONFLICT (run) DO UPDATE SET usage = excluded.usage";
        db.prepare_cached(sql)?.execute(params![number, to_json("run_details", usage)?])?;
    }
    let agent = "SELECT agent FROM runs WHERE number = ?1";
    let agent = db.prepare_cached(agent)?.query_row([number], |row| row.get(0))?;
    spends::hold(db, *number, agent, outcome)?;
    notes::keep(db, agent, *number, &outcome.notes, *at_ms)?;
    super::run::transition(db, *number, RunState::Running, epoch.0, *at_ms)?;
    Ok(Retried::Waits)
}

/// The attempts of a run, oldest first; the present or last one is read from the run itself.
pub(super) fn of_run(db: &Connection, run: i64) -> Result<Vec<RunAttempt>, Error> {
    let sql = "SELECT attempt, started_at, ended_at, exit_code, signal, failure_code, explanation
               FROM attempts WHERE run = ?1 ORDER BY attempt";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement
        .query_map([run], |row| {
            let failure = Failure { code: row.get(5)?, explanation: row.get(6)? };
            Ok(RunAttempt {
                attempt: row.get(0)?,
                started_at_ms: row.get(1)?,
                ended_at_ms: row.get(2)?,
                exit_code: row.get(3)?,
                signal: row.get(4)?,
                failure: Some(failure),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let sql = "SELECT attempt, coalesce(attempt_at, started_at), completed_at, exit_code, signal, failure_code, explanation
               FROM runs WHERE number = ?1 AND attempt > ?2 AND started_at IS NOT NULL";
    let kept = rows.last().map_or(0, |row| row.attempt);
    let present = db.prepare_cached(sql)?.query_row(params![run, kept], |row| {
        let code: Option<String> = row.get(5)?;
        let explanation: Option<String> = row.get(6)?;
        let explanation = explanation.unwrap_or_default();
        Ok(RunAttempt {
            attempt: row.get(0)?,
            started_at_ms: row.get(1)?,
            ended_at_ms: row.get(2)?,
            exit_code: row.get(3)?,
            signal: row.get(4)?,
            failure: code.map(|code| Failure { code, explanation }),
        })
    });
    rows.extend(present.optional()?);
    Ok(rows)
}
