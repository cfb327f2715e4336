//! Notices: facts about the daemon as a whole that nobody may have watched happen, such as a clock
//! that was set back. They are few and never deleted by the daemon itself.

use rusqlite::params;

use super::{Error, Store};

impl Store {
    /// Keeps a notice.
    pub async fn add_notice(&self, kind: &'static str, text: String, now_ms: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let sql = "INSERT INTO notices (at, kind, text) VALUES (?1, ?2, ?3)";
                db.prepare_cached(sql)?.execute(params![now_ms, kind, text])?;
                Ok(())
            })
            .await
    }

    /// Rows of the ledger that stand for slots before and after `at_ms`, of schedules that are in force and
    /// whose watermark lies beyond `beyond_ms`.
    pub async fn across(&self, at_ms: i64, beyond_ms: i64) -> Result<Vec<Across>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT s.schedule, s.nominal FROM schedules c, slots s
                           WHERE c.active = 1 AND c.watermark > ?2 AND s.schedule = c.number AND s.until > ?1
                             AND s.nominal = (SELECT max(nominal) FROM slots WHERE schedule = c.number AND nominal <= ?1)";
                let mut statement = db.prepare(sql)?;
                let rows = statement.query_map([at_ms, beyond_ms], |row| {
                    Ok(Across { schedule: row.get(0)?, nominal_ms: row.get(1)?, until_ms: 0, count: 0 })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The clock was set back by much: slots up to `now_ms` stay decided, what a wrong clock has decided
    /// of the time to come is decided anew, watermarks beyond `beyond_ms` move back, and a notice says so.
    /// `cut` are the rows of [`Store::across`] as they are up to now. A row that is not cut stays, and no
    /// watermark moves to before its end: none of its slots may be decided twice.
    pub async fn rewind_watermarks(
        &self,
        now_ms: i64,
        beyond_ms: i64,
        cut: Vec<Across>,
        text: String,
    ) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                for sql in BEGUN_AHEAD {
                    db.prepare_cached(sql)?.execute([now_ms])?;
                }
                let sql = "DELETE FROM slots WHERE nominal > ?1
                             AND schedule IN (SELECT number FROM schedules WHERE watermark > ?2)";
                db.prepare_cached(sql)?.execute([now_ms, beyond_ms])?;
                let sql = "UPDATE slots SET until = ?3, count = ?4 WHERE schedule = ?1 AND nominal = ?2 AND until > ?5";
                for Across { schedule, nominal_ms, until_ms, count } in &cut {
                    db.prepare_cached(sql)?.execute(params![schedule, nominal_ms, until_ms, count, now_ms])?;
                }
                let sql = "UPDATE schedules SET watermark =
                             max(?1, coalesce((SELECT until FROM slots WHERE schedule = number ORDER BY nominal DESC LIMIT 1), ?1))
                           WHERE watermark > ?2";
                db.prepare_cached(sql)?.execute([now_ms, beyond_ms])?;
                let sql = "INSERT INTO notices (at, kind, text) VALUES (?1, 'clock_rewound', ?2)";
                db.prepare_cached(sql)?.execute(params![now_ms, text])?;
                Ok(())
            })
            .await
    }
}

/// What was begun by a clock that was ahead of `?1`, which is now: a wait keeps its length and not its end, or
/// a message would wait until the wrong time comes. What was shifted bears the new time, so that a clock that goes
/// back once more shifts it by no more than that.
const BEGUN_AHEAD: [&str; 6] = [
    "UPDATE runs SET start_deadline = start_deadline - updated_at + ?1, not_before = not_before - updated_at + ?1,
                     updated_at = ?1
     WHERE completed_at IS NULL AND updated_at > ?1",
    "UPDATE deliveries SET next_at = next_at - updated_at + ?1, updated_at = ?1
     WHERE state = 'PENDING' AND updated_at > ?1",
    "UPDATE agents SET probe_at = probe_at - last_ended_at + ?1 WHERE probe_at > ?1 AND last_ended_at > ?1",
    "UPDATE agents SET last_ended_at = min(last_ended_at, ?1), last_success_at = min(last_success_at, ?1)
     WHERE last_ended_at > ?1 OR last_success_at > ?1",
    "UPDATE agents SET paused_at = ?1 WHERE paused_at > ?1",
    "UPDATE idempotency_keys SET created_at = ?1 WHERE created_at > ?1",
];

/// A row of the ledger that stands for slots on both sides of an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Across {
    /// The schedule's number.
    pub schedule: i64,
    /// Its first slot, Unix ms.
    pub nominal_ms: i64,
    /// The last slot that it is to stand for, Unix ms.
    pub until_ms: i64,
    /// How many those are.
    pub count: i64,
}
