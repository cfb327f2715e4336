//! Agents, their definitions and their schedules as the store knows them.
//!
//! A definition is kept by its digest and never changed: a run refers to the one it was admitted
//! with. A schedule keeps its watermark as long as it stays active; one that is new, or comes back,
//! begins now and has no past slots.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store};
use crate::ids::{AgentId, ScheduleId};

/// One agent as the files have it now.
#[derive(Debug, Clone)]
pub struct AgentSync {
    /// Its id.
    pub id: AgentId,
    /// Its definition as JSON with the digest; `None` for a file that cannot be read: the last good
    /// definition and its schedules stay.
    pub definition: Option<(String, [u8; 32])>,
    /// Its schedules, in the order of the file.
    pub schedules: Vec<ScheduleId>,
}

/// One schedule as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: ScheduleId,
    /// Every slot up to here is decided, Unix ms.
    pub watermark_ms: i64,
    /// Its runs, counted where it says `max_runs`.
    pub runs: u32,
}

/// One agent as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its stable integer.
    pub number: i64,
    /// Its id.
    pub id: AgentId,
    /// Whether its file can be read.
    pub valid: bool,
    /// Number of its last good definition.
    pub definition: Option<i64>,
    /// Its active schedules.
    pub schedules: Vec<ScheduleRow>,
}

/// The outcome of a synchronisation: every agent that has a file.
pub type Synced = Vec<AgentRow>;

impl Store {
    /// Makes the stored agents those of `agents`; an agent without a file becomes REMOVED and its
    /// schedules end.
    pub async fn sync_definitions(&self, agents: Vec<AgentSync>, now_ms: i64) -> Result<Synced, Error> {
        self.change_definitions(agents, Vec::new(), now_ms).await
    }

    /// As [`Self::sync_definitions`], leaving the agents with the numbers `kept` as they are: only the
    /// others are written and answered.
    pub async fn change_definitions(
        &self,
        agents: Vec<AgentSync>,
        kept: Vec<i64>,
        now_ms: i64,
    ) -> Result<Synced, Error> {
        self.writer.write(move |db| sync(db, &agents, &kept, now_ms)).await
    }

    /// Keeps a definition of an agent that has no file: its number and the definition's. Lists leave it out, as
    /// every agent without a file.
    pub async fn keep_unlisted(
        &self,
        id: AgentId,
        body: String,
        sha256: [u8; 32],
        now_ms: i64,
    ) -> Result<(i64, i64), Error> {
        self.writer
            .write(move |db| {
                let definition = keep_definition(db, &body, &sha256, now_ms)?;
                let sql = "INSERT INTO agents (id, status, definition, created_at, updated_at)
                           VALUES (?1, 'REMOVED', ?2, ?3, ?3) ON CONFLICT (id) DO NOTHING";
                db.prepare_cached(sql)?.execute(params![id.as_str(), definition, now_ms])?;
                let sql = "SELECT number FROM agents WHERE id = ?1";
                let number = db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0))?;
                Ok((number, definition))
            })
            .await
    }

    /// The watermark of an active schedule, Unix ms.
    pub async fn watermark(&self, schedule: i64) -> Result<Option<i64>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT watermark FROM schedules WHERE number = ?1 AND active = 1";
                Ok(db.prepare_cached(sql)?.query_row([schedule], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// The JSON and digest of a definition.
    pub async fn definition(&self, number: i64) -> Result<Option<(String, [u8; 32])>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT body, sha256 FROM definitions WHERE number = ?1";
                let found = db.prepare_cached(sql)?.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)));
                Ok(found.optional()?)
            })
            .await
    }
}

fn sync(db: &Connection, agents: &[AgentSync], kept: &[i64], now_ms: i64) -> Result<Synced, Error> {
    let mut rows = Vec::with_capacity(agents.len());
    for agent in agents {
        rows.push(sync_agent(db, agent, now_ms)?);
    }
    let kept: std::collections::HashSet<i64> =
        rows.iter().map(|row| row.number).chain(kept.iter().copied()).collect();
    let mut statement = db.prepare_cached("SELECT number FROM agents WHERE status <> 'REMOVED'")?;
    let stored = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for gone in stored.into_iter().filter(|number| !kept.contains(number)) {
        let sql = "UPDATE agents SET status = 'REMOVED', updated_at = ?2 WHERE number = ?1";
        db.prepare_cached(sql)?.execute(params![gone, now_ms])?;
        db.prepare_cached("UPDATE schedules SET active = 0 WHERE agent = ?1 AND active = 1")?
            .execute([gone])?;
    }
    Ok(rows)
}

fn sync_agent(db: &Connection, agent: &AgentSync, now_ms: i64) -> Result<AgentRow, Error> {
    let definition = match &agent.definition {
        Some((body, sha256)) => Some(keep_definition(db, body, sha256, now_ms)?),
        None => None,
    };
    let status = if definition.is_some() { "ACTIVE" } else { "INVALID" };
    let sql =
        "INSERT INTO agents (id, status, definition, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
               ON CONFLICT (id) DO UPDATE SET status = excluded.status, updated_at = excluded.updated_at,
                                              definition = coalesce(excluded.definition, definition)
               RETURNING number, definition";
    let (number, definition) =
        db.prepare_cached(sql)?.query_row(params![agent.id.as_str(), status, definition, now_ms], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if agent.definition.is_some() {
        sync_schedules(db, number, &agent.schedules, now_ms)?;
    }
    let schedules = active_schedules(db, number)?;
    Ok(AgentRow { number, id: agent.id.clone(), valid: agent.definition.is_some(), definition, schedules })
}

fn keep_definition(db: &Connection, body: &str, sha256: &[u8; 32], now_ms: i64) -> Result<i64, Error> {
    let sql = "SELECT number FROM definitions WHERE sha256 = ?1";
    let known = db.prepare_cached(sql)?.query_row([sha256.as_slice()], |row| row.get(0)).optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    let sql = "INSERT INTO definitions (sha256, body, created_at) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?.execute(params![sha256.as_slice(), body, now_ms])?;
    Ok(db.last_insert_rowid())
}

fn sync_schedules(db: &Connection, agent: i64, wanted: &[ScheduleId], now_ms: i64) -> Result<(), Error> {
    for old in active_schedules(db, agent)? {
        if !wanted.contains(&old.id) {
            db.prepare_cached("UPDATE schedules SET active = 0 WHERE number = ?1")?.execute([old.number])?;
        }
    }
    for id in wanted {
        // A schedule that comes back begins now, or where it had been decided to, if that is later.
        let sql = "INSERT INTO schedules (agent, id, watermark, active) VALUES (?1, ?2, ?3, 1)
                   ON CONFLICT (agent, id) DO UPDATE SET active = 1, runs = 0, watermark = max(watermark, excluded.watermark)
                   WHERE active = 0";
        db.prepare_cached(sql)?.execute(params![agent, id.as_str(), now_ms])?;
    }
    Ok(())
}

fn active_schedules(db: &Connection, agent: i64) -> Result<Vec<ScheduleRow>, Error> {
    let sql = "SELECT number, id, watermark, runs FROM schedules WHERE agent = ?1 AND active = 1";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([agent], |row| {
        Ok(ScheduleRow {
            number: row.get(0)?,
            id: ScheduleId::from(row.get::<_, String>(1)?),
            watermark_ms: row.get(2)?,
            runs: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
