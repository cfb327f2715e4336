//! Notes: short texts that an agent keeps for its later runs.
//!
//! They are written in the transaction that ends the attempt which said them, so a run sees those of all that
//! ended before it and none of one whose end was never written.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{Error, Store};
use crate::model::{NOTE_KEY_MAX, NOTE_MAX, NOTES_MAX};

impl Store {
    /// The notes of an agent.
    pub async fn notes(&self, agent: i64) -> Result<BTreeMap<String, String>, Error> {
        self.readers
            .read(move |db| {
                let mut statement = db.prepare_cached("SELECT key, value FROM notes WHERE agent = ?1")?;
                let rows = statement.query_map([agent], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}

/// Keeps what an attempt noted, in its order. What does not fit is left out: it was refused when it was said.
pub(super) fn keep(
    db: &Connection,
    agent: i64,
    run: i64,
    notes: &[(String, Option<String>)],
    at_ms: i64,
) -> Result<(), Error> {
    if notes.is_empty() {
        return Ok(());
    }
    let mut set = db.prepare_cached(
        "INSERT INTO notes (agent, key, value, run, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (agent, key) DO UPDATE SET value = excluded.value, run = excluded.run,
                                                updated_at = excluded.updated_at",
    )?;
    let mut remove = db.prepare_cached("DELETE FROM notes WHERE agent = ?1 AND key = ?2")?;
    let fits = |text: &str, most: usize| text.chars().count() <= most && !text.contains('\0');
    for (key, value) in notes.iter().filter(|(key, _)| !key.is_empty() && fits(key, NOTE_KEY_MAX)) {
        match value {
            Some(value) if fits(value, NOTE_MAX) => {
                set.execute(params![agent, key, value, run, at_ms])?;
            }
            Some(_) => {}
            None => {
                remove.execute(params![agent, key])?;
            }
        }
    }
    let most = i64::try_from(NOTES_MAX).unwrap_or(i64::MAX);
    let sql = "DELETE FROM notes WHERE agent = ?1 AND key NOT IN
                 (SELECT key FROM notes WHERE agent = ?1 ORDER BY updated_at DESC, run DESC, key LIMIT ?2)";
    db.prepare_cached(sql)?.execute([agent, most])?;
    Ok(())
}
