//! What can go wrong in the store, by what a caller can do about it.

use std::sync::Arc;

use crate::ids::{Epoch, RunId};
use crate::task::Panicked;

/// What SQLite said. Its own errors say the same thing once more as their source, so a chain of causes
/// that ended in one told everything twice.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{said}")]
pub struct Cause {
    said: String,
    code: Option<i32>,
}

impl Cause {
    /// SQLite's extended code.
    pub(super) fn code(&self) -> Option<i32> {
        self.code
    }
}

impl From<rusqlite::Error> for Cause {
    fn from(e: rusqlite::Error) -> Self {
        let code = e.sqlite_error().map(|error| error.extended_code);
        let said = match code {
            Some(code) => format!("{e} (SQLite code {code})"),
            None => e.to_string(),
        };
        Self { said, code }
    }
}

/// A failure of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing could be written because the disk is full; nothing was acknowledged, try again.
    #[error("the disk that holds the database is full")]
    Full,
    /// The database cannot be written.
    #[error("the database is read-only; check the owner and the mount of the state directory")]
    ReadOnly,
    /// Reading or syncing failed in the storage below. What is on disk is unknown, so the store
    /// takes no further write; a restart reads back what is true.
    #[error("the storage below the database failed; the daemon must restart")]
    Storage(#[source] Cause),
    /// The file is no database of SQLite, or a damaged one.
    #[error(
        "the database is damaged: {0}. Stop the daemon; `matins restore FILE` puts a backup in its place and keeps the damaged one"
    )]
    Damaged(Cause),
    /// A file of the database is no longer where it was opened; what was written last went into one that
    /// nobody finds again.
    #[error(
        "{path} was removed or replaced under the running daemon, which stops: put the file back, or restore a backup (matins restore FILE), then start it"
    )]
    Gone {
        /// The file.
        path: String,
    },
    /// The write names a claim that is over, or a state that has passed; nothing was changed.
    #[error("run {run} has moved on from epoch {epoch}")]
    Stale {
        /// The run.
        run: RunId,
        /// The epoch that the writer held.
        epoch: Epoch,
    },
    /// The database was written by a newer version.
    #[error(
        "the database {path} has schema {found}; this version knows up to {known}. Run the newer matins, or restore a backup made before the upgrade"
    )]
    TooNew {
        /// The file.
        path: String,
        /// Its schema version.
        found: i64,
        /// The newest version that this binary knows.
        known: i64,
    },
    /// A row does not read as what it must be.
    #[error("{table} row {row} is inconsistent: {what}")]
    Inconsistent {
        /// Its table.
        table: &'static str,
        /// Its key.
        row: i64,
        /// What does not fit.
        what: String,
    },
    /// The file could not be opened or migrated.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A file beside the database cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A file is no copy of a database of ours, or no whole one.
    #[error("{path} is no usable backup: {what}")]
    NotABackup {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Work that was to be done beside the writer panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// A statement failed: a defect of this program.
    #[error("a statement failed")]
    Statement(#[source] Cause),
}

impl Error {
    /// Whether the daemon may not go on: what is on disk is unknown, or nobody finds it again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Storage(_) | Self::Damaged(_) | Self::Gone { .. })
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly, SystemIoFailure};
        match e.sqlite_error_code() {
            Some(DiskFull) => Self::Full,
            Some(ReadOnly) => Self::ReadOnly,
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged(e.into()),
            Some(SystemIoFailure) => Self::Storage(e.into()),
            _ => Self::Statement(e.into()),
        }
    }
}
