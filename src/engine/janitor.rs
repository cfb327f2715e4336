//! The janitor: ends runs that waited beyond their start deadline.

use std::sync::Arc;
use std::time::Duration;

use super::looping::{Next, Tick};
use super::{Core, run};
use crate::model::{Failure, FailureCode};
use crate::store;

/// How late a deadline may be noticed while runs with one wait.
const SWEEP: Duration = Duration::from_secs(1);

/// The state of the janitor's loop: none.
pub struct Janitor {
    core: Arc<Core>,
}

impl Janitor {
    /// A janitor for the runs of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Tick for Janitor {
    const NAME: &'static str = "janitor";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let core = &self.core;
        let Some(deadline_ms) = core.store.next_deadline().await? else {
            return Ok(Next::At(core.clock.now() + SWEEP));
        };
        let now_ms = core.clock.now_ms();
        if deadline_ms < now_ms {
            for claim in core.store.claim_overdue(now_ms).await? {
                let why =
                    "it waited in the queue until its start deadline; raise max_running or start_deadline";
                let failure = Failure::new(FailureCode::Deadline, why);
                run::finish_unstarted(core, claim.number, claim.id, claim.epoch, failure).await?;
            }
        }
        Ok(Next::At(core.clock.now() + SWEEP))
    }
}
