//! One run from claim to end: prepare, hold the launcher, commit RUNNING with its identity, release
//! it, watch it, finish. The only place where a run ends.
//!
//! The order is the promise. Before the commit nothing of the program has happened: a launcher that
//! is held leaves when the daemon dies. After it, the identity on disk finds the launcher again.
//! What the launcher wrote is read after it ended, never guessed: a run whose launcher vanished is
//! `interrupted`, whatever it may have done.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use super::message::Told;
use super::task_input::{self, Job};
use super::{Core, Ending};
use crate::exec::{self, Attach, Ended, ExitReport, Reason};
use crate::ids::{Epoch, RunId};
use crate::model::{Agent, Failure, FailureCode, Outcome, Overrides, Protocol, SeededSkill};
use crate::proc::Identity;
use crate::store::{self, Claimed, Finish};
use crate::time::rfc3339_ms;

/// How long after its timeout and grace a launcher may take to end its run.
const LATE: Duration = Duration::from_secs(30);
/// How long after a kill, or after the grace of a cancel, a launcher may take.
const KILL_LATE: Duration = Duration::from_secs(5);
/// Rest between two tries of a write that must come to be.
const WRITE_REST: Duration = Duration::from_secs(1);

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
    /// What its result must be.
    pub result_schema: Option<Value>,
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
            let skills = blocking(move || preparing.prepare()).await?.map_err(|e| launch_error(&e))?;
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
                    tracing::error!(run.id = %run, error = %e, "the launcher of run {run} cannot be watched: {e}");
                    Attached::Ended(Ended::Vanished)
                }
            }
        })
    }

    fn outcome(&self, request: OutcomeRequest, report: ExitReport) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            let read = move || {
                let OutcomeRequest { dirs, attempt, protocol, result_schema } = &request;
                exec::read_outcome(dirs, *attempt, &report, *protocol, result_schema.as_ref())
            };
            blocking(read).await.unwrap_or_else(Outcome::failed)
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        Failure::new(FailureCode::RuntimeError, "something inside matins broke; the daemon's log says more")
    })
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

/// A run under this process's watch.
struct Watch {
    number: i64,
    id: RunId,
    epoch: Epoch,
    attempt: u32,
    agent: Arc<Agent>,
    overrides: Overrides,
    skills: Vec<SeededSkill>,
}

/// Carries a claimed run out. Its end, whichever it is, is written before this returns, unless the
/// storage fails for good; then the next start settles it from what is on disk.
pub async fn carry_out(core: Arc<Core>, claimed: Claimed, ending: watch::Receiver<Ending>) {
    let (number, id, epoch) = (claimed.number, claimed.id, claimed.epoch);
    let work = AssertUnwindSafe(attempt(&core, claimed, ending));
    if work.catch_unwind().await.is_err() {
        tracing::error!(run.id = %id, "the task of run {id} panicked");
        let failure = Failure::new(
            FailureCode::RuntimeError,
            "something inside matins broke; the daemon's log says more",
        );
        if let Err(e) = finish_unstarted(&core, number, id, epoch, failure).await {
            tracing::error!(run.id = %id, error = %e, "its end could not be written: {e}");
        }
    }
    core.unregister(number);
}

async fn attempt(core: &Core, claimed: Claimed, ending: watch::Receiver<Ending>) {
    let (number, id, epoch) = (claimed.number, claimed.id, claimed.epoch);
    let unstarted = |failure: Failure| async move {
        if let Err(e) = finish_unstarted(core, number, id, epoch, failure).await {
            tracing::error!(run.id = %id, error = %e, "the end of run {id} could not be written: {e}");
        }
    };
    let agent = match core.catalog.definition(&core.store, claimed.agent, claimed.definition).await {
        Ok(agent) => agent,
        Err(e) => return unstarted(Failure::new(FailureCode::RuntimeError, e.to_string())).await,
    };
    let job = match task_input::job(core, &agent, &claimed).await {
        Ok(job) => Arc::new(job),
        Err(failure) => return unstarted(failure).await,
    };
    let held = match core.executor.hold(job).await {
        Ok(held) => held,
        Err(failure) => return unstarted(failure).await,
    };
    if *ending.borrow() != Ending::No {
        return unstarted(ended_early(core, number).await).await;
    }
    let skills = held.skills().to_vec();
    let identity = held.identity().clone();
    let now_ms = core.clock.now_ms();
    if let Err(e) = core.store.start(number, id, epoch, identity, skills.clone(), now_ms).await {
        drop(held);
        return give_back(core, number, id, epoch, &e).await;
    }
    core.launched(number, held.identity(), id, &agent);
    core.changed();
    core.monitor.started(&agent, id);
    let attempt = u32::try_from(claimed.attempt).unwrap_or(u32::MAX);
    let watch = Watch { number, id, epoch, attempt, agent, overrides: claimed.overrides, skills };
    match held.release(epoch).await {
        Ok(watched) => watch.watch_until_end(core, watched, ending).await,
        Err(failure) => watch.finish(core, Outcome::failed(failure)).await,
    }
}

/// A start that could not be written: nothing has happened, so the run waits again.
async fn give_back(core: &Core, number: i64, id: RunId, epoch: Epoch, error: &store::Error) {
    tracing::error!(run.id = %id, error = %error, "the start of run {id} could not be written; it waits again: {error}");
    persist(core, id, || core.store.unclaim(number, id, epoch, core.clock.now_ms())).await;
}

/// Takes up the watch of a run that a daemon before had started.
pub(super) async fn resume(
    core: Arc<Core>,
    unsettled: store::Unsettled,
    agent: Arc<Agent>,
    attached: Attached,
    ending: watch::Receiver<Ending>,
) {
    let detail = core.store.event(unsettled.number).await.ok().flatten();
    let watch = Watch {
        number: unsettled.number,
        id: unsettled.id,
        epoch: unsettled.epoch,
        attempt: u32::try_from(unsettled.attempt).unwrap_or(u32::MAX),
        agent,
        skills: detail.as_ref().and_then(|d| d.event.skills.clone()).unwrap_or_default(),
        overrides: detail.map(|d| d.overrides).unwrap_or_default(),
    };
    match attached {
        Attached::Alive(watched) => {
            if unsettled.cancel_by.is_some() {
                watched.end(Ending::Asked);
            }
            watch.watch_until_end(&core, watched, ending).await;
        }
        Attached::NeverStarted => watch.wait_again(&core).await,
        Attached::Ended(ended) => watch.settle(&core, ended).await,
    }
    core.unregister(unsettled.number);
}

impl Watch {
    async fn watch_until_end(
        self,
        core: &Core,
        mut watched: Box<dyn Watched>,
        mut ending: watch::Receiver<Ending>,
    ) {
        let mut sent = Ending::No;
        // The launcher keeps the limits; this is for one that is stopped or stuck.
        let mut patience = self.timeout().map(|t| deadline(t + self.grace(core) + LATE));
        let ended = loop {
            let wanted = (*ending.borrow_and_update()).min(Ending::Killed);
            if sent < wanted {
                watched.end(wanted);
                sent = wanted;
                let wait = if wanted == Ending::Killed { KILL_LATE } else { self.grace(core) + KILL_LATE };
                patience = Some(deadline(wait));
            }
            tokio::select! {
                ended = watched.ended() => break ended,
                () = reached(patience) => {
                    tracing::error!(run.id = %self.id, "the launcher of run {} does not answer; killing it", self.id);
                    watched.end(Ending::Forced);
                    sent = Ending::Forced;
                    patience = Some(deadline(KILL_LATE));
                }
                changed = ending.changed() => if changed.is_err() { break watched.ended().await },
            }
        };
        self.settle(core, ended).await;
    }

    fn timeout(&self) -> Option<Duration> {
        self.overrides.timeout_ms.map(Duration::from_millis).or(self.agent.timeout)
    }

    fn grace(&self, core: &Core) -> Duration {
        self.agent.kill_grace.unwrap_or(core.settings().kill_grace)
    }

    async fn settle(self, core: &Core, ended: Ended) {
        if ended == Ended::Vanished {
            core.end_group(self.id).await;
        }
        let report = match ended {
            Ended::Report(report) => report,
            Ended::Vanished
                if core.store.cancel_requested(self.number).await.is_ok_and(|by| by.is_some()) =>
            {
                let failure = ended_early(core, self.number).await;
                return self.finish(core, Outcome::failed(failure)).await;
            }
            Ended::Vanished => {
                let why = "its launcher was killed from outside or the machine stopped; what was left of it was ended";
                return self.finish(core, Outcome::failed(Failure::new(FailureCode::Interrupted, why))).await;
            }
        };
        if report.never_started() {
            return self.wait_again(core).await;
        }
        let request = OutcomeRequest {
            dirs: exec::RunDirs::new(core.state_dir(), self.id),
            attempt: self.attempt,
            protocol: task_input::protocol(&self.agent),
            result_schema: self.overrides.result_schema.clone().or_else(|| self.agent.result_schema.clone()),
        };
        if let Some(why) = &report.log_error {
            tracing::warn!(run.id = %self.id, "the logs of run {} are not whole: {why}", self.id);
        }
        let stopped = report.reason == Reason::Cancelled;
        let mut outcome = core.executor.outcome(request, report).await;
        if stopped {
            outcome.failure = Some(ended_early(core, self.number).await);
        }
        self.finish(core, outcome).await;
    }

    /// Never released: nothing of it has happened, so it waits again.
    async fn wait_again(self, core: &Core) {
        let (number, id, epoch) = (self.number, self.id, self.epoch);
        persist(core, id, || core.store.unstart(number, id, epoch, core.clock.now_ms())).await;
    }

    async fn finish(self, core: &Core, mut outcome: Outcome) {
        outcome.skills.clone_from(&self.skills);
        let known = Known { agent: self.agent, overrides: self.overrides };
        finish(core, self.number, self.id, self.epoch, outcome, &known).await;
    }
}

/// An instant of the monotonic clock: how long something has not answered is no matter of wall time.
fn deadline(after: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(after).unwrap_or(now)
}

async fn reached(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why a run was made to end: somebody asked, or the daemon is stopping.
async fn ended_early(core: &Core, number: i64) -> Failure {
    match core.store.cancel_requested(number).await {
        Ok(Some(by)) => cancelled_by(&by),
        _ if core.tasks.stop().is_soft() => {
            Failure::new(FailureCode::Interrupted, "the daemon was stopping and drain_timeout was over")
        }
        _ => Failure::new(FailureCode::Interrupted, "somebody outside matins ended its launcher"),
    }
}

/// The failure of a run that `by` cancelled.
pub(super) fn cancelled_by(by: &str) -> Failure {
    Failure::new(FailureCode::Cancelled, format!("cancelled by {by}"))
}

struct Known {
    agent: Arc<Agent>,
    overrides: Overrides,
}

/// Ends a run that never started, under a claim that is held.
///
/// # Errors
/// Those of the store while the run is read.
pub(super) async fn finish_unstarted(
    core: &Core,
    number: i64,
    id: RunId,
    epoch: Epoch,
    failure: Failure,
) -> Result<(), store::Error> {
    let Some(detail) = core.store.event(number).await? else {
        return Ok(());
    };
    let agent_number =
        detail.event.agent_id.parse().ok().and_then(|a| core.catalog.get(&a)).map_or(-1, |e| e.number);
    let agent = core.catalog.definition(&core.store, agent_number, detail.definition).await?;
    let known = Known { agent, overrides: detail.overrides };
    finish(core, number, id, epoch, Outcome::failed(failure), &known).await;
    Ok(())
}

async fn finish(core: &Core, number: i64, id: RunId, epoch: Epoch, outcome: Outcome, known: &Known) {
    let at_ms = core.clock.now_ms();
    let Told { deliveries, changed } = if core.has_endpoints(&known.agent, &known.overrides) {
        told(core, number, &outcome, known, at_ms).await
    } else {
        Told::default()
    };
    log_end(&known.agent, id, &outcome);
    core.monitor.ended(&known.agent, id, &outcome);
    let finish = Finish { number, id, epoch, outcome, deliveries, changed, at_ms };
    persist(core, id, || core.store.finish(finish.clone())).await;
    core.changed();
    core.wake.deliverer.notify_one();
}

/// The messages that tell of the end, with the event as it will stand.
async fn told(core: &Core, number: i64, outcome: &Outcome, known: &Known, at_ms: i64) -> Told {
    let Some(detail) = read_for_message(core, number).await else {
        return Told::default();
    };
    let mut event = detail.event;
    event.status = outcome.state();
    event.completed_at = Some(rfc3339_ms(at_ms));
    event.updated_at = rfc3339_ms(at_ms);
    event.failure_code = outcome.failure.as_ref().map(|f| f.code.clone());
    event.failure_explanation = outcome.failure.as_ref().map(|f| f.explanation.clone());
    event.error.clone_from(&event.failure_explanation);
    event.final_model.clone_from(&outcome.final_model);
    event.usage = outcome.usage;
    event.result = Some(outcome.result.clone().unwrap_or(Value::Null));
    core.run_messages(number, &known.agent, &known.overrides, &event, at_ms).await
}

fn log_end(agent: &Agent, id: RunId, outcome: &Outcome) {
    match &outcome.failure {
        None => tracing::info!(run.id = %id, agent.id = %agent.id, "run {id} of {} completed", agent.id),
        Some(f) => tracing::warn!(
            run.id = %id, agent.id = %agent.id, failure.code = %f.code,
            "run {id} of {} failed: {} ({})", agent.id, f.explanation, f.code
        ),
    }
}

/// Repeats a write until it is on disk. It gives up only where the run has moved on, the storage has
/// failed for good, or the daemon may no longer wait: the next start settles it then.
async fn persist<F, Fut>(core: &Core, id: RunId, write: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), store::Error>>,
{
    let mut told = false;
    loop {
        match write().await {
            Ok(()) => return,
            Err(e @ store::Error::Stale { .. }) => {
                tracing::warn!(run.id = %id, "a late write was refused: {e}");
                return;
            }
            Err(e) if e.is_fatal() || matches!(e, store::Error::Closed | store::Error::Statement(_)) => {
                tracing::error!(run.id = %id, error = %e, "run {id} is left to the next start: {e}");
                return;
            }
            Err(e) => {
                if !told {
                    tracing::error!(run.id = %id, error = %e, "a change of run {id} waits for the database: {e}");
                    told = true;
                }
            }
        }
        tokio::select! {
            () = core.tasks.stop().hardened() => return,
            () = core.clock.sleep_until(core.clock.now() + WRITE_REST) => {}
        }
    }
}

/// Reads a run for its message. A few tries: a message without its event would be lost.
async fn read_for_message(core: &Core, number: i64) -> Option<store::EventDetail> {
    for _ in 0..3 {
        match core.store.event(number).await {
            Ok(detail) => return detail,
            Err(e) => tracing::error!(error = %e, "a run could not be read: {e}"),
        }
        core.clock.sleep_until(core.clock.now() + WRITE_REST).await;
    }
    None
}
