//! Pausing an agent: its slots end without a run until it is resumed. What was admitted before
//! still runs, and a trigger by hand still makes a run.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store};
use crate::ids::AgentId;

/// That an agent is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when, Unix ms.
    pub since_ms: i64,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

impl Store {
    /// Pauses an agent; one that is paused already gets the new reason. `false`: it does not exist.
    pub async fn pause(&self, agent: AgentId, pause: Pause) -> Result<bool, Error> {
        self.writer.write(move |db| set(db, &agent, &pause)).await
    }

    /// Lets an agent's slots run again, and forgets its failures. What it was paused by; `None` in
    /// `None`: it was not paused, `None`: it does not exist.
    pub async fn resume(&self, agent: AgentId, now_ms: i64) -> Result<Option<Option<Pause>>, Error> {
        self.writer
            .write(move |db| {
                let sql = "SELECT paused_at, paused_by, pause_reason FROM agents WHERE id = ?1 AND status <> 'REMOVED'";
                let before = db.prepare_cached(sql)?.query_row([agent.as_str()], pause).optional()?;
                if before.is_some() {
                    let sql = "UPDATE agents SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, failures = 0,
                                      probe_at = NULL, updated_at = ?2 WHERE id = ?1";
                    db.prepare_cached(sql)?.execute(params![agent.as_str(), now_ms])?;
                }
                Ok(before)
            })
            .await
    }
}

fn set(db: &Connection, agent: &AgentId, pause: &Pause) -> Result<bool, Error> {
    let sql = "UPDATE agents SET paused_at = ?2, paused_by = ?3, pause_reason = ?4, probe_at = NULL, updated_at = ?2
               WHERE id = ?1 AND status <> 'REMOVED'";
    let changed =
        db.prepare_cached(sql)?.execute(params![agent.as_str(), pause.since_ms, pause.by, pause.reason])?;
    Ok(changed == 1)
}

/// Reads `paused_at`, `paused_by` and `pause_reason` from the first three columns.
pub(super) fn pause(row: &rusqlite::Row<'_>) -> Result<Option<Pause>, rusqlite::Error> {
    let (since_ms, by): (Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?);
    let reason = row.get(2)?;
    Ok(since_ms.zip(by).map(|(since_ms, by)| Pause { since_ms, by, reason }))
}
