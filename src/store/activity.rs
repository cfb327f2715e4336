//! What the plan needs to know of agents: when the newest run ended, whether one is under way, and who
//! is paused.

use std::collections::HashSet;

use rusqlite::OptionalExtension as _;

use super::{Error, Store};

/// What an agent's runs do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// When its newest run that ended did so, Unix ms; `None` where none ever has.
    pub last_ended_ms: Option<i64>,
    /// Whether a run of it waits or is under way; one of a backfill that waits does not count.
    pub active: bool,
}

impl Store {
    /// Numbers of the agents that are paused.
    pub async fn paused_agents(&self) -> Result<HashSet<i64>, Error> {
        self.readers
            .read(|db| {
                let mut statement =
                    db.prepare_cached("SELECT number FROM agents WHERE paused_at IS NOT NULL")?;
                let numbers = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok(numbers)
            })
            .await
    }

    /// The activity of agents by number, in their order.
    pub async fn activity(&self, agents: Vec<i64>) -> Result<Vec<Activity>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT last_ended_at,
                                  EXISTS (SELECT 1 FROM runs INDEXED BY runs_active
                                          WHERE agent = ?1 AND completed_at IS NULL
                                            AND (backfill = 0 OR claimed_at IS NOT NULL))
                           FROM agents WHERE number = ?1";
                let mut statement = db.prepare_cached(sql)?;
                let each = agents.iter().map(|agent| {
                    let row = statement.query_row([agent], |row| {
                        Ok(Activity { last_ended_ms: row.get(0)?, active: row.get(1)? })
                    });
                    Ok(row.optional()?.unwrap_or_default())
                });
                each.collect()
            })
            .await
    }
}
