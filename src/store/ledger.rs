//! Reading the slot ledger.

use rusqlite::{Connection, params};

use super::{Error, Store, word};
use crate::ids::{AgentGlob, AgentId, RunId};
use crate::model::NotRun;

/// Which slots to list.
#[derive(Debug, Clone, Default)]
pub struct SlotFilter {
    /// Only those of this agent, by id.
    pub agent: Option<String>,
    /// Only those of agents that the asker may see; `None`: all.
    pub visible: Option<AgentGlob>,
    /// Only nominal instants before this, Unix ms (and, at the same instant, lower schedule numbers):
    /// the place where the page before ended.
    pub before: Option<(i64, i64)>,
    /// Only nominal instants from this on, Unix ms.
    pub from_ms: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// One row of the ledger.
#[derive(Debug, Clone)]
pub struct SlotRow {
    /// The agent's id.
    pub agent: String,
    /// The schedule's number.
    pub schedule_number: i64,
    /// The schedule's id.
    pub schedule: String,
    /// First nominal instant, Unix ms.
    pub nominal_ms: i64,
    /// Last nominal instant of the stretch, Unix ms.
    pub until_ms: i64,
    /// Slots in it.
    pub count: i64,
    /// Why it did not run; `None`: it did.
    pub reason: Option<NotRun>,
    /// Its run; without one, the run in the way or the one that stands for it.
    pub run: Option<RunId>,
    /// Admission minus nominal instant of its own run, ms.
    pub lateness_ms: Option<i64>,
    /// When it was decided, Unix ms.
    pub decided_at_ms: i64,
}

impl Store {
    /// Slots, newest first.
    pub async fn slots(&self, filter: SlotFilter) -> Result<Vec<SlotRow>, Error> {
        self.readers.read(move |db| list(db, &filter)).await
    }
}

impl Store {
    /// The rows of an agent's schedules, those that have ended too, that touch `[from_ms, to_ms)`;
    /// newest first, the newest few of each schedule.
    pub async fn slots_within(&self, agent: i64, from_ms: i64, to_ms: i64) -> Result<Vec<SlotRow>, Error> {
        self.readers.read(move |db| within(db, agent, from_ms, to_ms)).await
    }
}

/// Rows of each schedule that [`Store::slots_within`] reads.
const WITHIN_MAX: usize = 20;

fn within(db: &Connection, agent: i64, from_ms: i64, to_ms: i64) -> Result<Vec<SlotRow>, Error> {
    let mut statement = db.prepare_cached("SELECT number FROM schedules WHERE agent = ?1")?;
    let numbers = statement.query_map([agent], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    // Rows never overlap, so the newest ones before the end are the only ones that can reach into it.
    let sql = format!(
        "{SELECT} {JOINED}
         WHERE s.schedule = ?5 AND s.nominal < ?1 AND s.nominal > ?2 AND s.nominal >= ?3
         ORDER BY s.nominal DESC LIMIT ?4"
    );
    let filter = SlotFilter { before: Some((to_ms, i64::MIN)), limit: WITHIN_MAX, ..SlotFilter::default() };
    let mut rows = Vec::new();
    for number in numbers {
        rows.extend(page(db, &sql, &filter, Some(number))?.into_iter().filter(|row| row.until_ms >= from_ms));
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.nominal_ms, row.schedule_number)));
    Ok(rows)
}

/// Each statement reads along one index and stops at the page's end.
const SELECT: &str = "SELECT a.id AS agent, s.schedule, c.id AS schedule_id, s.nominal, s.until, s.count,
       s.outcome, s.reason, r.id AS run_id, r.lateness_ms, s.decided_at
    FROM slots s";
const JOINED: &str = "JOIN schedules c ON c.number = s.schedule
    JOIN agents a ON a.number = c.agent
    LEFT JOIN runs r ON r.number = s.run";

fn list(db: &Connection, filter: &SlotFilter) -> Result<Vec<SlotRow>, Error> {
    let wanted = filter.agent.as_deref().and_then(|id| id.parse::<AgentId>().ok());
    let Some(only) = super::narrowed(wanted, filter.visible.as_ref()) else { return Ok(Vec::new()) };
    let agent = filter.agent.clone().or_else(|| only.map(|id| id.to_string()));
    let Some(agent) = &agent else {
        // A pattern holds nothing that would have to be quoted.
        let seen = filter.visible.as_ref().map_or_else(String::new, |glob| format!("AND a.id GLOB '{glob}'"));
        let sql = format!(
            "{SELECT} INDEXED BY slots_by_time {JOINED}
             WHERE (s.nominal, s.schedule) < (?1, ?2) AND s.nominal >= ?3 {seen}
             ORDER BY s.nominal DESC, s.schedule DESC LIMIT ?4"
        );
        return page(db, &sql, filter, None);
    };
    // An agent has a few schedules: the newest of each, merged.
    let schedules = "SELECT number FROM schedules WHERE agent = (SELECT number FROM agents WHERE id = ?1)";
    let mut statement = db.prepare_cached(schedules)?;
    let numbers = statement.query_map([agent], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let sql = format!(
        "{SELECT} {JOINED}
         WHERE s.schedule = ?5 AND s.nominal <= ?1 AND (s.nominal, s.schedule) < (?1, ?2) AND s.nominal >= ?3
         ORDER BY s.nominal DESC LIMIT ?4"
    );
    let mut rows = Vec::new();
    for number in numbers {
        rows.extend(page(db, &sql, filter, Some(number))?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.nominal_ms, row.schedule_number)));
    rows.truncate(filter.limit);
    Ok(rows)
}

fn page(
    db: &Connection,
    sql: &str,
    filter: &SlotFilter,
    schedule: Option<i64>,
) -> Result<Vec<SlotRow>, Error> {
    let (before_ms, before_schedule) = filter.before.unwrap_or((i64::MAX, i64::MAX));
    let from_ms = filter.from_ms.unwrap_or(i64::MIN);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    let rows = match schedule {
        None => statement.query_map(params![before_ms, before_schedule, from_ms, limit], row)?.collect(),
        Some(number) => {
            statement.query_map(params![before_ms, before_schedule, from_ms, limit, number], row)?.collect()
        }
    };
    let rows: Result<Vec<SlotRow>, rusqlite::Error> = rows;
    Ok(rows?)
}

fn row(row: &rusqlite::Row<'_>) -> Result<SlotRow, rusqlite::Error> {
    let ran = row.get_ref(6)?.as_str()? == "run";
    Ok(SlotRow {
        agent: row.get(0)?,
        schedule_number: row.get(1)?,
        schedule: row.get(2)?,
        nominal_ms: row.get(3)?,
        until_ms: row.get(4)?,
        count: row.get(5)?,
        reason: if ran { None } else { Some(word(row, "reason")?) },
        run: row.get::<_, Option<Vec<u8>>>(8)?.and_then(|b| RunId::from_slice(&b)),
        lateness_ms: if ran { row.get(9)? } else { None },
        decided_at_ms: row.get(10)?,
    })
}
