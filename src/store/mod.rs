//! The store: one SQLite file that holds every promise of the daemon.
//!
//! All SQL of the project is below this module, one function one transaction. Writes go through one
//! thread with group commit ([`Writer`]), reads through a few read-only connections; a caller of a
//! write is answered after its commit at `synchronous=FULL`, so what was answered survives a power
//! cut. State, its transition row and its outbox rows are written together or not at all.
//!
//! Every statement that moves a run names the state and the epoch that it moves from and checks
//! that one row changed. A worker that was overtaken (by a crash, a restart, a second claim) can
//! therefore never write over what came after it: it gets [`Error::Stale`].
//!
//! The daemon holds a POSIX lock beside the database for its life; a second daemon on the same
//! state directory is refused before the file is touched.

mod activity;
mod admit;
mod agents;
mod archives;
mod attempts;
mod backfill;
mod backup;
mod breaker;
mod budget;
mod checkpoint;
mod claim;
mod definitions;
mod due;
mod endpoints;
mod error;
mod events;
mod executions;
mod files;
mod habits;
mod idempotency;
mod ledger;
mod listing;
mod migrate;
mod notes;
mod notices;
mod outbox;
mod overdue;
mod overlap;
mod pause;
mod previous;
mod reader;
mod retention;
mod run;
mod sessions;
mod settle;
mod spends;
mod tally;
mod tasks;
mod tokens;
mod transitions;
mod uploads;
mod workflows;
mod writer;

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod execution_tests;
#[cfg(test)]
mod spends_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod workflow_tests;

use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::ids::{AgentGlob, AgentId};

pub use activity::Activity;
pub use admit::{Admission, Admissions, Admitted, Choice, Manual, ManualRefusal, ManualRun, NewRun, SlotRun};
pub use agents::{AgentGlance, AgentSummary, RECENT_MAX, TroubledAgent};
pub use archives::{ArchiveRow, DueArchive};
pub use attempts::{Retried, Retry, RunAttempt, Spent};
pub use backfill::{BACKFILL_MAX, Backfilled, Earlier, PastRows, PastRun};
pub use backup::{backup, check_backup, restore, settle as settle_backup};
pub use breaker::{BREAKER, BreakerStep, Verdict};
pub use budget::{Budgets, DAY_MS, Quota, Shortage, Used, UsedUp};
pub use claim::{AGEING, Claimed, Claims, Hurdle, Room, Waits};
pub use definitions::{AgentRow, AgentSync, ScheduleRow, Synced};
pub use due::{AGENT_COMMAND, DAEMON_COMMAND, Due, DueDelivery, Places, UnderWay, is_command};
pub use endpoints::{AlertingRows, Change, EndpointRow};
pub use error::Error;
pub use events::{EventDetail, Found};
pub use executions::{ExecutionFilter, ExecutionRow, LISTED_BODY_MAX};
pub use habits::Habit;
pub use idempotency::IdempotencyKey;
pub use ledger::{SlotFilter, SlotRow};
pub use listing::{EventFilter, EventsPage, LOOKED_AT_MAX};
pub use notices::Across;
pub use outbox::{AttemptRecord, AttemptRow, DeliveryFilter, DeliveryRow, LostSlots, NewDelivery, TellLost};
pub use overdue::LastSuccess;
pub use overlap::{Claim, Gone, Way};
pub use pause::{LeftOut, Pause, Replay, Resumed};
pub use previous::{Compared, Finished};
pub use reader::READERS;
pub use retention::{EndedRun, Garbage, LOOK_BATCH, LogRow, REMOVE_BATCH};
pub use run::{Cancelled, Finish, Wanted};
pub use sessions::SessionRow;
pub use settle::Unsettled;
pub use spends::{ALL_AGENTS, Amount, Left, Spending, Takes, dollars, microdollars};
pub use tally::{AGENT_DAYS_MAX, DAYS_MAX, Tallied, Tally, TallyRow, day_of};
pub use tasks::{OfTask, TASK_RUNS_SHOWN, TaskRow};
pub use tokens::{NotAdded, TokenRow};
pub use transitions::Transition;
pub use uploads::{FileRow, Medium, NAME_MAX, NewFile};
pub use workflows::{WORKFLOW_VERSIONS_MAX, WORKFLOWS_MAX, WorkflowRow};
pub use writer::{Counts, QUEUE_JOBS};

use files::Files;
use reader::Readers;
use writer::Writer;

/// Oldest SQLite that may be used: before it, WAL mode can lose committed writes.
pub const MIN_SQLITE: i32 = 3_051_003;
/// Prepared statements kept by each connection.
const STATEMENTS: usize = 128;
/// Page cache of each connection, KiB.
const CACHE_KIB: i32 = 16_384;

/// The store of one state directory.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    files: Files,
}

/// The newest database schema that this binary knows.
#[must_use]
pub fn newest_schema() -> i64 {
    migrate::newest()
}

/// The threads behind a store; joined after the last handle is gone, so the file is closed last.
#[derive(Debug)]
pub struct Threads(Vec<std::thread::JoinHandle<()>>);

impl Threads {
    /// Waits until writer and readers have closed their connections.
    pub fn join(self) {
        for thread in self.0 {
            // A panic in a store thread was answered to its callers already.
            let _ = thread.join();
        }
    }
}

impl Threads {
    /// As [`Threads::join`], for at most `patience`; whether all have ended.
    #[must_use]
    pub fn join_within(self, patience: std::time::Duration) -> bool {
        let (over, ended) = std::sync::mpsc::channel();
        let joining = std::thread::Builder::new().name("store-close".to_owned()).spawn(move || {
            self.join();
            // Who asked may have stopped waiting.
            let _ = over.send(());
        });
        joining.is_ok() && ended.recv_timeout(patience).is_ok()
    }
}

/// The version of SQLite that is built in.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

impl Store {
    /// Opens or creates the database at `path`, brings its schema up to date, and starts the threads.
    /// `now_ms` dates what the migration writes.
    ///
    /// # Errors
    /// [`Error::TooNew`] for a database of a newer version, [`Error::Open`] with the cause otherwise.
    pub fn open(path: &Path) -> Result<(Self, Threads), Error> {
        let open = |source: Box<dyn std::error::Error + Send + Sync>| Error::Open {
            path: path.display().to_string(),
            source: source.into(),
        };
        let found = rusqlite::version_number();
        if found < MIN_SQLITE {
            return Err(open(
                format!("SQLite {found} can lose commits; {MIN_SQLITE} or newer is needed").into(),
            ));
        }
        private_file(path).map_err(|e| open(e.into()))?;
        let connect = |access| connect(path, access).map_err(|e| open(Error::from(e).into()));
        let mut writing = connect(Access::Write)?;
        migrate::run(&mut writing, path).map_err(|e| if e.is_fatal() { open(e.into()) } else { e })?;
        let reading = (0..READERS).map(|_| connect(Access::Read)).collect::<Result<Vec<_>, _>>()?;
        let checkpointing = connect(Access::Checkpoint)?;
        let files = Files::of(path).map_err(|e| open(e.into()))?;
        let (writer, started) =
            Writer::start(writing, checkpointing, files.clone()).map_err(|e| open(e.into()))?;
        let (readers, mut threads) = Readers::start(reading).map_err(|e| open(e.into()))?;
        threads.extend(started);
        Ok((Self { writer, readers, files }, Threads(threads)))
    }

    /// Ends when the storage below has failed; the daemon must stop then.
    pub async fn failed(&self) -> Error {
        self.writer.clone().failed().await
    }

    /// That the files of the database lie where they were opened.
    ///
    /// # Errors
    /// [`Error::Gone`]: the daemon must stop then.
    pub fn check_files(&self) -> Result<(), Error> {
        self.files.check()
    }

    /// Counts of the writer since start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.writer.counts()
    }

    /// An empty write: comes back when the writer has got to it.
    pub async fn ping(&self) -> Result<(), Error> {
        self.writer.write(|_| Ok(())).await
    }

    /// The result of SQLite's `integrity_check`: `ok`, or what is broken.
    pub async fn integrity_check(&self) -> Result<String, Error> {
        self.readers.read(|db| Ok(db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?)).await
    }
}

/// Makes the file before SQLite does, for the daemon's user alone; SQLite gives its log the same mode.
fn private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Checkpoint,
    Read,
}

#[expect(clippy::disallowed_methods, reason = "the one place that opens databases")]
fn connect(path: &Path, access: Access) -> Result<Connection, rusqlite::Error> {
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write | Access::Checkpoint => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
    };
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it SQLite may look at a value that is bound while it plans, and then plans anew for each
    // other one: a statement that is kept ready would be parsed each time.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if access == Access::Read {
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.pragma_update(None, "query_only", true)?;
        return Ok(db);
    }
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints have a thread of their own.
    db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    if access == Access::Write {
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
    }
    Ok(db)
}

/// A clone of a storage error as one of ours for a caller outside the SQL modules.
pub fn inconsistent(table: &'static str, row: i64, what: impl Into<String>) -> Error {
    Error::Inconsistent { table, row, what: what.into() }
}

/// The one agent that a list is about, if it is about one, for an asker who may see only some; `None`:
/// there is nothing that he may see.
#[expect(clippy::option_option, reason = "nothing to see is not the same as no agent in particular")]
fn narrowed(agent: Option<AgentId>, visible: Option<&AgentGlob>) -> Option<Option<AgentId>> {
    let Some(glob) = visible else { return Some(agent) };
    match agent {
        Some(agent) if glob.matches(agent.as_str()) => Some(Some(agent)),
        Some(_) => None,
        None => Some(glob.only()),
    }
}

/// Reads a stored word back into its closed vocabulary.
fn word<T>(row: &rusqlite::Row<'_>, column: &str) -> Result<T, rusqlite::Error>
where
    T: std::str::FromStr<Err = crate::model::UnknownWord>,
{
    let index = row.as_ref().column_index(column)?;
    row.get_ref(index)?.as_str()?.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e))
    })
}

/// Reads a stored run id.
fn run_id(row: &rusqlite::Row<'_>, column: &str) -> Result<crate::ids::RunId, rusqlite::Error> {
    let index = row.as_ref().column_index(column)?;
    crate::ids::RunId::from_slice(row.get_ref(index)?.as_blob()?).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Blob,
            Box::new(crate::ids::InvalidId::Run),
        )
    })
}

/// Reads stored JSON; NULL is `None`.
fn json<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: &str,
) -> Result<Option<T>, rusqlite::Error> {
    let index = row.as_ref().column_index(column)?;
    let Some(text) = row.get_ref(index)?.as_str_or_null()? else {
        return Ok(None);
    };
    serde_json::from_str(text).map(Some).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e))
    })
}

/// Writes a value as JSON text; a value that JSON cannot hold is a defect of this program.
fn to_json<T: serde::Serialize>(table: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| inconsistent(table, 0, e.to_string()))
}

/// Keeps an error clonable.
fn shared<E: std::error::Error + Send + Sync + 'static>(e: E) -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(e)
}
