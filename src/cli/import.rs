//! `matins import crontab`: an agent for each line of a crontab, written into a folder of its own.
//!
//! Not into the directory of agents: cron still runs these lines, and what is put there is in force at
//! once, so each would run twice. What is written is read back as the daemon would read it.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::json;

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
    std::fs::create_dir_all(&import.to).map_err(|e| unwritable(&import.to, &e))?;
    let home = if system { None } else { env.get("HOME").and_then(|home| home.to_str()) };
    let mut ids = HashSet::new();
    let mut written = Vec::new();
    for job in &jobs {
        let taken = |id: &str| ids.contains(id) || file_of(&import.to, id).exists();
        let one = crontab::write(job, &taken, home);
        ids.insert(one.id.clone());
        let file = file_of(&import.to, &one.id);
        std::fs::write(&file, &one.yaml).map_err(|e| unwritable(&file, &e))?;
        written.push((file, one));
    }
    let out = Output::of_process(json);
    tell(&out, &written, &unread)?;
    check(&written, env)?;
    if unread.is_empty() { Ok(0) } else { Err(Failure::quiet(FAILED)) }
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

fn file_of(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.yaml"))
}

fn unwritable(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot write {}: {e}", path.display()))
}

/// Says what was written and what needs a look.
fn tell(out: &Output, written: &[(PathBuf, Written)], unread: &[Unread]) -> Result<(), Failure> {
    if out.json {
        let agents: Vec<_> =
            written.iter().map(|(file, w)| json!({ "id": w.id, "file": file, "look": w.look })).collect();
        let unread: Vec<_> = unread.iter().map(|u| json!({ "line": u.line, "why": u.why })).collect();
        return out.document(&json!({ "agents": agents, "unread": unread }));
    }
    for (file, one) in written {
        out.print(&format!("{}\n", file.display()))?;
        for look in &one.look {
            say(&format!("  {}: {look}", one.id));
        }
    }
    for line in unread {
        say(&format!("  line {}: {}", line.line, line.why));
    }
    if !written.is_empty() {
        out.aside(
            "hint: cron starts a line beside one that still runs; here that slot is left out (`overlap: allow` is cron's way)\n\
             hint: look at the files, take the lines out of the crontab, then move the files into the directory of agents",
        );
    }
    Ok(())
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
