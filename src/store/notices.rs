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

    /// The clock was set back by much: slots up to `now_ms` stay decided, later watermarks move back
    /// to it, and a notice says so. Returns how many watermarks moved.
    pub async fn rewind_watermarks(&self, now_ms: i64, text: String) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE schedules SET watermark = ?1 WHERE watermark > ?1 AND active = 1";
                let moved = db.prepare_cached(sql)?.execute([now_ms])?;
                let sql = "INSERT INTO notices (at, kind, text) VALUES (?1, 'clock_rewound', ?2)";
                db.prepare_cached(sql)?.execute(params![now_ms, text])?;
                Ok(moved)
            })
            .await
    }
}
