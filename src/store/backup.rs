//! Backups: a copy of the database as it is at one moment, made while it is written to, and putting one
//! back.
//!
//! `VACUUM INTO` on a connection of its own reads one snapshot and writes a compact, whole database; the
//! writer goes on beside it. A copy counts only when SQLite's own check has found it whole and it is on
//! disk; until then it has another name. Files of the live database are never opened here except by
//! SQLite: closing such a file anywhere in the process would drop the locks that SQLite holds on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::{Error, Store, migrate};
use crate::task;

/// What a copy is called until it is whole.
const PART: &str = ".part";

impl Store {
    /// Writes a copy of the database to `to`, which it replaces when it is whole; its length in bytes.
    ///
    /// # Errors
    /// [`Error::File`] and what SQLite says; then there is no new file.
    pub async fn backup(&self, to: PathBuf) -> Result<u64, Error> {
        let from = self.readers.read(|db| Ok(db.path().map(PathBuf::from))).await?.ok_or(Error::Closed)?;
        task::blocking(move || backup(&from, &to)).await?
    }

    /// A copy of the database that has lost its name `at` already, and its length in bytes: it goes with
    /// its handle, also where nobody waits for it any more.
    ///
    /// # Errors
    /// As [`Store::backup`].
    pub async fn nameless_copy(&self, at: PathBuf) -> Result<(File, u64), Error> {
        let from = self.readers.read(|db| Ok(db.path().map(PathBuf::from))).await?.ok_or(Error::Closed)?;
        let work = move || {
            let bytes = backup(&from, &at)?;
            let copy = File::open(&at).map_err(file(&at))?;
            std::fs::remove_file(&at).map_err(file(&at))?;
            Ok((copy, bytes))
        };
        task::blocking(work).await?
    }
}

/// Copies the database `from` to `to`. Blocks.
///
/// # Errors
/// As [`Store::backup`].
pub fn backup(from: &Path, to: &Path) -> Result<u64, Error> {
    let part = with_end(to, PART);
    let done = copy_to(from, &part).and_then(|()| settle(&part, to));
    if done.is_err() {
        // What is half a copy helps nobody, least of all on a full disk.
        let _ = std::fs::remove_file(&part);
    }
    done
}

#[expect(clippy::disallowed_methods, reason = "the store opens databases")]
fn copy_to(from: &Path, part: &Path) -> Result<(), Error> {
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file(part)(e)),
        _ => {}
    }
    // Made before SQLite does, so that nobody else ever reads it.
    File::options().write(true).create_new(true).mode(0o600).open(part).map_err(file(part))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(from, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let name = part.to_str().ok_or_else(|| not_a_backup(part, "its name is not UTF-8"))?;
    db.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// Checks a copy, puts it on disk for good and gives it its name.
///
/// # Errors
/// As [`check_backup`], and [`Error::File`].
pub fn settle(part: &Path, to: &Path) -> Result<u64, Error> {
    check_backup(part)?;
    let written = File::open(part).map_err(file(part))?;
    written.sync_all().map_err(file(part))?;
    let bytes = written.metadata().map_err(file(part))?.len();
    std::fs::rename(part, to).map_err(file(to))?;
    sync_dir(to)?;
    Ok(bytes)
}

/// Whether a file is a whole database of ours that this version can read. Blocks.
///
/// # Errors
/// [`Error::NotABackup`] with what is wrong, [`Error::TooNew`], [`Error::File`].
#[expect(clippy::disallowed_methods, reason = "the store opens databases")]
pub fn check_backup(path: &Path) -> Result<(), Error> {
    std::fs::metadata(path).map_err(file(path))?;
    let broken = |e: rusqlite::Error| not_a_backup(path, e.to_string());
    if std::fs::metadata(with_end(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        let what = "its write-ahead log lies beside it, so it is the file of a daemon and not the whole of it; \
                    `matins backup` makes a whole copy";
        return Err(not_a_backup(path, what));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(unchanging(path)?, flags).map_err(broken)?;
    let found: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(broken)?;
    if found != "ok" {
        return Err(not_a_backup(path, found));
    }
    let version = migrate::version(&db)?;
    if version == 0 {
        return Err(not_a_backup(path, "it is a database, but not one of matins"));
    }
    migrate::check_version(version, path)
}

/// The address of a file that nobody writes to: read so, SQLite leaves no log and no shared memory beside it.
fn unchanging(path: &Path) -> Result<String, Error> {
    let path = std::path::absolute(path).map_err(file(path))?;
    let mut url =
        url::Url::from_file_path(&path).map_err(|()| not_a_backup(&path, "it has no absolute path"))?;
    url.set_query(Some("immutable=1"));
    Ok(url.into())
}

/// Puts the copy `from` in the place of the database `db`, which is kept under the name `aside`. The
/// caller holds the state lock. Blocks.
///
/// # Errors
/// As [`check_backup`]; then the database is as it was.
pub fn restore(from: &Path, db: &Path, aside: &Path) -> Result<(), Error> {
    check_backup(from)?;
    let part = with_end(db, ".restore");
    let done =
        copy_file(from, &part).and_then(|()| check_backup(&part)).and_then(|()| exchange(&part, db, aside));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}

fn copy_file(from: &Path, part: &Path) -> Result<(), Error> {
    let mut source = File::open(from).map_err(file(from))?;
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file(part)(e)),
        _ => {}
    }
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(part).map_err(file(part))?;
    io::copy(&mut source, &mut copy).map_err(file(part))?;
    copy.sync_all().map_err(file(part))
}

/// At every moment there is a whole database under the name of the database: the old one gets a second
/// name first, then the new one takes the first.
fn exchange(part: &Path, db: &Path, aside: &Path) -> Result<(), Error> {
    if db.exists() {
        fold_log(db);
        std::fs::hard_link(db, aside).map_err(file(aside))?;
        for end in ["-wal", "-shm"] {
            // Left only where the database could not be opened; a new one must not find them.
            match std::fs::rename(with_end(db, end), with_end(aside, end)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file(db)(e)),
                _ => {}
            }
        }
        sync_dir(aside)?;
    }
    std::fs::rename(part, db).map_err(file(db))?;
    sync_dir(db)
}

/// Moves what is in the write-ahead log into the database; one that is broken keeps it beside itself.
#[expect(clippy::disallowed_methods, reason = "the store opens databases")]
fn fold_log(db: &Path) {
    let folded = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(e) = folded {
        tracing::warn!(error = %e, "the present database cannot be read; it is kept as it is: {e}");
    }
}

fn sync_dir(of: &Path) -> Result<(), Error> {
    let dir = of.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(file(dir))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn not_a_backup(path: &Path, what: impl Into<String>) -> Error {
    Error::NotABackup { path: path.display().to_string(), what: what.into() }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => Error::Full,
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly,
        _ => Error::File { path, source: Arc::new(source) },
    }
}
