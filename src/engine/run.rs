//! One run from claim to end: prepare, hold the launcher, commit RUNNING with its identity, release
//! it, watch it, finish. The only place where a run ends.
//!
//! The order is the promise. Before the commit nothing of the program has happened: a launcher that
//! is held leaves when the daemon dies. After it, the identity on disk finds the launcher again.
//! What the launcher wrote is read after it ended, never guessed: a run whose launcher vanished is
//! `interrupted`, whatever it may have done; but what it told of its use until then counts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::executor::{Attached, OutcomeRequest, Watched};
use super::message::Told;
use super::preset;
use super::retry::{self, Failed};
use super::terms::{self, Terms};
use super::{Core, Ending, task_input};
use crate::exec::{self, Ended, ExitReport, Reason};
use crate::ids::{Epoch, RunId};
use crate::model::workflow::Cached;
use crate::model::{
    Agent, Executor, Failure, FailureCode, NotifyWhen, Outcome, Overrides, SeededSkill, Usage,
};
use crate::store::{self, Claim, Claimed, Compared, Finish, Finished, Gone, Retried, Retry, Wanted};
use crate::time::{millis, rfc3339_ms};

/// How long after its timeout and grace a launcher may take to end its run.
const LATE: Duration = Duration::from_secs(30);
/// How long after a kill, or after the grace of a cancel, a launcher may take.
const KILL_LATE: Duration = Duration::from_secs(5);
/// Rest between two tries of a write that must come to be.
const WRITE_REST: Duration = Duration::from_secs(1);

/// Why a run ended whose launcher left no report.
const VANISHED: &str =
    "its launcher was killed from outside or the machine stopped; what was left of it was ended";

/// A run under this process's watch.
struct Watch {
    number: i64,
    id: RunId,
    epoch: Epoch,
    attempt: u32,
    agent: Arc<Agent>,
    overrides: Overrides,
    terms: Terms,
    skills: Vec<SeededSkill>,
}

/// Carries a claimed run out. Its end, whichever it is, is written before this returns, unless the
/// storage fails for good; then the next start settles it from what is on disk.
pub async fn carry_out(core: Arc<Core>, claimed: Claimed, ending: watch::Receiver<Ending>) {
    let (number, id, epoch) = (claimed.number, claimed.id, claimed.epoch);
    let agent = core.name_of(claimed.agent);
    let work = AssertUnwindSafe(attempt(&core, claimed, ending));
    if work.catch_unwind().await.is_err() {
        tracing::error!(run.id = %id, agent, "the task of run {id} panicked");
        let failure = Failure::new(
            FailureCode::RuntimeError,
            "something inside matins broke; the daemon's log says more",
        );
        if let Err(e) = finish_unstarted(&core, number, id, epoch, failure).await {
            tracing::error!(run.id = %id, agent, error = %e, "its end could not be written: {e}");
        }
    }
    core.unregister(number);
}

async fn attempt(core: &Core, claimed: Claimed, ending: watch::Receiver<Ending>) {
    let (number, id, epoch) = (claimed.number, claimed.id, claimed.epoch);
    let name = core.name_of(claimed.agent);
    let who = Who { number, id, epoch, agent: &name };
    let unstarted = |failure: Failure| finish_or_give_back(core, Claim { number, id, epoch }, failure);
    let agent = match core.catalog.definition(&core.store, claimed.agent, claimed.definition).await {
        Ok(agent) => agent,
        Err(e) => return unstarted(Failure::new(FailureCode::RuntimeError, e.to_string())).await,
    };
    let job = match task_input::job(core, &agent, &claimed).await {
        Ok(job) => Arc::new(job),
        Err(failure) => return unstarted(failure).await,
    };
    let terms = job.terms().clone();
    if let Some(session) = job.shared_session() {
        let used = core.store.use_session(number, id, epoch, session.to_owned(), core.clock.now_ms()).await;
        if let Err(e) = used {
            return give_back(core, who, &e).await;
        }
    }
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
    match core.store.start(number, id, epoch, identity, skills.clone(), now_ms).await {
        Ok(Wanted::Yes) => {}
        Ok(Wanted::No) => {
            drop(held);
            return unstarted(ended_early(core, number).await).await;
        }
        Err(e) => {
            drop(held);
            return give_back(core, who, &e).await;
        }
    }
    core.launched(number, held.identity(), id, &agent);
    core.changed();
    core.monitor.started(&agent, id);
    let attempt = u32::try_from(claimed.attempt).unwrap_or(u32::MAX);
    let watch = Watch { number, id, epoch, attempt, agent, overrides: claimed.overrides, terms, skills };
    let released = held.release(epoch).await;
    core.released(number);
    match released {
        Ok(watched) => watch.watch_until_end(core, watched, ending).await,
        Err(failure) => watch.finish(core, Outcome::failed(failure)).await,
    }
}

/// What lines of the log below the engine, where a run is only a number, are about. Of the highest level, so
/// that no filter of the log takes it from a line that it lets through.
pub(super) fn span(id: RunId, agent: &Agent) -> tracing::Span {
    tracing::error_span!("run", run.id = %id, agent = %agent.id)
}

/// A claimed run before its start.
#[derive(Clone, Copy)]
struct Who<'a> {
    number: i64,
    id: RunId,
    epoch: Epoch,
    agent: &'a str,
}

/// A start that could not be written: nothing has happened, so the run waits again.
async fn give_back(core: &Core, who: Who<'_>, error: &store::Error) {
    let Who { number, id, epoch, agent } = who;
    tracing::error!(
        run.id = %id, agent, error = %error,
        "the start of run {id} could not be written; it waits again: {error}"
    );
    let unclaim = || core.store.unclaim(number, id, epoch, core.clock.now_ms());
    if persist(core, id, agent, unclaim).await == Some(Wanted::No)
        && let Err(e) = finish_unstarted(core, number, id, epoch, ended_early(core, number).await).await
    {
        tracing::error!(run.id = %id, agent, error = %e, "the end of run {id} could not be written: {e}");
    }
}

/// Takes up the watch of a run that a daemon before had started.
pub(super) async fn resume(
    core: Arc<Core>,
    unsettled: store::Unsettled,
    agent: Arc<Agent>,
    attached: Attached,
    ending: watch::Receiver<Ending>,
) {
    let watch = taken_up(&core, &unsettled, agent).await;
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

async fn taken_up(core: &Core, unsettled: &store::Unsettled, agent: Arc<Agent>) -> Watch {
    let detail = core.store.event(unsettled.number).await.ok().flatten();
    let (event, overrides) = detail.map(|d| (d.event, d.overrides)).unzip();
    let overrides = overrides.unwrap_or_default();
    let dirs = exec::RunDirs::new(core.state_dir(), unsettled.id);
    let session = event.as_ref().map_or_else(|| unsettled.id.to_string(), |e| e.session_id.clone());
    let slot = terms::slot(core, &agent, unsettled.number).await.unwrap_or_default();
    Watch {
        number: unsettled.number,
        id: unsettled.id,
        epoch: unsettled.epoch,
        attempt: u32::try_from(unsettled.attempt).unwrap_or(u32::MAX),
        terms: Terms::of(&agent, &overrides, slot, &dirs, &session),
        skills: event.and_then(|e| e.skills).unwrap_or_default(),
        overrides,
        agent,
    }
}

impl Watch {
    async fn watch_until_end(
        self,
        core: &Core,
        mut watched: Box<dyn Watched>,
        mut ending: watch::Receiver<Ending>,
    ) {
        let (mut sent, span) = (Ending::No, span(self.id, &self.agent));
        // The launcher keeps the limits; this is for one that is stopped or stuck.
        let longest = self.terms.longest(&self.agent);
        let mut patience = longest.map(|t| deadline(t.saturating_add(self.grace(core) * 3 + LATE)));
        let ended = loop {
            let wanted = (*ending.borrow_and_update()).min(Ending::Killed);
            if sent < wanted {
                watched.end(wanted);
                sent = wanted;
                let wait = if wanted == Ending::Killed { KILL_LATE } else { self.grace(core) + KILL_LATE };
                patience = Some(deadline(wait));
            }
            tokio::select! {
                ended = watched.ended().instrument(span.clone()) => break ended,
                () = reached(patience) => {
                    tracing::error!(
                        run.id = %self.id, agent = %self.agent.id,
                        "the launcher of run {} does not answer; killing it", self.id
                    );
                    watched.end(Ending::Forced);
                    sent = Ending::Forced;
                    patience = Some(deadline(KILL_LATE));
                }
                // The run goes on without this daemon; its launcher keeps the limits.
                () = core.left.cancelled() => return,
                changed = ending.changed() => if changed.is_err() {
                    break watched.ended().instrument(span.clone()).await;
                },
            }
        };
        self.settle(core, ended).await;
    }

    fn grace(&self, core: &Core) -> Duration {
        self.agent.kill_grace.unwrap_or(core.settings().kill_grace)
    }

    async fn settle(self, core: &Core, ended: Ended) {
        let vanished = ended == Ended::Vanished;
        let report = match ended {
            Ended::Report(report) if report.never_started() => return self.wait_again(core).await,
            Ended::Report(report) => report,
            // What it used up and noted is known all the same.
            Ended::Vanished => {
                core.end_group(self.id, &self.agent).await;
                ExitReport::unseen(self.id, self.attempt, core.clock.now_ms())
            }
        };
        let request = OutcomeRequest {
            dirs: exec::RunDirs::new(core.state_dir(), self.id),
            attempt: self.attempt,
            protocol: task_input::protocol(&self.agent),
            built_in: matches!(self.agent.executor, Executor::Llm(_)),
            result_schema: self.terms.result_schema.clone(),
            success_when: self.agent.policies.success_when.clone(),
            failure_codes: self.agent.policies.failure_codes.clone(),
            cwd: self.terms.cwd.clone(),
        };
        if let Some(why) = &report.log_error {
            tracing::warn!(
                run.id = %self.id, agent = %self.agent.id, "the logs of run {} are not whole: {why}", self.id
            );
        }
        let stopped = report.reason == Reason::Cancelled;
        let mut outcome = core.executor.outcome(request, report).await;
        if !matches!(self.agent.executor, Executor::Llm(_)) {
            // Only the built-in agent is shown its notes again, and does again what it has done.
            outcome.notes.clear();
            *outcome.cached = Cached::default();
        }
        preset::add_cost(core, &self.agent, &mut outcome);
        if stopped {
            outcome.failure = Some(match core.store.cancel_requested(self.number).await {
                Ok(None) | Err(_) if vanished => Failure::new(FailureCode::Interrupted, VANISHED),
                _ => ended_early(core, self.number).await,
            });
        }
        self.finish(core, outcome).await;
    }

    /// Never released: nothing of it has happened, so it waits again, unless somebody cancelled it: the
    /// next claim would know nothing of that.
    async fn wait_again(self, core: &Core) {
        let (number, id, epoch) = (self.number, self.id, self.epoch);
        let unstart = || core.store.unstart(number, id, epoch, core.clock.now_ms());
        let waits = persist(core, id, self.agent.id.as_str(), unstart).await;
        if waits == Some(Wanted::No) {
            let failure = ended_early(core, number).await;
            self.finish(core, Outcome::failed(failure)).await;
        }
    }

    /// Ends the attempt: the run goes on with another one, or ends with it.
    async fn finish(self, core: &Core, mut outcome: Outcome) {
        outcome.skills.clone_from(&self.skills);
        if self.attempt > 1 {
            self.add_spent(core, &mut outcome).await;
        }
        // Nobody knows what an attempt has used up whose record is cut: there is nothing to count another one by.
        if let Some(failure) = outcome.failure.clone().filter(|_| !outcome.usage_lost)
            && let Some(delay) = self.next_attempt(core, &failure).await
        {
            match self.wait_for_next(core, &outcome, failure, delay).await {
                Some(Retried::Cancelled) => outcome.failure = Some(ended_early(core, self.number).await),
                Some(Retried::Waits) | None => return,
            }
        }
        let known = Known { agent: self.agent, overrides: self.overrides };
        finish(core, self.number, self.id, self.epoch, outcome, &known).await;
    }
}

/// Between two attempts.
impl Watch {
    /// The wait before another attempt, if there is to be one.
    async fn next_attempt(&self, core: &Core, failure: &Failure) -> Option<Duration> {
        let policies = &self.agent.policies;
        let mut failed =
            Failed { failure, attempt: self.attempt, elapsed: Duration::ZERO, random: core.entropy.unit() };
        retry::next(policies, &failed)?;
        if policies.total_timeout.is_some() {
            let now_ms = core.clock.now_ms();
            let first_ms = core.store.first_start(self.number).await.ok().flatten().unwrap_or(now_ms);
            let elapsed_ms = u64::try_from(now_ms.saturating_sub(first_ms)).unwrap_or(0);
            failed.elapsed = Duration::from_millis(elapsed_ms);
        }
        retry::next(policies, &failed)
    }

    async fn wait_for_next(
        &self,
        core: &Core,
        outcome: &Outcome,
        failure: Failure,
        delay: Duration,
    ) -> Option<Retried> {
        let at_ms = core.clock.now_ms();
        tracing::warn!(
            run.id = %self.id, agent = %self.agent.id, failure.code = %failure.code, run.attempt = self.attempt,
            delay_ms = millis(delay), "attempt {} of run {} failed, it is tried again: {} ({})",
            self.attempt, self.id, failure.explanation, failure.code
        );
        let retry = Retry {
            number: self.number,
            id: self.id,
            epoch: self.epoch,
            outcome: outcome.clone(),
            failure,
            at_ms,
            not_before_ms: at_ms.saturating_add(millis(delay)),
        };
        let written = || core.store.retry(retry.clone());
        let written = persist(core, self.id, self.agent.id.as_str(), written).await;
        core.changed();
        written
    }

    /// What a run consumes is what all its attempts did.
    async fn add_spent(&self, core: &Core, outcome: &mut Outcome) {
        let spent = core.store.spent(self.number).await.unwrap_or_default();
        outcome.usage = match (outcome.usage, spent.usage) {
            (Some(now), Some(before)) => Some(Usage::sum(now, before)),
            (now, before) => now.or(before),
        };
        let known = [outcome.known_cost(), spent.cost_usd].into_iter().flatten().reduce(|a, b| a + b);
        // A part without a price in this attempt leaves the sum unknown; what is known of it counts.
        let partly = outcome.known_cost_usd.is_some();
        (outcome.cost_usd, outcome.known_cost_usd) = if partly { (None, known) } else { (known, None) };
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

/// What is known of a run that ends, beside how.
pub(super) struct Known {
    pub agent: Arc<Agent>,
    pub overrides: Overrides,
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
    // Who waited behind it may go on.
    core.wake.dispatcher.notify_one();
    Ok(())
}

/// Ends a run that never started; where that fails it waits again, for else nobody would look at it
/// before the next start.
pub(super) async fn finish_or_give_back(core: &Core, claim: Claim, failure: Failure) {
    let Claim { number, id, epoch } = claim;
    if let Err(e) = finish_unstarted(core, number, id, epoch, failure).await {
        let known = core.store.event(number).await.ok().flatten();
        let agent = known.map_or_else(String::new, |detail| detail.event.agent_id);
        tracing::error!(
            run.id = %id, agent, error = %e, "the end of run {id} could not be written; it waits again: {e}"
        );
        // What could not be read or written now is likely not to be a moment later.
        tokio::select! {
            () = core.tasks.stop().hardened() => {}
            () = core.clock.sleep_until(core.clock.now() + WRITE_REST) => {}
        }
        let unclaim = || core.store.unclaim(number, id, epoch, core.clock.now_ms());
        if persist(core, id, &agent, unclaim).await == Some(Wanted::No)
            && let Err(e) = finish_unstarted(core, number, id, epoch, ended_early(core, number).await).await
        {
            tracing::error!(run.id = %id, agent, error = %e, "the end of run {id} could not be written: {e}");
        }
    }
}

/// Ends a waiting run that was claimed for its end.
///
/// # Errors
/// Those of the store while the run is read.
pub(super) async fn finish_gone(core: &Core, claim: Claim, gone: Gone) -> Result<(), store::Error> {
    let failure = match gone {
        Gone::Cancelled(by) => cancelled_by(&by),
        Gone::Displaced(newer) => {
            let why = format!("the newer run {newer} took its place in the queue");
            Failure::new(FailureCode::Superseded, why)
        }
    };
    finish_unstarted(core, claim.number, claim.id, claim.epoch, failure).await
}

/// Ends a run. Its place is free, and the dispatcher told of it, once it is unregistered.
async fn finish(core: &Core, number: i64, id: RunId, epoch: Epoch, outcome: Outcome, known: &Known) {
    let at_ms = core.clock.now_ms();
    log_end(&known.agent, id, &outcome);
    core.monitor.ended(&known.agent, id, &outcome);
    let breaker = core.breaker_step(&known.agent, &outcome, at_ms);
    let may_pause = !breaker.reason.is_empty();
    let mut finish = Arc::new(Finish {
        number,
        id,
        epoch,
        outcome,
        deliveries: Vec::new(),
        breaker,
        changed: None,
        compared: Compared::Nothing,
        at_ms,
    });
    let agent = known.agent.id.as_str();
    let finished = loop {
        let told = told(core, number, &finish.outcome, known, may_pause, at_ms).await;
        let with = Arc::make_mut(&mut finish);
        with.deliveries = told.deliveries;
        with.breaker.of_the_run = told.if_paused;
        (with.changed, with.compared) = (told.changed, told.compared);
        let finished = persist(core, id, agent, || core.store.finish(Arc::clone(&finish))).await;
        // Another run of the agent has ended meanwhile: what there is to tell may be another thing now.
        if finished != Some(Finished::Overtaken) {
            break finished;
        }
    };
    if finished == Some(Finished::Done { breaker_opened: true }) {
        let reason = &finish.breaker.reason;
        tracing::warn!(
            agent,
            "agent {agent} is paused by its circuit breaker; `matins resume {agent}` lets it run again: {reason}"
        );
    }
    core.changed();
    core.ends.tell(number);
    core.tell_followers(&known.agent);
    if !finish.deliveries.is_empty() || !finish.breaker.deliveries.is_empty() {
        core.wake.deliverer.notify_one();
    }
}

/// The messages that tell of the end, with the event as it will stand.
async fn told(
    core: &Core,
    number: i64,
    outcome: &Outcome,
    known: &Known,
    may_pause: bool,
    at_ms: i64,
) -> Told {
    // Whether a result has changed is kept even where nobody hears of it.
    let compares = known.agent.policies.notify == NotifyWhen::Changed;
    if !compares && !core.has_endpoints(&known.agent, &known.overrides) {
        return Told::default();
    }
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
    event.usage = outcome.usage.or(event.usage);
    event.cost_usd = outcome.cost_usd.or(event.cost_usd);
    (event.exit_code, event.signal) = (outcome.exit_code, outcome.signal);
    event.gated = outcome.gated;
    if let Some((steps, ms)) = outcome.browser {
        event.browser_step_count = Some(event.browser_step_count.unwrap_or(0) + steps);
        event.browser_session_seconds = Some(event.browser_session_seconds.unwrap_or(0) + ms.div_ceil(1_000));
    }
    event.workflow = outcome.cached.replay;
    (event.saved_model_calls, event.saved_tokens) =
        (outcome.cached.saved_model_calls, outcome.cached.saved_tokens);
    event.result = Some(outcome.result.clone().unwrap_or(Value::Null));
    core.run_messages(number, known, &event, may_pause, at_ms).await
}

fn log_end(agent: &Agent, id: RunId, outcome: &Outcome) {
    match &outcome.failure {
        None => tracing::info!(run.id = %id, agent = %agent.id, "run {id} of {} completed", agent.id),
        Some(f) => tracing::warn!(
            run.id = %id, agent = %agent.id, failure.code = %f.code,
            "run {id} of {} failed: {} ({})", agent.id, f.explanation, f.code
        ),
    }
}

/// Repeats a write until it is on disk; what it answered. It gives up only where the run has moved on, the storage has
/// failed for good, or the daemon may no longer wait: the next start settles it then.
async fn persist<T, F, Fut>(core: &Core, id: RunId, agent: &str, write: F) -> Option<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, store::Error>>,
{
    let mut told = false;
    loop {
        match write().await {
            Ok(done) => return Some(done),
            Err(e @ store::Error::Stale { .. }) => {
                tracing::warn!(run.id = %id, agent, "a late write was refused: {e}");
                return None;
            }
            Err(e) if e.is_fatal() || matches!(e, store::Error::Closed | store::Error::Statement(_)) => {
                tracing::error!(run.id = %id, agent, error = %e, "run {id} is left to the next start: {e}");
                return None;
            }
            Err(e) => {
                if !told {
                    tracing::error!(run.id = %id, agent, error = %e, "a change of run {id} waits for the database: {e}");
                    told = true;
                }
            }
        }
        tokio::select! {
            () = core.tasks.stop().hardened() => return None,
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
