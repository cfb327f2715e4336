//! Waiting for the end of one run, for callers who hold a request open.
//!
//! The row is the truth and the wake-up a hint, so nothing is missed where a run ends between two looks. Who
//! waits is woken by the end of that run alone: a thousand who wait do not look at every change of a thousand
//! runs. Nobody who waits is waited for: a caller who leaves takes nothing with him but his place here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Core;
use crate::model::RunState;
use crate::store;

/// How long who waits goes without a look at the row, whatever the hints say.
const RECHECK: Duration = Duration::from_secs(30);

/// Who waits, by the run's number.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<HashMap<i64, Arc<Notify>>>);

impl Ends {
    fn map(&self) -> MutexGuard<'_, HashMap<i64, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for this run.
    pub(super) fn tell(&self, run: i64) {
        if let Some(waiting) = self.map().remove(&run) {
            waiting.notify_waiters();
        }
    }
}

/// One who waits; leaving is dropping it.
struct Waiter<'a> {
    ends: &'a Ends,
    run: i64,
    notify: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    fn of(ends: &'a Ends, run: i64) -> Self {
        let notify = Arc::clone(ends.map().entry(run).or_default());
        Self { ends, run, notify }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut map = self.ends.map();
        // The map's and this one's: nobody else waits.
        if Arc::strong_count(&self.notify) == 2
            && map.get(&self.run).is_some_and(|known| Arc::ptr_eq(known, &self.notify))
        {
            map.remove(&self.run);
        }
    }
}

impl Core {
    /// Waits until a run has ended, at most so long; the state it is in then, `None` where there is no such run.
    /// A daemon that stops lets nobody wait on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn wait_for_end(&self, run: i64, most: Duration) -> Result<Option<RunState>, store::Error> {
        let until = self.clock.now().checked_add(most).unwrap_or(self.clock.now());
        loop {
            let waiter = Waiter::of(&self.ends, run);
            let told = waiter.notify.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let state = self.store.run_state(run).await?;
            let now = self.clock.now();
            if state.is_none_or(RunState::is_terminal) || now >= until || self.tasks.stop().is_soft() {
                return Ok(state);
            }
            let recheck = now.checked_add(RECHECK).map_or(until, |at| at.min(until));
            tokio::select! {
                () = told => {}
                () = self.clock.sleep_until(recheck) => {}
                () = self.tasks.stop().softened() => {}
                () = self.handover.begun().cancelled() => return Ok(state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_leaves_leaves_nothing_behind() {
        let ends = Ends::default();
        let (a, b) = (Waiter::of(&ends, 1), Waiter::of(&ends, 1));
        drop(a);
        assert_eq!(ends.map().len(), 1, "the other one still waits");
        let told = b.notify.notified();
        ends.tell(1);
        told.await;
        assert!(ends.map().is_empty());
        let late = Waiter::of(&ends, 1);
        drop(b);
        assert_eq!(ends.map().len(), 1, "one who came later is another one's business");
        drop(late);
        assert!(ends.map().is_empty());
    }
}
