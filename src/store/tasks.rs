//! Tasks: stored requests, each with the runs that were made of it.
//!
//! A task and its first run are one transaction, so there is no task that nobody asked to run. It goes with
//! its last run; its number never comes again.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Manual, ManualRefusal, ManualRun, Store, admit, json, to_json, word};
use crate::model::{ResponseFormat, RunState, TaskRequest};

/// Newest runs of a task that are shown with it.
pub const TASK_RUNS_SHOWN: usize = 25;

/// The task that a run is to be of.
#[derive(Debug, Clone)]
pub enum OfTask {
    /// A new one: this request.
    New(Box<TaskRequest>),
    /// A known one.
    Known(i64),
}

/// A stored request.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// Its number.
    pub number: i64,
    /// The agent's id.
    pub agent: String,
    /// Who asked.
    pub user: Option<String>,
    /// What for.
    pub request: TaskRequest,
    /// When, Unix ms.
    pub created_ms: i64,
    /// Its newest runs, newest first: number and state.
    pub runs: Vec<(i64, RunState)>,
}

impl Store {
    /// Admits a run of a task; the second number is the task's. A request that came before under the same key
    /// is answered with its run and the task of that.
    pub async fn admit_of_task(
        &self,
        manual: Manual,
        of: OfTask,
        format: ResponseFormat,
        now_ms: i64,
    ) -> Result<Result<(ManualRun, i64), ManualRefusal>, Error> {
        self.writer.write(move |db| admit_of_task(db, &manual, &of, format, now_ms)).await
    }

    /// A task.
    pub async fn task(&self, number: i64) -> Result<Option<TaskRow>, Error> {
        self.readers.read(move |db| task(db, number)).await
    }

    /// The task that a run is of, and the shape of its result.
    pub async fn task_of(&self, run: i64) -> Result<Option<(i64, ResponseFormat)>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT task, format FROM task_runs WHERE run = ?1";
                let found =
                    db.prepare_cached(sql)?.query_row([run], |row| Ok((row.get(0)?, word(row, "format")?)));
                Ok(found.optional()?)
            })
            .await
    }

    /// The state of a run; `None`: there is none.
    pub async fn run_state(&self, number: i64) -> Result<Option<RunState>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT state FROM runs WHERE number = ?1";
                Ok(db.prepare_cached(sql)?.query_row([number], |row| word(row, "state")).optional()?)
            })
            .await
    }
}

fn admit_of_task(
    db: &Connection,
    manual: &Manual,
    of: &OfTask,
    format: ResponseFormat,
    now_ms: i64,
) -> Result<Result<(ManualRun, i64), ManualRefusal>, Error> {
    let run = match admit::admit_manual(db, manual, now_ms)? {
        Ok(run) => run,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if run.repeated {
        let sql = "SELECT task, format FROM task_runs WHERE run = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, word(row, "format")?));
        let before: Option<(i64, ResponseFormat)> =
            db.prepare_cached(sql)?.query_row([run.number], read).optional()?;
        let same = |(task, shape): &(i64, ResponseFormat)| {
            *shape == format && !matches!(of, OfTask::Known(known) if known != task)
        };
        // The key was used for another request: nothing was written yet, nothing is.
        let before = before.filter(same);
        return Ok(before.map_or(Err(ManualRefusal::KeyReused(run.id)), |(task, _)| Ok((run, task))));
    }
    let task = match of {
        OfTask::Known(task) => *task,
        OfTask::New(request) => {
            let sql = "INSERT INTO tasks (agent, user, request, created_at) VALUES (?1, ?2, ?3, ?4)";
            let body = to_json("tasks", request)?;
            db.prepare_cached(sql)?.execute(params![manual.run.agent, manual.user, body, now_ms])?;
            db.last_insert_rowid()
        }
    };
    let sql = "INSERT INTO task_runs (run, task, format) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?.execute(params![run.number, task, format.as_str()])?;
    Ok(Ok((run, task)))
}

fn task(db: &Connection, number: i64) -> Result<Option<TaskRow>, Error> {
    let sql = "SELECT t.number, a.id, t.user, t.request, t.created_at
               FROM tasks t JOIN agents a ON a.number = t.agent WHERE t.number = ?1";
    let found = db.prepare_cached(sql)?.query_row([number], |row| {
        Ok(TaskRow {
            number: row.get(0)?,
            agent: row.get(1)?,
            user: row.get(2)?,
            request: json(row, "request")?.unwrap_or_default(),
            created_ms: row.get(4)?,
            runs: Vec::new(),
        })
    });
    let Some(mut task) = found.optional()? else { return Ok(None) };
    let sql = "SELECT r.number, r.state FROM task_runs t JOIN runs r ON r.number = t.run
               WHERE t.task = ?1 ORDER BY t.run DESC LIMIT ?2";
    let most = i64::try_from(TASK_RUNS_SHOWN).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    let runs = statement.query_map([number, most], |row| Ok((row.get(0)?, word(row, "state")?)))?;
    task.runs = runs.collect::<Result<_, _>>()?;
    Ok(Some(task))
}

/// A run goes: its task goes with its last one.
pub(super) fn forget_run(db: &Connection, run: i64) -> Result<(), Error> {
    let sql = "DELETE FROM task_runs WHERE run = ?1 RETURNING task";
    let task: Option<i64> = db.prepare_cached(sql)?.query_row([run], |row| row.get(0)).optional()?;
    if let Some(task) = task {
        let sql =
            "DELETE FROM tasks WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM task_runs WHERE task = ?1)";
        db.prepare_cached(sql)?.execute([task])?;
    }
    Ok(())
}
