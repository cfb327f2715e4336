//! The books after a clock that was set back by much: everything goes on from now.
//!
//! What was written by the wrong clock lies in the future. Watermarks move back; slots that were left out
//! and are to come again lose their rows, those that became a run keep them; and a wait that was begun by
//! the wrong clock keeps its length and not its end, or a message would wait for decades.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store};

/// A clock that was set back.
#[derive(Debug, Clone)]
pub struct Rewind {
    /// The time now, Unix ms.
    pub now_ms: i64,
    /// What the notice says.
    pub text: String,
    /// What is left of the stretches over which now lies.
    pub cuts: Vec<Cut>,
}

/// What is left of a stretch of slots.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The schedule's number.
    pub schedule: i64,
    /// Its first slot, Unix ms.
    pub nominal_ms: i64,
    /// Its last slot from here on, Unix ms.
    pub until_ms: i64,
    /// How many they are.
    pub count: u64,
}

/// Waits that were begun after `?1`, which is now.
const WAITS: [&str; 4] = [
    "UPDATE runs SET start_deadline = start_deadline - created_at + ?1
     WHERE completed_at IS NULL AND start_deadline IS NOT NULL AND created_at > ?1",
    "UPDATE runs SET not_before = not_before - updated_at + ?1
     WHERE completed_at IS NULL AND not_before IS NOT NULL AND updated_at > ?1",
    "UPDATE deliveries SET next_at = next_at - updated_at + ?1 WHERE state = 'PENDING' AND updated_at > ?1",
    "UPDATE agents SET probe_at = probe_at - last_ended_at + ?1 WHERE probe_at > ?1 AND last_ended_at > ?1",
];

/// What is said to have happened after now.
const PAST: [&str; 5] = [
    "UPDATE schedules SET watermark = ?1 WHERE watermark > ?1",
    "DELETE FROM slots WHERE nominal > ?1 AND outcome = 'not_run'",
    "UPDATE agents SET last_ended_at = min(last_ended_at, ?1), last_success_at = min(last_success_at, ?1)
     WHERE last_ended_at > ?1 OR last_success_at > ?1",
    "UPDATE agents SET paused_at = ?1 WHERE paused_at > ?1",
    "UPDATE idempotency_keys SET created_at = ?1 WHERE created_at > ?1",
];

impl Store {
    /// The clock was set back by much: slots up to now stay decided, everything goes on from there, and a
    /// notice says so.
    pub async fn rewind(&self, rewind: Rewind) -> Result<(), Error> {
        self.writer.write(move |db| carry_out(db, &rewind)).await
    }

    /// Stretches without a run that begin at or before `at_ms` and end after it: schedule and first slot.
    pub async fn stretches_over(&self, at_ms: i64) -> Result<Vec<(i64, i64)>, Error> {
        let sql = "SELECT schedule, nominal FROM slots WHERE nominal <= ?1 AND until > ?1";
        self.readers
            .read(move |db| {
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([at_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Nominal instant of the newest row of the ledger, Unix ms.
    pub async fn newest_slot(&self) -> Result<Option<i64>, Error> {
        let sql = "SELECT nominal FROM slots INDEXED BY slots_by_time ORDER BY nominal DESC LIMIT 1";
        self.readers.read(move |db| Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?)).await
    }

    /// The rows that schedules have after an instant each: first and last slot, in order.
    pub async fn decided_after(&self, of: Vec<(i64, i64)>) -> Result<HashMap<i64, Vec<(i64, i64)>>, Error> {
        let sql = "SELECT nominal, until FROM slots WHERE schedule = ?1
                     AND nominal >= (SELECT coalesce(max(nominal), ?2) FROM slots WHERE schedule = ?1 AND nominal <= ?2)
                     AND until > ?2 ORDER BY nominal";
        self.readers
            .read(move |db| {
                let mut found = HashMap::new();
                for (schedule, after_ms) in of {
                    let mut statement = db.prepare_cached(sql)?;
                    let rows = statement.query_map([schedule, after_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    let rows = rows.collect::<Result<Vec<(i64, i64)>, _>>()?;
                    if !rows.is_empty() {
                        found.insert(schedule, rows);
                    }
                }
                Ok(found)
            })
            .await
    }
}

fn carry_out(db: &Connection, rewind: &Rewind) -> Result<(), Error> {
    let Rewind { now_ms, text, cuts } = rewind;
    for sql in WAITS.iter().chain(&PAST) {
        db.prepare_cached(sql)?.execute([now_ms])?;
    }
    for Cut { schedule, nominal_ms, until_ms, count } in cuts {
        let sql = "UPDATE slots SET until = ?3, count = ?4 WHERE schedule = ?1 AND nominal = ?2";
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        db.prepare_cached(sql)?.execute(params![schedule, nominal_ms, until_ms, count])?;
    }
    let sql = "INSERT INTO notices (at, kind, text) VALUES (?1, 'clock_rewound', ?2)";
    db.prepare_cached(sql)?.execute(params![now_ms, text])?;
    Ok(())
}
