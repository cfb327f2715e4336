//! The janitor: ends runs that waited beyond their start deadline, and those that somebody else had
//! to end and did not; and has archives made of those that asked for one.

use std::sync::Arc;
use std::time::Duration;

use super::looping::{Next, Tick};
use super::{Core, run};
use crate::model::{Failure, FailureCode};
use crate::store;

/// How late a deadline may be noticed while runs with one wait.
const SWEEP: Duration = Duration::from_secs(1);

/// How often it looks for runs that somebody else had to end.
const UNFINISHED_EVERY_MS: i64 = 30_000;
/// How long these may take, ms.
const UNFINISHED_AFTER_MS: i64 = 10_000;

/// The state of the janitor's loop.
pub struct Janitor {
    core: Arc<Core>,
    looked_ms: i64,
}

impl Janitor {
    /// A janitor for the runs of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        let looked_ms = core.clock.now_ms();
        Self { core, looked_ms }
    }
}

impl Tick for Janitor {
    const NAME: &'static str = "janitor";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        self.end_unfinished().await?;
        self.core.make_archives().await?;
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
                run::finish_or_give_back(core, claim, failure).await;
            }
        }
        Ok(Next::At(core.clock.now() + SWEEP))
    }
}

impl Janitor {
    async fn end_unfinished(&mut self) -> Result<(), store::Error> {
        let core = &self.core;
        let now_ms = core.clock.now_ms();
        if (now_ms - self.looked_ms).abs() < UNFINISHED_EVERY_MS {
            return Ok(());
        }
        self.looked_ms = now_ms;
        for (claim, gone) in core.store.unfinished(now_ms - UNFINISHED_AFTER_MS).await? {
            run::finish_gone(core, claim, gone).await?;
        }
        Ok(())
    }
}
