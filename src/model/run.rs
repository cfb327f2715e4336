//! The life of one run: PENDING -> RUNNING -> COMPLETED or FAILED, and PENDING -> FAILED where it
//! never starts. No other step exists; the store's statements and CHECKs say the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::workflow::{Cached, Workflow};
use super::{Failure, SeededSkill, Usage, words};
use crate::ids::FileId;

/// A word outside its closed vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Admitted, not started.
    Pending,
    /// Its launcher's identity is stored and the program was released.
    Running,
    /// It ended as it should.
    Completed,
    /// It ended otherwise; the failure code says how.
    Failed,
}

words!(RunState {
    Pending => "PENDING",
    Running => "RUNNING",
    Completed => "COMPLETED",
    Failed => "FAILED",
});

impl RunState {
    /// Whether no later state exists.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// What made a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// A slot, in time.
    Schedule,
    /// A slot that was missed and is made up for.
    CatchUp,
    /// A past slot that somebody asked to run again.
    Backfill,
    /// A person or a program asked for it.
    Manual,
}

words!(Trigger {
    Schedule => "schedule",
    CatchUp => "catch_up",
    Backfill => "backfill",
    Manual => "manual",
});

impl Trigger {
    /// Whether its run is one of the past: those go last, one at a time.
    #[must_use]
    pub const fn of_the_past(self) -> bool {
        matches!(self, Self::CatchUp | Self::Backfill)
    }
}

/// The stretch of nominal instants that a scheduled run stands for, `(start, end]`, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The last instant before the window: the nominal instant of the run before, or where the schedule began.
    pub start_ms: i64,
    /// The nominal instant of the run itself.
    pub end_ms: i64,
    /// Slots in the window, the run's own included.
    pub slots: u64,
}

/// What a trigger changes for one run. Text is verbatim, never a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Overrides {
    /// Replaces the agent's prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Replaces the agent's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Replaces the list of seeded skills, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    /// Replaces the agent's result schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_schema: Option<Value>,
    /// Replaces the agent's timeout, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The model to ask: an alias of the settings, or `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// One more endpoint, for this run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// Session whose workspace it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The variant of the agent that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_key: Option<String>,
    /// Uploaded files that are copied into its folder `files`, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub files: Option<Vec<FileId>>,
    /// Whether an archive of the run and its session is made when it has ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archive: bool,
    /// Whether it begins with what an earlier run did, without a model; by default as the definition says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_workflow: Option<bool>,
    /// The workflow that it begins with, in the place of the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub workflow: Option<Box<Workflow>>,
}

impl Overrides {
    /// Whether the run is as the definition says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Exit code of the built-in agent that could not begin, so that it has used up nothing.
pub const AGENT_NOT_BEGUN: u8 = 78;
/// Exit code of the built-in agent whose events file was removed or cut while it ran.
pub const AGENT_RECORD_CUT: u8 = 74;

/// How a run ended: what the finishing transaction writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `None`: COMPLETED.
    pub failure: Option<Failure>,
    /// The structured result, where one was promised or given.
    pub result: Option<Value>,
    /// What the model cost, where there was one.
    pub usage: Option<Usage>,
    /// Name of the model that answered last, as the provider spells it.
    pub final_model: Option<String>,
    /// What each model used up, as far as the program named one; under an empty name what nobody said it of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used_by: BTreeMap<String, Usage>,
    /// Steps taken.
    pub steps: Option<u64>,
    /// Exit code of the program; `None` where it ended by a signal or never ran.
    pub exit_code: Option<i32>,
    /// Signal that ended the program.
    pub signal: Option<i32>,
    /// Whether its gate found nothing to do; only of a run that is COMPLETED.
    pub gated: bool,
    /// What the model cost in US dollars, where that is known.
    pub cost_usd: Option<f64>,
    /// What is known of that where a part is not: calls of a model without a price beside others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_cost_usd: Option<f64>,
    /// Whether the lines in which it told what it used up were removed or cut: all that was reserved for it counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub usage_lost: bool,
    /// Why its logs are not whole.
    pub log_error: Option<String>,
    /// The skills that were seeded, with their digests.
    pub skills: Vec<SeededSkill>,
    /// What its agent keeps for later runs, in the order in which it was said: a key and its text; `None`: it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, Option<String>)>,
    /// Steps that it took in a browser, and how long one was open, milliseconds; `None`: it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<(u64, u64)>,
    /// What there is to say of workflows.
    #[serde(default)]
    pub cached: Box<Cached>,
}

impl Outcome {
    /// An outcome that only failed.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// What is known of what it cost: what budgets count. One call without a price does not make the others free.
    #[must_use]
    pub fn known_cost(&self) -> Option<f64> {
        self.cost_usd.or(self.known_cost_usd)
    }

    /// The state in which the run ends.
    #[must_use]
    pub fn state(&self) -> RunState {
        if self.failure.is_some() { RunState::Failed } else { RunState::Completed }
    }
}
