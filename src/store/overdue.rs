//! Agents whose success is overdue. The stretch is a column, `overdue_at`: set with the messages that
//! tell of it in one transaction, and cleared by the next success, so it is told once across restarts.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, NewDelivery, Store, outbox};

/// When an agent last did what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSuccess {
    /// The agent's number.
    pub agent: i64,
    /// When its newest COMPLETED run ended, Unix ms. A gated one counts: nothing was to be done.
    pub at_ms: Option<i64>,
    /// When the agent was first known, Unix ms.
    pub known_since_ms: i64,
    /// Since when it is told of as overdue, Unix ms.
    pub overdue_at_ms: Option<i64>,
    /// Whether it is paused.
    pub paused: bool,
}

impl Store {
    /// When these agents had their last success, by number.
    pub async fn last_successes(&self, agents: Vec<i64>) -> Result<Vec<LastSuccess>, Error> {
        self.readers
            .read(move |db| agents.iter().filter_map(|agent| last_success(db, *agent).transpose()).collect())
            .await
    }

    /// Marks an agent overdue and makes the messages that tell of it; `false` if it is marked already or
    /// had a success since `seen`.
    pub async fn raise_overdue(
        &self,
        seen: LastSuccess,
        messages: Vec<NewDelivery>,
        now_ms: i64,
    ) -> Result<bool, Error> {
        self.writer
            .write(move |db| {
                if last_success(db, seen.agent)?.is_none_or(|now| now.at_ms != seen.at_ms) {
                    return Ok(false);
                }
                let sql = "UPDATE agents SET overdue_at = ?2 WHERE number = ?1 AND overdue_at IS NULL";
                if db.prepare_cached(sql)?.execute(params![seen.agent, now_ms])? != 1 {
                    return Ok(false);
                }
                messages.iter().try_for_each(|message| outbox::insert(db, message, None, now_ms))?;
                Ok(true)
            })
            .await
    }

    /// Agents that are marked overdue, by number.
    pub async fn overdue_agents(&self) -> Result<Vec<i64>, Error> {
        self.readers
            .read(|db| {
                let mut statement =
                    db.prepare_cached("SELECT number FROM agents WHERE overdue_at IS NOT NULL")?;
                let numbers = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok(numbers)
            })
            .await
    }

    /// Ends the overdue stretch of an agent.
    pub async fn clear_overdue(&self, agent: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                db.prepare_cached("UPDATE agents SET overdue_at = NULL WHERE number = ?1")?
                    .execute([agent])?;
                Ok(())
            })
            .await
    }
}

fn last_success(db: &Connection, agent: i64) -> Result<Option<LastSuccess>, Error> {
    // The column outlives the rows of old runs; the rows know of gated ones.
    let sql = "SELECT last_success_at, created_at, overdue_at, paused_at IS NOT NULL,
                      (SELECT completed_at FROM runs WHERE agent = ?1 AND state = 'COMPLETED' ORDER BY number DESC LIMIT 1)
               FROM agents WHERE number = ?1";
    let found = db.prepare_cached(sql)?.query_row([agent], |row| {
        let (kept, newest): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(4)?);
        Ok(LastSuccess {
            agent,
            at_ms: kept.max(newest),
            known_since_ms: row.get(1)?,
            overdue_at_ms: row.get(2)?,
            paused: row.get(3)?,
        })
    });
    Ok(found.optional()?)
}
