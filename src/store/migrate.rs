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

    /// A database as version 3 left it, with one run.
    fn third(path: &Path) -> Connection {
        let mut db = Connection::open(path).unwrap();
        let third = refinery::Target::Version(3);
        embedded::migrations::runner().set_target(third).run(&mut db).unwrap();
        db.execute_batch(
            "INSERT INTO definitions (sha256, body, created_at) VALUES (zeroblob(32), '{}', 1);
             INSERT INTO agents (id, status, definition, created_at, updated_at) VALUES ('a', 'ACTIVE', 1, 1, 1);
             INSERT INTO schedules (agent, id, watermark, active) VALUES (1, 's', 1, 1);
             INSERT INTO runs (id, agent, definition, trigger, state, overlap, created_at, updated_at)
             VALUES (zeroblob(16), 1, 1, 'manual', 'PENDING', 'queue_one', 1, 1);
             INSERT INTO transitions (run, state, epoch, at) VALUES (1, 'PENDING', 0, 1);",
        )
        .unwrap();
        db
    }

    #[test]
    fn what_is_allowed_stays_the_same_and_costs_no_table_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matins.db");
        let mut db = third(&path);
        run(&mut db, &path).unwrap();
        let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("SELECT state || overlap FROM runs"), "PENDINGqueue_one", "rows stay");
        assert_eq!(one("PRAGMA integrity_check"), "ok");
        for table in ["runs", "transitions", "slots", "deliveries"] {
            let sql = one(&format!("SELECT sql FROM sqlite_schema WHERE name = '{table}'"));
            let lists = sql.split(" IN (").skip(1).filter_map(|rest| rest.split(')').next());
            let long: Vec<&str> = lists.filter(|list| list.matches(',').count() > 1).collect();
            assert!(long.is_empty(), "{table}: {long:?}");
        }
        let slot = "INSERT INTO slots (schedule, nominal, until, count, outcome, reason, run, decided_at)";
        let message = "INSERT INTO deliveries (id, type, url, private, body, state, next_at, created_at, updated_at, format)";
        for allowed in [
            format!(
                "{slot} VALUES (1, 1, 1, 1, 'run', NULL, 1, 1), (1, 2, 2, 1, 'not_run', 'queue_full', 1, 1)"
            ),
            format!(
                "{slot} VALUES (1, 3, 3, 1, 'not_run', 'overlap', 1, 1), (1, 4, 4, 1, 'not_run', 'budget', 1, 1)"
            ),
            format!("{message} VALUES ('d', 't', 'u', 0, '', 'PENDING', 1, 1, 1, 'ntfy')"),
            "UPDATE runs SET trigger = 'manual', overlap = 'replace'".to_owned(),
        ] {
            assert!(db.execute(&allowed, []).is_ok(), "{allowed}");
        }
        for refused in [
            "UPDATE runs SET state = 'GONE'".to_owned(),
            "UPDATE runs SET overlap = 'queue_two'".to_owned(),
            "UPDATE runs SET trigger = 'cron'".to_owned(),
            "UPDATE transitions SET state = 'GONE'".to_owned(),
            format!("{slot} VALUES (1, 5, 5, 1, 'not_run', 'tired', 1, 1)"),
            format!("{slot} VALUES (1, 6, 6, 1, 'not_run', NULL, 1, 1)"),
            format!("{message} VALUES ('e', 't', 'u', 0, '', 'LOST', NULL, 1, 1, 'ntfy')"),
            format!("{message} VALUES ('f', 't', 'u', 0, '', 'PENDING', 1, 1, 1, 'fax')"),
        ] {
            let e = db.execute(&refused, []).expect_err(&refused).to_string();
            assert!(e.contains("CHECK constraint failed"), "{refused}: {e}");
        }
    }
}
