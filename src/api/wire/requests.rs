//! Bodies of requests as the document describes them. They are read field by field
//! (`Fields`), so that every field that does not fit is told of at once; these types say
//! which there are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Duration;
use crate::api::ContentItem;
use crate::model::Overlap;

/// A body that takes no field.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What a trigger changes for one run. Text is verbatim, never a template.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecuteRequest {
    /// Replaces the agent's prompt.
    pub prompt: Option<String>,
    /// What else the run is given; `text` is `prompt` in pieces, `json` is `input`.
    pub content: Option<Vec<ContentItem>>,
    /// Replaces the agent's input.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
    /// Replaces the list of seeded skills, by id.
    pub skills: Option<Vec<String>>,
    /// Replaces the agent's result schema.
    #[schema(value_type = Option<Object>)]
    pub result_schema: Option<Value>,
    /// Replaces the agent's timeout: `90s`, `1h 30m` or a number of seconds.
    #[schema(value_type = Option<Duration>)]
    pub timeout: Option<Value>,
    /// The model to ask: an alias of the settings, or `provider/model`. Only of agents that ask one.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    pub model: Option<String>,
    /// One more endpoint, for this run only.
    #[schema(pattern = "^https?://[^ ]+$")]
    pub webhook_url: Option<String>,
    /// Session whose workspace it shares.
    #[schema(pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")]
    pub session_id: Option<String>,
    /// The variant of the agent that it is of.
    pub execution_key: Option<String>,
    /// Whether it first does again, without a model, what an earlier run of the agent did in its browser; left out: as
    /// the agent's `executor.cache` says.
    pub use_cached_workflow: Option<bool>,
    /// The workflow that it begins with, as `GET /v1/agents/{id}/workflows/{version}` gives it; an empty one is none.
    #[schema(value_type = Option<Object>)]
    pub cached_workflow: Option<Value>,
    /// What it does when the agent is busy.
    pub overlap: Option<Overlap>,
}

/// Past slots that run again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackfillRequestBody {
    /// Slots from this time on.
    #[schema(format = DateTime)]
    pub from: String,
    /// Slots before this time; now where none is given.
    #[schema(format = DateTime)]
    pub to: Option<String>,
    /// Only slots that nothing ran for.
    pub only_missed: Option<bool>,
    /// Admits nothing and says what it would.
    pub dry_run: Option<bool>,
}

/// Why an agent is paused.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PauseRequest {
    /// For whoever wonders later.
    #[schema(max_length = 1000)]
    pub reason: Option<String>,
}

/// How an agent goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRequest {
    /// Makes up for the slots of the pause, as its schedules' `catch_up` says.
    pub catch_up: Option<bool>,
}

/// The endpoint that is taken back.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnableRequest {
    /// Its URL.
    pub url: String,
}

/// Whom to ping: the endpoint of a URL, those of an agent, or without both those of the settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TestRequest {
    /// The agent.
    pub agent_id: Option<String>,
    /// The endpoint.
    pub url: Option<String>,
}
