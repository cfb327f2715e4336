//! Pings to outside monitors (healthchecks.io and its like): the start and the end of an agent's runs,
//! and a heartbeat of the daemon itself while its scheduler and its writer get on.
//!
//! A ping is of the moment, so unlike a webhook it is kept in memory only, tried a few times and then
//! given up: a monitor that misses one raises the alarm, which is what it is for. A run never waits for
//! one. Pings to one address go out one after another, so an end never overtakes its start.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Core;
use super::looping::{Next, Tick};
use crate::ids::RunId;
use crate::model::{Agent, Outcome};
use crate::store;
use crate::time::millis;
use crate::webhook::{Sender, Timeouts, knock_url};

/// Pings that may wait; more are dropped.
const WAITING: usize = 1024;
/// Pings under way at once.
const AT_ONCE: usize = 16;
/// Waits between the tries of one ping.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Longest time of one try.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(10) };
/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_mins(1);
/// Time until the next look after a heartbeat that was not due to be sent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A scheduler or a writer that has not answered after this long does not get on.
const PULSE_LATE: Duration = Duration::from_secs(20);
/// Longest time that pings may take once the daemon has drained.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Whom a failing ping concerns.
pub const DAEMON: &str = "daemon";

/// One ping.
#[derive(Debug)]
struct Ping {
    /// The agent's id, or [`DAEMON`].
    of: String,
    base: String,
    url: String,
    text: Option<String>,
}

/// Pings that are not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingFailure {
    /// The agent's id, or `daemon`.
    pub of: String,
    /// First failure since the last success, Unix ms.
    pub since_ms: i64,
    /// Pings given up since.
    pub count: u64,
    /// What went wrong last.
    pub error: String,
}

/// The way of every ping.
#[derive(Debug)]
pub struct Monitor {
    queue: mpsc::Sender<Ping>,
    waiting: Mutex<Option<mpsc::Receiver<Ping>>>,
    failing: Mutex<HashMap<String, PingFailure>>,
}

impl Default for Monitor {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { queue, waiting: Mutex::new(Some(waiting)), failing: Mutex::default() }
    }
}

impl Monitor {
    /// Tells the agent's monitor that a run has begun.
    pub fn started(&self, agent: &Agent, run: RunId) {
        self.say(agent, run, Some("start"), None);
    }

    /// Tells the agent's monitor how a run ended.
    pub fn ended(&self, agent: &Agent, run: RunId, outcome: &Outcome) {
        match &outcome.failure {
            None => self.say(agent, run, None, None),
            Some(f) => self.say(agent, run, Some("fail"), Some(format!("{}: {}", f.code, f.explanation))),
        }
    }

    fn say(&self, agent: &Agent, run: RunId, stage: Option<&str>, text: Option<String>) {
        let Some(base) = &agent.policies.ping_url else { return };
        if let Some(url) = knock_url(base, stage, Some(&run.to_string())) {
            self.push(Ping { of: agent.id.to_string(), base: base.clone(), url, text });
        }
    }

    fn push(&self, ping: Ping) {
        if let Err(mpsc::error::TrySendError::Full(ping)) = self.queue.try_send(ping) {
            tracing::warn!(agent = %ping.of, "a ping of {} is dropped: {WAITING} wait already", ping.of);
        }
    }

    fn failing(&self) -> MutexGuard<'_, HashMap<String, PingFailure>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pings that are not heard, the longest first.
    #[must_use]
    pub fn failures(&self) -> Vec<PingFailure> {
        let mut failures: Vec<PingFailure> = self.failing().values().cloned().collect();
        failures.sort_by_key(|f| f.since_ms);
        failures
    }

    /// Keeps what became of a ping; one line in the log when pings begin to fail and one when they are
    /// heard again.
    fn keep(&self, of: &str, outcome: Result<(), String>, now_ms: i64) {
        let mut failing = self.failing();
        match outcome {
            Ok(()) => {
                if failing.remove(of).is_some() {
                    tracing::info!(agent = %of, "pings of {of} are heard again");
                }
            }
            Err(error) => {
                let failure = failing.entry(of.to_owned()).or_insert_with(|| {
                    tracing::warn!(agent = %of, "a ping of {of} was not heard: {error}");
                    PingFailure { of: of.to_owned(), since_ms: now_ms, count: 0, error: String::new() }
                });
                failure.count += 1;
                failure.error = error;
            }
        }
    }
}

/// Sends pings until the daemon has drained, and then what is left for a short while.
pub(super) async fn run(core: Arc<Core>) {
    let waiting = core.monitor.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = waiting else { return };
    let sender = Sender::new(TIMEOUTS);
    let mut lanes = Lanes { core: &core, sender: &sender, busy: HashSet::new(), backlog: VecDeque::new() };
    let mut under_way = FuturesUnordered::new();
    let drained = core.drained();
    let mut last_words = std::pin::pin!(async {
        drained.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    });
    loop {
        while under_way.len() < AT_ONCE
            && let Some(ping) = lanes.next()
        {
            under_way.push(lanes.send(ping));
        }
        let idle = under_way.is_empty();
        tokio::select! {
            biased;
            Some(base) = under_way.next(), if !idle => {
                lanes.busy.remove(&base);
            }
            ping = waiting.recv(), if lanes.backlog.len() < WAITING => match ping {
                Some(ping) => lanes.backlog.push_back(ping),
                None => return,
            },
            () = drained.cancelled(), if idle && lanes.backlog.is_empty() => return,
            () = &mut last_words => return,
        }
    }
}

/// Pings that wait, each behind the one to the same address.
struct Lanes<'a> {
    core: &'a Arc<Core>,
    sender: &'a Sender,
    busy: HashSet<String>,
    backlog: VecDeque<Ping>,
}

impl<'a> Lanes<'a> {
    /// The oldest ping whose address is free.
    fn next(&mut self) -> Option<Ping> {
        let index = self.backlog.iter().position(|ping| !self.busy.contains(&ping.base))?;
        self.backlog.remove(index)
    }

    /// Sends one; its address.
    fn send(&mut self, ping: Ping) -> impl Future<Output = String> + use<'a> {
        self.busy.insert(ping.base.clone());
        let (core, sender) = (self.core, self.sender);
        async move {
            let mut outcome = sender.knock(&ping.url, ping.text.as_deref()).await;
            for rest in RETRIES {
                // A daemon that stops says it once.
                if outcome.is_ok() || core.drained().is_cancelled() {
                    break;
                }
                core.clock.sleep_until(core.clock.now() + rest).await;
                outcome = sender.knock(&ping.url, ping.text.as_deref()).await;
            }
            core.monitor.keep(&ping.of, outcome, core.clock.now_ms());
            ping.base
        }
    }
}

/// The loop of the daemon's own heartbeat.
pub struct Heartbeat {
    core: Arc<Core>,
    last_ms: i64,
    stalled: bool,
}

impl Heartbeat {
    /// The heartbeat of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, last_ms: i64::MIN, stalled: false }
    }
}

impl Tick for Heartbeat {
    const NAME: &'static str = "heartbeat";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let Some(base) = self.core.settings().ping_url.clone() else {
            return Ok(Next::Hint);
        };
        let (now, now_ms) = (self.core.clock.now(), self.core.clock.now_ms());
        let left_ms = self.last_ms.saturating_add(millis(HEARTBEAT)).saturating_sub(now_ms);
        // A clock that went back by more than a beat starts anew.
        if left_ms > 0 && left_ms <= millis(HEARTBEAT) {
            return Ok(Next::At(now + Duration::from_millis(left_ms.unsigned_abs())));
        }
        if tokio::time::timeout(PULSE_LATE, self.core.beat()).await.is_err() {
            if !self.stalled {
                tracing::error!("no heartbeat is sent: the scheduler or the database does not get on");
            }
            self.stalled = true;
            return Ok(Next::At(now + LOOK_AGAIN));
        }
        self.stalled = false;
        self.last_ms = now_ms;
        self.core.monitor.push(Ping { of: DAEMON.to_owned(), url: base.clone(), base, text: None });
        Ok(Next::At(now + HEARTBEAT))
    }
}
