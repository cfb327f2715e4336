//! Sessions: workspaces that several runs share by naming them.
//!
//! A run without one has a workspace of its own that bears its id and needs no row. Every session has an
//! integer: of a run's own it is the run's number, of a shared one that of the run that made it.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::run::changed_one;
use super::{Error, Store, events, uploads};
use crate::ids::{AgentGlob, Epoch, RunId};
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
    /// A session by its name or its integer, or by a run that has one of its own; with its newest runs, of
    /// agents that the asker may see.
    pub async fn session(
        &self,
        name: String,
        visible: Option<AgentGlob>,
        runs: usize,
    ) -> Result<Option<SessionRow>, Error> {
        self.readers.read(move |db| session(db, &name, visible.as_ref(), runs)).await
    }

    /// Whether any run of this session, named as for [`Store::session`], is of an agent outside of `glob`.
    pub async fn session_of_others(&self, name: String, glob: AgentGlob) -> Result<bool, Error> {
        self.readers.read(move |db| of_others(db, &name, &glob)).await
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

fn of_others(db: &Connection, name: &str, glob: &AgentGlob) -> Result<bool, Error> {
    let exists = |which: &str, value: &dyn rusqlite::ToSql| -> Result<bool, Error> {
        let sql = format!(
            "SELECT 1 FROM runs WHERE {which} AND agent NOT IN (SELECT number FROM agents WHERE id GLOB ?2)"
        );
        Ok(db.prepare_cached(&sql)?.exists(params![value, glob.as_str()])?)
    };
    match uploads::conversation_of(db, name)? {
        (Some(id), _) => exists("session = ?1", &id),
        (None, run) => exists("number = ?1 AND session IS NULL", &run),
    }
}

fn session(
    db: &Connection,
    name: &str,
    visible: Option<&AgentGlob>,
    runs: usize,
) -> Result<Option<SessionRow>, Error> {
    let (shared, run) = uploads::conversation_of(db, name)?;
    let seen = visible.map_or_else(String::new, |glob| format!("AND a.id GLOB '{glob}'"));
    let Some(id) = shared else {
        // A run alone in its own.
        let own = match run {
            Some(number) => {
                events::newest(db, &format!("r.number = ?1 AND r.session IS NULL {seen}"), &number, 1)?
            }
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
    let events = events::newest(db, &format!("r.session = ?1 {seen}"), &id, runs)?;
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

#[cfg(test)]
mod tests {
    use super::super::{Access, connect};
    use super::*;

    #[tokio::test]
    async fn whose_a_session_is_does_not_depend_on_how_many_runs_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matins.db");
        let (store, _threads) = Store::open(&path).unwrap();
        // The oldest of 300 runs is of another agent, and one that is alone in its own.
        let db = connect(&path, Access::Write).unwrap();
        db.execute_batch(
            "INSERT INTO definitions (sha256, body, created_at) VALUES (zeroblob(32), '{}', 1);
             INSERT INTO agents (id, status, definition, created_at, updated_at)
             VALUES ('lab', 'ACTIVE', 1, 1, 1), ('shop', 'ACTIVE', 1, 1, 1);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 301)
             INSERT INTO runs (number, id, agent, definition, trigger, state, overlap, attempt, session, created_at, updated_at)
             SELECT i, randomblob(16), iif(i IN (1, 301), 1, 2), 1, 'manual', 'PENDING', 'queue', 0,
                    iif(i = 301, NULL, 'shelf'), i, i FROM n;
             INSERT INTO sessions (id, agent, created_at, used_at, conversation) VALUES ('shelf', 1, 1, 1, 1);",
        )
        .unwrap();
        let others = async |name: &str, glob: &str| {
            store.session_of_others(name.to_owned(), glob.parse().unwrap()).await.unwrap()
        };
        for name in ["shelf", "1"] {
            assert!(others(name, "shop*").await, "the first run of {name} is another's");
            assert!(!others(name, "*").await, "{name}");
        }
        assert!(others("301", "shop").await && !others("301", "lab").await, "a run alone in its own");
        assert!(!others("none", "shop").await);
        let seen = async |glob: &str, runs| {
            let found = store.session("shelf".to_owned(), glob.parse().ok(), runs).await.unwrap().unwrap();
            found.events.iter().map(|event| event.number).collect::<Vec<_>>()
        };
        assert_eq!(seen("lab", 2).await, [1], "299 newer runs of others take no place");
        assert_eq!(seen("shop", 2).await, [300, 299]);
        assert!(store.session("301".to_owned(), "shop".parse().ok(), 2).await.unwrap().is_none());
    }
}
