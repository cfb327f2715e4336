//! `read_file`, `write_file`, `list_dir`: files of the run, and nothing else.
//!
//! A path names one of few roots and what is below it. The kernel resolves it (`openat2`, `RESOLVE_BENEATH`): neither
//! `..` nor a symbolic link, also one that is made in the same moment, leads out of the root. Nothing that is not a
//! regular file is read or written, so no pipe or device can hold the run up.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::{Answer, Tool, text_of};
use crate::agentloop::brief::Brief;
use crate::agentloop::model::ToolSpec;

/// Most that one call of `read_file` gives, bytes.
pub const READ_MAX: usize = 256 << 10;
/// Largest file that `write_file` makes, bytes.
pub const WRITE_MAX: u64 = 16 << 20;
/// Most entries that `list_dir` gives.
pub const ENTRIES_MAX: usize = 1000;
/// How often a path is resolved again after the folders on it were moved meanwhile.
const RESOLVE_TRIES: u32 = 8;

/// What paths mean, for the model.
const PATHS: &str = "A plain path is in the workspace; @files/.. are the files of this run (those it was given, and \
                     those it hands over), @skills/ID/.. those of a skill, which can only be read.";

/// What they mean where only files of skills can be reached.
const SKILLS_ONLY: &str = "Only files of skills can be read here, as @skills/ID/...";

/// A folder that paths may lead into.
#[derive(Debug)]
struct Root {
    /// How its paths begin; empty: those of the workspace.
    prefix: String,
    dir: PathBuf,
    writable: bool,
}

/// The roots of a run.
#[derive(Debug)]
pub(super) struct Roots(Vec<Root>);

/// Where a path leads.
struct Place<'a> {
    root: &'a Root,
    /// Below the root; `.` is the root itself.
    rest: PathBuf,
}

impl Roots {
    pub(super) fn of(brief: &Brief) -> Self {
        let root = |prefix: String, dir: &Path, writable| Root { prefix, dir: dir.to_owned(), writable };
        let mut roots = vec![
            root(String::new(), &brief.paths.workspace, true),
            root("@files".to_owned(), &brief.paths.files, true),
        ];
        let seeded =
            brief.seeded.iter().map(|id| root(format!("@skills/{id}"), &brief.paths.skills.join(id), false));
        roots.extend(seeded);
        for skill in &brief.catalogue {
            let prefix = format!("@skills/{}", skill.id);
            if !roots.iter().any(|root| root.prefix == prefix) {
                roots.push(root(prefix, &skill.dir, false));
            }
        }
        Self(roots)
    }

    /// Where `path` leads; what the model is told where it leads nowhere.
    fn place(&self, path: &str) -> Result<Place<'_>, Answer> {
        if path.contains('\0') {
            return Err(Answer::failed("A path cannot hold a NUL."));
        }
        let asked = Path::new(path);
        let below = |rest: &Path| {
            let rest: PathBuf = rest.components().filter(|part| !matches!(part, Component::CurDir)).collect();
            if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest }
        };
        if asked.is_absolute() {
            // Programs are told absolute paths, so a model may have seen one.
            let found = self.0.iter().filter_map(|root| Some((root, asked.strip_prefix(&root.dir).ok()?)));
            let found = found.max_by_key(|(root, _)| root.dir.as_os_str().len());
            let outside = || Answer::denied(format!("{path} is outside. {}", self.meaning()));
            let (root, rest) = found.ok_or_else(outside)?;
            return Ok(Place { root, rest: below(rest) });
        }
        let mut prefixed = self.0.iter().filter(|root| !root.prefix.is_empty());
        let named = prefixed.find_map(|root| Some((root, asked.strip_prefix(&root.prefix).ok()?)));
        if named.is_none() && (asked.starts_with("@skills") || asked.starts_with("@files")) {
            return Err(Answer::failed(format!("There is no {path}; {}", self.skills())));
        }
        let workspace = || self.workspace().map(|root| (root, asked));
        let (root, rest) = named.or_else(workspace).ok_or_else(|| Answer::failed(self.meaning()))?;
        Ok(Place { root, rest: below(rest) })
    }

    fn workspace(&self) -> Option<&Root> {
        self.0.iter().find(|root| root.prefix.is_empty())
    }

    /// What paths mean here, for the model.
    fn meaning(&self) -> &'static str {
        if self.workspace().is_some() { PATHS } else { SKILLS_ONLY }
    }

    /// Where a regular file really is; what the model is told where it may not be read.
    pub(super) fn real(&self, path: &str) -> Result<PathBuf, Answer> {
        let file = self.place(path)?.file(OFlags::RDONLY, path)?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        std::fs::read_link(link).map_err(|e| Answer::failed(format!("{path} cannot be read: {e}")))
    }

    fn skills(&self) -> String {
        let ids: Vec<&str> = self.0.iter().filter_map(|root| root.prefix.strip_prefix("@skills/")).collect();
        if ids.is_empty() {
            "there are no skills".to_owned()
        } else {
            format!("the skills are {}", ids.join(", "))
        }
    }
}

impl Place<'_> {
    fn open(&self, rest: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = rustix::fs::openat(
            CWD,
            &self.root.dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        // To name a place takes no other flags: openat2 refuses what has no effect.
        let more =
            if flags.contains(OFlags::PATH) { OFlags::CLOEXEC } else { OFlags::CLOEXEC | OFlags::NOCTTY };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&root, rest, flags | more, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES => {}
                answer => return answer,
            }
        }
    }

    /// A regular file, opened.
    fn file(&self, flags: OFlags, path: &str) -> Result<File, Answer> {
        // Without NONBLOCK the opening of a pipe waits for its other end.
        let fd = self.open(&self.rest, flags | OFlags::NONBLOCK).map_err(|e| refusal(e, path))?;
        let file = File::from(fd);
        match file.metadata() {
            Ok(meta) if meta.is_file() => Ok(file),
            Ok(meta) if meta.is_dir() => Err(Answer::failed(format!("{path} is a folder; use list_dir."))),
            Ok(_) => Err(Answer::failed(format!("{path} is not a regular file."))),
            Err(e) => Err(Answer::failed(format!("{path} cannot be read: {e}"))),
        }
    }

    /// Makes the folders on the way to the file.
    fn make_parents(&self) -> Result<(), Errno> {
        let mut at = PathBuf::from(".");
        for part in self.rest.parent().unwrap_or(Path::new("")).components() {
            let next = at.join(part);
            if matches!(self.open(&next, OFlags::PATH | OFlags::DIRECTORY), Err(Errno::NOENT)) {
                let parent = self.open(&at, OFlags::PATH | OFlags::DIRECTORY)?;
                match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
            }
            at = next;
        }
        Ok(())
    }
}

/// What the model is told of a path that cannot be opened.
fn refusal(e: Errno, path: &str) -> Answer {
    match e {
        Errno::XDEV => Answer::denied(format!("{path} leads outside of the folder that it is in.")),
        Errno::NOENT => Answer::failed(format!("There is no {path}.")),
        Errno::NOTDIR => Answer::failed(format!("A part of {path} is not a folder.")),
        Errno::ISDIR => Answer::failed(format!("{path} is a folder.")),
        Errno::NXIO => Answer::failed(format!("{path} is not a regular file.")),
        Errno::LOOP => Answer::failed(format!("{path} is a symbolic link in a circle.")),
        Errno::NOSYS => Answer::failed(
            "This system cannot confine paths (openat2, Linux 5.6), so no file can be reached by tools.",
        ),
        e => Answer::failed(format!("{path} cannot be opened: {}", io::Error::from(e))),
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Read,
    Write,
    List,
}

struct FileTool {
    verb: Verb,
    roots: Arc<Roots>,
}

/// The three tools.
pub(super) fn tools(brief: &Brief) -> Vec<Box<dyn Tool>> {
    let roots = Arc::new(Roots::of(brief));
    let tool = |verb| Box::new(FileTool { verb, roots: Arc::clone(&roots) }) as Box<dyn Tool>;
    vec![tool(Verb::Read), tool(Verb::Write), tool(Verb::List)]
}

/// `read_file` alone, for the files of skills.
pub(super) fn reader(brief: &Brief) -> Box<dyn Tool> {
    let mut roots = Roots::of(brief);
    roots.0.retain(|root| !root.writable);
    Box::new(FileTool { verb: Verb::Read, roots: Arc::new(roots) })
}

impl Tool for FileTool {
    fn spec(&self) -> ToolSpec {
        let (name, what, properties, required) = match self.verb {
            Verb::Read => (
                "read_file",
                "Reads a text file, or some lines of it.",
                json!({"path": {"type": "string"},
                       "from_line": {"type": "integer", "minimum": 1, "description": "First line; default 1"},
                       "lines": {"type": "integer", "minimum": 1, "description": "How many; default all"}}),
                json!(["path"]),
            ),
            Verb::Write => (
                "write_file",
                "Writes a text file; folders on the way are made. What it held is replaced.",
                json!({"path": {"type": "string"}, "content": {"type": "string"},
                       "append": {"type": "boolean", "description": "Write behind what it holds; default false"}}),
                json!(["path", "content"]),
            ),
            Verb::List => (
                "list_dir",
                "Lists a folder: names, folders with a slash, files with their size in bytes.",
                json!({"path": {"type": "string", "description": "Default: the workspace"}}),
                json!([]),
            ),
        };
        let parameters = json!({"type": "object", "properties": properties, "required": required,
                                "additionalProperties": false});
        ToolSpec {
            name: name.to_owned(),
            description: format!("{what} {}", self.roots.meaning()),
            parameters,
        }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        let path = text_of(arguments, "path");
        let answer = self.roots.place(path).and_then(|place| match self.verb {
            Verb::Read => {
                read(&place, path, number_of(arguments, "from_line"), number_of(arguments, "lines"))
            }
            Verb::Write => {
                let append = arguments.get("append").and_then(Value::as_bool).unwrap_or(false);
                write(&place, path, text_of(arguments, "content"), append)
            }
            Verb::List => list(&place, path),
        });
        Box::pin(std::future::ready(answer.unwrap_or_else(|refused| refused)))
    }
}

fn number_of(arguments: &Map<String, Value>, name: &str) -> Option<u64> {
    arguments.get(name)?.as_u64()
}

fn read(place: &Place<'_>, path: &str, from: Option<u64>, lines: Option<u64>) -> Result<Answer, Answer> {
    let mut reader = BufReader::new(place.file(OFlags::RDONLY, path)?);
    let failed = |e: io::Error| Answer::failed(format!("{path} cannot be read: {e}"));
    let first = from.unwrap_or(1).max(1);
    for line in 1..first {
        if reader.skip_until(b'\n').map_err(failed)? == 0 {
            return Err(Answer::failed(format!("{path} has {} lines.", line - 1)));
        }
    }
    let (mut bytes, mut taken) = (Vec::new(), 0);
    while bytes.len() < READ_MAX && lines.is_none_or(|lines| taken < lines) {
        let left = u64::try_from(READ_MAX - bytes.len()).unwrap_or(0);
        if reader.by_ref().take(left).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        taken += 1;
    }
    let more = !reader.fill_buf().map_err(failed)?.is_empty();
    if let Some(what) = no_text(&bytes) {
        return Err(Answer::failed(format!("{path} is {what}, not a text file.")));
    }
    let cut = more && !bytes.ends_with(b"\n");
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if cut {
        let (line, most) = (first + taken - 1, READ_MAX >> 10);
        let _ = write!(text, "\n[line {line} goes on: {most} KiB are the most of one reading]");
    } else if more && lines.is_none() {
        let _ = write!(text, "[the file goes on at line {}]", first + taken);
    }
    Ok(Answer::done(text))
}

/// What a file is that is no text, by its first bytes; text in another encoding than UTF-8 is text.
fn no_text(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 7] = [
        (b"%PDF-", "a PDF"),
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"GIF8", "a GIF picture"),
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x7fELF", "a program"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what);
    known.or_else(|| bytes.contains(&0).then_some("binary data"))
}

fn write(place: &Place<'_>, path: &str, content: &str, append: bool) -> Result<Answer, Answer> {
    if !place.root.writable {
        return Err(Answer::denied(format!("{path} cannot be written. {PATHS}")));
    }
    place.make_parents().map_err(|e| refusal(e, path))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | if append { OFlags::APPEND } else { OFlags::empty() };
    let mut file = place.file(flags, path)?;
    let failed = |e: io::Error| Answer::failed(format!("{path} cannot be written: {e}"));
    let held = if append { file.metadata().map_err(failed)?.len() } else { 0 };
    if held.saturating_add(content.len() as u64) > WRITE_MAX {
        return Err(Answer::failed(format!("A file may have {} MiB at most.", WRITE_MAX >> 20)));
    }
    if !append {
        file.set_len(0).map_err(failed)?;
    }
    file.write_all(content.as_bytes()).map_err(failed)?;
    Ok(Answer::done(format!("{} bytes are written to {path}.", content.len())))
}

fn list(place: &Place<'_>, path: &str) -> Result<Answer, Answer> {
    let shown = if path.is_empty() { "the workspace" } else { path };
    let fd = place.open(&place.rest, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| refusal(e, shown))?;
    let failed = |e: Errno| Answer::failed(format!("{shown} cannot be listed: {}", io::Error::from(e)));
    let (mut names, mut more) = (Vec::new(), false);
    for entry in Dir::read_from(&fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if names.len() >= ENTRIES_MAX {
            more = true;
            break;
        }
        let shown = name.to_string_lossy();
        names.push(match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => format!("{shown}/"),
                FileType::RegularFile => format!("{shown}  {}", stat.st_size),
                FileType::Symlink => format!("{shown}@"),
                _ => format!("{shown}  (no regular file)"),
            },
            Err(_) => shown.into_owned(),
        });
    }
    names.sort_unstable();
    if more {
        names.push(format!("[there are others; {ENTRIES_MAX} are the most]"));
    }
    Ok(Answer::done(if names.is_empty() { format!("{shown} is empty.") } else { names.join("\n") }))
}

#[cfg(test)]
mod tests;
