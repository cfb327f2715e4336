//! Where everything of a run lies.
//!
//! The folders belong to programs that may be hostile: an earlier attempt can have put a link or a FIFO in
//! the place of any file. So what is made and read there is made anew and read with the pieces of [`crate::proc`]
//! that follow nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::{AgentId, RunId};
use crate::proc::make_dirs;

/// The folders of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirs {
    state: PathBuf,
    run: RunId,
    root: PathBuf,
}

impl RunDirs {
    /// The folders of `run` below the state directory, which must be absolute.
    #[must_use]
    pub fn new(state_dir: &Path, run: RunId) -> Self {
        let root = state_dir.join("runs").join(run.to_string());
        Self { state: state_dir.to_owned(), run, root }
    }

    /// Makes the run's folder, where it is not there yet.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make(&self) -> io::Result<()> {
        make_dirs(&self.root).map(drop)
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// `runs/<run>`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The prompt as the program gets it on stdin.
    #[must_use]
    pub fn prompt(&self) -> PathBuf {
        self.root.join("prompt.md")
    }

    /// What the program gets on stdin in the place of the prompt, where a preset adds to it.
    #[must_use]
    pub fn asked(&self) -> PathBuf {
        self.root.join("stdin.md")
    }

    /// The input; `{}` where there is none.
    #[must_use]
    pub fn input(&self) -> PathBuf {
        self.root.join("input.json")
    }

    /// The result schema; absent where no result is promised.
    #[must_use]
    pub fn result_schema(&self) -> PathBuf {
        self.root.join("result_schema.json")
    }

    /// The seeded skills, one folder each.
    #[must_use]
    pub fn skills(&self) -> PathBuf {
        self.root.join("skills")
    }

    /// Files given to the run and made by it.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The snapshot of the definition.
    #[must_use]
    pub fn definition(&self) -> PathBuf {
        self.root.join("definition.yaml")
    }

    /// The folder of attempt `n`, counted from 1.
    #[must_use]
    pub fn attempt(&self, n: u32) -> AttemptDir {
        AttemptDir::at(&self.root.join("attempts").join(n.to_string()))
    }

    /// The folder of a session.
    #[must_use]
    pub fn session(&self, session: &str) -> PathBuf {
        self.state.join("sessions").join(session)
    }

    /// Where the built-in agent keeps the conversation of a session.
    #[must_use]
    pub fn conversation(&self, session: &str) -> PathBuf {
        self.session(session).join("agent/conversation.json")
    }

    /// Where the built-in agent keeps the cookies of its browser in a session: beside the conversation, and each
    /// definition for itself.
    #[must_use]
    pub fn cookies(&self, session: &str, agent: &AgentId) -> PathBuf {
        self.conversation(session).with_file_name(format!("cookies-{agent}"))
    }

    /// Where the handle of a tool's conversation is kept.
    #[must_use]
    pub fn handle(&self, session: &str, tool: &str) -> PathBuf {
        self.session(session).join(format!("{tool}.json"))
    }

    /// The workspace of a session, shared by the runs that name it.
    #[must_use]
    pub fn workspace(&self, session: &str) -> PathBuf {
        self.session(session).join("workspace")
    }
}

/// The folder of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir(PathBuf);

impl AttemptDir {
    /// The attempt folder at this place.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Run and attempt as the path says them: `.../runs/<run>/attempts/<n>`.
    #[must_use]
    pub fn names(&self) -> Option<(RunId, u32)> {
        let attempt = self.0.file_name()?.to_str()?.parse().ok()?;
        let run = self.0.parent()?.parent()?.file_name()?.to_str()?.parse().ok()?;
        Some((run, attempt))
    }

    /// What the launcher was told, without secrets.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// What the program wrote on stdout.
    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout.log")
    }

    /// What the program wrote on stderr.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr.log")
    }

    /// What the gate wrote; absent where there is none.
    #[must_use]
    pub fn gate_log(&self) -> PathBuf {
        self.0.join("gate.log")
    }

    /// What the verifier wrote; absent where there is none.
    #[must_use]
    pub fn verify_log(&self) -> PathBuf {
        self.0.join("verify.log")
    }

    /// NDJSON lines of the program.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.0.join("events.ndjson")
    }

    /// The program's result.
    #[must_use]
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// The launcher's report, its last deed.
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// What the built-in agent is told; absent where another program runs.
    #[must_use]
    pub fn brief(&self) -> PathBuf {
        self.0.join("brief.json")
    }

    /// The notes that the built-in agent has from runs before; absent where another program runs.
    #[must_use]
    pub fn notes(&self) -> PathBuf {
        self.0.join("notes.json")
    }

    /// Every exchange of the built-in agent with its model; absent where another program runs.
    #[must_use]
    pub fn transcript(&self) -> PathBuf {
        self.0.join("transcript.ndjson")
    }

    /// The program's TMPDIR.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Whether the folder is as it was prepared: the launcher writes `spec.json` before it starts anything,
    /// so nothing was started here. Not to be asked after the machine went down, which may lose a file.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return false;
        };
        let mut names = entries.map(|entry| entry.map(|e| e.file_name()).unwrap_or_default());
        names.all(|name| ["tmp", "brief.json", "notes.json"].iter().any(|prepared| name == *prepared))
            && self.tmp().is_dir()
    }

    /// Where a launcher that panicked says so; absent otherwise.
    #[must_use]
    pub fn launcher_log(&self) -> PathBuf {
        self.0.join("launcher.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededEntropy;

    #[test]
    fn the_paths_are_the_documented_ones() {
        let run = RunId::generate(0, &SeededEntropy::new(1));
        let dirs = RunDirs::new(Path::new("/s"), run);
        let below = |p: PathBuf| p.strip_prefix("/s").unwrap().to_str().unwrap().to_owned();
        assert_eq!(below(dirs.prompt()), format!("runs/{run}/prompt.md"));
        assert_eq!(below(dirs.workspace("x")), "sessions/x/workspace");
        assert_eq!(below(dirs.cookies("x", &"shop".parse().unwrap())), "sessions/x/agent/cookies-shop");
        let attempt = dirs.attempt(3);
        assert_eq!(below(attempt.exit()), format!("runs/{run}/attempts/3/exit.json"));
        assert_eq!(attempt.names(), Some((run, 3)));
        assert_eq!(AttemptDir::at(Path::new("/tmp/x")).names(), None);
    }
}
