//! What agents' runs were like: how long they took, which are under way, when they were admitted.

use std::collections::HashMap;

use rusqlite::Connection;

use super::budget::DAY_MS;
use super::{Error, Store};

/// Runs of an agent whose times are looked at: the newest.
const LAST: usize = 20;
/// Runs that have not ended of one agent that are looked at.
const UNDER_WAY: usize = 200;
/// Admissions of a day that are looked at, of an agent or of all; budgets beyond it are not foreseen.
const ADMITTED: usize = 20_000;

/// What the runs of one agent were like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Habit {
    /// Median time that its last runs took, ms; `None` where there is none.
    pub took_ms: Option<i64>,
    /// Of how many runs that is the median.
    pub of: usize,
    /// When those started that have not ended; one that waits counts from its admission, Unix ms.
    pub started_ms: Vec<i64>,
    /// Its admissions of the last day, oldest first, Unix ms; only where they are asked for.
    pub admitted_ms: Vec<i64>,
}

impl Store {
    /// The habits of agents by number; the second of each says whether admissions are asked for.
    pub async fn habits(&self, agents: Vec<(i64, bool)>, now_ms: i64) -> Result<HashMap<i64, Habit>, Error> {
        self.readers
            .read(move |db| {
                agents
                    .iter()
                    .map(|(agent, counted)| Ok((*agent, habit(db, *agent, *counted, now_ms)?)))
                    .collect()
            })
            .await
    }

    /// Admissions of all agents in the last day, oldest first, Unix ms.
    pub async fn admitted(&self, now_ms: i64) -> Result<Vec<i64>, Error> {
        self.readers
            .read(move |db| {
                let sql = format!("SELECT created_at FROM runs ORDER BY number DESC LIMIT {ADMITTED}");
                last_day(db, &sql, &[], now_ms)
            })
            .await
    }
}

fn habit(db: &Connection, agent: i64, counted: bool, now_ms: i64) -> Result<Habit, Error> {
    // A run that its gate ended, or that never started, says nothing of how long one takes.
    let sql = format!(
        "SELECT completed_at - started_at FROM runs INDEXED BY runs_of_agent
         WHERE agent = ?1 AND completed_at IS NOT NULL AND started_at IS NOT NULL AND gated = 0
         ORDER BY number DESC LIMIT {LAST}"
    );
    let mut took = column(db, &sql, &[agent])?;
    took.sort_unstable();
    // Runs of a backfill stand in nobody's way.
    let sql = format!(
        "SELECT coalesce(started_at, created_at) FROM runs INDEXED BY runs_active
         WHERE agent = ?1 AND completed_at IS NULL AND backfill = 0 LIMIT {UNDER_WAY}"
    );
    let started_ms = column(db, &sql, &[agent])?;
    let admitted_ms = if counted {
        let sql = format!(
            "SELECT created_at FROM runs INDEXED BY runs_of_agent WHERE agent = ?1 ORDER BY number DESC LIMIT {ADMITTED}"
        );
        last_day(db, &sql, &[agent], now_ms)?
    } else {
        Vec::new()
    };
    Ok(Habit { took_ms: took.get(took.len() / 2).copied(), of: took.len(), started_ms, admitted_ms })
}

fn column(db: &Connection, sql: &str, values: &[i64]) -> Result<Vec<i64>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The times of a statement that gives the newest first, as far as they lie in the last day.
fn last_day(db: &Connection, sql: &str, values: &[i64], now_ms: i64) -> Result<Vec<i64>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let at_ms: i64 = row.get(0)?;
        if at_ms.saturating_add(DAY_MS) <= now_ms {
            break;
        }
        found.push(at_ms);
    }
    found.reverse();
    Ok(found)
}
