//! The engine: the only place where definitions, plan, store, execution and webhooks meet.
//!
//! Four loops share one [`Core`]: the scheduler admits slots, the dispatcher claims runs and starts
//! them, the deliverer sends what is due, the janitor ends what waited too long. A loop takes no
//! input: rows are the truth and a wake-up is a hint, so the rare path (a restart, a missed signal)
//! is the same code as the common one. No loop waits for a run.
//!
//! A run is born in [`submit`] and ends in [`run`]; both write through one store function each.

mod agent_brief;
mod alarm;
mod alerting;
pub mod archives;
pub mod backfill;
mod breaker;
mod budgets;
pub mod builtin;
pub mod catalog;
mod concurrency;
mod deliverer;
mod diff;
mod dispatcher;
pub mod doctor;
mod ends;
mod executor;
mod feed;
pub mod files;
pub mod forecast;
mod handover;
mod isolation;
mod janitor;
mod looping;
mod message;
pub mod metrics;
mod models;
mod monitor;
mod overdue;
pub mod pause;
mod preset;
pub mod pulse;
pub mod reload;
pub mod retention;
mod retry;
mod run;
mod scheduler;
mod settle;
mod steps;
pub mod submit;
mod task_input;
mod tasks;
mod terms;
pub mod tokens;
mod waiting;
pub mod why;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Env, Settings};
use crate::ids::{Entropy, RunId};
use crate::store::{self, Store};
use crate::task::{OnEnd, Tasks};
use crate::time::Clock;

pub use alerting::{Alerting, EndpointHealth};
pub use backfill::{Backfill, BackfillRequest};
pub use budgets::Standing;
pub use catalog::{Catalog, Entry, ScheduleEntry};
pub use diff::{Change, Diff, Side, workflow_changes};
pub use executor::{Attached, Executor, Held, Launcher, OutcomeRequest, Watched};
pub use feed::{BATCH as FEED_BATCH, Feed, FeedItem, Wanted as FeedWanted};
pub use files::{FileError, FileHead, Incoming};
pub use forecast::next_fires;
pub use handover::{Ask, Handover, NotReplaced, Successor};
pub use isolation::RunningAs;
pub use message::{PingError, PingTarget};
pub use metrics::Metrics;
pub use models::Models;
pub use monitor::{Monitor, PingFailure};
pub use pause::PauseError;
pub use reload::{By, Changes, Mistake, Reload, ReloadError};
pub use retry::most as most_attempts;
pub use settle::Settled;
pub use steps::{STEPS_BYTES_MAX, STEPS_MAX, StepsError, StepsPage};
pub use submit::{Refused, TriggerRequest, Triggered};
pub use task_input::Job;
pub use tasks::{TaskAsk, TaskRun};
pub use tokens::{Grant, NewToken, TokenError, Tokens};
pub use waiting::{WaitKind, WaitingFor};

/// What the whole engine shares.
pub struct Core {
    /// The rows.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The daemon's settings; a reload replaces them as a whole.
    settings: RwLock<Arc<Settings>>,
    /// Reloading.
    pub reloads: reload::Reloads,
    state_dir: PathBuf,
    /// The environment that the daemon was started with.
    pub env: Env,
    /// The agents as they are now.
    pub catalog: Catalog,
    /// Who may come in over TCP.
    pub tokens: Tokens,
    /// How attempts are carried out.
    pub executor: Arc<dyn Executor>,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Being replaced in place.
    pub handover: Handover,
    /// Pings to outside monitors.
    pub monitor: Monitor,
    /// Where HTTP is answered over TCP, once it is.
    pub http: std::sync::OnceLock<String>,
    /// Signs of life.
    pub pulse: pulse::Pulse,
    /// Background tasks.
    pub tasks: Tasks,
    /// Hints that rows changed.
    pub wake: Wake,
    live: Mutex<HashMap<i64, Live>>,
    archiving: archives::Archiving,
    builtin: builtin::Builtin,
    ends: ends::Ends,
    feed: watch::Sender<u64>,
    /// Raised when no run is left and the deliverer may leave.
    drained: CancellationToken,
    /// Raised where runs are to go on without this daemon.
    left: CancellationToken,
    hidden: isolation::Hidden,
    groups: std::sync::OnceLock<crate::proc::Delegated>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("settings", &self.settings()).finish_non_exhaustive()
    }
}

/// The wake-ups of the loops.
#[derive(Debug, Default)]
pub struct Wake {
    /// The set of schedules changed.
    pub scheduler: Notify,
    /// A run was admitted or ended.
    pub dispatcher: Notify,
    /// A delivery was made or ended.
    pub deliverer: Notify,
}

/// How hard a run is asked to end, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It goes on.
    No,
    /// It may finish within the grace.
    Asked,
    /// It is killed.
    Killed,
    /// Its launcher no longer answers: that is killed, and what it leaves is ended.
    Forced,
}

/// A run of this process that has not ended.
#[derive(Debug)]
struct Live {
    id: RunId,
    catch_up: bool,
    ending: watch::Sender<Ending>,
    /// Until its launcher is released, or known to be.
    starting: Option<handover::Entered>,
    launched: Option<isolation::Launched>,
}

impl Core {
    /// Wires the parts together; nothing runs yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let (feed, _) = watch::channel(0);
        Arc::new(Self {
            store: parts.store,
            clock: parts.clock,
            entropy: parts.entropy,
            state_dir: parts.settings.state_dir.clone(),
            settings: RwLock::new(Arc::new(parts.settings)),
            reloads: reload::Reloads::default(),
            env: parts.env,
            catalog: Catalog::default(),
            tokens: Tokens::default(),
            executor: parts.executor,
            metrics: Metrics::default(),
            handover: Handover::default(),
            monitor: Monitor::default(),
            http: std::sync::OnceLock::new(),
            pulse: pulse::Pulse::default(),
            tasks: parts.tasks,
            wake: Wake::default(),
            live: Mutex::new(HashMap::new()),
            archiving: archives::Archiving::default(),
            builtin: builtin::Builtin::default(),
            ends: ends::Ends::default(),
            feed,
            drained: CancellationToken::new(),
            left: CancellationToken::new(),
            hidden: isolation::Hidden::default(),
            groups: std::sync::OnceLock::new(),
        })
    }

    /// Starts the loops. Runs of the daemon before must be settled already.
    pub fn start(self: &Arc<Self>) {
        let core = Arc::clone(self);
        self.tasks.spawn("scheduler", OnEnd::Fatal, async move {
            let scheduler = scheduler::Scheduler::new(Arc::clone(&core));
            looping::run(&core, scheduler, &core.wake.scheduler, core.tasks.stop().clone().softened_owned())
                .await;
        });
        let core = Arc::clone(self);
        let counted = self.handover.enter_loop();
        self.tasks.spawn("dispatcher", OnEnd::Fatal, async move {
            let _counted = counted;
            let dispatcher = dispatcher::Dispatcher::new(Arc::clone(&core));
            looping::run(
                &core,
                dispatcher,
                &core.wake.dispatcher,
                core.tasks.stop().clone().softened_owned(),
            )
            .await;
        });
        let core = Arc::clone(self);
        self.tasks.spawn("janitor", OnEnd::Fatal, async move {
            let janitor = janitor::Janitor::new(Arc::clone(&core));
            let never = Notify::new();
            looping::run(&core, janitor, &never, core.tasks.stop().clone().softened_owned()).await;
        });
        let core = Arc::clone(self);
        self.tasks.spawn("deliverer", OnEnd::Fatal, async move {
            let deliverer = deliverer::Deliverer::new(Arc::clone(&core));
            let over = async {
                tokio::select! {
                    () = core.drained.cancelled() => {}
                    () = core.handed_over() => {}
                }
            };
            looping::run(&core, deliverer, &core.wake.deliverer, over).await;
        });
        alerting::start(self);
        self.keep_token_uses();
    }

    /// The id of an agent by its number, for the log.
    fn name_of(&self, agent: i64) -> String {
        self.catalog
            .by_number(agent)
            .map_or_else(|| "(removed)".to_owned(), |entry| entry.agent.id.to_string())
    }

    /// A number that grows with every change of a run: a hint to read the rows again.
    #[must_use]
    pub fn feed(&self) -> watch::Receiver<u64> {
        self.feed.subscribe()
    }

    fn changed(&self) {
        self.feed.send_modify(|n| *n += 1);
    }

    fn live(&self) -> MutexGuard<'_, HashMap<i64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs of this process that have not ended.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live().len()
    }

    fn register(&self, number: i64, id: RunId, catch_up: bool) -> watch::Receiver<Ending> {
        let (ending, asked) = watch::channel(Ending::No);
        let starting = Some(self.handover.enter_start());
        self.live().insert(number, Live { id, catch_up, ending, launched: None, starting });
        asked
    }

    /// Asks runs of this process to end at least as hard as `how`.
    fn end_live(&self, ids: &[RunId], how: Ending) {
        if ids.is_empty() {
            return;
        }
        for live in self.live().values().filter(|live| ids.contains(&live.id)) {
            live.ending.send_modify(|e| *e = (*e).max(how));
        }
    }

    /// Its launcher needs this process no more.
    fn released(&self, number: i64) {
        let started = self.live().get_mut(&number).and_then(|live| live.starting.take());
        drop(started);
    }

    fn unregister(&self, number: i64) {
        self.live().remove(&number);
        self.changed();
        self.wake.dispatcher.notify_one();
    }

    /// Cancels a run: the first call asks it to end, a second kills it at once. `by` is shown to people.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn cancel(&self, id: RunId, by: String) -> Result<CancelAnswer, store::Error> {
        match self.store.request_cancel(id, by.clone(), self.clock.now_ms()).await? {
            store::Cancelled::Pending(claim) => {
                run::finish_unstarted(self, claim.number, claim.id, claim.epoch, run::cancelled_by(&by))
                    .await?;
                Ok(CancelAnswer::Accepted)
            }
            store::Cancelled::Running => {
                let live = self.live();
                if let Some(live) = live.values().find(|live| live.id == id) {
                    live.ending
                        .send_modify(|e| *e = if *e == Ending::No { Ending::Asked } else { Ending::Killed });
                }
                Ok(CancelAnswer::Accepted)
            }
            store::Cancelled::Ended(state) => Ok(CancelAnswer::Ended(state)),
            store::Cancelled::Unknown => Ok(CancelAnswer::Unknown),
        }
    }

    /// Waits for the runs to end, at most `drain_timeout`; asks what is left to end, then kills it.
    /// Runs that wait stay PENDING for the next start. Then the deliverer may leave.
    pub async fn drain(&self) {
        let timeout = self.settings().drain_timeout;
        if tokio::time::timeout(timeout, self.no_run_left()).await.is_err() {
            tracing::warn!(runs = self.live_count(), "drain_timeout is over; ending what still runs");
            self.end_all(Ending::Asked);
            // The launchers keep the grace of each run; one that does not answer is killed by who watches it.
            self.no_run_left().await;
        }
        self.tell_the_rest().await;
        self.drained.cancel();
    }

    /// Leaves as a crash would: runs go on, and the next start takes them over.
    pub fn leave(&self) {
        self.left.cancel();
        self.tasks.stop().hard();
        self.drained.cancel();
    }

    /// Raised when the drain is over.
    #[must_use]
    pub fn drained(&self) -> CancellationToken {
        self.drained.clone()
    }

    /// Kills what still runs, without waiting.
    pub fn kill_all(&self) {
        self.end_all(Ending::Killed);
    }

    fn end_all(&self, how: Ending) {
        for live in self.live().values() {
            live.ending.send_modify(|e| *e = (*e).max(how));
        }
    }

    async fn no_run_left(&self) {
        let mut feed = self.feed();
        while self.live_count() > 0 {
            if feed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The directory of everything that the daemon keeps.
    #[must_use]
    pub fn state_dir(&self) -> &PathBuf {
        &self.state_dir
    }

    /// The settings as they are now. Who needs several of them that fit together asks once: the next
    /// call may answer those of a reload.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// What a core is wired from.
pub struct Parts {
    /// The rows.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The daemon's settings.
    pub settings: Settings,
    /// The environment that the daemon was started with.
    pub env: Env,
    /// How attempts are carried out.
    pub executor: Arc<dyn Executor>,
    /// Background tasks.
    pub tasks: Tasks,
}

/// The answer to a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It ends or has ended by this.
    Accepted,
    /// It had ended before.
    Ended(crate::model::RunState),
    /// No such run.
    Unknown,
}
