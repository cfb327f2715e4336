//! The record of a run as the API, the command line and the webhooks show it: an *event*.
//! The first fields are the published ones of the runs API, in its order; ours follow.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Replay, RunState, Trigger};

/// A skill as it was seeded into a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeededSkill {
    /// The skill's id: the name of its folder.
    pub id: String,
    /// SHA-256 of its content in lower-case hexadecimal: paths and bytes of every file, in order.
    pub sha256: String,
}

/// A file that a run was given: one that somebody had uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunFile {
    /// The file's id.
    pub id: String,
    /// Its stable integer.
    pub number: i64,
    /// Its name in the run's folder `files`.
    pub name: String,
    /// Its media type, as whoever uploaded it said.
    pub media_type: String,
    /// Its length.
    pub bytes: i64,
    /// SHA-256 of its content in lower-case hexadecimal.
    pub sha256: String,
}

/// What a run consumed; `None` where unknown, never 0 by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: Option<u64>,
    /// Of these, read from the provider's cache.
    pub cached_input_tokens: Option<u64>,
    /// Tokens written to the provider's cache.
    pub cache_write_tokens: Option<u64>,
    /// Tokens received.
    pub output_tokens: Option<u64>,
    /// Of these, spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Calls of the model.
    pub model_calls: Option<u64>,
}

impl Usage {
    /// Both together; what only one knows stands as it is.
    #[must_use]
    pub fn sum(a: Self, b: Self) -> Self {
        let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (known, None) | (None, known) => known,
        };
        Self {
            input_tokens: add(a.input_tokens, b.input_tokens),
            cached_input_tokens: add(a.cached_input_tokens, b.cached_input_tokens),
            cache_write_tokens: add(a.cache_write_tokens, b.cache_write_tokens),
            output_tokens: add(a.output_tokens, b.output_tokens),
            reasoning_tokens: add(a.reasoning_tokens, b.reasoning_tokens),
            model_calls: add(a.model_calls, b.model_calls),
        }
    }
}

/// One run as others see it. Times are RFC 3339 with milliseconds, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The run's id.
    pub id: String,
    /// The agent's id.
    pub agent_id: String,
    /// Who triggered it; `None` for the scheduler.
    pub user_id: Option<String>,
    /// PENDING, RUNNING, COMPLETED or FAILED.
    pub status: RunState,
    /// When the program was released.
    pub started_at: Option<String>,
    /// When the run ended.
    pub completed_at: Option<String>,
    /// The failure's sentence.
    pub error: Option<String>,
    /// Name of the model that answered last.
    pub final_model: Option<String>,
    /// Steps taken in a browser.
    pub browser_step_count: Option<u64>,
    /// Seconds a browser was open.
    pub browser_session_seconds: Option<u64>,
    /// When the run was admitted.
    pub created_at: String,
    /// When the record last changed.
    pub updated_at: String,
    /// The request that made it; equal to `id`.
    pub request_id: String,
    /// The run's stable integer.
    pub number: i64,
    /// The workspace's id; by default the run's own.
    pub session_id: String,
    /// The session's stable integer: the number of the first run in it.
    #[serde(default)]
    pub conversation: i64,
    /// What made it.
    pub trigger: Trigger,
    /// Nominal instant of its slot.
    pub scheduled_for: Option<String>,
    /// The schedule of that slot.
    pub schedule_id: Option<String>,
    /// Admission minus nominal instant.
    pub lateness_ms: Option<i64>,
    /// Number of the current or last attempt, from 1; 0 before the first.
    pub attempt: i64,
    /// Code of the failure.
    pub failure_code: Option<String>,
    /// The failure's sentence; equal to `error`.
    pub failure_explanation: Option<String>,
    /// Exit code of its last attempt's program; `None` where it ended by a signal or never ran.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The signal that ended its last attempt's program.
    #[serde(default)]
    pub signal: Option<i32>,
    /// The variant of the agent that it is of.
    #[serde(default)]
    pub execution_key: Option<String>,
    /// When it may start, or go on with its next attempt, where it waits for a time.
    #[serde(default)]
    pub not_before: Option<String>,
    /// Whether its gate found nothing to do.
    pub gated: bool,
    /// Whether its logs were removed to spare the disk.
    #[serde(default)]
    pub logs_removed: bool,
    /// Whether its result differs from that of the success before; `None`: nobody asked, or there is none.
    #[serde(default)]
    pub changed: Option<bool>,
    /// What the model cost in tokens.
    pub usage: Option<Usage>,
    /// What the model cost in US dollars.
    pub cost_usd: Option<f64>,
    /// The workflow that it began with; null: it began with none.
    #[serde(default)]
    pub workflow: Option<Replay>,
    /// Calls of a model that it did not make because of that; null: it began with none.
    #[serde(default)]
    pub saved_model_calls: Option<u64>,
    /// Tokens that it did not spend because of that; null: it began with none.
    #[serde(default)]
    pub saved_tokens: Option<u64>,
    /// SHA-256 of the definition it ran with.
    pub definition_sha256: String,
    /// Skills seeded, with digests; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<SeededSkill>>,
    /// Uploaded files that it was given; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<RunFile>>,
    /// The overridden input; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The structured result; absent in lists, null where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}
