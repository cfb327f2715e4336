//! Signs of life: what tells a scheduler and a writer that work from ones that hang.
//!
//! The watchdog asks for progress instead of reading a clock: it wakes the scheduler and hands the
//! writer an empty job, and is told once both have answered. So an idle daemon is alive, one whose
//! disk is full is alive (its writes fail, but they come back), and one in which a lock or a system
//! call never returns is not, however long it may rest between two instants.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::watch;

use super::Core;
use super::looping::Next;
use crate::store;

/// The next fire where none is known.
const NONE: i64 = i64::MAX;

/// The pulse of the scheduler.
#[derive(Debug)]
pub struct Pulse {
    ticks: watch::Sender<u64>,
    next_fire_ms: AtomicI64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { ticks: watch::channel(0).0, next_fire_ms: AtomicI64::new(NONE) }
    }
}

impl Pulse {
    /// The scheduler has finished a tick, well or not.
    pub(super) fn ticked(&self, next: &Result<Next, store::Error>) {
        if let Ok(next) = next {
            let at = match next {
                Next::At(at) => at.as_millisecond(),
                Next::Hint => NONE,
            };
            self.next_fire_ms.store(at, Ordering::Relaxed);
        }
        self.ticks.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// When the scheduler has work next, Unix ms.
    #[must_use]
    pub fn next_fire_ms(&self) -> Option<i64> {
        Some(self.next_fire_ms.load(Ordering::Relaxed)).filter(|&at| at != NONE)
    }
}

impl Core {
    /// Ends once the scheduler has made a tick and the writer has answered, both from now on. A
    /// daemon that stops has no scheduler any more.
    pub async fn beat(&self) {
        let mut ticks = self.pulse.ticks.subscribe();
        self.wake.scheduler.notify_one();
        // Whether it can write is another question: an answer is a sign of life.
        let _ = self.store.ping().await;
        tokio::select! {
            // The sender lives in the core.
            _ = ticks.changed() => {}
            () = self.tasks.stop().softened() => {}
        }
    }
}
