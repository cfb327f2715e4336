//! Schema versions (the one user of refinery). Migrations are append-only and run under the state
//! lock; a database of a newer version is refused before anything is written to it.

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
        embedded::migrations::runner().run(db).map_err(opened)?;
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
