//! Messages: who hears of what, and what they are told.
//!
//! A message is made before the transaction that makes true what it tells of, and becomes a row in
//! that transaction. An endpoint hears of one thing once, however often it is named. The commands of
//! `on_failure:` are endpoints like the others: their rows survive what webhooks survive.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Core;
use super::catalog::{Entry, ScheduleEntry};
use super::run::Known;
use crate::ids::{AgentId, DeliveryId, Entropy};
use crate::model::{
    Agent, Event, Format, NotRun, NotifyWhen, Overrides, RunState, SecretSource, Webhook, WebhookEvent,
};
use crate::store::{self, AGENT_COMMAND, Compared, DAEMON_COMMAND, LostSlots, NewDelivery, TellLost};
use crate::time::rfc3339_ms;
use crate::webhook;

/// Longest JSON diff that goes with a message, bytes.
const CHANGES_MAX: usize = 16 << 10;

/// Who hears a message.
#[derive(Debug, Clone)]
struct Target {
    url: String,
    secret: Option<SecretSource>,
    format: Format,
    private: bool,
}

impl Target {
    fn of(webhook: &Webhook) -> Self {
        Self {
            url: webhook.url.clone(),
            secret: webhook.secret.clone(),
            format: webhook.format,
            private: true,
        }
    }

    /// A command of `on_failure:`: it gets the event as JSON.
    fn command(url: &str) -> Self {
        Self { url: url.to_owned(), secret: None, format: Format::Standard, private: true }
    }
}

/// What the end of a run is told as.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The messages.
    pub deliveries: Vec<NewDelivery>,
    /// The same where the agent is paused by it. Only the transaction that counts the failure knows.
    pub if_paused: Vec<NewDelivery>,
    /// Whether its result differs from that of the success before; `None` where nobody asked.
    pub changed: Option<bool>,
    /// What that was compared with.
    pub compared: Compared,
}

/// One message for each of `targets`, in the shape that each wants.
fn messages(
    entropy: &dyn Entropy,
    targets: Vec<Target>,
    kind: WebhookEvent,
    data: &Value,
    at_ms: i64,
) -> Vec<NewDelivery> {
    let mut bodies: Vec<(Format, String)> = Vec::new();
    let mut made: Vec<NewDelivery> = Vec::with_capacity(targets.len());
    for Target { url, secret, format, private, .. } in targets {
        if made.iter().any(|d| d.url == url) {
            continue;
        }
        let known = bodies.iter().find(|(f, _)| *f == format).map(|(_, body)| body.clone());
        let body = known.unwrap_or_else(|| {
            let body = webhook::body(format, kind, at_ms, data);
            bodies.push((format, body.clone()));
            body
        });
        made.push(NewDelivery {
            id: DeliveryId::generate(at_ms, entropy),
            event: kind,
            url,
            secret,
            private,
            format,
            agent: None,
            once: None,
            body,
        });
    }
    made
}

/// What is worth a person's attention even where no endpoint is.
const ALARMS: [WebhookEvent; 3] =
    [WebhookEvent::RunFailed, WebhookEvent::BreakerOpened, WebhookEvent::AgentOverdue];

impl Core {
    /// The messages that tell of a run that ended as `event` says; `may_pause`: it may be the one that
    /// pauses its agent.
    pub(super) async fn run_messages(
        &self,
        number: i64,
        known: &Known,
        event: &Event,
        may_pause: bool,
        at_ms: i64,
    ) -> Told {
        let Known { agent, overrides } = known;
        let kind = match event.status {
            RunState::Completed => WebhookEvent::RunCompleted,
            _ => WebhookEvent::RunFailed,
        };
        let news = self.news(number, agent.policies.notify, event).await;
        let mut targets = self.targets(agent, kind);
        if !news.wanted {
            targets.clear();
        }
        if let Some(url) = &overrides.webhook_url {
            let secret = self.settings().webhook_secret.clone();
            let caller = Target { url: url.clone(), secret, format: Format::Standard, private: false };
            targets.push(caller);
        }
        if targets.is_empty() {
            return Told { changed: news.changed, compared: news.compared, ..Told::default() };
        }
        let mut data = data(event);
        if let Value::Object(fields) = &mut data {
            fields.extend(news.fields);
        }
        let schedule = agent.schedules.iter().find(|s| Some(s.id.as_str()) == event.schedule_id.as_deref());
        if let Some(schedule) = schedule {
            data["timezone"] = json!(schedule.timing.timezone());
        }
        let entropy = self.entropy.as_ref();
        let deliveries = messages(entropy, targets.clone(), kind, &data, at_ms);
        let mut if_paused = Vec::new();
        if may_pause {
            data["agentPaused"] = Value::Bool(true);
            if_paused = messages(entropy, targets, kind, &data, at_ms);
        }
        Told { deliveries, if_paused, changed: news.changed, compared: news.compared }
    }

    /// Whether anybody hears of runs of this agent at all.
    pub(super) fn has_endpoints(&self, agent: &Agent, overrides: &Overrides) -> bool {
        let settings = self.settings();
        !agent.webhooks.is_empty()
            || !settings.webhooks.is_empty()
            || overrides.webhook_url.is_some()
            || agent.policies.on_failure.is_some()
            || settings.on_failure.is_some()
    }

    /// Who hears of a `kind` of this agent.
    fn targets(&self, agent: &Agent, kind: WebhookEvent) -> Vec<Target> {
        let wants = |w: &&Webhook| w.events.contains(&kind);
        let settings = self.settings();
        let of_files = agent.webhooks.iter().chain(&settings.webhooks).filter(wants);
        let mut targets: Vec<Target> = of_files.map(Target::of).collect();
        if ALARMS.contains(&kind) {
            let own = agent.policies.on_failure.as_ref().map(|_| Target::command(AGENT_COMMAND));
            let common = settings.on_failure.as_ref().map(|_| Target::command(DAEMON_COMMAND));
            targets.extend(own.into_iter().chain(common));
        }
        targets
    }

    /// What makes the end of a run worth telling, by the agent's `notify:`.
    async fn news(&self, number: i64, when: NotifyWhen, event: &Event) -> News {
        let failed = event.status != RunState::Completed;
        match when {
            NotifyWhen::Always => News::plain(true),
            _ if failed => News::plain(true),
            NotifyWhen::Failed => News::plain(false),
            _ if event.gated => News::plain(false),
            NotifyWhen::Recovered => match self.store.previous_end(number).await {
                Ok(before) => {
                    let compared = Compared::Ended(before.map(|(run, _)| run));
                    let recovered = before.is_some_and(|(_, failed)| failed);
                    let news = if recovered {
                        News::with("recovered", Value::Bool(true))
                    } else {
                        News::plain(false)
                    };
                    News { compared, ..news }
                }
                Err(e) => News::unknown(&e),
            },
            NotifyWhen::Changed => match self.store.previous_result(number).await {
                Ok(before) => {
                    let (with, before) = before.unzip();
                    let news = changed(before, event.result.as_ref().unwrap_or(&Value::Null));
                    News { compared: Compared::Success(with), ..news }
                }
                Err(e) => News::unknown(&e),
            },
        }
    }

    /// The messages that tell something of an agent as a whole; `data` are the fields beside its id.
    /// They become rows in the transaction that makes it true.
    pub(super) fn agent_message(&self, kind: WebhookEvent, agent: &Agent, data: Value) -> Vec<NewDelivery> {
        let targets = self.targets(agent, kind);
        if targets.is_empty() {
            return Vec::new();
        }
        let mut fields = Map::from_iter([("agentId".to_owned(), json!(agent.id.as_str()))]);
        if let Value::Object(more) = data {
            fields.extend(more);
        }
        let number = self.catalog.get(&agent.id).map(|entry| entry.number);
        let now_ms = self.clock.now_ms();
        let mut made = messages(self.entropy.as_ref(), targets, kind, &Value::Object(fields), now_ms);
        for delivery in &mut made {
            delivery.agent = number;
        }
        made
    }

    /// Makes the messages of slots of this schedule that come to nothing; `None` where nobody listens.
    pub(super) fn tell_lost(&self, agent: &Entry, schedule: &ScheduleEntry, now_ms: i64) -> Option<TellLost> {
        let missed = self.targets(&agent.agent, WebhookEvent::RunMissed);
        let skipped = self.targets(&agent.agent, WebhookEvent::RunSkipped);
        if missed.is_empty() && skipped.is_empty() {
            return None;
        }
        let entropy = Arc::clone(&self.entropy);
        let (id, number) = (agent.agent.id.clone(), agent.number);
        let timezone = schedule.schedule.timing.timezone().to_owned();
        let (schedule_id, schedule) = (schedule.schedule.id.to_string(), schedule.number);
        Some(TellLost(Arc::new(move |lost: &LostSlots| {
            let (kind, targets) = match lost.reason {
                NotRun::MissedWindow => (WebhookEvent::RunMissed, missed.clone()),
                NotRun::Overlap | NotRun::QueueFull | NotRun::Budget | NotRun::Breaker => {
                    (WebhookEvent::RunSkipped, skipped.clone())
                }
                _ => return Vec::new(),
            };
            let data = json!({
                "agentId": id.as_str(),
                "scheduleId": schedule_id,
                "timezone": timezone,
                "first": rfc3339_ms(lost.first_ms),
                "last": rfc3339_ms(lost.last_ms),
                "count": lost.count,
                "reason": lost.reason.as_str(),
                "inTheWay": lost.in_the_way.map(|run| run.to_string()),
            });
            let mut made = messages(entropy.as_ref(), targets, kind, &data, now_ms);
            for delivery in &mut made {
                delivery.agent = Some(number);
                // Slots that an open breaker leaves out are one stretch.
                delivery.once = Some(match lost.since_ms {
                    Some(since_ms) => format!("{kind}:{schedule}:since:{since_ms}"),
                    None => format!("{kind}:{schedule}:{}", lost.first_ms),
                });
            }
            made
        })))
    }

    /// The messages that tell the others that an endpoint is gone: those of the settings, and of every
    /// agent that named it.
    pub(super) fn gone_messages(&self, url: &str, at_ms: i64) -> Vec<NewDelivery> {
        let kind = WebhookEvent::EndpointDisabled;
        let (agents, settings) = (self.catalog.all(), self.settings());
        let affected = agents.iter().filter(|a| a.agent.webhooks.iter().any(|w| w.url == url));
        let of_agents = affected.flat_map(|a| a.agent.webhooks.iter());
        let heard = of_agents
            .chain(&settings.webhooks)
            .filter(|w| w.url != url && w.events.contains(&kind))
            .map(Target::of)
            .collect();
        // The path of a URL may be a token.
        let data = json!({ "host": webhook::place(url), "since": rfc3339_ms(at_ms) });
        messages(self.entropy.as_ref(), heard, kind, &data, at_ms)
    }
}

/// What the end of a run is, beside that it ended.
struct News {
    wanted: bool,
    changed: Option<bool>,
    compared: Compared,
    fields: Map<String, Value>,
}

impl News {
    fn plain(wanted: bool) -> Self {
        Self { wanted, changed: None, compared: Compared::Nothing, fields: Map::new() }
    }

    fn with(key: &str, value: Value) -> Self {
        Self { fields: Map::from_iter([(key.to_owned(), value)]), ..Self::plain(true) }
    }

    /// What came before cannot be read. A message too many is better than one too few.
    fn unknown(e: &store::Error) -> Self {
        tracing::error!(error = %e, "what came before a run could not be read; it is told of: {e}");
        Self::plain(true)
    }
}

/// Compares a result with that of the success before. The first one is a change from nothing.
fn changed(before: Option<Value>, now: &Value) -> News {
    let Some(before) = before else {
        return News { changed: Some(true), ..News::with("changes", Value::Null) };
    };
    if before == *now {
        return News { changed: Some(false), ..News::plain(false) };
    }
    let patch = serde_json::to_value(json_patch::diff(&before, now)).unwrap_or(Value::Null);
    let mut news = News { changed: Some(true), ..News::with("changes", Value::Null) };
    if patch.to_string().len() <= CHANGES_MAX {
        news.fields.insert("changes".to_owned(), patch);
    } else {
        news.fields.insert("changesTooLarge".to_owned(), Value::Bool(true));
    }
    news
}

/// Why no ping was sent.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(String),
    /// No endpoint of this URL.
    #[error("no webhook has this URL; write it into an agent's `webhooks:` or into those of the settings")]
    UnknownUrl,
    /// Nobody would hear it.
    #[error("no webhook is configured; add `webhooks:` to the agent or to the settings")]
    NoEndpoint,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Whom a ping is for.
#[derive(Debug, Clone)]
pub enum PingTarget {
    /// The endpoints of the settings.
    Daemon,
    /// The endpoints of this agent and of the settings.
    Agent(AgentId),
    /// The endpoint of this URL, whoever names it.
    Url(String),
}

impl Core {
    /// Sends a `ping` to endpoints, commands of `on_failure:` included; the ids of the deliveries.
    ///
    /// # Errors
    /// [`PingError`] says why nothing is sent.
    pub async fn ping(&self, whom: PingTarget) -> Result<Vec<DeliveryId>, PingError> {
        let now_ms = self.clock.now_ms();
        let (targets, agent) = self.ping_targets(whom)?;
        let data = json!({ "agentId": agent.as_ref().map(|a| a.agent.id.as_str()) });
        let mut made = messages(self.entropy.as_ref(), targets, WebhookEvent::Ping, &data, now_ms);
        if made.is_empty() {
            return Err(PingError::NoEndpoint);
        }
        for delivery in &mut made {
            delivery.agent = agent.as_ref().map(|a| a.number);
        }
        let sent = made.iter().map(|d| d.id.clone()).collect();
        self.store.add_deliveries(made, now_ms).await?;
        self.wake.deliverer.notify_one();
        Ok(sent)
    }

    fn ping_targets(&self, whom: PingTarget) -> Result<(Vec<Target>, Option<Arc<Entry>>), PingError> {
        let settings = self.settings();
        let common = settings.webhooks.iter().map(Target::of);
        let command = settings.on_failure.as_ref().map(|_| Target::command(DAEMON_COMMAND));
        let common = common.chain(command);
        match whom {
            PingTarget::Daemon => Ok((common.collect(), None)),
            PingTarget::Agent(id) => {
                let entry = self.catalog.get(&id).ok_or_else(|| PingError::UnknownAgent(id.to_string()))?;
                let own = entry.agent.webhooks.iter().map(Target::of);
                let command =
                    entry.agent.policies.on_failure.as_ref().map(|_| Target::command(AGENT_COMMAND));
                let targets = own.chain(command).chain(common).collect();
                Ok((targets, Some(entry)))
            }
            PingTarget::Url(url) => {
                let agents = self.catalog.all();
                let all = || agents.iter().flat_map(|a| &a.agent.webhooks).chain(&settings.webhooks);
                let same = |w: &&Webhook| w.url == url || w.url.trim_end_matches('/') == url;
                let mut shown = all().filter(|w| webhook::shown(&w.url) == url);
                let only = shown.next().filter(|first| shown.all(|w| w.url == first.url));
                let found = all().find(same).or(only).ok_or(PingError::UnknownUrl)?;
                Ok((vec![Target::of(found)], None))
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_as_a_patch() {
        let before = json!({ "price": 10, "items": ["a", "b"] });
        let now = json!({ "price": 11, "items": ["a"] });
        let news = changed(Some(before.clone()), &now);
        assert!(news.wanted && news.changed == Some(true));
        let patch: json_patch::Patch = serde_json::from_value(news.fields["changes"].clone()).unwrap();
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, now);
        let same = changed(Some(before.clone()), &before);
        assert!(!same.wanted && same.changed == Some(false));
        let first = changed(None, &Value::Null);
        assert!(first.wanted && first.fields["changes"].is_null());
    }

    #[test]
    fn a_huge_change_is_told_without_its_patch() {
        let now = json!({ "text": "x".repeat(CHANGES_MAX) });
        let news = changed(Some(json!({ "text": "" })), &now);
        assert!(news.wanted && news.fields["changes"].is_null());
        assert_eq!(news.fields["changesTooLarge"], true);
    }
}
