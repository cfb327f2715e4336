//! Leaves nothing behind: ends every launcher of a state directory that has no daemon any more.
//!
//! A launcher outlives its daemon on purpose, so a service manager that stops the daemon must be able to
//! say that this time nothing shall. The launchers are told to end their runs as by a cancel, which leaves
//! a report that the next daemon settles; one that does not answer is killed with everything below it.
//! Nothing happens while a daemon holds the state lock: its runs are its own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sweep::{Leftovers, sweep};
use super::{AttemptDir, Error};
use crate::proc::{self, Identity, LockHolder, Signal};

/// Longest wait for launchers that were killed, or told to kill.
const KILL_LATE: Duration = Duration::from_secs(5);

/// What [`end_launchers`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// A daemon is up; nothing was done.
    ToTheDaemon,
    /// So many launchers were there; they and their programs are gone.
    Nothing(usize),
    /// So many launchers were there; of some something is left that could not be ended.
    Something(usize),
}

struct Found {
    pid: i32,
    pidfd: OwnedFd,
    dir: AttemptDir,
}

/// Ends the launchers of this state directory: asked first, for at most `grace`. Blocking.
///
/// # Errors
/// Where it cannot be told whether a daemon is up.
pub fn end_launchers(state_dir: &Path, grace: Duration) -> Result<Left, Error> {
    if proc::lock_holder(&state_dir.join("lock"))? != LockHolder::Nobody {
        return Ok(Left::ToTheDaemon);
    }
    let runs = state_dir.join("runs");
    let mut found: Vec<Found> = proc::launchers().into_iter().filter_map(|l| ours(l, &runs)).collect();
    let count = found.len();
    for (signal, patience) in [(Signal::TERM, grace), (Signal::QUIT, KILL_LATE)] {
        found.retain(|launcher| proc::signal(&launcher.pidfd, signal).unwrap_or(false));
        found = still_there(found, patience);
    }
    let mut whole = true;
    for launcher in found {
        let identity = Identity::of(launcher.pid);
        let _ = proc::signal(&launcher.pidfd, Signal::KILL);
        whole &= proc::wait_gone(std::slice::from_ref(&launcher.pidfd), KILL_LATE);
        if let (Ok(identity), Some((run, _))) = (identity, launcher.dir.names()) {
            whole &= sweep(&Leftovers { launcher: identity, run, fresh: true });
        }
    }
    Ok(if whole { Left::Nothing(count) } else { Left::Something(count) })
}

fn ours((pid, pidfd, dir): (i32, OwnedFd, PathBuf), runs: &Path) -> Option<Found> {
    dir.starts_with(runs).then(|| Found { pid, pidfd, dir: AttemptDir::at(&dir) })
}

/// Those that have not ended after `patience` for all of them together.
fn still_there(found: Vec<Found>, patience: Duration) -> Vec<Found> {
    let begun = std::time::Instant::now();
    let left = || patience.saturating_sub(begun.elapsed());
    found.into_iter().filter(|l| !proc::wait_gone(std::slice::from_ref(&l.pidfd), left())).collect()
}
