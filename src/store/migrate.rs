//! Schema versions (the one user of refinery). Migrations are append-only and run under the state
//! lock; a database of a newer version is refused before anything is written to it.
//!
//! All that are missing are one transaction with the versions that they make. By itself refinery commits a
//! migration and then, apart, that it was applied: a daemon that dies between the two leaves a database that no
//! start can open any more, for its tables are there already.

use std::path::Path;

use rusqlite::Connection;

use super::{Error, shared};

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// The newest schema that this binary knows.
pub(super) fn newest() -> i64 {
    embedded::migrations::runner().get_migrations().iter().map(|m| i64::from(m.version())).max().unwrap_or(0)
}

/// Brings `db` to the newest schema that this binary knows.
pub(super) fn run(db: &mut Connection, path: &Path) -> Result<(), Error> {
    let found = version(db)?;
    check_version(found, path)?;
    if found < newest() {
        let opened = |e| Error::Open { path: path.display().to_string(), source: shared(e) };
        embedded::migrations::runner().set_grouped(true).run(db).map_err(opened)?;
    }
    Ok(())
}

/// Refuses a schema that this binary does not know.
pub(super) fn check_version(found: i64, path: &Path) -> Result<(), Error> {
    let known = newest();
    if found > known {
        return Err(Error::TooNew { path: path.display().to_string(), found, known });
    }
    Ok(())
}

/// The schema version of `db`; 0 for a new file.
pub(super) fn version(db: &Connection) -> Result<i64, Error> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    let exists: i64 = db.query_row(table, [], |row| row.get(0))?;
    if exists == 0 {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM refinery_schema_history";
    Ok(db.query_row(newest, [], |row| row.get(0))?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "databases without what the store sets up")]
mod tests {
    use super::*;

    /// Where in a write-ahead log its transactions end, in bytes.
    fn commits(wal: &[u8]) -> Vec<usize> {
        let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap()) as usize;
        let frame = 24 + number(8);
        let frames = (32..).step_by(frame).take_while(|at| at + frame <= wal.len());
        frames.filter(|at| number(at + 4) != 0).map(|at| at + frame).collect()
    }

    #[test]
    fn a_death_after_any_commit_of_a_first_start_leaves_a_database_that_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matins.db");
        let mut db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
        run(&mut db, &path).unwrap();
        let (file, wal) =
            (std::fs::read(&path).unwrap(), std::fs::read(dir.path().join("matins.db-wal")).unwrap());
        let ends = commits(&wal);
        assert!(!ends.is_empty());
        for end in ends {
            let dead = tempfile::tempdir().unwrap();
            let path = dead.path().join("matins.db");
            std::fs::write(&path, &file).unwrap();
            std::fs::write(dead.path().join("matins.db-wal"), &wal[..end]).unwrap();
            let mut db = Connection::open(&path).unwrap();
            run(&mut db, &path).unwrap_or_else(|e| panic!("after {end} bytes of its log: {e:?}"));
            assert_eq!(version(&db).unwrap(), newest());
        }
    }
}
