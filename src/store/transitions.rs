//! Reading the feed: every change of a run's state, in order, from a number on.

use rusqlite::{Connection, params};

use super::events::{COLUMNS, event};
use super::{Error, Store, run_id, word};
use crate::ids::RunId;
use crate::model::{Event, RunState};

/// One change of a run's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its number; later ones are greater.
    pub seq: i64,
    /// The run's number.
    pub run: i64,
    /// The run.
    pub id: RunId,
    /// Its agent's id.
    pub agent: String,
    /// The state that it came to.
    pub state: RunState,
    /// When, Unix ms.
    pub at_ms: i64,
}

impl Store {
    /// Changes after number `seq`, oldest first, at most `limit` rows, and the number up to which that is all.
    /// Those of runs that are gone are passed over.
    pub async fn transitions(&self, seq: i64, limit: usize) -> Result<(Vec<Transition>, i64), Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.readers.read(move |db| after(db, seq, limit)).await
    }

    /// Number of the newest change; 0 where there is none.
    pub async fn newest_transition(&self) -> Result<i64, Error> {
        let sql = "SELECT coalesce(max(seq), 0) FROM transitions";
        self.readers.read(move |db| Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)).await
    }

    /// These runs as lists show them, by number, as far as they are there.
    pub async fn events_of(&self, numbers: Vec<i64>) -> Result<Vec<Event>, Error> {
        self.readers
            .read(move |db| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM runs r JOIN agents a ON a.number = r.agent WHERE r.number = ?1"
                );
                let mut statement = db.prepare_cached(&sql)?;
                let mut found = Vec::with_capacity(numbers.len());
                for number in &numbers {
                    let mut rows = statement.query_map([number], event)?;
                    found.extend(rows.next().transpose()?);
                }
                Ok(found)
            })
            .await
    }
}

fn after(db: &Connection, seq: i64, limit: i64) -> Result<(Vec<Transition>, i64), Error> {
    let sql = "SELECT t.seq, t.run, t.state, t.at, r.id AS run_id, a.id AS agent_id
               FROM transitions t LEFT JOIN runs r ON r.number = t.run LEFT JOIN agents a ON a.number = r.agent
               WHERE t.seq > ?1 ORDER BY t.seq LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![seq, limit])?;
    let (mut found, mut last) = (Vec::new(), seq);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        let Some(agent) = row.get(5)? else { continue };
        let state = word(row, "state")?;
        found.push(Transition {
            seq: last,
            run: row.get(1)?,
            id: run_id(row, "run_id")?,
            agent,
            state,
            at_ms: row.get(3)?,
        });
    }
    Ok((found, last))
}
