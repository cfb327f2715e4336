//! Sends the deliveries that are due and records every attempt.
//!
//! A delivery is a row made in the transaction that finished the run, so a crash can repeat an
//! attempt but cannot lose one. Attempts run side by side, a few to one endpoint and many in all:
//! an endpoint that hangs holds up only its own. What is under way is known in memory only; after
//! a crash it is due again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Core;
use super::looping::{Next, Tick};
use crate::model::{DeliveryState, retry_delay};
use crate::net::Reach;
use crate::secret::ExposeSecret as _;
use crate::store::{self, AttemptRecord, DueDelivery};
use crate::task::OnEnd;
use crate::time::{from_ms, millis};
use crate::webhook::{Attempt, Endpoint, Secret, Sender, Timeouts};

/// Attempts under way at once.
const IN_ALL: usize = 64;
/// Attempts under way at once to one endpoint.
const PER_ENDPOINT: usize = 4;

/// Deliveries that are being attempted, by number, with the endpoint.
type UnderWay = Arc<Mutex<HashMap<i64, String>>>;

/// The state of the deliverer's loop.
pub struct Deliverer {
    core: Arc<Core>,
    sender: Arc<Sender>,
    under_way: UnderWay,
}

impl Deliverer {
    /// A deliverer for the outbox of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        let sender = Arc::new(Sender::new(Timeouts::default()));
        Self { core, sender, under_way: UnderWay::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tick for Deliverer {
    const NAME: &'static str = "deliverer";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let now_ms = self.core.clock.now_ms();
        let busy: Vec<i64> = self.lock().keys().copied().collect();
        let room = IN_ALL.saturating_sub(busy.len());
        if room == 0 {
            return Ok(Next::Hint);
        }
        // Endpoints at their limit are left out below, so look further than the room.
        let due = self.core.store.due_deliveries(now_ms, busy, IN_ALL * PER_ENDPOINT).await?;
        for delivery in due {
            if !self.take(&delivery) {
                continue;
            }
            let (core, sender) = (Arc::clone(&self.core), Arc::clone(&self.sender));
            let (under_way, counted) = (Arc::clone(&self.under_way), self.core.handover.enter_delivery());
            self.core.tasks.spawn("delivery", OnEnd::Logged, async move {
                let number = delivery.number;
                attempt(&core, &sender, delivery).await;
                under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                drop(counted);
                core.wake.deliverer.notify_one();
            });
        }
        let busy: Vec<i64> = self.lock().keys().copied().collect();
        let next = self.core.store.next_delivery(busy).await?;
        // A due one that found no room comes with the wake-up of one that ends.
        Ok(next.filter(|&at| at > now_ms).map_or(Next::Hint, |at| Next::At(from_ms(at))))
    }
}

impl Deliverer {
    /// Takes a place for `delivery` if its endpoint and the whole have one.
    fn take(&self, delivery: &DueDelivery) -> bool {
        let mut under_way = self.lock();
        let same = under_way.values().filter(|url| **url == delivery.url).count();
        let place = under_way.len() < IN_ALL && same < PER_ENDPOINT;
        if place {
            under_way.insert(delivery.number, delivery.url.clone());
        }
        place
    }
}

async fn attempt(core: &Core, sender: &Sender, delivery: DueDelivery) {
    let attempt = send(core, sender, &delivery).await;
    let ended_ms = attempt.started_ms.saturating_add(attempt.duration_ms);
    let failed = delivery.failed + 1;
    let wait = retry_delay(failed, core.entropy.unit(), attempt.retry_after);
    let (state, next_at_ms) = match wait {
        _ if attempt.delivered => (DeliveryState::Delivered, None),
        Some(wait) if !attempt.gone => (DeliveryState::Pending, Some(ended_ms.saturating_add(millis(wait)))),
        _ => (DeliveryState::Exhausted, None),
    };
    if state == DeliveryState::Exhausted {
        let why = attempt.error.as_deref().unwrap_or("the receiver is gone");
        tracing::error!(
            delivery.id = %delivery.id,
            url.host = %host(&delivery.url),
            "a delivery is given up after {failed} attempts: {why}; `matins deliveries --redeliver {}` sends it again",
            delivery.id
        );
    }
    let record = AttemptRecord {
        number: delivery.number,
        at_ms: attempt.started_ms,
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error,
        response: attempt.response,
        state,
        next_at_ms,
    };
    if let Err(e) = core.store.record_attempt(record).await {
        // The row is still due: the attempt is repeated, which at-least-once allows.
        tracing::error!(delivery.id = %delivery.id, error = %e, "an attempt could not be recorded: {e}");
        core.clock.sleep_until(core.clock.now() + std::time::Duration::from_secs(1)).await;
    }
    core.changed();
}

/// An attempt that ended before anything was sent.
fn unsent(started_ms: i64, error: String) -> Attempt {
    Attempt {
        started_ms,
        duration_ms: 0,
        status: None,
        error: Some(error),
        response: Vec::new(),
        retry_after: None,
        delivered: false,
        gone: false,
    }
}

/// The host of a URL; the rest may hold a token.
fn host(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default()
}

async fn send(core: &Core, sender: &Sender, delivery: &DueDelivery) -> Attempt {
    let secret = match &delivery.secret {
        None => None,
        Some(source) => match core
            .secret(source)
            .and_then(|value| Secret::parse(value.expose_secret()).map_err(|e| e.to_string()))
        {
            Ok(secret) => Some(secret),
            // Unsigned is not a fall-back: a receiver that checks would drop it for good.
            Err(e) => {
                return unsent(core.clock.now_ms(), format!("the signing secret cannot be used: {e}"));
            }
        },
    };
    let reach = if delivery.private { Reach::PrivateToo } else { core.caller_reach() };
    let endpoint = Endpoint { url: &delivery.url, secret: secret.as_ref(), reach };
    sender.attempt(core.clock.as_ref(), &endpoint, &delivery.id, &delivery.body).await
}
