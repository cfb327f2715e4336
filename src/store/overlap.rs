//! Runs that stand in each other's way: those of one agent or, where it has a concurrency key, those
//! of the same key, of whichever agent. Runs of a backfill stand in nobody's way: the present neither
//! is left out for the past nor ends it, it waits for the one that is under way.
//!
//! Who is in the way and what becomes of him is decided in the transaction that admits the new run.
//! A waiting run that has to go is claimed for its end there: nobody can start it any more, its row
//! names the run that took its place, and whoever admitted ends it right after, with its messages. A
//! crash in between leaves a row that says so, and [`Store::unfinished`] finds it.

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::{Error, NewRun, Store, run_id};
use crate::ids::{Epoch, RunId};
use crate::model::Overlap;

/// A claim that was taken to end a run that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The run's number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The epoch of the claim.
    pub epoch: Epoch,
}

/// Why a waiting run is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// This newer run took its place.
    Displaced(RunId),
    /// This one asked for it.
    Cancelled(String),
}

/// What an admission has to clear away: written already, still to be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Waiting runs, claimed for their end.
    pub gone: Vec<(Claim, Gone)>,
    /// Runs under way whose end is asked for.
    pub asked: Vec<RunId>,
    /// Runs under way that are killed.
    pub killed: Vec<RunId>,
}

impl Way {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.asked.is_empty() && self.killed.is_empty()
    }
}

/// Where runs stand in each other's way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    Agent(i64),
    Key(&'a str),
}

impl<'a> Scope<'a> {
    pub(super) fn of(run: &'a NewRun) -> Self {
        run.concurrency.as_deref().map_or(Self::Agent(run.agent), Self::Key)
    }

    fn value(&self) -> &dyn ToSql {
        match self {
            Self::Agent(number) => number,
            Self::Key(key) => key,
        }
    }

    /// A run of it that has not ended.
    pub(super) fn active(self, db: &Connection) -> Result<Option<i64>, Error> {
        let sql = match self {
            Self::Agent(_) => {
                "SELECT number FROM runs WHERE agent = ?1 AND completed_at IS NULL AND backfill = 0 LIMIT 1"
            }
            Self::Key(_) => {
                "SELECT number FROM runs INDEXED BY runs_by_key
                 WHERE concurrency = ?1 AND concurrency IS NOT NULL AND completed_at IS NULL AND backfill = 0 LIMIT 1"
            }
        };
        Ok(db.prepare_cached(sql)?.query_row([self.value()], |row| row.get(0)).optional()?)
    }

    /// Whether as many runs wait as may wait.
    pub(super) fn is_full(self, db: &Connection) -> Result<bool, Error> {
        let sql = match self {
            Self::Agent(_) => {
                "SELECT count(*) FROM runs
                 WHERE agent = ?1 AND completed_at IS NULL AND claimed_at IS NULL AND backfill = 0"
            }
            Self::Key(_) => {
                "SELECT count(*) FROM runs INDEXED BY runs_by_key
                 WHERE concurrency = ?1 AND concurrency IS NOT NULL AND completed_at IS NULL AND claimed_at IS NULL
                   AND backfill = 0"
            }
        };
        let waiting: i64 = db.prepare_cached(sql)?.query_row([self.value()], |row| row.get(0))?;
        Ok(waiting >= Overlap::QUEUE_CAP)
    }
}

/// Clears away what `run`, just admitted as `number`, does not stand beside. To be called only where
/// something is in its way.
pub(super) fn clear(
    db: &Connection,
    run: &NewRun,
    number: i64,
    now_ms: i64,
    way: &mut Way,
) -> Result<(), Error> {
    match run.overlap {
        Overlap::Skip | Overlap::Queue | Overlap::Allow => Ok(()),
        Overlap::QueueOne => displace(db, run, number, now_ms, way),
        Overlap::CancelPrevious | Overlap::Replace => {
            displace(db, run, number, now_ms, way)?;
            cancel(db, run, number, now_ms, way)
        }
    }
}

/// The condition of a scope on `runs`, with `?1` its value: who is displaced or cancelled is in it.
fn within(run: &NewRun) -> &'static str {
    match Scope::of(run) {
        Scope::Agent(_) => "backfill = 0 AND agent = ?1",
        Scope::Key(_) => "backfill = 0 AND concurrency IS NOT NULL AND concurrency = ?1",
    }
}

/// Waiting runs give up their place. Under `queue_one` only those that were admitted under it: what
/// a person has queued does not vanish because a slot came due.
fn displace(db: &Connection, run: &NewRun, number: i64, now_ms: i64, way: &mut Way) -> Result<(), Error> {
    let which = if run.overlap == Overlap::QueueOne { "AND overlap = 'queue_one'" } else { "" };
    let sql = format!(
        "UPDATE runs SET claimed_at = ?3, epoch = epoch + 1, displaced_by = ?2, updated_at = ?3
         WHERE {} AND completed_at IS NULL AND claimed_at IS NULL AND state = 'PENDING' AND number <> ?2 {which}
         RETURNING number, id, epoch",
        within(run)
    );
    let mut statement = db.prepare_cached(&sql)?;
    let scope = Scope::of(run);
    let rows = statement.query_map(params![scope.value(), number, now_ms], claim)?;
    for claim in rows {
        way.gone.push((claim?, Gone::Displaced(run.id)));
    }
    Ok(())
}

/// Runs under way are asked to end, and those between two attempts are ended.
fn cancel(db: &Connection, run: &NewRun, number: i64, now_ms: i64, way: &mut Way) -> Result<(), Error> {
    let sql = "SELECT id FROM agents WHERE number = ?1";
    let agent: String = db.prepare_cached(sql)?.query_row([run.agent], |row| row.get(0))?;
    let by = format!("a newer run of {agent}");
    let scope = Scope::of(run);
    let sql = format!(
        "UPDATE runs SET cancel_by = coalesce(cancel_by, ?4), cancel_at = coalesce(cancel_at, ?3), updated_at = ?3
         WHERE {} AND completed_at IS NULL AND claimed_at IS NOT NULL AND displaced_by IS NULL AND number <> ?2
         RETURNING id",
        within(run)
    );
    let mut statement = db.prepare_cached(&sql)?;
    let ids = statement.query_map(params![scope.value(), number, now_ms, by], |row| run_id(row, "id"))?;
    let told = if run.overlap == Overlap::Replace { &mut way.killed } else { &mut way.asked };
    for id in ids {
        told.push(id?);
    }
    let sql = format!(
        "UPDATE runs SET cancel_by = ?4, cancel_at = ?3, claimed_at = ?3, epoch = epoch + 1, updated_at = ?3
         WHERE {} AND completed_at IS NULL AND claimed_at IS NULL AND state = 'RUNNING' AND number <> ?2
         RETURNING number, id, epoch",
        within(run)
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![scope.value(), number, now_ms, by], claim)?;
    for claim in rows {
        way.gone.push((claim?, Gone::Cancelled(by.clone())));
    }
    Ok(())
}

fn claim(row: &Row<'_>) -> Result<Claim, rusqlite::Error> {
    Ok(Claim { number: row.get("number")?, id: run_id(row, "id")?, epoch: Epoch(row.get("epoch")?) })
}

impl Store {
    /// Runs that were claimed before `before_ms` to be ended and have not ended: whoever had to end
    /// them died or failed.
    pub async fn unfinished(&self, before_ms: i64) -> Result<Vec<(Claim, Gone)>, Error> {
        self.readers.read(move |db| unfinished(db, before_ms)).await
    }
}

pub(super) fn unfinished(db: &Connection, before_ms: i64) -> Result<Vec<(Claim, Gone)>, Error> {
    let sql = "SELECT r.number, r.id, r.epoch, r.cancel_by, n.id AS newer FROM runs r
               LEFT JOIN runs n ON n.number = r.displaced_by
               WHERE r.completed_at IS NULL AND r.claimed_at IS NOT NULL AND (r.state = 'PENDING' OR r.not_before IS NOT NULL)
                 AND (r.cancel_by IS NOT NULL OR r.displaced_by IS NOT NULL) AND r.updated_at < ?1";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([before_ms], |row| {
        let newer = row.get::<_, Option<Vec<u8>>>("newer")?.and_then(|bytes| RunId::from_slice(&bytes));
        let by: Option<String> = row.get("cancel_by")?;
        let why = newer.map_or_else(|| Gone::Cancelled(by.unwrap_or_default()), Gone::Displaced);
        Ok((claim(row)?, why))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
