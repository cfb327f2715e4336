//! One attempt of a run: its directory, its launcher (both ends of it) and what came out.
//!
//! Every program runs below a launcher: `matins __exec ATTEMPT_DIR`, a small process that starts, limits
//! and outlives one attempt. The daemon [`hold`]s one (it waits, nothing runs yet), commits RUNNING with
//! its [`Identity`](crate::proc::Identity), then [releases](Held::release) it. What the program prints goes
//! to files, what it ended with to `exit.json`: nothing depends on the daemon's life, so a daemon that comes
//! back [`reattach`]es. The only exit code that is believed is the one the launcher wrote, with the epoch of
//! the claim; a launcher that vanished without it is reported as such, after its tree was swept, and never
//! guessed to have completed.
//!
//! Why a process of its own and not the daemon: only the parent gets exit codes, only a sub-reaper keeps
//! orphans, and only a single-threaded one may wait for any child without robbing tokio.

mod artefacts;
mod confine;
mod held;
pub mod launcher;
mod layout;
mod leave;
mod lines;
mod outcome;
mod owner;
mod pack;
mod prepare;
pub mod presets;
mod report;
mod skills;
mod spec;
mod success;
mod sweep;
mod wire;

use std::io;
use std::path::{Path, PathBuf};

pub use artefacts::{ARTEFACTS_MAX, Artefact, Root, list_artefacts, open_artefact, write_archive};
pub use confine::{Confine, Surroundings, sandbox};
pub use held::{Attach, Canceller, Ended, Held, Live, hold, reattach};
pub use layout::{AttemptDir, RunDirs};
pub use leave::{Left, end_launchers};
pub use lines::{EVENT_LINE_MAX, EVENTS_MAX, Steps, open_transcript, read_steps};
pub use outcome::{Judging, RESULT_MAX, read_outcome};
pub use owner::hand_over;
pub use pack::{FRAME, PACKED, PackedLog, log_bytes, open_below, pack_logs, remove_logs};
pub use prepare::{AgentFiles, Given, GivenFile, Preparation, check_session, prepare, read_given};
pub use report::{ExitReport, HookEnd, Hooks, REPORT_VERSION, Reason};
pub use skills::{SKILL_BYTES_MAX, SKILL_DEPTH_MAX, SKILL_FILES_MAX};
pub use spec::{DEFAULT_PATH, HookSpec, SPEC_VERSION, Spec, World, environment};
pub use wire::{RELEASE_MAX, RELEASE_VERSION, Release};

use crate::proc;

/// What can go wrong with an attempt on our side; what goes wrong with the program is its outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be made, written or read.
    #[error("cannot {what} {path}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A name that would leave the state directory.
    #[error(
        "{0:?} is not the name of a session: write 1 to 64 letters, digits, `-`, `_` and `.`, not `.` first"
    )]
    BadSession(String),
    /// A skill that cannot be seeded.
    #[error("skill {skill}: {problem}")]
    Skill {
        /// The skill's id.
        skill: String,
        /// What is wrong with it and where.
        problem: String,
    },
    /// A value that JSON cannot hold.
    #[error("cannot write {what} as JSON")]
    Json {
        /// What was to be written.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// More than [`RELEASE_MAX`].
    #[error(
        "what the launcher must be told is {bytes} bytes, more than {RELEASE_MAX}; shorten env or arguments"
    )]
    ReleaseTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The launcher did not take its release in time.
    #[error("the launcher did not take its release within {0} s")]
    ReleaseTimeout(u64),
    /// The launcher could not be started.
    #[error("cannot start the launcher {exe}", exe = exe.display())]
    Spawn {
        /// The program that is both daemon and launcher.
        exe: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A process could not be handled.
    #[error("cannot watch the launcher")]
    Process(#[from] proc::Error),
}

impl Error {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
