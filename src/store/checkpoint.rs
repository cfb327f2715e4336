//! Checkpoints: moves what is in the write-ahead log into the database file, beside the writer.
//!
//! SQLite would do it inside some commit, and that one caller would wait for all of it. A connection
//! of its own does it in passive mode, which blocks nobody. Under writes without a pause such a
//! checkpoint never catches up and the log would grow without bound: past [`WAL_PAGES_MAX`] the
//! writer is asked to do a whole one between two transactions. Without new commits nothing is done:
//! an idle daemon does not touch the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use super::writer::Counts;

/// Pages in the log from which on the writer checkpoints itself: 64 MiB of 4 KiB pages.
pub const WAL_PAGES_MAX: i64 = 16_384;
/// Pages in the log below which a checkpoint is not worth its sync.
const WAL_PAGES_MIN: u64 = 512;
/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Checkpoints until `stop` hangs up; then once more, so that the next start finds a short log.
pub(super) fn run(db: &Connection, counts: &Arc<Counts>, wanted: &AtomicBool, stop: &Receiver<()>) {
    let mut seen = 0;
    loop {
        let over = !matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
        let jobs = counts.jobs.load(Ordering::Relaxed);
        // A job dirties at least one page; a few small ones can wait for more.
        if jobs.wrapping_sub(seen) >= WAL_PAGES_MIN || over {
            seen = jobs;
            match passive(db) {
                Ok(pages) if pages > WAL_PAGES_MAX => wanted.store(true, Ordering::Relaxed),
                Ok(_) => {}
                Err(e) => tracing::warn!(error = %e, "a checkpoint failed and is tried again: {e}"),
            }
        }
        if over {
            return;
        }
    }
}

/// A checkpoint that blocks nobody; the pages in the log.
fn passive(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))
}

/// A whole checkpoint by the writer itself. Readers that are in the way make it a partial one.
pub(super) fn whole(db: &Connection) -> Result<(), rusqlite::Error> {
    db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}
