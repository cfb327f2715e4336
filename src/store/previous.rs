//! What came before a run of its agent: the question behind `notify: changed` and `recovered`.

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use super::{Error, Store, json};

/// Ended runs among which the one that ended last is looked for: runs end in another order than they
/// were made, but not by much.
const RECENT: i64 = 100;

impl Store {
    /// The structured result of the newest other COMPLETED run of this run's agent, gated ones left
    /// out: `None` if there is no such run, null if it had none.
    pub async fn previous_result(&self, run: i64) -> Result<Option<Value>, Error> {
        self.readers.read(move |db| previous_result(db, run)).await
    }

    /// Whether the run of the same agent that ended last before this one failed.
    pub async fn previous_failed(&self, run: i64) -> Result<bool, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT state = 'FAILED' FROM (
                               SELECT state, completed_at, number FROM runs
                               WHERE agent = (SELECT agent FROM runs WHERE number = ?1) AND number <> ?1
                                 AND completed_at IS NOT NULL AND gated = 0
                               ORDER BY number DESC LIMIT ?2)
                           ORDER BY completed_at DESC, number DESC LIMIT 1";
                let failed = db.prepare_cached(sql)?.query_row([run, RECENT], |row| row.get(0)).optional()?;
                Ok(failed.unwrap_or(false))
            })
            .await
    }
}

fn previous_result(db: &Connection, run: i64) -> Result<Option<Value>, Error> {
    let sql = "SELECT d.result FROM runs r JOIN agents a ON a.number = r.agent
               LEFT JOIN run_details d ON d.run = a.last_success
               WHERE r.number = ?1 AND a.last_success IS NOT NULL AND a.last_success <> ?1";
    let found = db.prepare_cached(sql)?.query_row([run], |row| json(row, "result")).optional()?;
    Ok(found.map(Option::unwrap_or_default))
}
