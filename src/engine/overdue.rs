//! The dead man's switch: raises `agent.overdue` for an agent without a success for longer than its
//! `expect_success_within:`.
//!
//! Once a stretch: the mark is a row that the next success clears, so a restart tells nobody again. An
//! agent that never had a success counts from when it was first known. A paused or broken agent is
//! overdue like any other: that nobody noticed is what this is for. A success is a COMPLETED run; one
//! whose gate found nothing to do is one too.

use std::collections::HashMap;
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

/// An agent of which a success is expected.
struct Watched {
    agent: Arc<Entry>,
    within: Duration,
    /// When it is looked at next, Unix ms: a success only ever puts it off.
    look_ms: i64,
}

/// The state of the loop. The marks are rows; this only saves looking at every agent each time.
pub struct Overdue {
    core: Arc<Core>,
    forgot_ms: i64,
    generation: u64,
    watched: HashMap<i64, Watched>,
}

impl Overdue {
    /// A watch over the agents of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, forgot_ms: 0, generation: 0, watched: HashMap::new() }
    }
}

impl Tick for Overdue {
    const NAME: &'static str = "overdue watch";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let now_ms = self.core.clock.now_ms();
        if now_ms.saturating_sub(self.forgot_ms).abs() >= millis(FORGET_EVERY) {
            self.core.store.forget_endpoints(now_ms.saturating_sub(millis(FORGET))).await?;
            self.forgot_ms = now_ms;
        }
        let generation = self.core.catalog.generation();
        if generation != self.generation {
            self.load().await?;
            self.generation = generation;
        }
        let due: Vec<i64> =
            self.watched.iter().filter(|(_, w)| w.look_ms <= now_ms).map(|(number, _)| *number).collect();
        if !due.is_empty() {
            for seen in self.core.store.last_successes(due).await? {
                self.look(seen, now_ms).await?;
            }
        }
        let next = self.watched.values().map(|w| w.look_ms).filter(|at| *at > now_ms).min();
        Ok(next.map_or(Next::Hint, |at| Next::At(from_ms(at))))
    }
}

impl Overdue {
    /// Takes the catalog over if it was replaced, and ends the stretches of agents that expect nothing
    /// any more.
    async fn load(&mut self) -> Result<(), store::Error> {
        let expecting = |agent: Arc<Entry>| {
            let within = agent.agent.policies.expect_success_within?;
            Some((agent.number, Watched { agent, within, look_ms: i64::MIN }))
        };
        self.watched = self.core.catalog.all().into_iter().filter_map(expecting).collect();
        for agent in self.core.store.overdue_agents().await? {
            if !self.watched.contains_key(&agent) {
                self.core.store.clear_overdue(agent).await?;
            }
        }
        Ok(())
    }

    /// Raises the stretch of an agent, or ends it.
    async fn look(&mut self, seen: LastSuccess, now_ms: i64) -> Result<(), store::Error> {
        let Some(watched) = self.watched.get_mut(&seen.agent) else { return Ok(()) };
        let due_ms = seen.at_ms.unwrap_or(seen.known_since_ms).saturating_add(millis(watched.within));
        watched.look_ms = due_ms;
        match seen.overdue_at_ms {
            Some(since) if seen.at_ms.is_some_and(|at| at >= since) => {
                self.core.store.clear_overdue(seen.agent).await
            }
            None if due_ms <= now_ms => {
                let (agent, within) = (Arc::clone(&watched.agent), watched.within);
                self.tell(&agent, within, seen, now_ms).await
            }
            _ => Ok(()),
        }
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
            tracing::warn!(agent = %id, "{id} is overdue: it had no success for {}", crate::time::human_duration(within));
            self.core.wake.deliverer.notify_one();
        }
        Ok(())
    }
}
