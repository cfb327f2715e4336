//! Reading agents: a page of them, or the overview of all. What their last runs were like stands in their own
//! rows, so an overview of twenty thousand agents reads no run that has ended.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::events::{COLUMNS, event};
use super::{Error, Store};
use crate::ids::{AgentGlob, AgentId};
use crate::model::Event;

/// Ends of runs that an agent's row remembers.
pub const RECENT_MAX: usize = 24;

/// An agent with its last run.
#[derive(Debug, Clone)]
pub struct AgentSummary {
    /// Its stable integer.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// `ACTIVE`, `PAUSED` or `INVALID`.
    pub status: &'static str,
    /// Since when, by whom and why it is paused.
    pub pause: Option<super::Pause>,
    /// When it was first seen, Unix ms.
    pub created_at_ms: i64,
    /// When its record last changed, Unix ms.
    pub updated_at_ms: i64,
    /// Its newest run.
    pub last_run: Option<Event>,
}

/// An agent in a row of the overview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentGlance {
    /// Its stable integer.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// `ACTIVE`, `PAUSED` or `INVALID`.
    pub status: &'static str,
    /// How its last runs ended, newest first, a letter each.
    pub recent: String,
    /// Failed runs since the last success.
    pub failures: i64,
    /// When its newest run that ended did so, Unix ms.
    pub last_ended_ms: Option<i64>,
    /// Runs of it that wait.
    pub pending: i64,
    /// Runs of it that run.
    pub running: i64,
}

/// An agent that needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TroubledAgent {
    /// Its id.
    pub id: String,
    /// Whether its file is broken.
    pub invalid: bool,
    /// Since when, by whom and why it is paused.
    pub pause: Option<super::Pause>,
    /// Failed runs since the last success.
    pub failures: i64,
    /// When its newest run that ended did so, Unix ms.
    pub last_ended_ms: Option<i64>,
}

impl Store {
    /// Every agent that has a file, by id, without its newest run.
    pub async fn agents(&self) -> Result<Vec<AgentSummary>, Error> {
        let read =
            |db: &Connection| Ok(rows(db, ALL, params![])?.into_iter().map(|(agent, _)| agent).collect());
        self.readers.read(read).await
    }

    /// Agents that have a file and that the asker may see, by id, from the first after `after`, each with its
    /// newest run.
    pub async fn agents_page(
        &self,
        after: String,
        limit: usize,
        visible: Option<AgentGlob>,
    ) -> Result<Vec<AgentSummary>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = move |db: &Connection| {
            summaries(db, AFTER, params![after, limit, visible.as_ref().map(AgentGlob::as_str)])
        };
        self.readers.read(read).await
    }

    /// These agents, as far as they have a file, by id.
    pub async fn agents_of(&self, numbers: Vec<i64>) -> Result<Vec<AgentSummary>, Error> {
        self.readers
            .read(move |db| {
                let one = |number: &i64| Ok(summaries(db, NUMBERED, params![number])?.pop());
                numbers.iter().filter_map(|number| one(number).transpose()).collect()
            })
            .await
    }

    /// One agent that has a file.
    pub async fn agent(&self, id: AgentId) -> Result<Option<AgentSummary>, Error> {
        self.readers.read(move |db| Ok(summaries(db, NAMED, params![id.as_str()])?.pop())).await
    }

    /// The overview: agents that have a file and that the asker may see, by id, from the first after `after`.
    pub async fn agents_at_a_glance(
        &self,
        after: String,
        limit: usize,
        visible: Option<AgentGlob>,
    ) -> Result<Vec<AgentGlance>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = move |db: &Connection| glances(db, &after, limit, visible.as_ref());
        self.readers.read(read).await
    }

    /// Agents whose file is broken, whose last runs failed, or that their breaker has paused, by id, from the first
    /// after `after`.
    pub async fn troubled_agents(
        &self,
        after: String,
        limit: usize,
        visible: Option<AgentGlob>,
    ) -> Result<Vec<TroubledAgent>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.readers.read(move |db| troubled(db, &after, limit, visible.as_ref())).await
    }

    /// How many agents fire, are paused, and have a broken file.
    pub async fn agent_counts(&self) -> Result<[usize; 3], Error> {
        self.readers
            .read(|db| {
                let sql =
                    "SELECT status = 'INVALID', paused_at IS NOT NULL FROM agents WHERE status <> 'REMOVED'";
                let mut statement = db.prepare_cached(sql)?;
                let mut rows = statement.query([])?;
                let mut counts = [0; 3];
                while let Some(row) = rows.next()? {
                    let place = match (row.get(0)?, row.get(1)?) {
                        (true, _) => 2,
                        (false, true) => 1,
                        (false, false) => 0,
                    };
                    counts[place] += 1;
                }
                Ok(counts)
            })
            .await
    }
}

const ALL: &str = "ORDER BY id";
const AFTER: &str = "AND id > ?1 AND (?3 IS NULL OR id GLOB ?3) ORDER BY id LIMIT ?2";
const NUMBERED: &str = "AND number = ?1";
const NAMED: &str = "AND id = ?1";

/// Agents, each with the number of its newest run.
fn rows(
    db: &Connection,
    which: &'static str,
    values: impl rusqlite::Params,
) -> Result<Vec<(AgentSummary, Option<i64>)>, Error> {
    let sql = format!(
        "SELECT paused_at, paused_by, pause_reason, number, id, status, created_at, updated_at,
                (SELECT max(r.number) FROM runs r WHERE r.agent = agents.number) AS last_run
         FROM agents WHERE status <> 'REMOVED' {which}"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement
        .query_map(values, |row| {
            let pause = super::pause::pause(row)?;
            let summary = AgentSummary {
                number: row.get(3)?,
                id: row.get(4)?,
                status: status(row, 5, pause.is_some())?,
                pause,
                created_at_ms: row.get(6)?,
                updated_at_ms: row.get(7)?,
                last_run: None,
            };
            Ok((summary, row.get::<_, Option<i64>>(8)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(rows)
}

/// Agents, each with its newest run.
fn summaries(
    db: &Connection,
    which: &'static str,
    values: impl rusqlite::Params,
) -> Result<Vec<AgentSummary>, Error> {
    let found = rows(db, which, values)?;
    let sql = format!("SELECT {COLUMNS} FROM runs r JOIN agents a ON a.number = r.agent WHERE r.number = ?1");
    let mut last = db.prepare_cached(&sql)?;
    let mut summaries = Vec::with_capacity(found.len());
    for (mut summary, run) in found {
        if let Some(run) = run {
            summary.last_run = last.query_row([run], event).optional()?;
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

fn status(row: &Row<'_>, column: usize, paused: bool) -> Result<&'static str, rusqlite::Error> {
    Ok(match (row.get_ref(column)?.as_str()? == "INVALID", paused) {
        (true, _) => "INVALID",
        (false, true) => "PAUSED",
        (false, false) => "ACTIVE",
    })
}

fn glances(
    db: &Connection,
    after: &str,
    limit: i64,
    visible: Option<&AgentGlob>,
) -> Result<Vec<AgentGlance>, Error> {
    let sql =
        "SELECT agent, count(*) FILTER (WHERE state = 'PENDING'), count(*) FILTER (WHERE state = 'RUNNING')
               FROM runs INDEXED BY runs_active WHERE completed_at IS NULL GROUP BY agent";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    let under_way: HashMap<i64, (i64, i64)> = rows.collect::<Result<_, _>>()?;
    let sql = "SELECT number, id, status, paused_at IS NOT NULL, recent, failures, last_ended_at
               FROM agents WHERE status <> 'REMOVED' AND id > ?1 AND (?3 IS NULL OR id GLOB ?3)
               ORDER BY id LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let glob = visible.map(AgentGlob::as_str);
    let rows = statement.query_map(params![after, limit, glob], |row| {
        let number = row.get(0)?;
        let (pending, running) = under_way.get(&number).copied().unwrap_or_default();
        Ok(AgentGlance {
            number,
            id: row.get(1)?,
            status: status(row, 2, row.get(3)?)?,
            recent: row.get(4)?,
            failures: row.get(5)?,
            last_ended_ms: row.get(6)?,
            pending,
            running,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The condition is that of the index, word for word.
const TROUBLED: &str = "SELECT paused_at, paused_by, pause_reason, id, status, failures, last_ended_at
    FROM agents INDEXED BY agents_troubled
    WHERE status <> 'REMOVED' AND (failures > 0 OR status = 'INVALID' OR paused_by = 'breaker') AND id > ?1
      AND (?3 IS NULL OR id GLOB ?3)
    ORDER BY id LIMIT ?2";

fn troubled(
    db: &Connection,
    after: &str,
    limit: i64,
    visible: Option<&AgentGlob>,
) -> Result<Vec<TroubledAgent>, Error> {
    let mut statement = db.prepare_cached(TROUBLED)?;
    let rows = statement.query_map(params![after, limit, visible.map(AgentGlob::as_str)], |row| {
        Ok(TroubledAgent {
            pause: super::pause::pause(row)?,
            id: row.get(3)?,
            invalid: row.get_ref(4)?.as_str()? == "INVALID",
            failures: row.get(5)?,
            last_ended_ms: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
