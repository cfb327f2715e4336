//! Background tasks. Nothing is spawned except through [`Tasks`], with a name and with what its end
//! means: a fatal task that ends before it was told to stop brings the daemon down with a code that
//! is not 0, a logged one is only reported.
//!
//! Work that blocks goes to threads of its own through [`blocking`], the only place that does that: it starts at
//! once, its panic is told once, and the end of the runtime is no failure of it.
//!
//! Stopping has two steps, held by [`Stop`]: soft (finish what you do, take nothing new) and hard
//! (leave now). Hard implies soft. Tokens are passed, never global: two daemons live in one test.

use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Work that panicked. The log says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("something inside matins broke")]
pub struct Panicked;

impl From<Panicked> for std::io::Error {
    fn from(panicked: Panicked) -> Self {
        Self::other(panicked)
    }
}

/// Starts work that blocks, in a thread where it may; at once, also where nobody waits for its end.
///
/// Work that has not begun when the runtime ends, because the program is replaced, has not failed: who waits for
/// it waits for ever, so that nobody writes an end that the next program would find.
///
/// # Errors
/// [`Panicked`] where it panicked.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the one place that hands out work that blocks")]
pub fn blocking<T, F>(work: F) -> impl Future<Output = Result<T, Panicked>> + Send
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (place, span) = (Location::caller(), tracing::Span::current());
    let started = tokio::task::spawn_blocking(move || {
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
            span.in_scope(|| tracing::error!("the work that {place} handed out panicked"));
            Panicked
        })
    });
    async move {
        match started.await {
            Ok(ended) => ended,
            // Its own panics are caught, so this is the end of the runtime.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The two stop signals of one daemon.
#[derive(Debug, Clone)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Signals that nobody has raised yet.
    #[must_use]
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard }
    }

    /// Asks everybody to finish and take nothing new.
    pub fn soft(&self) {
        self.soft.cancel();
    }

    /// Asks everybody to leave now.
    pub fn hard(&self) {
        self.hard.cancel();
    }

    /// Whether stopping has begun.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Ends when stopping begins.
    pub async fn softened(&self) {
        self.soft.cancelled().await;
    }

    /// As [`Stop::softened`], for a future that owns its signal.
    pub async fn softened_owned(self) {
        self.soft.cancelled().await;
    }

    /// Ends when stopping may no longer wait.
    pub async fn hardened(&self) {
        self.hard.cancelled().await;
    }
}

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// The daemon cannot do its work without it: an end before the soft stop, or a panic, stops the daemon.
    Fatal,
    /// Its end, also by panic, concerns only itself and is logged.
    Logged,
}

/// The set of running tasks of one daemon.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: Stop,
    died: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    /// An empty set under `stop`.
    #[must_use]
    pub fn new(stop: Stop) -> Self {
        Self { tracker: TaskTracker::new(), stop, died: Arc::new(Mutex::new(None)) }
    }

    /// The stop signals these tasks obey.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Runs `task` in the background under `name`; `on_end` says what its end means.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(
        &self,
        name: impl Into<String>,
        on_end: OnEnd,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (name, stop, died) = (name.into(), self.stop.clone(), Arc::clone(&self.died));
        self.tracker.spawn(async move {
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            let early = !stop.is_soft();
            if panicked {
                tracing::error!(task.name = %name, "task {name} panicked");
            }
            if on_end == OnEnd::Fatal && (panicked || early) {
                tracing::error!(task.name = %name, "task {name} ended although the daemon needs it; stopping");
                died.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(name);
                stop.soft();
            }
        });
    }

    /// Brings the daemon down now because `name` has failed: the exit code is not 0.
    pub fn fail(&self, name: &str) {
        let mut died = self.died.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        died.get_or_insert_with(|| name.to_owned());
        drop(died);
        self.stop.hard();
    }

    /// Name of the first fatal task that died, if any: then the exit code is not 0.
    #[must_use]
    pub fn died(&self) -> Option<String> {
        self.died.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Waits until every task has ended. New tasks may no longer be spawned by then.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_fatal_task_stops_the_rest() {
        let tasks = Tasks::new(Stop::new());
        let stop = tasks.stop().clone();
        tasks.spawn("waiter", OnEnd::Fatal, async move { stop.softened().await });
        tasks.spawn("dies", OnEnd::Fatal, async { panic!("for the test") });
        tasks.join().await;
        assert_eq!(tasks.died().as_deref(), Some("dies"));
    }

    #[tokio::test]
    async fn a_failure_that_a_task_tells_is_no_good_end() {
        let tasks = Tasks::new(Stop::new());
        let telling = tasks.clone();
        tasks.spawn("watcher", OnEnd::Fatal, async move { telling.fail("store") });
        tasks.join().await;
        assert_eq!(tasks.died().as_deref(), Some("store"));
        assert!(tasks.stop().is_soft());
    }

    #[tokio::test]
    async fn work_that_blocks_starts_at_once_and_its_panic_is_its_own() {
        let (told, hears) = std::sync::mpsc::channel();
        drop(blocking(move || told.send(1)));
        assert_eq!(hears.recv(), Ok(1), "nobody waits for it");
        assert_eq!(blocking(|| 2).await, Ok(2));
        assert_eq!(blocking(|| panic!("for the test")).await, Err::<(), _>(Panicked));
    }

    #[test]
    fn work_that_the_end_of_the_runtime_cancels_has_not_failed() {
        let (ended, outcome) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        // A runtime that ends takes no more work: who asks for it is told that it was cancelled.
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        std::thread::spawn(move || {
            let _entered = handle.enter();
            let asked = std::pin::pin!(blocking(|| ()));
            let waker = std::task::Waker::noop();
            let _ = ended.send(asked.poll(&mut std::task::Context::from_waker(waker)).is_pending());
        });
        assert!(outcome.recv().unwrap(), "it waits for the end instead of telling of a failure");
    }

    #[tokio::test]
    async fn a_logged_task_dies_alone() {
        let tasks = Tasks::new(Stop::new());
        tasks.spawn("dies", OnEnd::Logged, async { panic!("for the test") });
        tasks.join().await;
        assert_eq!(tasks.died(), None);
        assert!(!tasks.stop().is_soft());
    }
}
