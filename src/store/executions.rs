//! Runs with an execution key, as the caller who asked for them lists them.
//!
//! The pages are counted from the front because the published form of the list is. A page is found along an index,
//! from its nearer end, and only its own rows are read; the index's entries before it are passed over one by one, so a
//! page costs the more the further from both ends it is. How many there are is kept by triggers and added up over one row an agent
//! and state. Bodies are part of a row here, so each has a bound.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};
use serde_json::Value;

use super::{Error, Store, json, run_id, word};
use crate::ids::RunId;
use crate::model::{Overrides, RunState};

/// Longest input or result in a list, bytes of JSON; a longer one is null there.
pub const LISTED_BODY_MAX: usize = 256 << 10;

/// Which executions are listed.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Those of this caller.
    pub user: String,
    /// Only those of these agents, by number.
    pub agents: Option<Vec<i64>>,
    /// Only those in this state.
    pub state: Option<RunState>,
    /// So many are passed over.
    pub offset: u64,
    /// At most so many.
    pub limit: usize,
}

/// One execution.
#[derive(Debug, Clone)]
pub struct ExecutionRow {
    /// The run's number.
    pub number: i64,
    /// The run's id.
    pub id: RunId,
    /// The agent's number.
    pub agent: i64,
    /// Number of the definition it was admitted with.
    pub definition: i64,
    /// Its key.
    pub key: String,
    /// Its session's integer.
    pub conversation: i64,
    /// Its state.
    pub state: RunState,
    /// The caller's input; `None`: that of the definition, or it is too long for a list.
    pub input: Option<Value>,
    /// Its result, where there is a structured one.
    pub result: Option<Value>,
    /// Whether input or result are left out for their length.
    pub cut: bool,
    /// Code of its failure.
    pub failure_code: Option<String>,
    /// The failure's sentence.
    pub explanation: Option<String>,
    /// Its newest attempt; 0 before the first.
    pub attempt: i64,
    /// Whether its gate found nothing to do.
    pub gated: bool,
    /// When it was admitted, Unix ms.
    pub created_ms: i64,
    /// When it ended, Unix ms.
    pub completed_ms: Option<i64>,
}

impl Store {
    /// A page of executions, newest first, and how many there are in all.
    pub async fn executions(&self, filter: ExecutionFilter) -> Result<(Vec<ExecutionRow>, u64), Error> {
        self.readers
            .read(move |db| {
                let count = count(db, &filter)?;
                // Where none can be found none is looked for: that would be a walk along all of them.
                let rows = if filter.offset < count { list(db, &filter, count)? } else { Vec::new() };
                Ok((rows, count))
            })
            .await
    }

    /// One execution of this caller in full, by the run's number or id.
    pub async fn execution(&self, name: String, user: String) -> Result<Option<ExecutionRow>, Error> {
        self.readers.read(move |db| one(db, &name, user)).await
    }
}

/// Reads the runs that `which` names; bodies longer than `max` are left out.
fn select(which: &str, max: &str) -> String {
    format!(
        "SELECT r.number, r.id, r.agent, r.definition, r.execution_key, coalesce((SELECT s.conversation FROM sessions s WHERE s.id = r.session), r.number) AS conversation,
                r.state, r.failure_code,
                r.explanation, r.attempt, r.gated, r.created_at, r.completed_at,
                iif(octet_length(x.overrides) > {max}, NULL, x.overrides) AS overrides,
                iif(octet_length(x.result) > {max}, NULL, x.result) AS result,
                coalesce(octet_length(x.overrides) > {max} OR octet_length(x.result) > {max}, 0) AS cut
         FROM runs r LEFT JOIN run_details x ON x.run = r.number
         WHERE r.number IN ({which}) ORDER BY r.number DESC"
    )
}

fn row(row: &Row<'_>) -> Result<ExecutionRow, rusqlite::Error> {
    let overrides: Option<Overrides> = json(row, "overrides")?;
    Ok(ExecutionRow {
        number: row.get("number")?,
        id: run_id(row, "id")?,
        agent: row.get("agent")?,
        definition: row.get("definition")?,
        key: row.get("execution_key")?,
        conversation: row.get("conversation")?,
        state: word(row, "state")?,
        input: overrides.and_then(|overrides| overrides.input),
        result: json(row, "result")?,
        cut: row.get("cut")?,
        failure_code: row.get("failure_code")?,
        explanation: row.get("explanation")?,
        attempt: row.get("attempt")?,
        gated: row.get("gated")?,
        created_ms: row.get("created_at")?,
        completed_ms: row.get("completed_at")?,
    })
}

fn one(db: &Connection, name: &str, user: String) -> Result<Option<ExecutionRow>, Error> {
    let (column, value) = match (name.parse(), name.parse::<RunId>()) {
        (Ok(number), _) => ("number", Sql::Integer(number)),
        (_, Ok(id)) => ("id", Sql::Blob(id.as_bytes().to_vec())),
        _ => return Ok(None),
    };
    let which =
        format!("SELECT number FROM runs WHERE {column} = ?1 AND user = ?2 AND execution_key IS NOT NULL");
    let values = [value, Sql::Text(user), Sql::Integer(i64::MAX)];
    Ok(db.prepare_cached(&select(&which, "?3"))?.query_row(params_from_iter(values), row).optional()?)
}

/// The agents of a filter as JSON: one statement takes any number of them.
fn agents(filter: &ExecutionFilter) -> Sql {
    filter.agents.as_ref().map_or(Sql::Null, |agents| {
        let list: Vec<String> = agents.iter().map(ToString::to_string).collect();
        Sql::Text(format!("[{}]", list.join(",")))
    })
}

/// Where a page of `limit` from `offset` on begins among `count` rows, seen from its nearer end: so many are passed
/// over, so many taken, in this order.
fn nearer(offset: u64, limit: u64, count: u64) -> (u64, u64, &'static str) {
    let taken = limit.min(count.saturating_sub(offset));
    let behind = count.saturating_sub(offset + taken);
    if behind < offset { (behind, taken, "ASC") } else { (offset, taken, "DESC") }
}

fn list(db: &Connection, filter: &ExecutionFilter, count: u64) -> Result<Vec<ExecutionRow>, Error> {
    let one = match filter.agents.as_deref() {
        Some([agent]) => Some(*agent),
        _ => None,
    };
    // The index is named: it is known here which of them narrows most.
    let (index, condition) = match (one, filter.state) {
        (Some(_), None) => ("executions_by_agent", "agent = ?2 AND ?3 IS NULL"),
        // Everything that is asked of a row stands in this index.
        (Some(_), Some(_)) => ("executions_by_state", "state = ?3 AND agent = ?2"),
        (None, Some(_)) => (
            "executions_by_state",
            "state = ?3 AND (?2 IS NULL OR agent IN (SELECT value FROM json_each(?2)))",
        ),
        (None, None) => (
            "executions_by_user",
            "?3 IS NULL AND (?2 IS NULL OR agent IN (SELECT value FROM json_each(?2)))",
        ),
    };
    let limit = u64::try_from(filter.limit).unwrap_or(u64::MAX);
    let (offset, limit, order) = nearer(filter.offset, limit, count);
    let which = format!(
        "SELECT number FROM runs INDEXED BY {index}
         WHERE user = ?1 AND execution_key IS NOT NULL AND {condition} ORDER BY number {order} LIMIT ?4 OFFSET ?5"
    );
    let sql = select(&which, "?6");
    let values = [
        Sql::Text(filter.user.clone()),
        one.map_or_else(|| agents(filter), Sql::Integer),
        filter.state.map_or(Sql::Null, |state| Sql::Text(state.as_str().to_owned())),
        Sql::Integer(i64::try_from(limit).unwrap_or(i64::MAX)),
        Sql::Integer(i64::try_from(offset).unwrap_or(i64::MAX)),
        Sql::Integer(i64::try_from(LISTED_BODY_MAX).unwrap_or(i64::MAX)),
    ];
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn count(db: &Connection, filter: &ExecutionFilter) -> Result<u64, Error> {
    let sql = "SELECT coalesce(sum(count), 0) FROM execution_counts
               WHERE user = ?1 AND (?2 IS NULL OR agent IN (SELECT value FROM json_each(?2)))
                 AND (?3 IS NULL OR state = ?3)";
    let state = filter.state.map_or(Sql::Null, |state| Sql::Text(state.as_str().to_owned()));
    let values = [Sql::Text(filter.user.clone()), agents(filter), state];
    let count: i64 = db.prepare_cached(sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_from_its_nearer_end() {
        assert_eq!(nearer(0, 25, 100), (0, 25, "DESC"));
        assert_eq!(nearer(25, 25, 100), (25, 25, "DESC"));
        assert_eq!(nearer(50, 25, 100), (25, 25, "ASC"));
        assert_eq!(nearer(75, 25, 90), (0, 15, "ASC"), "the last");
        assert_eq!(nearer(0, 25, 3), (0, 3, "DESC"));
    }
}
