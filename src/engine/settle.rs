//! Settling: one pass at start over what the daemon before left, before anything new is claimed.
//!
//! By identity, never by age or by pid alone: a launcher that lives is watched again, one that ended
//! is read, one that was never released waits again, and where nothing is left to read the run is
//! `interrupted`. A run is never COMPLETED by guess.

use std::sync::Arc;

use tracing::Instrument as _;

use super::Core;
use super::executor::Attached;
use super::run;
use crate::store;
use crate::task::OnEnd;

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Runs whose launcher lives; they go on under watch.
    pub reattached: usize,
    /// Runs that had ended, or had not begun.
    pub settled: usize,
}

impl Core {
    /// Settles every run of the daemon before. Live ones are watched when this returns, the others
    /// are ended or wait again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn settle(self: &Arc<Self>) -> Result<Settled, store::Error> {
        self.settle_files().await?;
        let now_ms = self.clock.now_ms();
        for (claim, gone) in self.store.release_claims(now_ms).await? {
            run::finish_gone(self, claim, gone).await?;
        }
        let mut found = Settled::default();
        let mut ended = Vec::new();
        for unsettled in self.store.unsettled().await? {
            let agent = self.catalog.definition(&self.store, unsettled.agent, unsettled.definition).await?;
            let attempt = u32::try_from(unsettled.attempt).unwrap_or(u32::MAX);
            let attached = self
                .executor
                .reattach(unsettled.launcher.clone(), unsettled.id, attempt, unsettled.epoch)
                .instrument(run::span(unsettled.id, &agent))
                .await;
            let ending = self.register(unsettled.number, unsettled.id, unsettled.catch_up);
            self.released(unsettled.number);
            if matches!(attached, Attached::Alive(_)) {
                self.launched(unsettled.number, &unsettled.launcher, unsettled.id, &agent);
                tracing::info!(
                    run.id = %unsettled.id, agent = %agent.id,
                    "run {} went on meanwhile; watching it again", unsettled.id
                );
                found.reattached += 1;
                let task = run::resume(Arc::clone(self), unsettled, agent, attached, ending);
                self.tasks.spawn("run", OnEnd::Logged, task);
            } else {
                found.settled += 1;
                ended.push(run::resume(Arc::clone(self), unsettled, agent, attached, ending));
            }
        }
        // Side by side, so that their writes share commits.
        futures_util::future::join_all(ended).await;
        Ok(found)
    }
}
