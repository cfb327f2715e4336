//! Sessions: workspaces that several runs share by naming them.
//!
//! A run without one has a workspace of its own that bears its id and needs no row.

use rusqlite::params;

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
                let sql = "INSERT INTO sessions (id, agent, created_at, used_at)
                           SELECT ?2, agent, ?3, ?3 FROM runs WHERE number = ?1
                           ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at";
                db.prepare_cached(sql)?.execute(params![number, session, now_ms])?;
                // It is no garbage any more.
                let sql = "DELETE FROM garbage WHERE kind = 'session' AND name = ?1";
                db.prepare_cached(sql)?.execute([&session])?;
                Ok(())
            })
            .await
    }
}
