//! Handing over: what the engine does so that another program can take this one's place, in place.
//!
//! Nothing is drained: launchers live on and are found again by their identity. What must not be cut
//! is the moment between a claim and the release of its launcher, and a webhook message on its way;
//! both are counted and waited for. Everything else may be dropped where it stands, because it is
//! repaired as after a crash. Who asks for a replacement is answered before it begins: by then the
//! successor has shown that it runs and reads the settings.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Core;

/// Requests that may wait; one is carried out, the others learn that it is.
const ASKS_MAX: usize = 4;
/// Longest wait for requests that are being answered.
const ANSWERS_MAX: Duration = Duration::from_secs(5);
/// Longest wait for starts that are under way.
const STARTS_MAX: Duration = Duration::from_secs(20);
/// Longest wait for messages that are under way; what is cut then is sent again, under the same id.
const DELIVERIES_MAX: Duration = Duration::from_secs(5);

/// The program that takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its version.
    pub version: String,
    /// Its file.
    pub exe: String,
}

/// Why nothing was replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// This daemon is part of another program, as in a test.
    #[error("this daemon cannot replace itself")]
    Impossible,
    /// It stops, or is being replaced already.
    #[error("the daemon is stopping, or is being replaced already")]
    Stopping,
    /// The successor did not show that it can take over.
    #[error("{0}; the running daemon goes on")]
    Refused(String),
}

/// A request, and where its answer goes.
pub type Ask = oneshot::Sender<Result<Successor, NotReplaced>>;

/// The state of a handover.
#[derive(Debug)]
pub struct Handover {
    asks: mpsc::Sender<Ask>,
    queue: Mutex<Option<mpsc::Receiver<Ask>>>,
    begun: CancellationToken,
    listeners: Gauge,
    loops: Gauge,
    starts: Gauge,
    deliveries: Gauge,
    failure: Mutex<Option<String>>,
    /// The start of the daemon that this program goes on with, Unix ms.
    goes_on_from: OnceLock<i64>,
}

impl Default for Handover {
    fn default() -> Self {
        let (asks, queue) = mpsc::channel(ASKS_MAX);
        Self {
            asks,
            queue: Mutex::new(Some(queue)),
            begun: CancellationToken::new(),
            listeners: Gauge::default(),
            loops: Gauge::default(),
            starts: Gauge::default(),
            deliveries: Gauge::default(),
            failure: Mutex::new(None),
            goes_on_from: OnceLock::new(),
        }
    }
}

impl Handover {
    /// Asks for a replacement; comes back before it begins.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn ask(&self) -> Result<Successor, NotReplaced> {
        let (answer, answered) = oneshot::channel();
        if self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // Nobody has taken the requests: nobody can carry them out.
            return Err(NotReplaced::Impossible);
        }
        self.asks.try_send(answer).map_err(|_| NotReplaced::Stopping)?;
        answered.await.unwrap_or(Err(NotReplaced::Stopping))
    }

    /// The requests; for the one who can carry them out.
    pub fn requests(&self) -> Option<mpsc::Receiver<Ask>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Raised when the handover has begun: whoever follows something is cut off and comes back.
    #[must_use]
    pub fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Remembers that a replacement failed after all.
    pub fn failed(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why the last replacement failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This program goes on with what was started at `started_ms`, Unix ms: to be called before the loops
    /// start.
    pub fn goes_on(&self, started_ms: i64) {
        self.goes_on_from.get_or_init(|| started_ms);
    }

    /// The start that this program goes on with; `None` where it is a start itself.
    pub(super) fn start_before(&self) -> Option<i64> {
        self.goes_on_from.get().copied()
    }

    /// Counts a listener: it leaves when what it was asked is answered.
    pub fn enter_listener(&self) -> Entered {
        self.listeners.enter()
    }

    /// Counts a loop that may start something.
    pub(super) fn enter_loop(&self) -> Entered {
        self.loops.enter()
    }

    /// Counts a run between its claim and its launcher's release.
    pub(super) fn enter_start(&self) -> Entered {
        self.starts.enter()
    }

    /// Counts a message on its way.
    pub(super) fn enter_delivery(&self) -> Entered {
        self.deliveries.enter()
    }
}

impl Core {
    /// Begins a handover: listeners finish what they were asked and leave, then nothing new is started.
    pub async fn begin_handover(&self) {
        self.handover.begun.cancel();
        let answered = self.handover.listeners.empty();
        // What takes longer is cut; the listeners see to that themselves.
        let _ = tokio::time::timeout(ANSWERS_MAX, answered).await;
        self.tasks.stop().soft();
    }

    /// Waits for what must not be cut. When this returns the process may be replaced at any instant.
    pub async fn finish_handover(&self) {
        let handover = &self.handover;
        let quiet = async {
            handover.loops.empty().await;
            handover.starts.empty().await;
        };
        if tokio::time::timeout(STARTS_MAX, quiet).await.is_err() {
            // Its launcher sees the end of its pipe and leaves: the run waits again.
            tracing::warn!("a run did not start within {} s; it is started again", STARTS_MAX.as_secs());
        }
        if tokio::time::timeout(DELIVERIES_MAX, handover.deliveries.empty()).await.is_err() {
            tracing::warn!("webhook messages under way are cut and sent again");
        }
    }

    /// Waits a little for messages that are due, so that the end of a run that a stop has waited for is told
    /// by it. What takes longer is told by the next start.
    pub(super) async fn tell_the_rest(&self) {
        let told = async {
            let mut feed = self.feed();
            while self.store.has_due_deliveries(self.clock.now_ms()).await.unwrap_or(false) {
                self.wake.deliverer.notify_one();
                if feed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(DELIVERIES_MAX, told).await.is_err() {
            tracing::warn!("webhook messages that wait are sent by the next start");
        }
    }

    /// Ends when a handover has stopped the loops.
    pub(super) async fn handed_over(&self) {
        self.handover.begun.cancelled().await;
        self.tasks.stop().softened().await;
    }
}

/// How many of something there are.
#[derive(Debug)]
struct Gauge(watch::Sender<usize>);

impl Default for Gauge {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Gauge {
    fn enter(&self) -> Entered {
        self.0.send_modify(|n| *n += 1);
        Entered(self.0.clone())
    }

    async fn empty(&self) {
        // The sender is ours, so there is always somebody to wait for.
        let _ = self.0.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Entered(watch::Sender<usize>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_nobody_can_carry_out_is_refused() {
        let handover = Handover::default();
        assert_eq!(handover.ask().await, Err(NotReplaced::Impossible));
        drop(handover.requests().expect("the first takes it"));
        assert!(handover.requests().is_none());
        assert_eq!(handover.ask().await, Err(NotReplaced::Stopping), "whoever took them is gone");
    }

    #[tokio::test]
    async fn a_gauge_is_empty_when_the_last_has_left() {
        let gauge = Gauge::default();
        gauge.empty().await;
        let (a, b) = (gauge.enter(), gauge.enter());
        drop(a);
        let early = tokio::time::timeout(Duration::from_millis(20), gauge.empty()).await;
        assert!(early.is_err());
        drop(b);
        gauge.empty().await;
    }
}
