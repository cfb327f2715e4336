//! Archives that were asked for with a run. The wish is written with the run, so it outlives every daemon;
//! it is due when the run has ended.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store, run_id};
use crate::ids::RunId;

/// Tries after which an archive is given up.
const TRIES_MAX: i64 = 3;
/// Archives that one pass makes.
const AT_ONCE: i64 = 10;

/// An archive that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRow {
    /// Its length, once it is there.
    pub bytes: Option<i64>,
    /// Why there is none.
    pub error: Option<String>,
}

/// A run of which an archive is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueArchive {
    /// The run's number.
    pub number: i64,
    /// The run's id.
    pub id: RunId,
    /// Its session.
    pub session: String,
    /// Its agent, for the log.
    pub agent: String,
}

impl Store {
    /// The archive of a run, where one was asked for.
    pub async fn archive(&self, run: i64) -> Result<Option<ArchiveRow>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT bytes, error FROM archives WHERE run = ?1";
                let row = |row: &rusqlite::Row<'_>| Ok(ArchiveRow { bytes: row.get(0)?, error: row.get(1)? });
                Ok(db.prepare_cached(sql)?.query_row([run], row).optional()?)
            })
            .await
    }

    /// Archives of runs that have ended, which are to be made.
    pub async fn due_archives(&self) -> Result<Vec<DueArchive>, Error> {
        self.readers
            .read(|db| {
                let sql = "SELECT r.number, r.id, r.session, a.id FROM archives x INDEXED BY archives_due
                           JOIN runs r ON r.number = x.run JOIN agents a ON a.number = r.agent
                           WHERE x.bytes IS NULL AND x.error IS NULL AND r.completed_at IS NOT NULL
                           ORDER BY x.run LIMIT ?1";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([AT_ONCE], |row| {
                    let id = run_id(row, "id")?;
                    let session: Option<String> = row.get(2)?;
                    let session = session.unwrap_or_else(|| id.to_string());
                    Ok(DueArchive { number: row.get(0)?, id, session, agent: row.get(3)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// An archive is there, or could not be made; after a few tries it is given up.
    pub async fn archive_tried(&self, run: i64, made: Result<u64, String>) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let (bytes, error) = match &made {
                    Ok(bytes) => (Some(i64::try_from(*bytes).unwrap_or(i64::MAX)), None),
                    Err(why) => (None, Some(why.as_str())),
                };
                let sql = "UPDATE archives SET tries = tries + 1, bytes = ?2,
                                  error = iif(?2 IS NULL AND tries + 1 >= ?4, ?3, NULL) WHERE run = ?1";
                db.prepare_cached(sql)?.execute(params![run, bytes, error, TRIES_MAX])?;
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
impl Store {
    /// How often the archive of a run was tried.
    pub(crate) async fn archive_tries(&self, run: i64) -> i64 {
        let sql = "SELECT tries FROM archives WHERE run = ?1";
        self.readers.read(move |db| Ok(db.query_row(sql, [run], |row| row.get(0))?)).await.unwrap()
    }
}

/// An archive of this run is wanted, which is being admitted.
pub(super) fn want(db: &Connection, run: i64) -> Result<(), Error> {
    db.prepare_cached("INSERT INTO archives (run) VALUES (?1)")?.execute([run])?;
    Ok(())
}
