//! Messages: which endpoints hear of a run, and what they are told.

use serde_json::{Value, json};

use super::Core;
use crate::ids::{AgentId, DeliveryId};
use crate::model::{Agent, Event, Overrides, RunState, SecretSource, Webhook, WebhookEvent};
use crate::store::{self, NewDelivery};
use crate::webhook;

impl Core {
    /// The deliveries of a run that ended as `event` says: one for each endpoint that wants to hear.
    pub(super) fn messages(
        &self,
        agent: &Agent,
        overrides: &Overrides,
        event: &Event,
        at_ms: i64,
    ) -> Vec<NewDelivery> {
        let kind = match event.status {
            RunState::Completed => WebhookEvent::RunCompleted,
            _ => WebhookEvent::RunFailed,
        };
        let mut body = None;
        let mut made: Vec<NewDelivery> = Vec::new();
        for (url, secret, private) in self.endpoints(agent, overrides, kind) {
            // One endpoint hears of one run once, however often it is named.
            if made.iter().any(|d| d.url == url) {
                continue;
            }
            let body = body.get_or_insert_with(|| webhook::payload(kind.as_str(), at_ms, &data(event)));
            made.push(NewDelivery {
                id: DeliveryId::generate(at_ms, self.entropy.as_ref()),
                event: kind,
                url,
                secret,
                private,
                body: body.clone(),
            });
        }
        made
    }

    /// Whether anybody hears of runs of this agent at all.
    pub(super) fn has_endpoints(&self, agent: &Agent, overrides: &Overrides) -> bool {
        !agent.webhooks.is_empty() || !self.settings().webhooks.is_empty() || overrides.webhook_url.is_some()
    }

    /// The messages about `agent` itself: one for each endpoint that wants to hear of `kind`.
    pub(super) fn agent_messages(
        &self,
        agent: &Agent,
        kind: WebhookEvent,
        data: &Value,
        at_ms: i64,
    ) -> Vec<NewDelivery> {
        let endpoints = self.endpoints(agent, &Overrides::default(), kind);
        let mut seen = std::collections::HashSet::new();
        let once = endpoints.into_iter().filter(|(url, ..)| seen.insert(url.clone()));
        once.map(|(url, secret, private)| NewDelivery {
            id: DeliveryId::generate(at_ms, self.entropy.as_ref()),
            event: kind,
            url,
            secret,
            private,
            body: webhook::payload(kind.as_str(), at_ms, data),
        })
        .collect()
    }

    fn endpoints(
        &self,
        agent: &Agent,
        overrides: &Overrides,
        kind: WebhookEvent,
    ) -> Vec<(String, Option<SecretSource>, bool)> {
        let wants = |w: &&Webhook| w.events.contains(&kind);
        let settings = self.settings();
        let of_files = agent.webhooks.iter().chain(&settings.webhooks).filter(wants);
        let mut all: Vec<_> = of_files.map(|w| (w.url.clone(), w.secret.clone(), true)).collect();
        if let Some(url) = &overrides.webhook_url {
            all.push((url.clone(), settings.webhook_secret.clone(), false));
        }
        all
    }
}

/// Why no ping was sent.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(String),
    /// Nobody would hear it.
    #[error("no webhook is configured; add `webhooks:` to the agent or to the settings")]
    NoEndpoint,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Core {
    /// Sends a `ping` to every endpoint of an agent, or to those of the settings; the ids of the deliveries.
    ///
    /// # Errors
    /// [`PingError`] says why nothing is sent.
    pub async fn ping(&self, agent: Option<AgentId>) -> Result<Vec<DeliveryId>, PingError> {
        let now_ms = self.clock.now_ms();
        let mut endpoints: Vec<Webhook> = self.settings().webhooks.clone();
        if let Some(id) = &agent {
            let entry = self.catalog.get(id).ok_or_else(|| PingError::UnknownAgent(id.to_string()))?;
            endpoints.extend(entry.agent.webhooks.iter().cloned());
        }
        let mut sent = Vec::new();
        for endpoint in endpoints {
            let id = DeliveryId::generate(now_ms, self.entropy.as_ref());
            let data = json!({ "agentId": agent.as_ref().map(AgentId::as_str) });
            let delivery = NewDelivery {
                id: id.clone(),
                event: WebhookEvent::Ping,
                url: endpoint.url,
                secret: endpoint.secret,
                private: true,
                body: webhook::payload(WebhookEvent::Ping.as_str(), now_ms, &data),
            };
            self.store.add_delivery(delivery, now_ms).await?;
            sent.push(id);
        }
        if sent.is_empty() {
            return Err(PingError::NoEndpoint);
        }
        self.wake.deliverer.notify_one();
        Ok(sent)
    }

    /// Makes a delivery due again; `false` if there is none of this id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn redeliver(&self, id: DeliveryId) -> Result<bool, store::Error> {
        let found = self.store.redeliver(id, self.clock.now_ms()).await?;
        self.wake.deliverer.notify_one();
        Ok(found)
    }
}

/// The event without logs, plus links.
fn data(event: &Event) -> Value {
    let mut data = serde_json::to_value(event).unwrap_or(Value::Null);
    if let Value::Object(fields) = &mut data {
        let at = |tail: &str| format!("/v1/events/{}{tail}", event.id);
        fields.insert("links".to_owned(), json!({ "event": at(""), "logs": at("/logs") }));
    }
    data
}
