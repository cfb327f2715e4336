//! `matins import crontab`: an agent for each line of a crontab, written into a folder of its own.
//!
//! Not into the directory of agents: cron still runs these lines, and what is put there is in force at
//! once, so each would run twice. What is written is read back as the daemon would read it. A file that is
//! there is never written over and never doubled: with the same text its line was imported before, with
//! another one it is told of.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Done;
use super::crontab::{self, Unread, Written};
use super::failure::{CONFIG, FAILED, Failure};
use super::output::{Output, say};
use crate::config::{self, Env};
use crate::time::{Clock as _, SystemClock};

/// Longest crontab that is read, bytes.
const CRONTAB_MAX: u64 = 1 << 20;

/// How a crontab is imported.
#[derive(Debug)]
pub struct Import {
    /// The crontab; `-` is stdin.
    pub file: PathBuf,
    /// Where the agents go.
    pub to: PathBuf,
    /// Whether the sixth field is a user; by the file's place where nothing is said.
    pub system: bool,
}

/// `matins import crontab FILE`.
pub fn crontab(import: &Import, json: bool, env: &Env) -> Done {
    let text = read(&import.file)?;
    let system =
        import.system || import.file == Path::new("/etc/crontab") || import.file.starts_with("/etc/cron.d");
    let (jobs, unread) = crontab::parse(&text, system);
    let home = if system { None } else { env.get("HOME").and_then(|home| home.to_str()) };
    let mut ids = HashSet::new();
    let mut done = Imported { unread, ..Imported::default() };
    if !jobs.is_empty() {
        std::fs::create_dir_all(&import.to).map_err(|e| unwritable(&import.to, &e))?;
    }
    for job in &jobs {
        // An id depends on the crontab alone, so the same one read again meets its own files.
        let one = crontab::write(job, &|id| ids.contains(id), home);
        ids.insert(one.id.clone());
        let file = import.to.join(format!("{}.yaml", one.id));
        match put(&file, &one.yaml)? {
            Put::Written => done.written.push((file, one)),
            Put::Same => done.same.push(file),
            Put::Other => done.others.push((job.line, file)),
        }
    }
    let out = Output::of_process(json);
    tell(&out, &done, &import.file)?;
    check(&done.written, env)?;
    if done.unread.is_empty() && done.others.is_empty() { Ok(0) } else { Err(Failure::quiet(FAILED)) }
}

/// What became of the lines of a crontab.
#[derive(Default)]
struct Imported {
    /// Agents, each with the file that was written.
    written: Vec<(PathBuf, Written)>,
    /// Files that were there already, with the same text.
    same: Vec<PathBuf>,
    /// Files that were there with another text, each with the line that it would have been of.
    others: Vec<(usize, PathBuf)>,
    /// Lines that cannot be read.
    unread: Vec<Unread>,
}

/// What became of a file.
enum Put {
    Written,
    Same,
    Other,
}

/// Writes a file that is not there yet.
fn put(file: &Path, text: &str) -> Result<Put, Failure> {
    match std::fs::File::create_new(file) {
        Ok(mut made) => {
            made.write_all(text.as_bytes()).map_err(|e| unwritable(file, &e))?;
            Ok(Put::Written)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let same = std::fs::read(file).is_ok_and(|there| there == text.as_bytes());
            Ok(if same { Put::Same } else { Put::Other })
        }
        Err(e) => Err(unwritable(file, &e)),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |e: std::io::Error| Failure::new(FAILED, format!("cannot read {}: {e}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(CRONTAB_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(CRONTAB_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    Ok(text)
}

fn unwritable(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot write {}: {e}", path.display()))
}

/// Says what was written, what was there already and what needs a look.
fn tell(out: &Output, done: &Imported, from: &Path) -> Result<(), Failure> {
    if out.json {
        return out.document(&document(done));
    }
    for (file, one) in &done.written {
        out.print(&format!("{}\n", file.display()))?;
        for look in &one.look {
            say(&format!("  {}: {look}", one.id));
        }
    }
    for file in &done.same {
        say(&format!("  {}: is there already, unchanged", file.display()));
    }
    for (line, file) in &done.others {
        say(&format!(
            "  line {line}: {} is there already with another text and stays as it is; move it away to write it anew, \
             or name another folder with --to",
            file.display()
        ));
    }
    for line in &done.unread {
        say(&format!("  line {}: {}", line.line, line.why));
    }
    if !done.written.is_empty() {
        out.aside(
            "hint: cron starts a line beside one that still runs; here that slot is left out (`overlap: allow` is cron's way)\n\
             hint: look at the files, take the lines out of the crontab, then move the files into the directory of agents",
        );
    } else if done.same.is_empty() && done.others.is_empty() && done.unread.is_empty() {
        say(&format!("{} has no line that starts something; nothing was written", from.display()));
    } else if done.others.is_empty() && done.unread.is_empty() {
        say("nothing was written: every line was imported before");
    }
    Ok(())
}

fn document(done: &Imported) -> Value {
    let written = |(file, w): &(PathBuf, Written)| json!({ "id": w.id, "file": file, "look": w.look });
    let unread = |u: &Unread| json!({ "line": u.line, "why": u.why });
    let other = |(line, file): &(usize, PathBuf)| json!({ "line": line, "file": file });
    json!({
        "agents": done.written.iter().map(written).collect::<Vec<_>>(),
        "unchanged": done.same,
        "inTheWay": done.others.iter().map(other).collect::<Vec<_>>(),
        "unread": done.unread.iter().map(unread).collect::<Vec<_>>(),
    })
}

/// Reads the files back as the daemon would.
fn check(written: &[(PathBuf, Written)], env: &Env) -> Result<(), Failure> {
    let mut broken = 0;
    for (file, _) in written {
        let checked = config::check_path(file, env, SystemClock.now());
        if !checked.problems.is_empty() {
            say(checked.problems.render(false).trim_end());
        }
        broken += usize::from(checked.problems.has_errors());
    }
    if broken == 0 {
        return Ok(());
    }
    let message = format!("{broken} of {} files have errors", written.len());
    Err(Failure::new(CONFIG, message).hint("mend them, then `matins check` on the folder"))
}
