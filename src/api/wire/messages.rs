//! The data of webhook messages as the document describes them, one type for each kind of message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Event, NotRun};

/// A run that ended.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunMessage {
    /// The run.
    #[serde(flatten)]
    pub event: Event,
    /// Where more of it is.
    pub links: RunLinks,
    /// Zone of its schedule; only of a scheduled run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub timezone: Option<String>,
    /// Under `notify: { when: recovered }`: it is the first success after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub recovered: Option<bool>,
    /// Under `notify: { when: changed }`: the difference of the results as a JSON Patch (RFC 6902); null for the first
    /// success and where it is too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub changes: Option<Value>,
    /// The difference is too large to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub changes_too_large: Option<bool>,
    /// It made the breaker pause its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub agent_paused: Option<bool>,
}

/// Paths of the API that tell more of a run.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunLinks {
    /// Its record.
    pub event: String,
    /// Its logs.
    pub logs: String,
}

/// Slots that came to nothing.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostMessage {
    /// The agent.
    pub agent_id: String,
    /// The schedule of that agent.
    pub schedule_id: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Nominal instant of the first.
    #[schema(format = DateTime)]
    pub first: String,
    /// Nominal instant of the last.
    #[schema(format = DateTime)]
    pub last: String,
    /// How many there are.
    #[schema(minimum = 1)]
    pub count: u64,
    /// Why nothing ran for them.
    pub reason: NotRun,
    /// The run that was in the way.
    pub in_the_way: Option<String>,
}

/// An agent that its failures paused.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerMessage {
    /// The agent.
    pub agent_id: String,
    /// How many runs in a row failed.
    pub failures: u32,
    /// The last failure, a sentence.
    pub reason: String,
    /// When it was paused.
    #[schema(format = DateTime)]
    pub paused_at: String,
    /// When a run is tried; null: when somebody resumes it.
    pub probe_at: Option<String>,
}

/// An agent without a success for longer than it should.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverdueMessage {
    /// The agent.
    pub agent_id: String,
    /// Its last success; null: it never had one.
    pub last_success_at: Option<String>,
    /// Since when it is known.
    #[schema(format = DateTime)]
    pub known_since: String,
    /// Within how long a success is expected.
    #[schema(minimum = 0)]
    pub expected_within_ms: i64,
    /// Whether it is paused.
    pub paused: bool,
}

/// An endpoint that said that it is gone.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DisabledMessage {
    /// Its host and port; the rest of its URL may be a token.
    pub host: String,
    /// When it said so.
    #[schema(format = DateTime)]
    pub since: String,
}

/// A test.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PingMessage {
    /// The agent whose endpoints are tried.
    pub agent_id: Option<String>,
}
