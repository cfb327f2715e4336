//! What came before a run of its agent: the question behind `notify: changed` and `recovered`.
//!
//! The answer makes a message, and with it a JSON diff, which is no work for the transaction that ends
//! the run. So it is read before, and the end names what it was compared with: where another run of the
//! agent has ended meanwhile the end is [`Finished::Overtaken`], nothing is written, and who asked
//! compares again. Two runs that end at once are therefore never both compared with the same one.

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use super::{Error, Store, json};

/// Ended runs among which the one that ended last is looked for: runs end in another order than they
/// were made, but not by much.
const RECENT: i64 = 100;

/// The run that the end of another was compared with, by its number; `None`: there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compared {
    /// Nobody asked.
    #[default]
    Nothing,
    /// The success before.
    Success(Option<i64>),
    /// The end before, whichever it was.
    Ended(Option<i64>),
}

/// What became of an end that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Finished {
    /// The run has ended.
    Done {
        /// Whether the breaker of its agent has opened by it.
        breaker_opened: bool,
    },
    /// What it was compared with is no longer what came before it: nothing was written.
    Overtaken,
}

impl Store {
    /// The newest other COMPLETED run of this run's agent, gated ones left out, and its structured
    /// result: null if it had none.
    pub async fn previous_result(&self, run: i64) -> Result<Option<(i64, Value)>, Error> {
        self.readers.read(move |db| previous_result(db, run)).await
    }

    /// The run of the same agent that ended last before this one, and whether it failed.
    pub async fn previous_end(&self, run: i64) -> Result<Option<(i64, bool)>, Error> {
        self.readers.read(move |db| previous_end(db, run)).await
    }
}

/// Whether what this run was compared with still comes right before it.
pub(super) fn is_current(db: &Connection, run: i64, compared: Compared) -> Result<bool, Error> {
    Ok(match compared {
        Compared::Nothing => true,
        Compared::Success(with) => previous_success(db, run)? == with,
        Compared::Ended(with) => previous_end(db, run)?.map(|(number, _)| number) == with,
    })
}

fn previous_success(db: &Connection, run: i64) -> Result<Option<i64>, Error> {
    let sql = "SELECT a.last_success FROM runs r JOIN agents a ON a.number = r.agent
               WHERE r.number = ?1 AND a.last_success <> ?1";
    Ok(db.prepare_cached(sql)?.query_row([run], |row| row.get(0)).optional()?)
}

fn previous_result(db: &Connection, run: i64) -> Result<Option<(i64, Value)>, Error> {
    let Some(before) = previous_success(db, run)? else { return Ok(None) };
    let sql = "SELECT result FROM run_details WHERE run = ?1";
    let found = db.prepare_cached(sql)?.query_row([before], |row| json(row, "result")).optional()?;
    Ok(Some((before, found.flatten().unwrap_or_default())))
}

fn previous_end(db: &Connection, run: i64) -> Result<Option<(i64, bool)>, Error> {
    let sql = "SELECT number, state = 'FAILED' FROM (
                   SELECT state, completed_at, number FROM runs
                   WHERE agent = (SELECT agent FROM runs WHERE number = ?1) AND number <> ?1
                     AND completed_at IS NOT NULL AND gated = 0
                   ORDER BY number DESC LIMIT ?2)
               ORDER BY completed_at DESC, number DESC LIMIT 1";
    let found = db.prepare_cached(sql)?.query_row([run, RECENT], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}
