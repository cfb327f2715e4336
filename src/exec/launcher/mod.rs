//! The launcher's end: `matins __exec ATTEMPT_DIR`.
//!
//! A single-threaded process without a runtime that starts, limits and outlives one attempt. It becomes
//! non-dumpable, session leader and sub-reaper; waits for its release; starts the program (a gate before it, a
//! verifier after it) in a group of its own; pumps the output to files, enforces the limits, forwards an end
//! that was asked for; and when the last process of the tree has ended and is reaped, and only then, writes
//! `exit.json`.
//!
//! The invariant: a report is the truth about a finished tree. Whatever goes wrong before the program starts is
//! a report too (`started: false`), so silence means one thing only: the launcher was killed. A launcher that
//! panics ends its tree and stays silent likewise.
//!
//! Single-threaded because it may then wait for any child, and because nothing can be locked while it spawns.

mod hear;
mod limits;
mod phases;
pub mod sandbox;
mod scrub;
mod signals;
mod start;
mod streams;
mod watch;

use std::fs::{OpenOptions, Permissions};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::signals::Signals;
use super::report::{ExitReport, Reason};
use super::wire::{Received, Release, receive};
use super::{AttemptDir, SPEC_VERSION};
use crate::proc::{self, LockHolder, Reaped, make_dir};
use crate::time::{Clock as _, SystemClock};

/// How long SIGKILL may take to empty a tree; a process that the kernel cannot end must not keep a run for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// How often a report is tried to be written, once a second: a full disk may be emptied meanwhile.
const REPORT_TRIES: u32 = 30;

/// Carries out one attempt. Called before anything else of the program has run.
#[must_use]
pub fn main(attempt_dir: &Path) -> ExitCode {
    let dir = AttemptDir::at(attempt_dir);
    let log = dir.launcher_log();
    let panic_log = log.clone();
    std::panic::set_hook(Box::new(move |info| note(&panic_log, &info.to_string())));
    match std::panic::catch_unwind(AssertUnwindSafe(|| launch(&dir))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => {
            note(&log, &why);
            ExitCode::FAILURE
        }
        Err(_) => {
            destroy();
            ExitCode::from(101)
        }
    }
}

fn launch(dir: &AttemptDir) -> Result<(), String> {
    let (run, attempt) =
        dir.names().ok_or_else(|| format!("{} is not the folder of an attempt", dir.path().display()))?;
    let now = SystemClock.now_ms();
    let mut report = ExitReport::new(run, attempt, proc::own_pid(), now);
    let mut state_lock = None;
    match stand_alone() {
        Err(why) => report.launch_error = Some(why),
        Ok(signals) => match receive(&mut BufReader::new(signals.interruptible_stdin())) {
            Received::Nothing if signals.asked_to_end() => report.reason = Reason::Cancelled,
            Received::Nothing => {}
            Received::Garbage(why) => report.launch_error = Some(why),
            Received::Release(release) => {
                carry_out(dir, &signals, &release, &mut report);
                state_lock = release.spec.state_lock;
            }
        },
    }
    report.ended_at_ms = SystemClock.now_ms();
    write(&report, dir, !daemon_is_there(state_lock.as_deref()))
}

/// Whether somebody commits the outcome at once; see [`report`](super::report).
fn daemon_is_there(state_lock: Option<&Path>) -> bool {
    let holder = state_lock.map(proc::lock_holder);
    matches!(holder, Some(Ok(LockHolder::Pid(_) | LockHolder::Elsewhere)))
}

/// Leaves the daemon's world: session, orphans, memory, signals.
fn stand_alone() -> Result<Signals, String> {
    proc::close_on_exec();
    // Non-dumpable first: a sweep tells launchers by it from strays that have a session of their own.
    let alone =
        proc::set_non_dumpable().and_then(|()| proc::set_session()).and_then(|()| proc::set_subreaper());
    alone.map_err(|e| with_cause(&e))?;
    Signals::install().map_err(|e| format!("cannot handle signals: {e}"))
}

fn carry_out(dir: &AttemptDir, signals: &Signals, release: &Release, report: &mut ExitReport) {
    let spec = &release.spec;
    report.epoch = Some(release.epoch);
    if spec.version != SPEC_VERSION || (spec.run, spec.attempt) != (report.run, report.attempt) {
        report.launch_error = Some("the launcher was released for another attempt or version".to_owned());
        return;
    }
    phases::Phases::new(dir, signals, release).run(report);
}

fn write(report: &ExitReport, dir: &AttemptDir, durable: bool) -> Result<(), String> {
    let mut tries = 1;
    loop {
        match report.write(dir, durable) {
            Ok(()) => return Ok(()),
            Err(e) if tries >= REPORT_TRIES => {
                return Err(format!("cannot write {}: {e}", dir.exit().display()));
            }
            // A program may have removed or closed the folder; the first try after that is at once.
            Err(_) if tries == 1 => restore(dir),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
        tries += 1;
    }
}

/// Makes the folder of the attempt usable again, but none where the state directory itself is gone.
fn restore(dir: &AttemptDir) {
    let Some(run) = dir.path().parent().and_then(Path::parent) else {
        return;
    };
    for folder in [run, &run.join("attempts"), dir.path()] {
        // What cannot be restored shows in the next try to write.
        let _ = make_dir(folder);
        let _ = std::fs::set_permissions(folder, Permissions::from_mode(0o700));
    }
}

/// Ends everything below this process without a word.
fn destroy() {
    let started = Instant::now();
    while started.elapsed() < KILL_PATIENCE {
        proc::kill_tree();
        loop {
            match proc::reap_any() {
                Reaped::Child(..) => {}
                Reaped::Nothing => break,
                Reaped::NoChildren => return,
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn note(log: &PathBuf, what: &str) {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    // There is nowhere else to say it: the launcher has no terminal and no journal.
    let _ = opened.and_then(|mut file| writeln!(file, "{what}"));
}

fn with_cause(e: &proc::Error) -> String {
    match std::error::Error::source(e) {
        Some(cause) => format!("{e}: {cause}"),
        None => e.to_string(),
    }
}
