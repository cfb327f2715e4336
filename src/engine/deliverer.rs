//! Sends the deliveries that are due and records every attempt.
//!
//! A delivery is a row made in the transaction that finished the run, so a crash can repeat an
//! attempt but cannot lose one. Attempts run side by side, a few to one endpoint and many in all:
//! an endpoint that hangs holds up only its own, however much waits for it. What is under way is
//! known in memory only; after a crash it is due again.
//!
//! Secrets are read anew for each attempt: one that was exchanged is used from the next message on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::looping::{Next, Tick};
use super::{Core, alarm};
use crate::model::{DeliveryState, Format, retry_delay};
use crate::net::Reach;
use crate::secret::{ExposeSecret as _, SecretString};
use crate::store::{self, AttemptRecord, Change, Due, DueDelivery, Places};
use crate::task::OnEnd;
use crate::time::{from_ms, millis};
use crate::webhook::{self, Attempt, Auth, Endpoint, Secrets, Sender, Timeouts};

/// Messages under way at once, in all and to one endpoint.
const MESSAGES: Places = Places { in_all: 256, per_endpoint: 4 };
/// Commands under way at once, in all and of one `on_failure:`.
const COMMANDS: Places = Places { in_all: 16, per_endpoint: 2 };

/// A thorough look is followed by a rest of so many times its length.
const THOROUGH_REST: u32 = 10;
/// Longest such rest.
const THOROUGH_REST_MAX: Duration = Duration::from_secs(1);

/// Deliveries that are being attempted, by number, with the endpoint.
type UnderWay = Arc<Mutex<HashMap<i64, String>>>;

/// The state of the deliverer's loop.
pub struct Deliverer {
    core: Arc<Core>,
    sender: Arc<Sender>,
    under_way: UnderWay,
    /// Whether the last thorough look was just now, and whether another is wanted.
    resting: Arc<AtomicBool>,
    put_off: Arc<AtomicBool>,
}

impl Deliverer {
    /// A deliverer for the outbox of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        let sender = Arc::new(Sender::new(Timeouts::default()));
        Self {
            core,
            sender,
            under_way: UnderWay::default(),
            resting: Arc::default(),
            put_off: Arc::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> store::UnderWay {
        let under_way = self.lock();
        let mut endpoints = HashMap::new();
        for endpoint in under_way.values() {
            *endpoints.entry(endpoint.clone()).or_default() += 1;
        }
        store::UnderWay { numbers: under_way.keys().copied().collect(), endpoints }
    }
}

impl Tick for Deliverer {
    const NAME: &'static str = "deliverer";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let now_ms = self.core.clock.now_ms();
        let due = self.look(now_ms, false).await?;
        let more = due.more;
        self.take(due);
        // Endpoints that are full may hide what others wait for.
        if more {
            self.look_thoroughly(now_ms).await?;
        }
        // What is due and found no room comes with the wake-up of one that ends.
        let next = self.core.store.next_delivery(now_ms).await?;
        Ok(next.map_or(Next::Hint, |at| Next::At(from_ms(at))))
    }
}

impl Deliverer {
    async fn look(&self, now_ms: i64, thorough: bool) -> Result<Due, store::Error> {
        self.core.store.due_deliveries(now_ms, self.under_way(), [MESSAGES, COMMANDS], thorough).await
    }

    /// Looks beyond what waits for full endpoints. That costs a read of all of it, so where it was done
    /// just now it is put off.
    async fn look_thoroughly(&mut self, now_ms: i64) -> Result<(), store::Error> {
        if self.resting.load(Ordering::Acquire) {
            self.put_off.store(true, Ordering::Release);
            return Ok(());
        }
        let begun = Instant::now();
        let due = self.look(now_ms, true).await?;
        let rest = (begun.elapsed() * THOROUGH_REST).min(THOROUGH_REST_MAX);
        self.take(due);
        self.resting.store(true, Ordering::Release);
        let (core, resting, put_off) =
            (Arc::clone(&self.core), Arc::clone(&self.resting), Arc::clone(&self.put_off));
        self.core.tasks.spawn("rest of the deliverer", OnEnd::Logged, async move {
            tokio::time::sleep(rest).await;
            resting.store(false, Ordering::Release);
            if put_off.swap(false, Ordering::AcqRel) {
                core.wake.deliverer.notify_one();
            }
        });
        Ok(())
    }

    /// Attempts what was found.
    fn take(&self, due: Due) {
        for delivery in due.found {
            self.lock().insert(delivery.number, delivery.endpoint());
            let (core, sender) = (Arc::clone(&self.core), Arc::clone(&self.sender));
            let (under_way, counted) = (Arc::clone(&self.under_way), self.core.handover.enter_delivery());
            self.core.tasks.spawn("delivery", OnEnd::Logged, async move {
                let _place = Place { under_way, number: delivery.number, core: Arc::clone(&core) };
                attempt(&core, &sender, delivery).await;
                drop(counted);
            });
        }
    }
}

/// A place among those under way; given back even by an attempt that panics.
struct Place {
    under_way: UnderWay,
    number: i64,
    core: Arc<Core>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.core.wake.deliverer.notify_one();
    }
}

async fn attempt(core: &Core, sender: &Sender, delivery: DueDelivery) {
    let mut attempt = send(core, sender, &delivery).await;
    // A clock that was set back meanwhile: the next attempt must not wait for the time that it was.
    attempt.started_ms = attempt.started_ms.min(core.clock.now_ms());
    let ended_ms = attempt.started_ms.saturating_add(attempt.duration_ms);
    let failed = delivery.failed + 1;
    let wait = retry_delay(failed, core.entropy.unit(), attempt.retry_after);
    let (state, next_at_ms) = match wait {
        _ if attempt.delivered => (DeliveryState::Delivered, None),
        Some(wait) if !attempt.gone => (DeliveryState::Pending, Some(ended_ms.saturating_add(millis(wait)))),
        _ => (DeliveryState::Exhausted, None),
    };
    let counter = match state {
        DeliveryState::Delivered => &core.metrics.attempts_delivered,
        DeliveryState::Exhausted => &core.metrics.attempts_exhausted,
        DeliveryState::Pending => &core.metrics.attempts_failed,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    if state == DeliveryState::Exhausted {
        let why = attempt.error.as_deref().unwrap_or("the receiver is gone");
        tracing::error!(
            delivery.id = %delivery.id,
            url.place = %webhook::place(&delivery.url),
            "a delivery is given up after {failed} attempts: {why}; `matins deliveries --redeliver {}` sends it again",
            delivery.id
        );
    }
    let gone = if attempt.gone { core.gone_messages(&delivery.url, ended_ms) } else { Vec::new() };
    let why = attempt.error.clone().unwrap_or_default();
    let record = AttemptRecord {
        number: delivery.number,
        endpoint: delivery.endpoint(),
        gone: attempt.gone,
        at_ms: attempt.started_ms,
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error,
        response: attempt.response,
        state,
        next_at_ms,
    };
    match core.store.record_attempt(record, gone).await {
        Ok(change) => log_change(&delivery, change, &why),
        Err(e) => {
            // The row is still due: the attempt is repeated, which at-least-once allows.
            tracing::error!(delivery.id = %delivery.id, error = %e, "an attempt could not be recorded: {e}");
            core.clock.sleep_until(core.clock.now() + Duration::from_secs(1)).await;
        }
    }
    core.changed();
}

/// One line when an endpoint begins to fail and one when it is back, not one an attempt.
fn log_change(delivery: &DueDelivery, change: Change, why: &str) {
    let place = webhook::place(&delivery.url);
    match change {
        Change::None => {}
        Change::BeganFailing => {
            tracing::warn!(url.place = %place, "messages to {place} fail and are tried again: {why}");
        }
        Change::Recovered => tracing::info!(url.place = %place, "messages to {place} arrive again"),
        Change::Disabled => tracing::error!(
            url.place = %place,
            "{place} answered that it is gone and gets no more messages; `matins deliveries --enable URL` undoes it"
        ),
    }
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

/// What a delivery is authorised by, read now.
enum Credentials {
    None,
    Secrets(Secrets),
    Token(SecretString),
}

impl Credentials {
    fn read(core: &Core, delivery: &DueDelivery) -> Result<Self, String> {
        // Slack's have none, whatever a file says: one that is unset must not keep a message.
        let source = delivery.secret.as_ref().filter(|_| delivery.format != Format::Slack);
        let Some(source) = source else {
            return Ok(Self::None);
        };
        let value = core.secret(source)?;
        match delivery.format {
            Format::Ntfy => Ok(Self::Token(value.expose_secret().trim().into())),
            Format::Standard | Format::Slack => {
                Secrets::parse(value.expose_secret()).map(Self::Secrets).map_err(|e| e.to_string())
            }
        }
    }

    fn auth(&self) -> Auth<'_> {
        match self {
            Self::None => Auth::None,
            Self::Secrets(secrets) => Auth::Signed(secrets),
            Self::Token(token) => Auth::Token(token),
        }
    }
}

async fn send(core: &Core, sender: &Sender, delivery: &DueDelivery) -> Attempt {
    if store::is_command(&delivery.url) {
        return alarm::attempt(core, delivery).await;
    }
    let credentials = match Credentials::read(core, delivery) {
        Ok(credentials) => credentials,
        // Unsigned is not a fall-back: a receiver that checks would drop it for good.
        Err(e) => {
            return unsent(core.clock.now_ms(), format!("the secret of the endpoint cannot be used: {e}"));
        }
    };
    let reach = if delivery.private { Reach::PrivateToo } else { core.caller_reach() };
    let endpoint = Endpoint { url: &delivery.url, auth: credentials.auth(), format: delivery.format, reach };
    sender.attempt(core.clock.as_ref(), &endpoint, &delivery.id, &delivery.body).await
}
