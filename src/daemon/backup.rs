//! Backups without a daemon: copying a database that nobody serves, and putting a copy in its place.
//! Both hold the state lock, so that no daemon starts in the middle.

use std::path::{Path, PathBuf};

use crate::proc::{self, StateLock};
use crate::store;
use crate::time::from_ms;

/// Why nothing was copied or put back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock cannot be had: a daemon runs, or the directory cannot be written.
    #[error(transparent)]
    Lock(#[from] proc::Error),
    /// There is no database.
    #[error("there is no database {0}")]
    Missing(PathBuf),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Copies the database of a state directory to `to`; its length in bytes. Blocks.
///
/// # Errors
/// [`Error`].
pub fn backup(state_dir: &Path, to: &Path) -> Result<u64, Error> {
    let db = database(state_dir)?;
    let _lock = StateLock::acquire(&state_dir.join("lock"))?;
    Ok(store::backup(&db, to)?)
}

/// Puts `from` in the place of the database of a state directory; where the present one is kept. Blocks.
///
/// # Errors
/// [`Error`]; then the database is as it was.
pub fn restore(state_dir: &Path, from: &Path, now_ms: i64) -> Result<Option<PathBuf>, Error> {
    std::fs::metadata(from).map_err(|_| Error::Missing(from.to_owned()))?;
    std::fs::create_dir_all(state_dir).map_err(|source| {
        let what = format!("create the state directory {}", state_dir.display());
        proc::Error::System { what, source }
    })?;
    let _lock = StateLock::acquire(&state_dir.join("lock"))?;
    let db = state_dir.join("matins.db");
    let aside = state_dir.join(format!("matins.db.before-{}", from_ms(now_ms).strftime("%Y%m%dT%H%M%SZ")));
    let had = db.exists();
    store::restore(from, &db, &aside)?;
    Ok(had.then_some(aside))
}

fn database(state_dir: &Path) -> Result<PathBuf, Error> {
    let db = state_dir.join("matins.db");
    if db.is_file() { Ok(db) } else { Err(Error::Missing(db)) }
}
