//! The dispatcher: claims runs while there is room and starts a task for each.
//!
//! `max_running` bounds the runs of this process, re-attached ones included. What else decides
//! (priority, age, the agent's own limits) is in the claim's statement, so that two claims cannot
//! disagree.

use std::sync::Arc;
use std::time::Duration;

use super::looping::{Next, Tick};
use super::{Core, run};
use crate::store::{self, Room};
use crate::task::OnEnd;
use crate::time::from_ms;

/// Catch-ups that run at once.
pub(super) const CATCH_UP_LANE: usize = 1;

/// The state of the dispatcher's loop: none.
pub struct Dispatcher {
    core: Arc<Core>,
}

impl Dispatcher {
    /// A dispatcher for the runs of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Tick for Dispatcher {
    const NAME: &'static str = "dispatcher";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let core = &self.core;
        let (running, catch_ups) = {
            let live = core.live();
            (live.len(), live.values().filter(|l| l.catch_up).count())
        };
        let settings = core.settings();
        let runs = usize::try_from(settings.max_running).unwrap_or(usize::MAX).saturating_sub(running);
        if runs == 0 {
            return Ok(Next::Hint);
        }
        let now_ms = core.clock.now_ms();
        let room =
            Room { runs, catch_ups: CATCH_UP_LANE.saturating_sub(catch_ups), pools: settings.places() };
        let claims = core.store.claim_next(room, now_ms).await?;
        let full = claims.runs.len() == runs;
        for claimed in claims.runs {
            let waited = claimed.created_ms.map_or(0, |created| now_ms.saturating_sub(created));
            core.metrics.queue_wait.record(Duration::from_millis(u64::try_from(waited).unwrap_or(0)));
            let ending = core.register(claimed.number, claimed.id, claimed.trigger.of_the_past());
            let task = run::carry_out(Arc::clone(core), claimed, ending);
            core.tasks.spawn("run", OnEnd::Logged, task);
        }
        if full {
            core.changed();
        }
        Ok(claims.next_ms.map_or(Next::Hint, |at| Next::At(from_ms(at))))
    }
}
