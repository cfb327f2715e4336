//! Fills a run's folder before its attempt starts.
//!
//! Nothing is synced: the row is the truth, and after a power cut the run starts again from it or is
//! interrupted. A run whose folder is prepared again (a later attempt, or the same one after a crash) gets
//! the same content anew, whatever an earlier attempt did to it; only what it has made in `files/` and the
//! workspace stay.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::layout::{AttemptDir, RunDirs};
use super::{Error, skills};
use crate::model::{SeededSkill, Skill};
use crate::proc::{create_anew, make_dir, make_dirs, open_regular, read_regular, remove_any, write_anew};

/// Longest name of a session, bytes.
const SESSION_MAX: usize = 64;

/// A file that a run gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// Its name in the folder `files`, one path component.
    pub name: String,
    /// Where its content lies.
    pub source: PathBuf,
    /// How long it is.
    pub bytes: u64,
}

/// What the built-in agent is given beside what every program is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFiles {
    /// What it is told, JSON.
    pub brief: Vec<u8>,
    /// Its notes, JSON.
    pub notes: Vec<u8>,
    /// The file of the conversation that it shares with other runs.
    pub conversation: Option<PathBuf>,
}

/// What a run's folder is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Preparation<'a> {
    /// The prompt, rendered.
    pub prompt: &'a str,
    /// The input; an object, `{}` where there is none.
    pub input: &'a Value,
    /// The result schema where a result is promised.
    pub result_schema: Option<&'a Value>,
    /// The definition's snapshot.
    pub definition_yaml: &'a str,
    /// Skills to seed, in order.
    pub skills: &'a [Skill],
    /// Files that it gets, in order.
    pub files: &'a [GivenFile],
    /// What the built-in agent is given; `None`: another program runs.
    pub agent: Option<&'a AgentFiles>,
    /// The session whose workspace is made.
    pub session: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// Makes every folder and file of the attempt; the skills as they were seeded. Blocking.
pub fn prepare(dirs: &RunDirs, what: &Preparation<'_>) -> Result<Vec<SeededSkill>, Error> {
    check_session(what.session)?;
    let root = dirs.root();
    make_dirs(root).map_err(Error::file("make the folder", root))?;
    write(&dirs.prompt(), what.prompt.as_bytes())?;
    write(&dirs.input(), &json("the input", what.input)?)?;
    match what.result_schema {
        Some(schema) => write(&dirs.result_schema(), &json("the result schema", schema)?)?,
        None if what.attempt > 1 => {
            let path = dirs.result_schema();
            remove_any(&path).map_err(Error::file("remove", &path))?;
        }
        None => {}
    }
    write(&dirs.definition(), what.definition_yaml.as_bytes())?;
    for folder in [dirs.files(), root.join("attempts")] {
        make_dir(&folder).map_err(Error::file("make the folder", &folder))?;
    }
    what.files.iter().try_for_each(|file| give_file(file, &dirs.files().join(&file.name)))?;
    make_attempt(&dirs.attempt(what.attempt))?;
    what.agent.map_or(Ok(()), |agent| give_agent(&dirs.attempt(what.attempt), agent))?;
    let workspace = dirs.workspace(what.session);
    make_dirs(&workspace).map_err(Error::file("make the folder", &workspace))?;
    seed(dirs, what.skills)
}

fn give_agent(attempt: &AttemptDir, agent: &AgentFiles) -> Result<(), Error> {
    write(&attempt.brief(), &agent.brief)?;
    write(&attempt.notes(), &agent.notes)?;
    let Some(folder) = agent.conversation.as_deref().and_then(Path::parent) else { return Ok(()) };
    make_dirs(folder).map(drop).map_err(Error::file("make the folder", folder))
}

/// Copies a file that the run gets: what a program makes of its copy is no other run's matter.
fn give_file(file: &GivenFile, to: &Path) -> Result<(), Error> {
    let copy = || -> io::Result<()> {
        let from = open_regular(&file.source)?.ok_or(io::ErrorKind::NotFound)?;
        let copied = io::copy(&mut &from, &mut create_anew(to, 0o600)?)?;
        if copied == file.bytes {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "it has {copied} bytes and not {}, as when it was uploaded",
            file.bytes
        )))
    };
    copy().map_err(Error::file("copy the uploaded file", &file.source))
}

/// What a run was given, as it lies in its folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// The prompt; `None` where it cannot be read any more.
    pub prompt: Option<String>,
    /// The input; `None` where it cannot be read any more.
    pub input: Option<Value>,
}

/// Largest prompt or input that is read back, bytes.
const GIVEN_MAX: u64 = 16 << 20;

/// Reads back what a run was given. Blocking.
#[must_use]
pub fn read_given(dirs: &RunDirs) -> Given {
    let read = |path: &Path| read_regular(path, GIVEN_MAX).ok().flatten();
    Given {
        prompt: read(&dirs.prompt()).and_then(|bytes| String::from_utf8(bytes).ok()),
        input: read(&dirs.input()).and_then(|bytes| serde_json::from_slice(&bytes).ok()),
    }
}

fn seed(dirs: &RunDirs, list: &[Skill]) -> Result<Vec<SeededSkill>, Error> {
    let folder = dirs.skills();
    let fail = Error::file("make the folder", &folder);
    let made = make_dir(&folder).and_then(|new| {
        // What an earlier attempt made of its skills must not reach this one.
        if new {
            return Ok(());
        }
        std::fs::remove_dir_all(&folder)?;
        make_dir(&folder).map(drop)
    });
    made.map_err(fail)?;
    list.iter().map(|skill| skills::seed(skill, &folder.join(&skill.id))).collect()
}

fn make_attempt(attempt: &AttemptDir) -> Result<(), Error> {
    let new = make_dir(attempt.path()).map_err(Error::file("make the folder", attempt.path()))?;
    if !new {
        // The same attempt once more: it never started, but its launcher may have left a report.
        let tmp = attempt.tmp();
        let left = [
            attempt.spec(),
            attempt.stdout(),
            attempt.stderr(),
            attempt.gate_log(),
            attempt.verify_log(),
            attempt.events(),
            attempt.brief(),
            attempt.notes(),
            attempt.transcript(),
            attempt.result(),
            attempt.exit(),
            attempt.launcher_log(),
            tmp,
        ];
        for path in left {
            remove_any(&path).map_err(Error::file("remove", &path))?;
        }
    }
    let tmp = attempt.tmp();
    make_dir(&tmp).map(drop).map_err(Error::file("make the folder", &tmp))
}

/// A session's name is one path component, and no surprise in a shell either.
///
/// # Errors
/// [`Error::BadSession`].
pub fn check_session(name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > SESSION_MAX || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::BadSession(name.to_owned()));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_anew(path, bytes).map_err(|source: io::Error| Error::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

fn json(what: &'static str, value: &Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Json { what, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::ids::{RunId, SeededEntropy};

    fn dirs() -> (tempfile::TempDir, RunDirs) {
        let state = tempfile::tempdir().unwrap();
        let dirs = RunDirs::new(state.path(), RunId::generate(0, &SeededEntropy::new(3)));
        (state, dirs)
    }

    fn what<'a>(input: &'a Value, skills: &'a [Skill], attempt: u32) -> Preparation<'a> {
        Preparation {
            prompt: "do it",
            input,
            result_schema: None,
            definition_yaml: "name: x\n",
            skills,
            files: &[],
            agent: None,
            session: "s-1",
            attempt,
        }
    }

    #[test]
    fn everything_a_variable_names_exists() {
        let (_state, dirs) = dirs();
        let input = json!({"a": 1});
        let schema = json!({"type": "object"});
        let mut preparation = what(&input, &[], 1);
        preparation.result_schema = Some(&schema);
        assert_eq!(prepare(&dirs, &preparation).unwrap(), []);
        assert_eq!(std::fs::read(dirs.prompt()).unwrap(), b"do it");
        assert_eq!(std::fs::read(dirs.input()).unwrap(), br#"{"a":1}"#);
        assert_eq!(std::fs::read(dirs.result_schema()).unwrap(), br#"{"type":"object"}"#);
        assert_eq!(std::fs::read(dirs.definition()).unwrap(), b"name: x\n");
        let attempt = dirs.attempt(1);
        for folder in [&dirs.skills(), &dirs.files(), &attempt.tmp(), &dirs.workspace("s-1")] {
            let mode = folder.metadata().unwrap().permissions().mode();
            assert!(folder.is_dir() && mode & 0o777 == 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn an_attempt_prepared_again_is_as_new() {
        let (state, dirs) = dirs();
        let source = state.path().join("src/a");
        std::fs::create_dir_all(&source).unwrap();
        std::fs::write(source.join("SKILL.md"), "good").unwrap();
        let list = [Skill { id: "a".to_owned(), dir: source }];
        let input = json!({});
        let first = prepare(&dirs, &what(&input, &list, 1)).unwrap();
        let attempt = dirs.attempt(1);
        std::fs::write(dirs.skills().join("a/SKILL.md"), "changed").unwrap();
        std::fs::write(dirs.prompt(), "changed").unwrap();
        std::fs::write(dirs.files().join("report.pdf"), "stays").unwrap();
        std::fs::write(attempt.exit(), "{}").unwrap();
        std::fs::write(attempt.tmp().join("x"), "").unwrap();
        assert_eq!(prepare(&dirs, &what(&input, &list, 1)).unwrap(), first);
        assert_eq!(std::fs::read(dirs.skills().join("a/SKILL.md")).unwrap(), b"good");
        assert_eq!(std::fs::read(dirs.prompt()).unwrap(), b"do it");
        assert_eq!(std::fs::read(dirs.files().join("report.pdf")).unwrap(), b"stays");
        assert!(!attempt.exit().exists(), "a stale report is gone");
        assert_eq!(std::fs::read_dir(attempt.tmp()).unwrap().count(), 0);
        prepare(&dirs, &what(&input, &list, 2)).unwrap();
        assert!(dirs.attempt(2).tmp().is_dir() && attempt.tmp().is_dir());
    }

    #[test]
    fn files_that_were_given_are_copied_for_every_attempt() {
        let (state, dirs) = dirs();
        let source = state.path().join("content");
        std::fs::write(&source, "abc").unwrap();
        let input = json!({});
        let given = |bytes| vec![GivenFile { name: "a.txt".to_owned(), source: source.clone(), bytes }];
        let files = given(3);
        prepare(&dirs, &Preparation { files: &files, ..what(&input, &[], 1) }).unwrap();
        let copy = dirs.files().join("a.txt");
        std::fs::write(&copy, "changed").unwrap();
        std::fs::write(dirs.files().join("made"), "stays").unwrap();
        assert_eq!(std::fs::read(&source).unwrap(), b"abc", "the program has a copy");
        std::fs::remove_file(&copy).unwrap();
        std::os::unix::fs::symlink(&source, &copy).unwrap();
        prepare(&dirs, &Preparation { files: &files, ..what(&input, &[], 2) }).unwrap();
        assert!(copy.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(&copy).unwrap(), b"abc");
        assert_eq!(std::fs::read(dirs.files().join("made")).unwrap(), b"stays");
        let torn = given(4);
        let e = prepare(&dirs, &Preparation { files: &torn, ..what(&input, &[], 3) }).unwrap_err();
        assert!(e.to_string().contains("copy the uploaded file"), "{e}");
        std::fs::remove_file(&source).unwrap();
        assert!(prepare(&dirs, &Preparation { files: &files, ..what(&input, &[], 4) }).is_err());
    }

    #[test]
    fn a_session_cannot_leave_its_folder() {
        let (_state, dirs) = dirs();
        let input = json!({});
        for session in ["", ".", "..", "a/b", "../x", "a\0b", ".hidden", &"x".repeat(65)] {
            let preparation = Preparation { session, ..what(&input, &[], 1) };
            assert!(matches!(prepare(&dirs, &preparation), Err(Error::BadSession(_))), "{session:?}");
        }
        assert!(!dirs.root().exists(), "refused before anything was made");
    }
}
