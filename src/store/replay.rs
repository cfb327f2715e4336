//! Replaying what a pause has left out: the one case in which a row of the ledger is decided again.
//!
//! A row that says `paused` gives way, in one transaction, to the rows that stand in its place; a row
//! that is no longer as it was read makes the whole replay void, so two of them at once replay once.

use rusqlite::{Connection, params};

use super::admit::{self, Admissions};
use super::{Admission, Error, Store, Way, word};
use crate::model::NotRun;

/// Most rows of one schedule that are replayed at once, the newest.
const ROWS_MAX: usize = 10_000;

/// A row that a pause has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PausedRow {
    /// First nominal instant, Unix ms.
    pub nominal_ms: i64,
    /// Last nominal instant, Unix ms.
    pub until_ms: i64,
    /// Slots in it.
    pub count: u64,
    /// `Paused` or `Breaker`.
    pub reason: NotRun,
}

/// What stands in the place of rows of one schedule.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The rows that go.
    pub rows: Vec<PausedRow>,
    /// The rows that come, as choices; its watermark is not moved.
    pub pass: Admission,
}

impl Store {
    /// The rows of a schedule that the present pause of its agent has left, oldest first.
    pub async fn paused_rows(&self, schedule: i64) -> Result<Vec<PausedRow>, Error> {
        self.readers.read(move |db| paused_rows(db, schedule)).await
    }

    /// Replays; how many runs it made, and what is in their way.
    pub async fn replay(&self, replay: Replay, now_ms: i64) -> Result<(usize, Way), Error> {
        self.writer.write(move |db| carry_out(db, &replay, now_ms)).await
    }
}

fn paused_rows(db: &Connection, schedule: i64) -> Result<Vec<PausedRow>, Error> {
    let sql = "SELECT s.nominal, s.until, s.count, s.reason FROM slots s
               WHERE s.schedule = ?1 AND s.reason IN ('paused', 'breaker')
                 AND s.decided_at >= (SELECT a.paused_at FROM agents a JOIN schedules c ON c.agent = a.number
                                      WHERE c.number = ?1)
               ORDER BY s.nominal DESC LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let rows =
        statement.query_map(params![schedule, i64::try_from(ROWS_MAX).unwrap_or(i64::MAX)], |row| {
            Ok(PausedRow {
                nominal_ms: row.get(0)?,
                until_ms: row.get(1)?,
                count: row.get::<_, i64>(2)?.unsigned_abs(),
                reason: word(row, "reason")?,
            })
        })?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.reverse();
    Ok(rows)
}

fn carry_out(db: &Connection, replay: &Replay, now_ms: i64) -> Result<(usize, Way), Error> {
    let Replay { rows, pass } = replay;
    let same =
        "SELECT count(*) FROM slots WHERE schedule = ?1 AND nominal = ?2 AND until = ?3 AND reason = ?4";
    for row in rows {
        let key = params![pass.schedule, row.nominal_ms, row.until_ms, row.reason.as_str()];
        let found: i64 = db.prepare_cached(same)?.query_row(key, |row| row.get(0))?;
        if found != 1 {
            return Ok((0, Way::default()));
        }
    }
    for row in rows {
        let sql = "DELETE FROM slots WHERE schedule = ?1 AND nominal = ?2";
        db.prepare_cached(sql)?.execute([pass.schedule, row.nominal_ms])?;
    }
    let mut done = Admissions::default();
    let runs = admit::replay(db, pass, &mut done, now_ms)?;
    Ok((runs, done.way))
}
