//! `matins init`: settings, a first agent with a skill, and, where the daemon looks by itself, a unit for
//! `systemd --user`. There is one such unit, so it is for those settings and not for each directory.
//!
//! What is there is never touched: a second call makes what is missing, and says what it left alone.
//! What it writes is what the manual shows, so that a first look is at something that runs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Done;
use super::args::Global;
use super::failure::{FAILED, Failure, USAGE};
use super::output::Output;
use crate::config::{self, Env};

const SETTINGS: &str = "\
# Settings of matins. Every key is optional; `matins check` reads this file as the daemon does.
agents_dir: agents
skills_dir: skills
# timezone: Europe/Berlin        # of schedules that name none; UTC by default
# max_running: 4                 # runs at once
# drain_timeout: 60s             # how long a stop waits for runs
# webhooks:                      # told of the runs of every agent
#   - url: https://hooks.example.com/matins
#     secret: { env: MATINS_HOOK_SECRET }
#     events: [run.failed]
";

const AGENT: &str = "\
# An agent: what runs, with what, and when. `matins run hello --follow` runs it now.
name: Hello
description: Greets somebody; an agent to begin with
prompt: |
  Say hello to {{ input.name }}.
input: { name: world }
skills: [greeting]
executor:
  type: command
  # The prompt is on stdin, the skills are in $MATINS_SKILLS_DIR, a result goes to $MATINS_RESULT_FILE.
  command:
    - sh
    - -c
    - |
      cat
      cat \"$MATINS_SKILLS_DIR/greeting/SKILL.md\" | tail -n 1
      echo '{\"greeted\": true}' > \"$MATINS_RESULT_FILE\"
result_schema: { type: object, required: [greeted] }
schedules:
  - cron: \"0 9 * * MON-FRI\"
    timezone: UTC
timeout: 1m
";

const SKILL: &str = "\
---
name: greeting
description: How to greet. Use when somebody is to be greeted.
---
Be short and friendly.
";

/// The unit as it is shipped, for the program in `/usr/bin`.
const UNIT: &str = include_str!("../../systemd/user/matins.service");
/// The program that the shipped unit names.
const SHIPPED: &str = "/usr/bin/matins";

/// What was made, and what was there.
#[derive(Debug, Default)]
struct Made {
    wrote: Vec<PathBuf>,
    kept: Vec<PathBuf>,
}

impl Made {
    fn file(&mut self, path: PathBuf, text: &str) -> Result<(), Failure> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let made = std::fs::create_dir_all(parent).and_then(|()| {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(text.as_bytes())
        });
        match made {
            Ok(()) => self.wrote.push(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.kept.push(path),
            Err(e) => {
                return Err(Failure::new(FAILED, format!("cannot write {}: {e}", path.display()))
                    .hint("name a directory that you may write to: matins init DIR"));
            }
        }
        Ok(())
    }
}

/// Makes what is missing in `dir`, by default where the daemon looks by itself.
pub fn init(dir: Option<&Path>, global: &Global, env: &Env) -> Done {
    if global.config.is_some() || global.socket.is_some() {
        return Err(Failure::new(USAGE, "init takes the directory as its argument: matins init DIR"));
    }
    let named = dir.map(std::path::absolute).transpose();
    let named = named.map_err(|e| Failure::new(FAILED, format!("cannot find the current directory: {e}")))?;
    let place = named.clone().unwrap_or_else(|| config::locate(None, env).dir().to_owned());
    let mut made = Made::default();
    made.file(place.join("matins.yaml"), SETTINGS)?;
    made.file(place.join("agents/hello.yaml"), AGENT)?;
    made.file(place.join("skills/greeting/SKILL.md"), SKILL)?;
    let unit = if named.is_none() { unit_place(env) } else { None };
    let (mut ours, mut other) = (false, None);
    if let Some(path) = &unit {
        let exe = std::env::current_exe();
        let exe =
            exe.map_err(|e| Failure::new(FAILED, format!("cannot find this program's own file: {e}")))?;
        let text = unit_text(&exe);
        made.file(path.clone(), &text)?;
        // One that was there may start the daemon of another directory.
        let served = config::served_by(path, env);
        ours = served.as_deref() == Some(place.join("matins.yaml").as_path());
        other = served.filter(|_| !ours).map(|served| (path.clone(), served));
    }
    tell(&made, named.as_deref(), ours, other.as_ref(), &Output::of_process(global.json))
}

/// Where a unit of this user belongs, where there is a manager that would read it.
fn unit_place(env: &Env) -> Option<PathBuf> {
    let runtime = env.get("XDG_RUNTIME_DIR").map(PathBuf::from)?;
    if !runtime.join("systemd").is_dir() {
        return None;
    }
    config::user_unit(env)
}

/// The shipped unit for this program.
fn unit_text(exe: &Path) -> String {
    let text = exe.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    UNIT.replace(SHIPPED, &format!("\"{}\"", text.replace('%', "%%").replace('$', "$$")))
}

/// `other` is a unit that was there and serves other settings, and those.
fn tell(
    made: &Made,
    dir: Option<&Path>,
    unit: bool,
    other: Option<&(PathBuf, PathBuf)>,
    out: &Output,
) -> Done {
    let names = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
    let (wrote, kept) = (names(&made.wrote), names(&made.kept));
    let at = dir.map_or_else(String::new, |dir| format!(" -c {}", shell_word(dir)));
    let start = if unit && dir.is_none() {
        "systemctl --user enable --now matins".to_owned()
    } else {
        format!("matins{at} serve")
    };
    let run = format!("matins{at} run hello --follow");
    if out.json {
        return out.document(&json!({ "wrote": wrote, "kept": kept, "next": [start, run] })).map(|()| 0);
    }
    let mut text = String::new();
    for path in &wrote {
        let _ = writeln!(text, "wrote  {path}");
    }
    for path in &kept {
        match other.filter(|(unit, _)| unit.display().to_string() == *path) {
            Some((_, served)) => {
                let served = served.display();
                let _ = writeln!(
                    text,
                    "kept   {path}, which serves {served}, not these settings: remove it and run init again"
                );
            }
            None => {
                let _ = writeln!(text, "kept   {path}, which was there");
            }
        }
    }
    if dir.is_some() {
        text += "\nno unit was written: `matins init` without a directory writes one for `systemd --user`\n";
    }
    let _ = writeln!(text, "\nnext, each in a terminal:\n  {start}\n  {run}");
    out.print(&text).map(|()| 0)
}

/// A path as a word of a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_the_program_as_systemd_reads_it() {
        let plain = unit_text(Path::new("/opt/m 1/matins"));
        assert!(plain.contains("ExecStart=\"/opt/m 1/matins\" serve\n"), "{plain}");
        assert!(!plain.contains(SHIPPED));
        let strange = unit_text(Path::new("/50% \"b\""));
        for line in [
            "ExecStart=\"/50%% \\\"b\\\"\" serve",
            "ExecReload=\"/50%% \\\"b\\\"\" reload",
            "ExecStopPost=\"/50%% \\\"b\\\"\" __sweep",
        ] {
            assert!(strange.lines().any(|l| l == line), "{line}\n{strange}");
        }
    }

    #[test]
    fn words_are_quoted_where_they_must() {
        assert_eq!(shell_word(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(shell_word(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
