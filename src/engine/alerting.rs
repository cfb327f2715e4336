//! How alerting itself does. An alarm that nobody hears is the failure that nobody notices, so what
//! fails on the way to people is kept, counted, and said by `matins status` and `matins doctor`.

use std::sync::Arc;

use tokio::sync::Notify;

use super::monitor::{self, Heartbeat, PingFailure};
use super::overdue::Overdue;
use super::{Core, alarm, looping};
use crate::model::Webhook;
use crate::store::{self, AGENT_COMMAND, DAEMON_COMMAND, DueDelivery, EndpointRow};
use crate::task::{self, OnEnd};

/// An endpoint that fails or is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Its URL, or whose `on_failure:` it is.
    pub endpoint: String,
    /// First failure since its last success, or when it said that it is gone; Unix ms.
    pub since_ms: i64,
    /// What went wrong last.
    pub error: Option<String>,
}

/// How alerting does.
#[derive(Debug, Clone, Default)]
pub struct Alerting {
    /// Endpoints whose messages fail.
    pub failing: Vec<EndpointHealth>,
    /// Endpoints that said that they are gone.
    pub disabled: Vec<EndpointHealth>,
    /// Commands of `on_failure:` that fail.
    pub on_failure: Vec<EndpointHealth>,
    /// Pings that are not heard.
    pub pings: Vec<PingFailure>,
    /// Messages that were given up.
    pub exhausted: i64,
    /// When the oldest message was made that waits, Unix ms.
    pub oldest_pending_ms: Option<i64>,
    /// Agents that are overdue.
    pub overdue: Vec<String>,
}

/// Starts what watches and what tells outside monitors.
pub(super) fn start(core: &Arc<Core>) {
    let watching = Arc::clone(core);
    core.tasks.spawn("overdue watch", OnEnd::Fatal, async move {
        let (watch, never) = (Overdue::new(Arc::clone(&watching)), Notify::new());
        let stop = watching.tasks.stop().clone().softened_owned();
        looping::run(&watching, watch, &never, stop).await;
    });
    let beating = Arc::clone(core);
    core.tasks.spawn("heartbeat", OnEnd::Fatal, async move {
        let (heartbeat, never) = (Heartbeat::new(Arc::clone(&beating)), Notify::new());
        let stop = beating.tasks.stop().clone().softened_owned();
        looping::run(&beating, heartbeat, &never, stop).await;
    });
    core.tasks.spawn("pings", OnEnd::Logged, monitor::run(Arc::clone(core)));
    let state_dir = core.state_dir().clone();
    core.tasks.spawn("leftovers of commands", OnEnd::Logged, async move {
        // Whatever cannot be removed stays for the next start.
        let _ = task::blocking(move || alarm::sweep(&state_dir)).await;
    });
}

impl Core {
    /// How alerting does.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn alerting(&self) -> Result<Alerting, store::Error> {
        let rows = self.store.alerting().await?;
        let mut alerting = Alerting {
            exhausted: rows.exhausted,
            oldest_pending_ms: rows.oldest_pending_ms,
            overdue: rows.overdue,
            ..Alerting::default()
        };
        let (agents, settings) = (self.catalog.all(), self.settings());
        let pinged = |of: &str| {
            (of == monitor::DAEMON && settings.ping_url.is_some())
                || agents.iter().any(|a| a.agent.id.as_str() == of && a.agent.policies.ping_url.is_some())
        };
        // One that nobody asks for any more is history too.
        alerting.pings = self.monitor.failures().into_iter().filter(|p| pinged(&p.of)).collect();
        for row in rows.endpoints {
            let command = self.command_name(&row.url);
            // A caller's URL that failed for good is history, not a state.
            let matters = command.is_some() || row.waiting || self.names(&row.url);
            let Some(health) = health(&row, command.as_deref()).filter(|_| matters) else { continue };
            match (row.disabled_at_ms, command) {
                (Some(_), _) => alerting.disabled.push(health),
                (None, Some(_)) => alerting.on_failure.push(health),
                (None, None) => alerting.failing.push(health),
            }
        }
        Ok(alerting)
    }

    /// Whose command an endpoint is, if it is one.
    fn command_name(&self, endpoint: &str) -> Option<String> {
        if endpoint == DAEMON_COMMAND {
            return Some("on_failure of the settings".to_owned());
        }
        let number = endpoint.strip_prefix(AGENT_COMMAND)?.strip_prefix(':')?.parse().ok()?;
        let agent = self.catalog.by_number(number).map(|entry| entry.agent.id.to_string());
        Some(format!("on_failure of {}", agent.unwrap_or_else(|| "an agent that was removed".to_owned())))
    }

    /// Whether a file names this URL.
    fn names(&self, url: &str) -> bool {
        let settings = self.settings();
        let named = |webhooks: &[Webhook]| webhooks.iter().any(|w| w.url == url);
        named(&settings.webhooks) || self.catalog.all().iter().any(|entry| named(&entry.agent.webhooks))
    }

    /// Whether a message is still wanted where it goes: its endpoint is a caller's, or in a file.
    pub(super) fn is_wanted(&self, delivery: &DueDelivery) -> bool {
        match delivery.url.as_str() {
            DAEMON_COMMAND => self.settings().on_failure.is_some(),
            AGENT_COMMAND => {
                let entry = delivery.agent.and_then(|number| self.catalog.by_number(number));
                entry.is_some_and(|entry| entry.agent.policies.on_failure.is_some())
            }
            url => !delivery.private || self.names(url),
        }
    }

    /// Takes a disabled endpoint back, by its URL or by what is shown of it if that is one only; `false` if
    /// none of this URL is disabled.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn enable_endpoint(&self, url: String) -> Result<bool, store::Error> {
        let disabled = self.store.alerting().await?.endpoints.into_iter();
        let disabled: Vec<String> =
            disabled.filter(|row| row.disabled_at_ms.is_some()).map(|row| row.url).collect();
        let mut shown = disabled.iter().filter(|one| crate::webhook::shown(one) == url);
        let url = match (shown.next(), shown.next()) {
            (Some(only), None) if !disabled.contains(&url) => only.clone(),
            _ => url,
        };
        let place = crate::webhook::place(&url);
        let enabled = self.store.enable_endpoint(url).await?;
        if enabled {
            tracing::info!(url.place = %place, "{place} gets messages again");
        }
        Ok(enabled)
    }
}

fn health(row: &EndpointRow, command: Option<&str>) -> Option<EndpointHealth> {
    Some(EndpointHealth {
        endpoint: command.map_or_else(|| row.url.clone(), str::to_owned),
        since_ms: row.disabled_at_ms.or(row.failing_since_ms)?,
        error: row.last_error.clone(),
    })
}
