//! How attempts are carried out: the seam between the engine and [`crate::exec`], and the launcher
//! behind it.
//!
//! The engine knows four things of an attempt: that it is held, which process holds it, that it was released,
//! how it ended. A bench or a test of the engine alone puts something else in the launcher's place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::Ending;
use super::task_input::Job;
use crate::exec::{self, Attach, Ended, ExitReport, Judging};
use crate::ids::{Epoch, RunId};
use crate::model::{Failure, FailureCode, Outcome, Protocol, SeededSkill, SuccessWhen};
use crate::proc::Identity;
use crate::task::{Panicked, blocking};

/// How attempts are carried out: the launcher, or a no-op where only the engine is measured.
pub trait Executor: Send + Sync + 'static {
    /// Prepares the attempt and starts its launcher, which waits for its release.
    fn hold(&self, job: Arc<Job>) -> BoxFuture<'static, Result<Box<dyn Held>, Failure>>;

    /// Finds the launcher of an attempt of a daemon before.
    fn reattach(
        &self,
        launcher: Identity,
        run: RunId,
        attempt: u32,
        epoch: Epoch,
    ) -> BoxFuture<'static, Attached>;

    /// The program that is the launcher, where there is one: commands beside runs are started by it too.
    fn exe(&self) -> Option<&std::path::Path> {
        None
    }

    /// Reads what an ended attempt left.
    fn outcome(&self, request: OutcomeRequest, report: ExitReport) -> BoxFuture<'static, Outcome>;
}

/// A launcher that waits for its release. Dropping it makes the launcher leave.
pub trait Held: Send {
    /// The launcher.
    fn identity(&self) -> &Identity;
    /// The skills that were seeded.
    fn skills(&self) -> &[SeededSkill];
    /// Lets the program start.
    fn release(self: Box<Self>, epoch: Epoch) -> BoxFuture<'static, Result<Box<dyn Watched>, Failure>>;
}

/// A released launcher.
pub trait Watched: Send + Sync {
    /// Waits for its end; may be dropped and called again.
    fn ended(&mut self) -> BoxFuture<'_, Ended>;
    /// Asks it to end its run as hard as `how` says.
    fn end(&self, how: Ending);
}

/// What is read when an attempt has ended.
#[derive(Debug, Clone)]
pub struct OutcomeRequest {
    /// The run's directories.
    pub dirs: exec::RunDirs,
    /// The attempt.
    pub attempt: u32,
    /// How the program speaks.
    pub protocol: Protocol,
    /// Whether it is the built-in agent.
    pub built_in: bool,
    /// What its result must be.
    pub result_schema: Option<Value>,
    /// What must hold in the place of the exit code.
    pub success_when: SuccessWhen,
    /// Failure codes of the agent's own, with a sentence each.
    pub failure_codes: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// What became of an attempt of a daemon before.
pub enum Attached {
    /// Its launcher lives.
    Alive(Box<dyn Watched>),
    /// It was never released: nothing of it has happened.
    NeverStarted,
    /// It ended.
    Ended(Ended),
}

/// The real executor.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The binary that is the launcher: this program.
    pub exe: PathBuf,
    /// Where runs have their directories.
    pub state_dir: PathBuf,
}

struct HeldLauncher {
    held: exec::Held,
    skills: Vec<SeededSkill>,
    job: Arc<Job>,
}

impl Held for HeldLauncher {
    fn identity(&self) -> &Identity {
        self.held.identity()
    }

    fn skills(&self) -> &[SeededSkill] {
        &self.skills
    }

    fn release(self: Box<Self>, epoch: Epoch) -> BoxFuture<'static, Result<Box<dyn Watched>, Failure>> {
        Box::pin(async move {
            let live = self.job.release(self.held, epoch).await.map_err(|e| launch_error(&e))?;
            Ok(Box::new(live) as Box<dyn Watched>)
        })
    }
}

impl Watched for exec::Live {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        Box::pin(exec::Live::ended(self))
    }

    fn end(&self, how: Ending) {
        let asked = match how {
            Ending::No => return,
            Ending::Asked => self.canceller().cancel(),
            Ending::Killed => self.canceller().kill(),
            Ending::Forced => self.canceller().force(),
        };
        if let Err(e) = asked {
            tracing::error!(error = %e, "a launcher could not be signalled: {e}");
        }
    }
}

impl Executor for Launcher {
    fn exe(&self) -> Option<&std::path::Path> {
        Some(&self.exe)
    }

    fn hold(&self, job: Arc<Job>) -> BoxFuture<'static, Result<Box<dyn Held>, Failure>> {
        let exe = self.exe.clone();
        Box::pin(async move {
            let preparing = Arc::clone(&job);
            let prepared = blocking(move || preparing.prepare()).await.map_err(broke)?;
            let skills = prepared.map_err(|e| launch_error(&e))?;
            let held = exec::hold(&exe, &job.attempt_dir()).map_err(|e| launch_error(&e))?;
            Ok(Box::new(HeldLauncher { held, skills, job }) as Box<dyn Held>)
        })
    }

    fn reattach(
        &self,
        launcher: Identity,
        run: RunId,
        attempt: u32,
        epoch: Epoch,
    ) -> BoxFuture<'static, Attached> {
        let dirs = exec::RunDirs::new(&self.state_dir, run);
        Box::pin(async move {
            match exec::reattach(&launcher, &dirs.attempt(attempt), run, attempt, epoch).await {
                Ok(Attach::Alive(live)) => Attached::Alive(Box::new(live)),
                Ok(Attach::Ended(report)) => Attached::Ended(Ended::Report(report)),
                Ok(Attach::NeverStarted) => Attached::NeverStarted,
                Ok(Attach::Vanished) => Attached::Ended(Ended::Vanished),
                Err(e) => {
                    tracing::error!(error = %e, "the launcher of run {run} cannot be watched: {e}");
                    Attached::Ended(Ended::Vanished)
                }
            }
        })
    }

    fn outcome(&self, request: OutcomeRequest, report: ExitReport) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            let read = move || {
                let by = Judging {
                    protocol: request.protocol,
                    built_in: request.built_in,
                    result_schema: request.result_schema.as_ref(),
                    success_when: &request.success_when,
                    failure_codes: &request.failure_codes,
                    cwd: &request.cwd,
                };
                exec::read_outcome(&request.dirs, request.attempt, &report, &by)
            };
            blocking(read).await.unwrap_or_else(|e| Outcome::failed(broke(e)))
        })
    }
}

fn broke(panicked: Panicked) -> Failure {
    Failure::new(FailureCode::RuntimeError, format!("{panicked}; the daemon's log says more"))
}

fn launch_error(e: &exec::Error) -> Failure {
    let mut sentence = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        sentence = format!("{sentence}: {cause}");
        source = cause.source();
    }
    Failure::new(FailureCode::LaunchError, sentence)
}
