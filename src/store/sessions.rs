//! Sessions: workspaces that several runs share by naming them.
//!
//! A run without one has a workspace of its own that bears its id and needs no row. Every session has an
//! integer: of a run's own it is the run's number, of a shared one that of the run that made it.

use rusqlite::{Connection, params};

use super::run::changed_one;
use super::{Error, Store};
use crate::ids::{Epoch, RunId};

impl Store {
    /// Notes that a claimed run is about to use a session; the session is made where there is none.
    pub async fn use_session(
        &self,
        number: i64,
        id: RunId,
        epoch: Epoch,
        session: String,
        now_ms: i64,
    ) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET session = ?3 WHERE number = ?1 AND epoch = ?2 AND claimed_at IS NOT NULL";
                let changed = db.prepare_cached(sql)?.execute(params![number, epoch.0, session])?;
                changed_one(changed, id, epoch)?;
                touch(db, number, &session, now_ms)
            })
            .await
    }
}

/// A run is of this session, which is made where there is none. Its integer is the number of the run that
/// made it.
pub(super) fn touch(db: &Connection, run: i64, session: &str, now_ms: i64) -> Result<(), Error> {
    let sql = "INSERT INTO sessions (id, agent, created_at, used_at, conversation)
               SELECT ?2, agent, ?3, ?3, ?1 FROM runs WHERE number = ?1
               ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at,
                                              conversation = coalesce(conversation, excluded.conversation)";
    db.prepare_cached(sql)?.execute(params![run, session, now_ms])?;
    // It is no garbage any more.
    let sql = "DELETE FROM garbage WHERE kind = 'session' AND name = ?1";
    db.prepare_cached(sql)?.execute([session])?;
    Ok(())
}
