//! Files that callers have given: their rows, and which run got which.
//!
//! A row is written when the content is on disk, and a run is tied to its files in the transaction that
//! admits it: from then on retention leaves them alone until the run goes. So a run that was answered for
//! finds its files, whatever happens between its admission and its start.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Error, Store, retention};
use crate::ids::{FileId, RunId};
use crate::model::RunFile;

/// Longest name of a file, bytes.
pub const NAME_MAX: usize = 255;
/// Longest extension that stays at the end of a name, bytes.
const EXTENSION_MAX: usize = 32;

/// A file whose content is on disk.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Its id, and the name of its content.
    pub id: FileId,
    /// What its giver calls it.
    pub name: String,
    /// Its media type, as its giver says.
    pub media_type: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// Who gave it.
    pub user: Option<String>,
}

/// A file as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Its stable integer.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// What its giver calls it.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its length.
    pub bytes: i64,
    /// SHA-256 of its content in hexadecimal.
    pub sha256: String,
    /// Who gave it.
    pub user: Option<String>,
    /// When, Unix ms.
    pub created_ms: i64,
}

/// A file of a conversation: its content, and what the run that got it calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The agent of the run.
    pub agent: String,
    /// The file.
    pub file: RunFile,
}

const COLUMNS: &str =
    "f.number, f.id, f.name, f.media_type, f.bytes, lower(hex(f.sha256)) AS sha256, f.user, f.created_at";

impl Store {
    /// Keeps a file whose content is on disk; `None`, and nothing is kept, where all files together would
    /// have more than `most` bytes.
    pub async fn keep_file(&self, file: NewFile, most: u64, now_ms: i64) -> Result<Option<FileRow>, Error> {
        self.writer.write(move |db| keep(db, &file, most, now_ms)).await
    }

    /// A file by its id or its number.
    pub async fn file(&self, name: String) -> Result<Option<FileRow>, Error> {
        self.readers.read(move |db| one(db, &name)).await
    }

    /// Removes a file, unless a run has it; whether it is gone. Its content goes with the garbage.
    pub async fn remove_file(&self, number: i64) -> Result<bool, Error> {
        self.writer
            .write(move |db| {
                let sql = "DELETE FROM files WHERE number = ?1 AND unused_since IS NOT NULL RETURNING id";
                let id: Option<String> =
                    db.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()?;
                if let Some(id) = &id {
                    retention::discard(db, &retention::Garbage::File(id.clone()))?;
                }
                Ok(id.is_some())
            })
            .await
    }

    /// The files that a run was given, in their order.
    pub async fn run_files(&self, run: i64) -> Result<Vec<RunFile>, Error> {
        self.readers.read(move |db| of_run(db, run)).await
    }

    /// The file that is called `name`, or has this id, in a conversation; of several the newest. The
    /// conversation is a session's integer or name, or a run without a session by its number or id.
    pub async fn medium(&self, conversation: String, name: String) -> Result<Option<Medium>, Error> {
        self.readers.read(move |db| medium(db, &conversation, &name)).await
    }

    /// Which of these files have a row.
    pub async fn known_files(&self, ids: Vec<FileId>) -> Result<Vec<FileId>, Error> {
        self.readers
            .read(move |db| {
                let mut known = db.prepare_cached("SELECT 1 FROM files WHERE id = ?1")?;
                let mut found = Vec::new();
                for id in ids {
                    if known.exists([id.as_str()])? {
                        found.push(id);
                    }
                }
                Ok(found)
            })
            .await
    }
}

fn keep(db: &Connection, file: &NewFile, most: u64, now_ms: i64) -> Result<Option<FileRow>, Error> {
    let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
    // Kept by triggers: to add up all files in the writer would cost the more the more there are.
    let all: i64 = db.prepare_cached("SELECT bytes FROM file_bytes")?.query_row([], |row| row.get(0))?;
    if u64::try_from(all).unwrap_or(0).saturating_add(file.bytes) > most {
        return Ok(None);
    }
    let sql = "INSERT INTO files (id, name, media_type, bytes, sha256, user, created_at, unused_since)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";
    db.prepare_cached(sql)?.execute(params![
        file.id.as_str(),
        file.name,
        file.media_type,
        bytes,
        file.sha256.as_slice(),
        file.user,
        now_ms
    ])?;
    one(db, file.id.as_str())
}

fn row(row: &Row<'_>) -> Result<FileRow, rusqlite::Error> {
    Ok(FileRow {
        number: row.get("number")?,
        id: row.get("id")?,
        name: row.get("name")?,
        media_type: row.get("media_type")?,
        bytes: row.get("bytes")?,
        sha256: row.get("sha256")?,
        user: row.get("user")?,
        created_ms: row.get("created_at")?,
    })
}

fn one(db: &Connection, name: &str) -> Result<Option<FileRow>, Error> {
    let by_id = format!("SELECT {COLUMNS} FROM files f WHERE f.id = ?1");
    let by_number = format!("SELECT {COLUMNS} FROM files f WHERE f.number = ?1");
    let found = match number(name) {
        Some(number) => db.prepare_cached(&by_number)?.query_row([number], row).optional()?,
        None => db.prepare_cached(&by_id)?.query_row([name], row).optional()?,
    };
    Ok(found)
}

/// A number as it is shown; another spelling is another name.
fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

fn run_file(row: &Row<'_>) -> Result<RunFile, rusqlite::Error> {
    Ok(RunFile {
        id: row.get("id")?,
        number: row.get("number")?,
        name: row.get("given")?,
        media_type: row.get("media_type")?,
        bytes: row.get("bytes")?,
        sha256: row.get("sha256")?,
    })
}

pub(super) fn of_run(db: &Connection, run: i64) -> Result<Vec<RunFile>, Error> {
    let sql = format!(
        "SELECT {COLUMNS}, g.name AS given FROM run_files g JOIN files f ON f.number = g.file
         WHERE g.run = ?1 ORDER BY g.place"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([run], run_file)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn medium(db: &Connection, conversation: &str, name: &str) -> Result<Option<Medium>, Error> {
    let (session, run) = conversation_of(db, conversation)?;
    let sql = format!(
        "SELECT {COLUMNS}, g.name AS given, a.id AS agent
         FROM runs r JOIN run_files g ON g.run = r.number JOIN files f ON f.number = g.file
              JOIN agents a ON a.number = r.agent
         WHERE r.{} AND (g.name = ?2 OR f.id = ?2) ORDER BY r.number DESC, g.place LIMIT 1",
        if session.is_some() { "session = ?1" } else { "number = ?1 AND r.session IS NULL" }
    );
    let found = |row: &Row<'_>| Ok(Medium { agent: row.get("agent")?, file: run_file(row)? });
    let mut statement = db.prepare_cached(&sql)?;
    Ok(match session {
        Some(session) => statement.query_row(params![session, name], found).optional()?,
        None => statement.query_row(params![run, name], found).optional()?,
    })
}

/// The shared session, or the run that is alone in its own.
pub(super) fn conversation_of(db: &Connection, name: &str) -> Result<(Option<String>, Option<i64>), Error> {
    if let Some(number) = number(name) {
        let sql = "SELECT id FROM sessions WHERE conversation = ?1";
        let session = db.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()?;
        return Ok((session, Some(number)));
    }
    if let Ok(id) = name.parse::<RunId>() {
        let sql = "SELECT number FROM runs WHERE id = ?1 AND session IS NULL";
        let run =
            db.prepare_cached(sql)?.query_row([id.as_bytes().as_slice()], |row| row.get(0)).optional()?;
        if run.is_some() {
            return Ok((None, run));
        }
    }
    Ok((Some(name.to_owned()), None))
}

/// The first of these files that there is not.
pub(super) fn missing(db: &Connection, files: &[FileId]) -> Result<Option<FileId>, Error> {
    let mut known = db.prepare_cached("SELECT 1 FROM files WHERE id = ?1")?;
    for id in files {
        if !known.exists([id.as_str()])? {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

/// Ties files, which are there, to a run that is being admitted.
pub(super) fn attach(db: &Connection, run: i64, files: &[FileId]) -> Result<(), Error> {
    let mut names: Vec<String> = Vec::with_capacity(files.len());
    for (place, id) in files.iter().enumerate() {
        let sql = "UPDATE files SET unused_since = NULL WHERE id = ?1 RETURNING number, name";
        let (file, name): (i64, String) =
            db.prepare_cached(sql)?.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let name = free_name(&name, &names);
        let sql = "INSERT INTO run_files (run, place, file, name) VALUES (?1, ?2, ?3, ?4)";
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        db.prepare_cached(sql)?.execute(params![run, place, file, name])?;
        names.push(name);
    }
    Ok(())
}

/// What a file is called among others: `report.pdf`, then `report-2.pdf`.
fn free_name(name: &str, taken: &[String]) -> String {
    let (stem, end) = match name.rfind('.') {
        // What is longer is no extension, and would leave nothing of the stem.
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_MAX => name.split_at(dot),
        _ => (name, ""),
    };
    let mut free = name.to_owned();
    let mut n = 2;
    while taken.contains(&free) {
        let (mark, mut stem) = (format!("-{n}{end}"), stem);
        // A name has 255 bytes; what is cut off is of the stem, at a character.
        while stem.len() + mark.len() > NAME_MAX {
            stem = stem.char_indices().next_back().map_or("", |(at, _)| &stem[..at]);
        }
        free = format!("{stem}{mark}");
        n += 1;
    }
    free
}

/// Unties the files of a run that goes; those that no other run has are unused from now on.
pub(super) fn detach(db: &Connection, run: i64, at_ms: i64) -> Result<(), Error> {
    let mut statement = db.prepare_cached("SELECT file FROM run_files WHERE run = ?1")?;
    let files = statement.query_map([run], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    if files.is_empty() {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM run_files WHERE run = ?1")?.execute([run])?;
    let sql = "UPDATE files SET unused_since = ?2
               WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM run_files WHERE file = ?1)";
    let mut unused = db.prepare_cached(sql)?;
    for file in files {
        unused.execute([file, at_ms])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_one_name_have_two() {
        let taken = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(free_name("a.pdf", &[]), "a.pdf");
        assert_eq!(free_name("a.pdf", &taken(&["b.pdf", "a.pdf"])), "a-2.pdf");
        assert_eq!(free_name("a.pdf", &taken(&["a.pdf", "a-2.pdf"])), "a-3.pdf");
        assert_eq!(free_name("a", &taken(&["a"])), "a-2");
        assert_eq!(free_name(".env", &taken(&[".env"])), ".env-2");
        let long = format!("{}.pdf", "\u{e4}".repeat(125));
        let free = free_name(&long, &taken(&[&long]));
        assert!(free.len() <= NAME_MAX && free.ends_with("-2.pdf"), "{free}");
        let odd = format!("a.{}", "x".repeat(253));
        assert_ne!(free_name(&odd, &taken(&[&odd])), odd);
    }

    #[tokio::test]
    async fn what_all_files_have_together_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _threads) = Store::open(&dir.path().join("matins.db")).unwrap();
        let keep = async |n: u8, bytes: u64| {
            let id = format!("file_{n:032x}").parse().unwrap();
            let (name, media_type) = ("a".to_owned(), "text/plain".to_owned());
            let file = NewFile { id, name, media_type, bytes, sha256: [n; 32], user: None };
            store.keep_file(file, 10, 0).await.unwrap().is_some()
        };
        let run = async |sql: &'static str| {
            store.writer.write(move |db| Ok(db.execute_batch(sql)?)).await.unwrap();
        };
        assert!(keep(1, 4).await && keep(2, 6).await, "exactly as many as there may be");
        assert!(!keep(3, 1).await);
        run("DELETE FROM files WHERE number = 1").await;
        assert!(!keep(4, 5).await);
        run("UPDATE files SET bytes = 5").await;
        assert!(keep(5, 5).await);
        run("DELETE FROM files").await;
        assert!(keep(6, 10).await, "nothing is left of what is gone");
    }

    #[test]
    fn a_number_is_spelt_as_it_is_shown() {
        assert_eq!((number("7"), number("-1")), (Some(7), Some(-1)));
        assert_eq!((number("07"), number("+7"), number("x"), number("")), (None, None, None, None));
    }
}
