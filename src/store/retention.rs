//! Removing history: what may go is found on the reading connections, what goes is written in small
//! transactions.
//!
//! Rows go before folders: the transaction that removes a run notes its folder among the garbage, and
//! the note goes when the folder has gone. A crash in between leaves a note, never a folder that nobody
//! knows of, and a database that was restored from a backup never condemns folders that it has not seen.
//!
//! What must stay is guarded where it is found: runs that have not ended, the newest row of all (its
//! number must not come again), the latest failure of an agent, its latest success (what the next one
//! is compared with), and a run for as long as an idempotency key answers with it.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store, run_id, uploads};
use crate::ids::RunId;
use crate::model::RunState;

/// Rows that one transaction removes at most: a few milliseconds of the writer.
pub const REMOVE_BATCH: usize = 100;
/// Rows that one question looks at at most.
pub const LOOK_BATCH: usize = 1000;
/// Newest notices that are kept.
const NOTICES: i64 = 10_000;

/// A run that has ended, as housekeeping sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// Its agent.
    pub agent: i64,
    /// When it ended, Unix ms.
    pub ended_ms: i64,
}

/// The logs of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// The run's number.
    pub run: i64,
    /// The run's id.
    pub id: RunId,
    /// Bytes on disk.
    pub bytes: i64,
    /// The agent's id.
    pub agent: String,
}

/// A folder that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbage {
    /// `runs/<run>`.
    Run(String),
    /// `sessions/<session>`.
    Session(String),
    /// `files/<id>`.
    File(String),
}

impl Garbage {
    fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Run(name) => ("run", name),
            Self::Session(name) => ("session", name),
            Self::File(name) => ("file", name),
        }
    }
}

impl Store {
    /// How far a part of the housekeeping has come; 0 where it has not begun.
    pub async fn progress(&self, name: &'static str) -> Result<i64, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT value FROM progress WHERE name = ?1";
                Ok(db.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
            })
            .await
    }

    /// Runs that ended after the transition `seq`, and the transition up to which that was looked at.
    pub async fn ended_since(&self, seq: i64) -> Result<(Vec<EndedRun>, i64), Error> {
        self.readers.read(move |db| ended_since(db, seq)).await
    }

    /// Keeps what was found of the logs of ended runs, and how far that was.
    pub async fn note_logs(&self, found: Vec<(EndedRun, u64)>, seq: i64) -> Result<(), Error> {
        self.writer.write(move |db| note_logs(db, &found, seq)).await
    }

    /// Logs to be packed: those of runs that ended before `before_ms`, and those of `large` bytes.
    pub async fn loose_logs(&self, before_ms: i64, large: i64) -> Result<Vec<LogRow>, Error> {
        let sql = "SELECT l.run, r.id, l.bytes, (SELECT a.id FROM agents a WHERE a.number = r.agent) AS agent
                   FROM logs l JOIN runs r ON r.number = l.run
                   WHERE l.packed = 0 AND l.removed_at IS NULL AND (l.ended_at <= ?1 OR l.bytes >= ?2)
                   ORDER BY l.ended_at LIMIT ?3";
        self.readers.read(move |db| log_rows(db, sql, params![before_ms, large, limit()])).await
    }

    /// The logs of a run are packed and take up so many bytes.
    pub async fn logs_packed(&self, run: i64, bytes: u64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE logs SET packed = 1, bytes = ?2 WHERE run = ?1";
                db.prepare_cached(sql)?.execute(params![run, signed(bytes)])?;
                Ok(())
            })
            .await
    }

    /// Bytes of the logs of all runs that have ended.
    pub async fn log_bytes(&self) -> Result<i64, Error> {
        self.readers
            .read(|db| {
                let sql = "SELECT coalesce(sum(bytes), 0) FROM logs WHERE removed_at IS NULL";
                Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
            })
            .await
    }

    /// The logs of the oldest runs that have some.
    pub async fn oldest_logs(&self) -> Result<Vec<LogRow>, Error> {
        let sql = "SELECT l.run, r.id, l.bytes, (SELECT a.id FROM agents a WHERE a.number = r.agent) AS agent
                   FROM logs l JOIN runs r ON r.number = l.run
                   WHERE l.removed_at IS NULL ORDER BY l.run LIMIT ?1";
        self.readers.read(move |db| log_rows(db, sql, params![limit()])).await
    }

    /// The logs of these runs are gone; the runs say so.
    pub async fn logs_removed(&self, runs: Vec<i64>, now_ms: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let mut gone = db.prepare_cached("UPDATE logs SET removed_at = ?2 WHERE run = ?1")?;
                for run in &runs {
                    gone.execute(params![run, now_ms])?;
                }
                Ok(())
            })
            .await
    }

    /// Numbers of agents after `after`, also of those whose file has gone.
    pub async fn agents_after(&self, after: i64, most: usize) -> Result<Vec<i64>, Error> {
        let sql = "SELECT number FROM agents WHERE number > ?1 ORDER BY number LIMIT ?2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.readers.read(move |db| numbers(db, sql, params![after, most])).await
    }

    /// Runs of an agent in this state, admitted before `before_ms`, beyond the newest `keep` of these, newest
    /// first, that may go.
    pub async fn excess_runs(
        &self,
        agent: i64,
        state: RunState,
        keep: u64,
        before_ms: i64,
    ) -> Result<Vec<i64>, Error> {
        // The latest failure stays, whatever the settings say.
        let keep = if state == RunState::Failed { keep.max(1) } else { keep };
        // What is kept for another reason counts among the newest: only what lies beyond them is asked whether it may go.
        let sql = "SELECT r.number FROM
                     (SELECT number, agent, created_at FROM runs INDEXED BY runs_of_agent
                      WHERE agent = ?1 AND state = ?2 ORDER BY number DESC LIMIT -1 OFFSET ?3) r
                   JOIN agents a ON a.number = r.agent
                   WHERE r.number IS NOT a.last_success
                     AND r.number < (SELECT max(number) FROM runs)
                     AND NOT EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.run = r.number)
                     AND r.created_at < ?5
                   ORDER BY r.number DESC LIMIT ?4";
        self.readers
            .read(move |db| {
                numbers(db, sql, params![agent, state.as_str(), signed(keep), limit(), before_ms])
            })
            .await
    }

    /// Runs in this state with a number after `after` that ended before `before_ms` and may go, and the
    /// number up to which that was looked at; `None`: there is nothing older.
    pub async fn outdated_runs(
        &self,
        state: RunState,
        before_ms: i64,
        after: i64,
    ) -> Result<(Vec<i64>, Option<i64>), Error> {
        self.readers.read(move |db| outdated(db, state, before_ms, after)).await
    }

    /// Removes runs that have ended, with everything that is theirs; messages that wait stay. How many went.
    pub async fn remove_runs(&self, runs: Vec<i64>) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let mut gone = 0;
                for run in &runs {
                    gone += usize::from(remove_run(db, *run)?);
                }
                Ok(gone)
            })
            .await
    }

    /// Folders that are to go.
    pub async fn garbage(&self) -> Result<Vec<Garbage>, Error> {
        self.readers
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT kind, name FROM garbage LIMIT ?1")?;
                let rows = statement.query_map([limit()], |row| {
                    let name = row.get(1)?;
                    Ok(match row.get_ref(0)?.as_str()? {
                        "run" => Garbage::Run(name),
                        "file" => Garbage::File(name),
                        _ => Garbage::Session(name),
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// These folders have gone.
    pub async fn garbage_gone(&self, gone: Vec<Garbage>) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let mut forget = db.prepare_cached("DELETE FROM garbage WHERE kind = ?1 AND name = ?2")?;
                for one in &gone {
                    let (kind, name) = one.key();
                    forget.execute([kind, name])?;
                }
                Ok(())
            })
            .await
    }

    /// Removes slots of an agent that have no run any more: those before `before_ms`, and those beyond the
    /// newest `keep` of each schedule. How many went; a full [`REMOVE_BATCH`] means that there may be more.
    pub async fn remove_slots(&self, agent: i64, before_ms: i64, keep: u64) -> Result<usize, Error> {
        let cuts = self.readers.read(move |db| slot_cuts(db, agent, before_ms, keep)).await?;
        let mut gone = 0;
        for (schedule, cut_ms) in cuts {
            let sql = "DELETE FROM slots WHERE schedule = ?1 AND nominal IN
                       (SELECT nominal FROM slots s WHERE schedule = ?1 AND nominal < ?2
                          AND (s.outcome = 'not_run' OR NOT EXISTS (SELECT 1 FROM runs WHERE number = s.run))
                        ORDER BY nominal LIMIT ?3)";
            gone += self.remove(sql, schedule, cut_ms).await?;
        }
        Ok(gone)
    }

    /// Removes idempotency keys that are no longer good; how many.
    pub async fn remove_keys(&self, now_ms: i64) -> Result<usize, Error> {
        let sql = "DELETE FROM idempotency_keys WHERE (agent, key) IN
                   (SELECT agent, key FROM idempotency_keys WHERE created_at < ?1 AND ?2 = 0 LIMIT ?3)";
        self.remove(sql, now_ms - super::idempotency::KEY_LIFE_MS, 0).await
    }

    /// Forgets what runs used up that ended before `before_ms`: budgets look at a day, guesses at the newest; how many.
    pub async fn remove_spends(&self, before_ms: i64) -> Result<usize, Error> {
        let sql = "DELETE FROM spends WHERE run IN
                   (SELECT run FROM spends INDEXED BY spends_by_time WHERE at < ?1 AND ?2 = 0 LIMIT ?3)";
        self.remove(sql, before_ms, 0).await
    }

    /// Removes sessions that were not used since `before_ms` and have no run; how many.
    pub async fn remove_sessions(&self, before_ms: i64) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let sql = "SELECT number, id FROM sessions s WHERE used_at < ?1
                             AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = s.agent AND r.session = s.id)
                           LIMIT ?2";
                let mut statement = db.prepare_cached(sql)?;
                let found = statement
                    .query_map(params![before_ms, batch()], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<Vec<(i64, String)>, _>>()?;
                for (number, id) in &found {
                    db.prepare_cached("DELETE FROM sessions WHERE number = ?1")?.execute([number])?;
                    discard(db, &Garbage::Session(id.clone()))?;
                }
                Ok(found.len())
            })
            .await
    }

    /// Removes files that no run has had since `before_ms`; how many.
    pub async fn remove_files(&self, before_ms: i64) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let sql =
                    "SELECT number, id FROM files WHERE unused_since < ?1 ORDER BY unused_since LIMIT ?2";
                let mut statement = db.prepare_cached(sql)?;
                let found = statement
                    .query_map(params![before_ms, batch()], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<Vec<(i64, String)>, _>>()?;
                for (number, id) in &found {
                    db.prepare_cached("DELETE FROM files WHERE number = ?1")?.execute([number])?;
                    discard(db, &Garbage::File(id.clone()))?;
                }
                Ok(found.len())
            })
            .await
    }

    /// Removes messages of runs that are gone, or of no run, that last changed before `before_ms`; how many.
    pub async fn remove_messages(&self, before_ms: i64) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let sql = "SELECT number FROM deliveries d WHERE state <> 'PENDING' AND updated_at < ?1
                             AND (run IS NULL OR NOT EXISTS (SELECT 1 FROM runs WHERE number = d.run))
                             AND number < (SELECT max(number) FROM deliveries) ORDER BY number LIMIT ?2";
                let found = numbers(db, sql, params![before_ms, batch()])?;
                for number in &found {
                    remove_delivery(db, *number)?;
                }
                let sql = "DELETE FROM notices WHERE seq <= (SELECT max(seq) FROM notices) - ?1";
                db.prepare_cached(sql)?.execute([NOTICES])?;
                Ok(found.len())
            })
            .await
    }

    /// Removes transitions of runs that are gone among those after `after`; where to go on, 0 at the end.
    pub async fn remove_transitions(&self, after: i64) -> Result<i64, Error> {
        let (gone, next) = self.readers.read(move |db| lost_transitions(db, after)).await?;
        for some in gone.chunks(REMOVE_BATCH) {
            let some = some.to_vec();
            self.writer
                .write(move |db| {
                    let mut remove = db.prepare_cached("DELETE FROM transitions WHERE seq = ?1")?;
                    for seq in &some {
                        remove.execute([seq])?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(next)
    }

    async fn remove(&self, sql: &'static str, first: i64, second: i64) -> Result<usize, Error> {
        self.writer
            .write(move |db| Ok(db.prepare_cached(sql)?.execute(params![first, second, batch()])?))
            .await
    }
}

fn limit() -> i64 {
    i64::try_from(LOOK_BATCH).unwrap_or(i64::MAX)
}

fn batch() -> i64 {
    i64::try_from(REMOVE_BATCH).unwrap_or(i64::MAX)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn numbers(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<i64>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn log_rows(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<LogRow>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| {
        Ok(LogRow { run: row.get(0)?, id: run_id(row, "id")?, bytes: row.get(2)?, agent: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn ended_since(db: &Connection, seq: i64) -> Result<(Vec<EndedRun>, i64), Error> {
    let sql = "SELECT t.seq, t.state IN ('COMPLETED', 'FAILED'), r.number, r.id, r.agent, r.completed_at
               FROM transitions t LEFT JOIN runs r ON r.number = t.run
               WHERE t.seq > ?1 ORDER BY t.seq LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![seq, limit()])?;
    let (mut ended, mut last) = (Vec::new(), seq);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        let (terminal, number, at): (bool, Option<i64>, Option<i64>) =
            (row.get(1)?, row.get(2)?, row.get(5)?);
        if let (true, Some(number), Some(ended_ms)) = (terminal, number, at) {
            ended.push(EndedRun { number, id: run_id(row, "id")?, agent: row.get(4)?, ended_ms });
        }
    }
    Ok((ended, last))
}

fn note_logs(db: &Connection, found: &[(EndedRun, u64)], seq: i64) -> Result<(), Error> {
    let sql = "INSERT INTO logs (run, bytes, ended_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (run) DO UPDATE SET bytes = excluded.bytes";
    let mut note = db.prepare_cached(sql)?;
    for (run, bytes) in found {
        note.execute(params![run.number, signed(*bytes), run.ended_ms])?;
    }
    let sql = "INSERT INTO progress (name, value) VALUES ('logs', ?1)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    db.prepare_cached(sql)?.execute([seq])?;
    Ok(())
}

fn outdated(
    db: &Connection,
    state: RunState,
    before_ms: i64,
    after: i64,
) -> Result<(Vec<i64>, Option<i64>), Error> {
    let sql = "SELECT r.number, r.created_at < ?2, r.completed_at < ?2 AND r.number IS NOT a.last_success
                      AND (r.state <> 'FAILED' OR EXISTS (SELECT 1 FROM runs f INDEXED BY runs_of_agent
                           WHERE f.agent = r.agent AND f.number > r.number AND f.state = 'FAILED'))
               FROM runs r INDEXED BY runs_ended JOIN agents a ON a.number = r.agent
               WHERE r.state = ?1 AND r.completed_at IS NOT NULL AND r.number > ?3
                 AND r.number < (SELECT max(number) FROM runs)
               ORDER BY r.number LIMIT ?4";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![state.as_str(), before_ms, after, batch()])?;
    let (mut found, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let (number, old, goes): (i64, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !old {
            // Numbers follow creation: nothing after it is older.
            return Ok((found, None));
        }
        last = Some(number);
        if goes {
            found.push(number);
        }
    }
    Ok((found, last))
}

fn remove_run(db: &Connection, number: i64) -> Result<bool, Error> {
    let sql = "SELECT id, schedule, nominal, session IS NULL, completed_at FROM runs
               WHERE number = ?1 AND completed_at IS NOT NULL";
    let found = db
        .prepare_cached(sql)?
        .query_row([number], |row| {
            Ok((
                run_id(row, "id")?,
                row.get::<_, Option<i64>>(1)?,
                row.get::<_, Option<i64>>(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    let Some((id, schedule, nominal, own_session, ended_ms)) = found else {
        return Ok(false);
    };
    let sql = "SELECT number FROM deliveries WHERE run = ?1 AND state <> 'PENDING'";
    for delivery in numbers(db, sql, [number])? {
        remove_delivery(db, delivery)?;
    }
    super::tasks::forget_run(db, number)?;
    for sql in [
        "DELETE FROM run_details WHERE run = ?1",
        "DELETE FROM attempts WHERE run = ?1",
        "DELETE FROM logs WHERE run = ?1",
        "DELETE FROM archives WHERE run = ?1",
        "DELETE FROM runs WHERE number = ?1",
    ] {
        db.prepare_cached(sql)?.execute([number])?;
    }
    uploads::detach(db, number, ended_ms)?;
    if let (Some(schedule), Some(nominal)) = (schedule, nominal) {
        // After a clock that was set back the slot may be another run's.
        let sql = "DELETE FROM slots WHERE schedule = ?1 AND nominal = ?2 AND run = ?3";
        db.prepare_cached(sql)?.execute(params![schedule, nominal, number])?;
    }
    let id = id.to_string();
    discard(db, &Garbage::Run(id.clone()))?;
    let shared = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = ?1)";
    if own_session && !db.prepare_cached(shared)?.query_row([&id], |row| row.get(0))? {
        discard(db, &Garbage::Session(id))?;
    }
    Ok(true)
}

/// The newest message stays: its number must not come again.
fn remove_delivery(db: &Connection, number: i64) -> Result<(), Error> {
    let newest = "SELECT ?1 = max(number) FROM deliveries";
    if db.prepare_cached(newest)?.query_row([number], |row| row.get(0))? {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM delivery_attempts WHERE delivery = ?1")?.execute([number])?;
    db.prepare_cached("DELETE FROM deliveries WHERE number = ?1")?.execute([number])?;
    Ok(())
}

pub(super) fn discard(db: &Connection, what: &Garbage) -> Result<(), Error> {
    let (kind, name) = what.key();
    let sql = "INSERT INTO garbage (kind, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    db.prepare_cached(sql)?.execute([kind, name])?;
    Ok(())
}

/// Up to where the slots of each schedule of an agent may go.
fn slot_cuts(db: &Connection, agent: i64, before_ms: i64, keep: u64) -> Result<Vec<(i64, i64)>, Error> {
    let schedules = numbers(db, "SELECT number FROM schedules WHERE agent = ?1", [agent])?;
    let sql = "SELECT nominal FROM slots WHERE schedule = ?1 ORDER BY nominal DESC LIMIT 1 OFFSET ?2";
    let mut newest = db.prepare_cached(sql)?;
    let mut oldest = db.prepare_cached("SELECT min(nominal) FROM slots WHERE schedule = ?1")?;
    let mut cuts = Vec::new();
    for schedule in schedules {
        let beyond: Option<i64> =
            newest.query_row(params![schedule, signed(keep)], |row| row.get(0)).optional()?;
        // The slot beyond goes too.
        let cut_ms = before_ms.max(beyond.map_or(i64::MIN, |nominal| nominal + 1));
        let first: Option<i64> = oldest.query_row([schedule], |row| row.get(0))?;
        if first.is_some_and(|first| first < cut_ms) {
            cuts.push((schedule, cut_ms));
        }
    }
    Ok(cuts)
}

fn lost_transitions(db: &Connection, after: i64) -> Result<(Vec<i64>, i64), Error> {
    // The newest stay: the feed goes on from their number.
    let sql = "SELECT seq, NOT EXISTS (SELECT 1 FROM runs WHERE number = t.run)
               FROM transitions t WHERE seq > ?1 AND seq < (SELECT max(seq) FROM transitions) - 1000
               ORDER BY seq LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, limit()])?;
    let (mut gone, mut seen, mut last) = (Vec::new(), 0, after);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        seen += 1;
        if row.get(1)? {
            gone.push(last);
        }
    }
    Ok((gone, if seen < LOOK_BATCH { 0 } else { last }))
}
