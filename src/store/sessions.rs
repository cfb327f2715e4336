//! Sessions: workspaces that several runs share by naming them.
//!
//! A run without one has a workspace of its own that bears its id and needs no row. Every session has an
//! integer: of a run's own it is the run's number, of a shared one that of the run that made it.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::run::changed_one;
use super::{Error, Store, events, uploads};
use crate::ids::{Epoch, RunId};
use crate::model::Event;

/// A session with its newest runs.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Its name.
    pub id: String,
    /// Its stable integer.
    pub conversation: i64,
    /// Whether it is one that runs share by naming it.
    pub shared: bool,
    /// When it began, Unix ms.
    pub created_ms: i64,
    /// When a run last came into it, Unix ms.
    pub used_ms: i64,
    /// Its runs, newest first.
    pub events: Vec<Event>,
}

impl Store {
    /// A session by its name or its integer, or by a run that has one of its own; with its newest runs.
    pub async fn session(&self, name: String, runs: usize) -> Result<Option<SessionRow>, Error> {
        self.readers.read(move |db| session(db, &name, runs)).await
    }

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

fn session(db: &Connection, name: &str, runs: usize) -> Result<Option<SessionRow>, Error> {
    let (shared, run) = uploads::conversation_of(db, name)?;
    let Some(id) = shared else {
        // A run alone in its own.
        let own = match run {
            Some(number) => events::newest(db, "r.number = ?1 AND r.session IS NULL", &number, 1)?,
            None => Vec::new(),
        };
        let times = "SELECT created_at, coalesce(started_at, created_at) FROM runs WHERE number = ?1";
        let Some(event) = own.into_iter().next() else { return Ok(None) };
        let (created_ms, used_ms) =
            db.prepare_cached(times)?.query_row([event.number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (id, conversation) = (event.session_id.clone(), event.conversation);
        return Ok(Some(SessionRow {
            id,
            conversation,
            shared: false,
            created_ms,
            used_ms,
            events: vec![event],
        }));
    };
    let sql = "SELECT conversation, created_at, used_at FROM sessions WHERE id = ?1";
    let found = db.prepare_cached(sql)?.query_row([&id], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((conversation, created_ms, used_ms)) = found.optional()? else { return Ok(None) };
    let events = events::newest(db, "r.session = ?1", &id, runs)?;
    let conversation = conversation.unwrap_or_default();
    Ok(Some(SessionRow { id, conversation, shared: true, created_ms, used_ms, events }))
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
