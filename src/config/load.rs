//! Every agent file of a directory, and `check`, which is the same path.
//!
//! One broken file makes one agent invalid; the others load. All problems of all files come back at
//! once, in the order of the files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::agent::{self, Read};
use super::context::Context;
use super::locate::{Location, SETTINGS_FILE, absolute};
use super::problem::{Problem, Severity};
use super::reader::Reader;
use super::settings::{Settings, load_settings};
use super::source::{ReadError, Source, Span, Spanned};
use super::yaml::Node;
use super::{Env, Problems};
use crate::ids::AgentId;
use crate::model::Agent;

/// Most threads that read agent files.
const MAX_THREADS: usize = 8;
/// Fewest files for which one more thread is worth its start.
const FILES_PER_THREAD: usize = 64;

/// An agent whose file has errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAgent {
    /// Its id, where it could be read.
    pub id: Option<AgentId>,
    /// Its file.
    pub file: PathBuf,
}

/// Every agent of a directory.
#[derive(Debug, Clone, Default)]
pub struct LoadedAgents {
    /// The usable ones, in the order of their files.
    pub agents: Vec<Arc<Agent>>,
    /// The others.
    pub invalid: Vec<InvalidAgent>,
    /// What is wrong.
    pub problems: Problems,
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The settings that the agents were read under.
    pub settings: Settings,
    /// The agents.
    pub agents: Vec<Arc<Agent>>,
    /// Agents whose files have errors.
    pub invalid: Vec<InvalidAgent>,
    /// Every problem, of the settings too.
    pub problems: Problems,
}

/// Reads every agent of `settings.agents_dir`. What has passed at `now` is warned of, never an error.
#[must_use]
pub fn load_agents(settings: &Settings, env: &Env, now: Timestamp) -> LoadedAgents {
    match agent_files(&settings.agents_dir) {
        Ok(files) => load_files(&files, settings, env, now),
        Err(problem) => failed(*problem),
    }
}

/// Reads what a path names, as the daemon would: a directory with a `matins.yaml`, a `matins.yaml`, a
/// directory of agents, or one agent file. The latter two are read under the `matins.yaml` beside or
/// above them, where there is one that owns them.
#[must_use]
pub fn check_path(path: &Path, env: &Env, now: Timestamp) -> Checked {
    let path = absolute(path);
    let is_settings = |p: &Path| p.file_name().is_some_and(|n| n == SETTINGS_FILE || n == "matins.yml");
    if path.is_dir() && !path.join(SETTINGS_FILE).exists() {
        let (settings, problems) = owner(&path, env);
        return checked(settings, problems, |s| match agent_files(&path) {
            Ok(files) => load_files(&files, s, env, now),
            Err(problem) => failed(*problem),
        });
    }
    if path.is_dir() || is_settings(&path) {
        let file = if path.is_dir() { path.join(SETTINGS_FILE) } else { path };
        let (settings, problems) = load_settings(&Location::of_file(&file), env);
        return checked(settings, problems, |s| load_agents(s, env, now));
    }
    let (settings, problems) = owner(path.parent().unwrap_or(&path), env);
    checked(settings, problems, |s| load_files(&[path], s, env, now))
}

fn checked(
    settings: Settings,
    mut problems: Problems,
    load: impl FnOnce(&Settings) -> LoadedAgents,
) -> Checked {
    let loaded = load(&settings);
    problems.merge(loaded.problems);
    Checked { settings, agents: loaded.agents, invalid: loaded.invalid, problems }
}

fn failed(problem: Problem) -> LoadedAgents {
    let mut loaded = LoadedAgents::default();
    loaded.problems.extend([problem]);
    loaded
}

/// The settings that a directory of agents belongs to: those of the directory above if they name
/// it, else the defaults there.
fn owner(agents_dir: &Path, env: &Env) -> (Settings, Problems) {
    let above = agents_dir.parent().unwrap_or(agents_dir).join(SETTINGS_FILE);
    let at = Location::of_file(&above);
    if above.is_file() {
        let (settings, problems) = load_settings(&at, env);
        let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
        if same(&settings.agents_dir, agents_dir) {
            return (settings, problems);
        }
    }
    (Settings::defaults(&at), Problems::default())
}

/// The definition files directly in a directory, sorted; hidden ones are left out.
fn agent_files(dir: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let unreadable = |e: std::io::Error| {
        let (message, help) = if e.kind() == std::io::ErrorKind::NotFound {
            let help = "create it and put a first agent file there, or set `agents_dir` in matins.yaml";
            ("the directory of agents does not exist".to_owned(), help)
        } else {
            let message = format!("the directory of agents cannot be read: {e}");
            (message, "check its permissions, or set `agents_dir` in matins.yaml")
        };
        Box::new(Problem::of_file(dir, message, Some(help.to_owned())))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if yaml && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn load_files(files: &[PathBuf], settings: &Settings, env: &Env, now: Timestamp) -> LoadedAgents {
    let mut problems = Vec::new();
    let mut read: Vec<(PathBuf, Read)> = Vec::with_capacity(files.len());
    let mut owners: HashMap<AgentId, Vec<usize>> = HashMap::new();
    for (file, (one, found)) in files.iter().zip(read_files(files, settings, env, now)) {
        if let Some(id) = &one.id {
            owners.entry(id.clone()).or_default().push(read.len());
        }
        problems.extend(found);
        read.push((file.clone(), one));
    }
    for (id, at) in owners.iter().filter(|(_, at)| at.len() > 1) {
        for (i, index) in at.iter().enumerate() {
            let other = at[usize::from(i == 0)];
            let other = read[other].0.clone();
            let (file, one) = &mut read[*index];
            one.agent = None;
            problems.extend(duplicate(file, one.id_span, id, &other));
        }
    }
    let mut loaded = LoadedAgents::default();
    for (file, one) in read {
        match one.agent {
            Some(agent) => loaded.agents.push(Arc::new(agent)),
            None => loaded.invalid.push(InvalidAgent { id: one.id, file }),
        }
    }
    loaded.problems.extend(problems);
    loaded
}

/// Reads files by several threads, each with answers of its own to what the files share; what comes
/// back is in the order of the files.
fn read_files(
    files: &[PathBuf],
    settings: &Settings,
    env: &Env,
    now: Timestamp,
) -> Vec<(Read, Vec<Problem>)> {
    let read = |part: &[PathBuf]| -> Vec<(Read, Vec<Problem>)> {
        let mut cx = Context::new(settings, env, now);
        let one = |file: &PathBuf| {
            let mut r = Reader::default();
            let read = read_file(&mut r, &mut cx, file);
            (read, r.into_problems())
        };
        part.iter().map(one).collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MAX_THREADS).min(files.len() / FILES_PER_THREAD);
    if threads < 2 {
        return read(files);
    }
    let read = &read;
    std::thread::scope(|scope| {
        let parts = files.chunks(files.len().div_ceil(threads));
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    })
}

/// The problem of a file whose id another file has too. The file is read again for its snippet: this
/// is rare, and holding every text until all ids are known is not.
fn duplicate(file: &Path, span: Span, id: &AgentId, other: &Path) -> Vec<Problem> {
    let mut r = Reader::default();
    if let Ok(source) = Source::read(file) {
        r.add(source);
    }
    agent::duplicate_id(&mut r, Span { source: 0, ..span }, id, other);
    r.into_problems()
}

fn read_file(r: &mut Reader, cx: &mut Context, file: &Path) -> Read {
    let by_name = || file.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
    if file.to_str().is_none() {
        let help = Some("rename the file".to_owned());
        r.push(Problem::of_file(file, "the name of this file is not UTF-8".to_owned(), help));
        return unread(None);
    }
    match parse_file(r, file, "check the path and its permissions") {
        Some(root) => agent::read(r, cx, file, &root),
        None => unread(by_name()),
    }
}

fn unread(id: Option<AgentId>) -> Read {
    Read { id, id_span: Span::whole(0), agent: None }
}

/// Reads and parses one file as the first source of a reading.
pub(super) fn parse_file(r: &mut Reader, file: &Path, missing_help: &str) -> Option<Spanned<Node>> {
    match Source::read(file) {
        Ok(source) => r.parse(source),
        Err(e) => {
            r.push(unreadable(file, &e, missing_help));
            None
        }
    }
}

fn unreadable(file: &Path, error: &ReadError, missing_help: &str) -> Problem {
    let message = read_error(error);
    let at = |source: &Source, offset: usize, help: &str| {
        let span = source.span(0, offset, offset + 1);
        Problem::at(source, span, Severity::Error, message.clone(), Some(help.to_owned()))
    };
    match error {
        ReadError::Nul(source) => {
            at(source, source.text.find('\0').unwrap_or(0), "definitions are text; remove it")
        }
        ReadError::NotUtf8 { before } => {
            let source =
                Source { path: file.to_owned(), origin: super::Origin::File, text: before.as_str().into() };
            at(&source, before.len(), "save the file as UTF-8")
        }
        ReadError::Io(_) => Problem::of_file(file, message, Some(missing_help.to_owned())),
        ReadError::NotAFile => {
            Problem::of_file(file, message, Some("move it out of this directory".to_owned()))
        }
        ReadError::TooLong => Problem::of_file(
            file,
            message,
            Some("shorten it; long texts belong into a skill or into the program".to_owned()),
        ),
    }
}

/// The sentence of a file that cannot be read, with its cause.
pub(super) fn read_error(error: &ReadError) -> String {
    match error {
        ReadError::Io(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}
