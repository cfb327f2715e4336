//! The daemon's end of a launcher: hold, release, watch, cancel, re-attach.
//!
//! A [`Held`] launcher waits and nothing runs; dropping it is end-of-file for it, and so is the death of the
//! daemon. Between hold and release the daemon commits RUNNING with the launcher's identity, so at every moment
//! either nothing runs or a row says what does. A [`Live`] launcher is watched by its pidfd, which works for a
//! child and, after a restart, for a stranger alike; dropping it only stops watching.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};

use super::report::Claim;
use super::sweep::{Leftovers, sweep};
use super::{AttemptDir, Error, ExitReport, Release};
use crate::ids::{Epoch, RunId};
use crate::proc::{self, Ending, Identity, Signal, Status, remove_any};
use crate::task;
use crate::time::{Clock as _, SystemClock};

/// Longest time for a launcher to take its release, seconds.
const RELEASE_TIMEOUT_S: u64 = 10;

/// A launcher that waits for its release.
#[derive(Debug)]
pub struct Held {
    child: Child,
    stdin: ChildStdin,
    pidfd: OwnedFd,
    identity: Identity,
    dir: AttemptDir,
}

/// Starts a launcher for this attempt; nothing of the program runs yet. `exe` is this very program, by
/// default `/proc/self/exe`. Needs a runtime; takes the time of one spawn.
pub fn hold(exe: &Path, dir: &AttemptDir) -> Result<Held, Error> {
    let fail = |source| Error::Spawn { exe: exe.to_owned(), source };
    let mut child = proc::spawn_launcher(exe, dir.path()).map_err(fail)?;
    let gone = || fail(std::io::Error::other("it ended at once"));
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(gone)?;
    let stdin = child.stdin.take().ok_or_else(gone)?;
    // It is our unreaped child, so the pid cannot have been reused.
    let (identity, pidfd) = Identity::open(pid)?;
    Ok(Held { child, stdin, pidfd, identity, dir: dir.clone() })
}

impl Held {
    /// Which process the launcher is; to be stored before the release.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Lets the attempt begin. On an error it does not begin: the launcher sees a message cut off.
    /// A launcher that died meanwhile is no error: [`Live::ended`] tells it.
    pub async fn release(mut self, release: &Release) -> Result<Live, Error> {
        let message = release.encode()?;
        let limit = Duration::from_secs(RELEASE_TIMEOUT_S);
        match tokio::time::timeout(limit, self.stdin.write_all(&message)).await {
            // A broken pipe: it is gone, with or without a report.
            Ok(Ok(()) | Err(_)) => {}
            Err(_) => return Err(Error::ReleaseTimeout(RELEASE_TIMEOUT_S)),
        }
        drop(self.stdin);
        Ok(Live {
            watched: Watched::Child(self.child),
            canceller: Canceller::new(self.pidfd),
            identity: self.identity,
            dir: self.dir,
            run: release.spec.run,
            attempt: release.spec.attempt,
            epoch: release.epoch,
            gone: false,
            killed: false,
        })
    }
}

/// How an attempt ended, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As its launcher reports. Where [`ExitReport::never_started`] nothing ran; the reason then says whether
    /// that was asked for.
    Report(ExitReport),
    /// The launcher is gone without a report of this claim; its tree was swept.
    Vanished,
}

/// Ends an attempt; may be cloned and used while [`Live::ended`] is awaited.
#[derive(Debug, Clone)]
pub struct Canceller {
    pidfd: Arc<OwnedFd>,
    asked: Arc<AtomicBool>,
}

impl Canceller {
    fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd: Arc::new(pidfd), asked: Arc::new(AtomicBool::new(false)) }
    }

    /// The first call asks the program to end and kills its tree after its grace; a second kills at once.
    /// Whether the launcher still lived.
    pub fn cancel(&self) -> Result<bool, Error> {
        if self.asked.swap(true, Ordering::SeqCst) {
            return self.kill();
        }
        Ok(proc::signal(&*self.pidfd, Signal::TERM)?)
    }

    /// Whether an end was asked for through this canceller or a clone of it.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Kills the tree at once; the launcher still reports. Whether the launcher still lived.
    pub fn kill(&self) -> Result<bool, Error> {
        self.asked.store(true, Ordering::SeqCst);
        // Not a second TERM: two that arrive together are one.
        Ok(proc::signal(&*self.pidfd, Signal::QUIT)?)
    }

    /// Kills the launcher itself, which no longer answers; [`Live::ended`] then ends what it leaves.
    pub fn force(&self) -> Result<bool, Error> {
        self.asked.store(true, Ordering::SeqCst);
        Ok(proc::signal(&*self.pidfd, Signal::KILL)?)
    }
}

#[derive(Debug)]
enum Watched {
    /// Our child; tokio reaps it.
    Child(Child),
    /// Another process's child, after a restart.
    Stranger(Ending),
}

/// A launcher that was released and may still run.
#[derive(Debug)]
pub struct Live {
    watched: Watched,
    canceller: Canceller,
    identity: Identity,
    dir: AttemptDir,
    run: RunId,
    attempt: u32,
    epoch: Epoch,
    gone: bool,
    killed: bool,
}

impl Live {
    /// Which process the launcher is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The folder of the attempt.
    #[must_use]
    pub fn dir(&self) -> &AttemptDir {
        &self.dir
    }

    /// Something that ends the attempt and outlives a borrow.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// As [`Canceller::cancel`].
    pub fn cancel(&self) -> Result<bool, Error> {
        self.canceller.cancel()
    }

    /// Waits until the launcher has ended and reads its report. Without one, whatever is left of the tree is
    /// ended first. May be dropped and called again.
    pub async fn ended(&mut self) -> Ended {
        if !self.gone {
            self.killed = self.watched.gone().await;
            self.gone = true;
        }
        let claim =
            Claim { run: self.run, attempt: self.attempt, epoch: self.epoch, launcher: &self.identity };
        let leftovers = Leftovers { launcher: self.identity.clone(), run: self.run, fresh: true };
        // A launcher that was killed has not ended its tree, so a report of its name is not its own.
        if !self.killed
            && let Some(report) = ExitReport::read(&self.dir, &claim)
        {
            if matches!(self.watched, Watched::Stranger(_)) {
                // How a stranger's child ended cannot be learnt; a tree that is left is the sign of a forgery.
                sweep_quietly(Leftovers { fresh: false, ..leftovers }).await;
            }
            return Ended::Report(report);
        }
        if self.dir.is_pristine() {
            // Killed before it began, for example by a cancel that came before its signal handlers.
            return Ended::Report(ExitReport::not_begun(
                &claim,
                self.canceller.was_asked(),
                SystemClock.now_ms(),
            ));
        }
        clear(&self.dir, Some(leftovers)).await;
        Ended::Vanished
    }
}

impl Watched {
    /// Waits for its end; whether a signal ended it, as far as that can be known.
    async fn gone(&mut self) -> bool {
        match self {
            // An error can only say that it was reaped by others: then it is gone too.
            Self::Child(child) => child.wait().await.is_ok_and(|status| status.signal().is_some()),
            // After a replacement of the program in place it is our child all the same.
            Self::Stranger(ending) => {
                ending.reached().await;
                matches!(ending.reap(), Some(Status::Signal(_)))
            }
        }
    }
}

/// What became of a launcher that an earlier daemon released, or held.
#[derive(Debug)]
pub enum Attach {
    /// It lives.
    Alive(Live),
    /// It has reported.
    Ended(ExitReport),
    /// It was never released and nothing is wrong: the run may be claimed anew.
    NeverStarted,
    /// It is gone without a report of this claim; its tree was swept.
    Vanished,
}

/// Finds the launcher of this identity and claim again. Needs a runtime.
pub async fn reattach(
    identity: &Identity,
    dir: &AttemptDir,
    run: RunId,
    attempt: u32,
    epoch: Epoch,
) -> Result<Attach, Error> {
    if let Some(pidfd) = proc::alive(identity)? {
        return Ok(Attach::Alive(Live {
            watched: Watched::Stranger(Ending::watch(&pidfd)?),
            canceller: Canceller::new(pidfd),
            identity: identity.clone(),
            dir: dir.clone(),
            run,
            attempt,
            epoch,
            gone: false,
            killed: false,
        }));
    }
    // It may be our child, where the daemon before was another program in this process.
    proc::reap_one(identity.pid);
    // Read only now: a launcher that ended while it was looked for has written its report before.
    let claim = Claim { run, attempt, epoch, launcher: identity };
    match ExitReport::read(dir, &claim) {
        Some(report) if report.never_started() => return Ok(Attach::NeverStarted),
        Some(report) => {
            sweep_quietly(Leftovers { launcher: identity.clone(), run, fresh: false }).await;
            return Ok(Attach::Ended(report));
        }
        None => {}
    }
    // No process of another boot can be left, and what its files say may be lost with it.
    let same_boot = proc::boot_id()? == identity.boot_id;
    if same_boot && dir.is_pristine() {
        return Ok(Attach::NeverStarted);
    }
    let leftovers = same_boot.then(|| Leftovers { launcher: identity.clone(), run, fresh: false });
    clear(dir, leftovers).await;
    Ok(Attach::Vanished)
}

// The log: which run, and of which agent, is in the span of who asks.

/// Where a report is there nothing should be left; what is left nevertheless is ended.
async fn sweep_quietly(leftovers: Leftovers) {
    let run = leftovers.run;
    if !matches!(task::blocking(move || sweep(&leftovers)).await, Ok(true)) {
        tracing::error!("processes of run {run} could not be ended");
    }
}

/// Does what a launcher that is gone without a report would have done at its end: ends its processes, where there can be
/// any, and removes the attempt's folder for temporary files.
async fn clear(dir: &AttemptDir, leftovers: Option<Leftovers>) {
    if let Some(leftovers) = leftovers {
        tracing::warn!("the launcher of run {} is gone without a report; ending what it left", leftovers.run);
        sweep_quietly(leftovers).await;
    }
    let tmp = dir.tmp();
    // What cannot be removed goes with the run's folder.
    let _ = task::blocking(move || remove_any(&tmp)).await;
}
