//! The files of an open database, as they were found: whether they are still what lies at their paths.
//!
//! SQLite goes on with the files that it has opened, also where somebody removed or replaced them: every
//! commit would succeed, be acknowledged, and be gone with the process. So the writer looks after each
//! commit, before anybody is answered, and the daemon looks now and then where nothing is written.
//!
//! They are looked at and never opened here: closing a second descriptor of a file drops the locks that
//! SQLite holds on it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Error;

/// Paths with the device and the inode that was found there.
#[derive(Debug, Clone)]
pub(super) struct Files(Arc<[(PathBuf, (u64, u64))]>);

fn key(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|m| (m.dev(), m.ino()))
}

impl Files {
    /// The files of the database at `path`, which is open. The log has to be there: SQLite keeps it as
    /// long as there is a connection.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let found = [path.to_owned(), PathBuf::from(log)].map(|path| key(&path).map(|key| (path, key)));
        Ok(Self(found.into_iter().collect::<io::Result<_>>()?))
    }

    /// That each of them is where it was.
    ///
    /// # Errors
    /// [`Error::Gone`] names the first that is not. One that cannot be looked at is no other one.
    pub(super) fn check(&self) -> Result<(), Error> {
        let gone = |(path, found): &&(PathBuf, (u64, u64))| match key(path) {
            Ok(now) => now != *found,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        match self.0.iter().find(gone) {
            Some((path, _)) => Err(Error::Gone { path: path.display().to_string() }),
            None => Ok(()),
        }
    }

    /// What a failure of the storage is where the file system is read-only now: nothing was written, so
    /// nothing is unknown, and it may pass. A sync that failed stays what it is. `before` tells that the
    /// transaction before failed by that: it may be over between this write and this look.
    pub(super) fn judge(&self, e: Error, before: bool) -> Error {
        let Error::Storage(cause) = &e else { return e };
        let unwritten = matches!(
            cause.code(),
            Some(rusqlite::ffi::SQLITE_IOERR_WRITE | rusqlite::ffi::SQLITE_IOERR_TRUNCATE)
        );
        let read_only = || self.0.iter().any(|(path, _)| access(path, Access::WRITE_OK) == Err(Errno::ROFS));
        if unwritten && (before || read_only()) { Error::ReadOnly } else { e }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PathBuf, Files) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matins.db");
        std::fs::write(&path, "a").unwrap();
        std::fs::write(dir.path().join("matins.db-wal"), "b").unwrap();
        let files = Files::of(&path).unwrap();
        (dir, path, files)
    }

    #[test]
    fn a_file_that_is_gone_or_another_is_named() {
        let (dir, path, files) = files();
        files.check().unwrap();
        std::fs::write(&path, "longer").unwrap();
        files.check().unwrap();
        let (log, kept) = (dir.path().join("matins.db-wal"), dir.path().join("kept"));
        std::fs::rename(&log, &kept).unwrap();
        assert!(files.check().unwrap_err().to_string().contains("matins.db-wal"));
        std::fs::write(&log, "b").unwrap();
        assert!(files.check().is_err(), "another one in its place");
        std::fs::rename(&kept, &log).unwrap();
        files.check().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            matches!(files.check(), Err(Error::Gone { path: named }) if named == path.display().to_string())
        );
    }

    #[test]
    fn only_a_write_that_failed_on_a_read_only_file_system_may_pass() {
        let (_dir, _path, files) = files();
        let failed =
            |code| Error::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        for code in [rusqlite::ffi::SQLITE_IOERR_WRITE, rusqlite::ffi::SQLITE_IOERR_FSYNC] {
            assert!(matches!(files.judge(failed(code), false), Error::Storage(_)), "it can be written");
        }
        let after = |code| files.judge(failed(code), true);
        assert!(
            matches!(after(rusqlite::ffi::SQLITE_IOERR_WRITE), Error::ReadOnly),
            "it could not be a moment ago"
        );
        assert!(matches!(after(rusqlite::ffi::SQLITE_IOERR_FSYNC), Error::Storage(_)));
    }
}
