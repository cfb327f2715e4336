//! The feed: what becomes of runs, as it happens, for whoever wants to watch.
//!
//! It is read from the rows of `transitions`, so its position is a number that outlives the daemon: who was cut
//! off, or restarted with it, goes on after the last one that he saw and misses none. A wake-up is a hint to
//! read on. A reader pulls: for one that does not read nothing is read, and never more than [`BATCH`]
//! changes are in memory for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Core;
use crate::model::Event;
use crate::store::{self, Transition};

/// Changes that are read at once.
pub const BATCH: usize = 200;
/// How often the rows are read although nothing woke the reader.
const RECHECK: Duration = Duration::from_secs(1);
/// Rest of a reader that was woken, so that on a busy daemon a reading serves many changes.
const WOKEN_REST: Duration = Duration::from_millis(20);

/// Which changes are wanted.
pub type Wanted = Box<dyn Fn(&Transition) -> bool + Send + Sync>;

/// One change.
#[derive(Debug, Clone)]
pub struct FeedItem {
    /// What has changed.
    pub transition: Transition,
    /// The run as it is when this is read; it may have gone on since.
    pub event: Event,
}

/// A reader of the feed.
pub struct Feed {
    core: Arc<Core>,
    wanted: Wanted,
    hint: watch::Receiver<u64>,
    seq: i64,
    /// Whether the last reading may have left something.
    more: bool,
    read: VecDeque<FeedItem>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Feed {
    /// A reader of the changes after number `seq`; after those of now where it is `None`, or lies in a future that a
    /// restored backup has undone.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(core: &Arc<Core>, seq: Option<i64>, wanted: Wanted) -> Result<Self, store::Error> {
        let hint = core.feed();
        let newest = core.store.newest_transition().await?;
        let seq = seq.map_or(newest, |seq| seq.min(newest));
        Ok(Self { core: Arc::clone(core), wanted, hint, seq, more: true, read: VecDeque::new() })
    }

    /// Number of the change up to which everything was handed out, or was not wanted.
    #[must_use]
    pub fn seq(&self) -> i64 {
        self.read.front().map_or(self.seq, |next| next.transition.seq - 1)
    }

    /// The next change that is wanted; `None` when the daemon leaves: whoever comes back finds the next one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<FeedItem>, store::Error> {
        loop {
            if let Some(item) = self.read.pop_front() {
                return Ok(Some(item));
            }
            if !self.more && !self.wait().await {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), store::Error> {
        self.hint.mark_unchanged();
        let (found, seq) = self.core.store.transitions(self.seq, BATCH).await?;
        // Only a reading that found nothing at all has left nothing.
        self.more = seq > self.seq;
        let wanted: Vec<Transition> = found.into_iter().filter(|t| (self.wanted)(t)).collect();
        let mut numbers: Vec<i64> = wanted.iter().map(|t| t.run).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let events = if numbers.is_empty() { Vec::new() } else { self.core.store.events_of(numbers).await? };
        let item = |transition: Transition| {
            let at = events.binary_search_by_key(&transition.run, |event| event.number).ok()?;
            Some(FeedItem { event: events.get(at)?.clone(), transition })
        };
        self.read.extend(wanted.into_iter().filter_map(item));
        self.seq = seq;
        Ok(())
    }

    /// Waits until there may be more; `false` when there will not be.
    async fn wait(&mut self) -> bool {
        let drained = self.core.drained();
        let leaving = self.core.handover.begun();
        let woken = tokio::select! {
            () = drained.cancelled() => return false,
            () = leaving.cancelled() => return false,
            changed = self.hint.changed() => changed.is_ok(),
            () = tokio::time::sleep(RECHECK) => false,
        };
        if woken {
            tokio::time::sleep(WOKEN_REST).await;
        }
        true
    }
}
