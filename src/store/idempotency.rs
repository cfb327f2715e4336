//! Keys by which a caller names a request of his own, so that one that is sent again makes no second
//! run. A key is looked up and kept in the transaction that admits the run: of two requests that
//! come at once with one key, the second finds the run of the first.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, run_id};
use crate::ids::RunId;

/// How long a key is known, ms.
pub const KEY_LIFE_MS: i64 = 24 * 3_600_000;
/// Keys that are forgotten with each that is kept: more than one, so that they cannot pile up.
const FORGOTTEN_AT_ONCE: i64 = 100;

/// A caller's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of what is asked for.
    pub body: [u8; 32],
}

/// What a key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Used {
    /// For the same; this run came of it.
    Same(i64, RunId),
    /// For something else; this run came of that.
    Other(RunId),
}

pub(super) fn used(
    db: &Connection,
    agent: i64,
    key: &IdempotencyKey,
    now_ms: i64,
) -> Result<Option<Used>, Error> {
    let sql = "SELECT k.body = ?3, r.number, r.id FROM idempotency_keys k JOIN runs r ON r.number = k.run
               WHERE k.agent = ?1 AND k.key = ?2 AND k.created_at > ?4";
    let since_ms = now_ms.saturating_sub(KEY_LIFE_MS);
    let values = params![agent, key.key, key.body.as_slice(), since_ms];
    let found = db.prepare_cached(sql)?.query_row(values, |row| {
        let (same, number, id): (bool, i64, RunId) = (row.get(0)?, row.get(1)?, run_id(row, "id")?);
        Ok(if same { Used::Same(number, id) } else { Used::Other(id) })
    });
    Ok(found.optional()?)
}

pub(super) fn keep(
    db: &Connection,
    agent: i64,
    key: &IdempotencyKey,
    run: i64,
    now_ms: i64,
) -> Result<(), Error> {
    let sql = "DELETE FROM idempotency_keys WHERE (agent, key) IN
                 (SELECT agent, key FROM idempotency_keys INDEXED BY idempotency_keys_by_age
                  WHERE created_at <= ?1 LIMIT ?2)";
    let gone_ms = now_ms.saturating_sub(KEY_LIFE_MS);
    db.prepare_cached(sql)?.execute([gone_ms, FORGOTTEN_AT_ONCE])?;
    let sql = "INSERT OR REPLACE INTO idempotency_keys (agent, key, body, run, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![agent, key.key, key.body.as_slice(), run, now_ms])?;
    Ok(())
}
