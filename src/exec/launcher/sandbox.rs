//! The step between launcher and program: `matins __confine`.
//!
//! A program must be confined before its first instruction and its launcher must not be: a program in a domain of
//! Landlock cannot signal who is outside of it. So a confined program is started in two steps. The launcher starts
//! this binary once more; that process confines itself, for good, and then becomes the program (`exec`: same pid,
//! same group). Not a thread of the launcher: a thread that is in the program's domain can be signalled by it, and
//! one that ends sends the parent's death signal to a program that asked for it.
//!
//! Orders come on stdin, secrets among them; stdout and stderr are the program's already. The same channel answers:
//! it closes when the program runs, and says why where it does not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{io, net};

use serde::{Deserialize, Serialize};

use super::super::confine::Confine;
use super::with_cause;
use crate::proc::{self, Fence, Group, Program};

/// Code with which a step ends that could not become the program; nobody sees it.
const FAILED: u8 = 127;

/// What the step is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) file: PathBuf,
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    pub(super) stdin: PathBuf,
    pub(super) confine: Confine,
    /// The control group to join.
    pub(super) group: Option<PathBuf>,
    /// `RLIMIT_DATA`, bytes.
    pub(super) data: Option<u64>,
}

/// Why a program did not start.
#[derive(Debug)]
pub(super) enum Fault {
    /// The kernel did not take it.
    Exec(io::Error),
    /// What came before failed; a sentence.
    Before(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Exec(i32),
    Before(String),
}

/// Starts the program through the step; its pid.
pub(super) fn start(step: &Step, stdout: OwnedFd, stderr: OwnedFd) -> Result<i32, Fault> {
    let before = |what: &str, e: &dyn std::fmt::Display| Fault::Before(format!("{what}: {e}"));
    let json = serde_json::to_vec(step).map_err(|e| before("cannot write the order", &e))?;
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| before("cannot make a socket", &e))?;
    let pid = proc::start_step(theirs.into(), stdout, stderr)
        .map_err(|e| before("cannot start the step that confines the program", &e))?;
    let mut said = Vec::new();
    let spoken = ours
        .write_all(&json)
        .and_then(|()| ours.shutdown(net::Shutdown::Write))
        .and_then(|()| ours.read_to_end(&mut said).map(drop));
    // A step that was killed says nothing; how it ended is seen as the program's end.
    if said.is_empty() && spoken.is_ok() {
        return Ok(pid);
    }
    proc::wait_for(pid);
    match serde_json::from_slice(&said) {
        Ok(Answer::Exec(errno)) => Err(Fault::Exec(io::Error::from_raw_os_error(errno))),
        Ok(Answer::Before(why)) => Err(Fault::Before(why)),
        Err(_) => Err(Fault::Before("the step that confines the program failed without a word".to_owned())),
    }
}

/// Confines this process and becomes the program. Returns only where that failed.
#[must_use]
pub fn main() -> ExitCode {
    // A panic's text could hold anything of the order, and stderr is the program's log.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok(channel) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        return ExitCode::from(FAILED);
    };
    let mut channel = File::from(channel);
    let answer = std::panic::catch_unwind(AssertUnwindSafe(|| become_program(&mut channel)))
        .unwrap_or_else(|_| Answer::Before("the step that confines the program broke".to_owned()));
    if let Ok(json) = serde_json::to_vec(&answer) {
        // Who started the step is gone where this fails.
        let _ = channel.write_all(&json);
    }
    ExitCode::from(FAILED)
}

fn become_program(channel: &mut File) -> Answer {
    let ready = (|| {
        proc::set_non_dumpable().map_err(|e| with_cause(&e))?;
        let mut json = Vec::new();
        channel.read_to_end(&mut json).map_err(|e| format!("cannot read the order: {e}"))?;
        // serde_json's messages quote no values of strings, so no secret can show here.
        let step: Step = serde_json::from_slice(&json)
            .map_err(|e| format!("the order does not fit ({:?} error)", e.classify()))?;
        let stdin =
            File::open(&step.stdin).map_err(|e| format!("cannot read {}: {e}", step.stdin.display()))?;
        confine(&step)?;
        Ok((step, stdin))
    })();
    match ready {
        Err(why) => Answer::Before(why),
        Ok((step, stdin)) => {
            let Step { file, argv, env, cwd, .. } = &step;
            let e = proc::exec(&Program { file, argv, env, cwd }, stdin);
            Answer::Exec(e.raw_os_error().unwrap_or(0))
        }
    }
}

fn confine(step: &Step) -> Result<(), String> {
    let confine = &step.confine;
    if let Some(group) = &step.group {
        Group::join(group).map_err(|e| format!("cannot join the control group {}: {e}", group.display()))?;
    }
    if let Some(bytes) = step.data {
        proc::set_data_limit(bytes).map_err(|e| with_cause(&e))?;
    }
    if confine.sandbox.is_some() || confine.no_tcp {
        let fence =
            Fence { places: confine.sandbox.clone(), cwd: Some(step.cwd.clone()), no_tcp: confine.no_tcp };
        proc::confine(&fence).map_err(|e| with_cause(&e))?;
    }
    // Last: the rules are made by who may list every folder on the way.
    confine.user.as_ref().map_or(Ok(()), |user| proc::become_user(user).map_err(|e| with_cause(&e)))
}
