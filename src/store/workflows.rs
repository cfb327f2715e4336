//! Workflows: what runs did in their browsers, by agent and purpose, in numbered versions.
//!
//! A version is written in the transaction that completes its run, so there is none of a run that failed or whose end
//! was never written. The newest of a purpose is the current one, unless one is pinned. A version that says the same
//! as one that is there is not kept twice. Numbers never come again.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Error, Store, json, to_json};
use crate::ids::RunId;
use crate::model::workflow::{Made, Workflow};

/// Newest versions of one purpose that are kept, beside a pinned one.
pub const WORKFLOW_VERSIONS_MAX: usize = 10;
/// Newest versions of one agent that are kept, of all purposes together, beside pinned ones.
pub const WORKFLOWS_MAX: usize = 200;

/// One version of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowRow {
    /// Its number among the agent's.
    pub number: i64,
    /// What it is for.
    pub purpose: String,
    /// It.
    pub workflow: Workflow,
    /// The run that it was recorded from; `None`: it is gone.
    pub run: Option<RunId>,
    /// When, Unix ms.
    pub created_ms: i64,
    /// Whether it is used whatever is newer.
    pub pinned: bool,
    /// Whether runs use it: it is pinned, or the newest of its purpose where none is.
    pub current: bool,
}

const ROWS: &str = "SELECT w.number, w.purpose, w.body, w.created_at, w.pinned,
        (SELECT r.id FROM runs r WHERE r.number = w.run) AS run_id,
        w.number = (SELECT o.number FROM workflows o WHERE o.agent = w.agent AND o.purpose = w.purpose
                    ORDER BY o.pinned DESC, o.number DESC LIMIT 1) AS current
    FROM workflows w";

impl Store {
    /// The versions of an agent, newest first.
    pub async fn workflows(&self, agent: i64) -> Result<Vec<WorkflowRow>, Error> {
        let sql = format!("{ROWS} WHERE w.agent = ?1 ORDER BY w.number DESC");
        self.readers.read(move |db| rows(db, &sql, params![agent])).await
    }

    /// Whether an agent has any.
    pub async fn has_workflows(&self, agent: i64) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM workflows WHERE agent = ?1";
        self.readers.read(move |db| Ok(db.prepare_cached(sql)?.exists([agent])?)).await
    }

    /// One version.
    pub async fn workflow(&self, agent: i64, number: i64) -> Result<Option<WorkflowRow>, Error> {
        let sql = format!("{ROWS} WHERE w.agent = ?1 AND w.number = ?2");
        self.readers.read(move |db| Ok(rows(db, &sql, params![agent, number])?.pop())).await
    }

    /// The versions for a purpose in the order in which they are to be tried: the pinned one alone, else newest first.
    pub async fn workflows_for(&self, agent: i64, purpose: String) -> Result<Vec<WorkflowRow>, Error> {
        let sql = format!("{ROWS} WHERE w.agent = ?1 AND w.purpose = ?2 ORDER BY w.number DESC");
        let mut found = self.readers.read(move |db| rows(db, &sql, params![agent, purpose])).await?;
        if found.iter().any(|row| row.pinned) {
            found.retain(|row| row.pinned);
        }
        Ok(found)
    }

    /// The version that was recorded from a run.
    pub async fn workflow_of_run(&self, run: i64) -> Result<Option<WorkflowRow>, Error> {
        let sql = format!("{ROWS} WHERE w.run = ?1 ORDER BY w.number");
        self.readers.read(move |db| Ok(rows(db, &sql, params![run])?.pop())).await
    }

    /// Pins a version, in the place of another of its purpose, or lets it go; whether there is one.
    pub async fn pin_workflow(&self, agent: i64, number: i64, pinned: bool) -> Result<bool, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE workflows SET pinned = 0 WHERE agent = ?1 AND pinned = 1 AND purpose =
                             (SELECT purpose FROM workflows WHERE agent = ?1 AND number = ?2) AND (?3 OR number = ?2)";
                db.prepare_cached(sql)?.execute(params![agent, number, pinned])?;
                let sql = "UPDATE workflows SET pinned = ?3 WHERE agent = ?1 AND number = ?2";
                Ok(db.prepare_cached(sql)?.execute(params![agent, number, pinned])? == 1)
            })
            .await
    }

    /// Forgets a version of an agent, or all of them; how many went. Runs that have begun with one go on.
    pub async fn forget_workflows(&self, agent: i64, number: Option<i64>) -> Result<usize, Error> {
        let sql = "DELETE FROM workflows WHERE agent = ?1 AND (?2 IS NULL OR number = ?2)";
        self.writer.write(move |db| Ok(db.prepare_cached(sql)?.execute(params![agent, number])?)).await
    }
}

fn rows(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<WorkflowRow>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| {
        let run: Option<Vec<u8>> = row.get("run_id")?;
        Ok(WorkflowRow {
            number: row.get("number")?,
            purpose: row.get("purpose")?,
            workflow: json(row, "body")?.ok_or(rusqlite::Error::InvalidQuery)?,
            run: run.and_then(|id| RunId::from_slice(&id)),
            created_ms: row.get("created_at")?,
            pinned: row.get("pinned")?,
            current: row.get("current")?,
        })
    };
    let found = statement.query_map(values, read)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Keeps what a completed run did, unless the same is the newest already, or pinned. What was left for something newer
/// and is right again becomes the newest.
pub(super) fn keep(db: &Connection, agent: i64, run: i64, made: &Made, at_ms: i64) -> Result<(), Error> {
    let sql = "SELECT 1 FROM workflows WHERE agent = ?1 AND purpose = ?2
                 AND json_remove(body, '$.recorded') = json_remove(?3, '$.recorded')
                 AND (pinned = 1 OR number =
                      (SELECT max(number) FROM workflows WHERE agent = ?1 AND purpose = ?2))";
    let body = to_json("workflows", &made.workflow)?;
    let purpose = &made.purpose;
    if db.prepare_cached(sql)?.query_row(params![agent, purpose, body], |_| Ok(())).optional()?.is_some() {
        return Ok(());
    }
    let again = "DELETE FROM workflows WHERE agent = ?1 AND purpose = ?2
                   AND json_remove(body, '$.recorded') = json_remove(?3, '$.recorded')";
    db.prepare_cached(again)?.execute(params![agent, purpose, body])?;
    let sql = "UPDATE agents SET workflows = workflows + 1 WHERE number = ?1 RETURNING workflows";
    let number: i64 = db.prepare_cached(sql)?.query_row([agent], |row| row.get(0))?;
    let sql = "INSERT INTO workflows (agent, number, purpose, body, run, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    db.prepare_cached(sql)?.execute(params![agent, number, purpose, body, run, at_ms])?;
    let beyond = "DELETE FROM workflows WHERE agent = ?1 AND pinned = 0 AND number IN
                    (SELECT number FROM workflows WHERE agent = ?1 AND (?2 = '' OR purpose = ?2)
                     ORDER BY number DESC LIMIT -1 OFFSET ?3)";
    let mut beyond = db.prepare_cached(beyond)?;
    beyond.execute(params![agent, purpose, most(WORKFLOW_VERSIONS_MAX)])?;
    beyond.execute(params![agent, "", most(WORKFLOWS_MAX)])?;
    Ok(())
}

fn most(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
