//! The dead man's switch: raises `agent.overdue` for an agent without a success for longer than its
//! `expect_success_within:`.
//!
//! Once a stretch: the mark is a row that the next success clears, so a restart tells nobody again. An
//! agent that never had a success counts from when it was first known. A paused or broken agent is
//! overdue like any other: that nobody noticed is what this is for. A success is a COMPLETED run; one
//! whose gate found nothing to do is one too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Core;
use super::catalog::Entry;
use super::looping::{Next, Tick};
use crate::model::WebhookEvent;
use crate::store::{self, LastSuccess};
use crate::time::{from_ms, millis, rfc3339_ms};

/// An endpoint that nobody names any more is forgotten after this time.
const FORGET: Duration = Duration::from_hours(24 * 30);
/// Time between two looks for such endpoints.
const FORGET_EVERY: Duration = Duration::from_hours(24);

/// The state of the loop: when it last forgot endpoints.
pub struct Overdue {
    core: Arc<Core>,
    forgot_ms: i64,
}

impl Overdue {
    /// A watch over the agents of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, forgot_ms: 0 }
    }
}

impl Tick for Overdue {
    const NAME: &'static str = "overdue watch";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let now_ms = self.core.clock.now_ms();
        if now_ms.saturating_sub(self.forgot_ms) >= millis(FORGET_EVERY) {
            self.core.store.forget_endpoints(now_ms.saturating_sub(millis(FORGET))).await?;
            self.forgot_ms = now_ms;
        }
        let expecting: Vec<(Arc<Entry>, Duration)> = self
            .core
            .catalog
            .all()
            .into_iter()
            .filter_map(|agent| agent.agent.policies.expect_success_within.map(|within| (agent, within)))
            .collect();
        self.clear(&expecting).await?;
        self.raise(&expecting, now_ms).await
    }
}

impl Overdue {
    /// Ends the stretches of agents that expect nothing any more.
    async fn clear(&self, expecting: &[(Arc<Entry>, Duration)]) -> Result<(), store::Error> {
        let numbers: HashSet<i64> = expecting.iter().map(|(agent, _)| agent.number).collect();
        for agent in self.core.store.overdue_agents().await? {
            if !numbers.contains(&agent) {
                self.core.store.clear_overdue(agent).await?;
            }
        }
        Ok(())
    }

    /// Raises and ends the stretches of the others; when the next one would begin.
    async fn raise(&self, expecting: &[(Arc<Entry>, Duration)], now_ms: i64) -> Result<Next, store::Error> {
        if expecting.is_empty() {
            return Ok(Next::Hint);
        }
        let numbers = expecting.iter().map(|(agent, _)| agent.number).collect();
        let found = self.core.store.last_successes(numbers).await?;
        let mut next: Option<i64> = None;
        for seen in found {
            let Some((agent, within)) = expecting.iter().find(|(a, _)| a.number == seen.agent) else {
                continue;
            };
            let due_ms = seen.at_ms.unwrap_or(seen.known_since_ms).saturating_add(millis(*within));
            match seen.overdue_at_ms {
                Some(since) if seen.at_ms.is_some_and(|at| at >= since) => {
                    self.core.store.clear_overdue(seen.agent).await?;
                    next = Some(next.map_or(due_ms, |n| n.min(due_ms)));
                }
                Some(_) => {}
                None if due_ms <= now_ms => self.tell(agent, *within, seen, now_ms).await?,
                None => next = Some(next.map_or(due_ms, |n| n.min(due_ms))),
            }
        }
        Ok(next.map_or(Next::Hint, |at| Next::At(from_ms(at))))
    }

    async fn tell(
        &self,
        agent: &Entry,
        within: Duration,
        seen: LastSuccess,
        now_ms: i64,
    ) -> Result<(), store::Error> {
        let data = json!({
            "lastSuccessAt": seen.at_ms.map(rfc3339_ms),
            "knownSince": rfc3339_ms(seen.known_since_ms),
            "expectedWithinMs": millis(within),
            "paused": seen.paused,
        });
        let mut messages = self.core.agent_message(WebhookEvent::AgentOverdue, &agent.agent, data);
        let since = seen.at_ms.unwrap_or(seen.known_since_ms);
        for message in &mut messages {
            message.once = Some(format!("overdue:{}:{since}:{now_ms}", seen.agent));
        }
        if self.core.store.raise_overdue(seen, messages, now_ms).await? {
            let id = &agent.agent.id;
            tracing::warn!(agent.id = %id, "{id} is overdue: it had no success for {}", crate::time::human_duration(within));
            self.core.wake.deliverer.notify_one();
        }
        Ok(())
    }
}
