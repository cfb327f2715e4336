//! Why a run failed: a closed set of codes, each with the sentence that `explain` prints. An agent
//! may register codes of its own beside them; ours never change their meaning.

use serde::{Deserialize, Serialize};

use super::words;

/// The closed table of failure codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// The program ended with a code that is not 0 or by a signal, or something unexpected broke inside.
    RuntimeError,
    /// The result was refused without a retry, or the agent stopped by its own word.
    ValidationFailed,
    /// The corrections of a refused result were used up.
    MaxRetriesExceeded,
    /// The program reported failure without a code.
    Unknown,
    /// The program could not be started.
    LaunchError,
    /// It ran longer than `timeout`.
    Timeout,
    /// It was silent longer than `idle_timeout`.
    IdleTimeout,
    /// It wrote more than `limits.output`.
    OutputLimit,
    /// It took more than `limits.max_steps`.
    StepLimit,
    /// A budget of tokens, money or runs was used up.
    BudgetExceeded,
    /// Somebody cancelled it.
    Cancelled,
    /// The daemon or the machine stopped under it.
    Interrupted,
    /// It waited in the queue beyond its start deadline.
    Deadline,
    /// A newer run of the same agent took its place in the queue.
    Superseded,
    /// The model's provider failed.
    ProviderError,
    /// The model's provider refused for its rate limit.
    RateLimited,
    /// The model refused.
    Refused,
    /// The unattended contract denied what the run needed.
    PermissionDenied,
}

words!(FailureCode {
    RuntimeError => "runtime_error",
    ValidationFailed => "validation_failed",
    MaxRetriesExceeded => "max_retries_exceeded",
    Unknown => "unknown",
    LaunchError => "launch_error",
    Timeout => "timeout",
    IdleTimeout => "idle_timeout",
    OutputLimit => "output_limit",
    StepLimit => "step_limit",
    BudgetExceeded => "budget_exceeded",
    Cancelled => "cancelled",
    Interrupted => "interrupted",
    Deadline => "deadline",
    Superseded => "superseded",
    ProviderError => "provider_error",
    RateLimited => "rate_limited",
    Refused => "refused",
    PermissionDenied => "permission_denied",
});

/// A failure: its code and one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of [`FailureCode`], or a code that the agent registered.
    pub code: String,
    /// What happened, in one sentence, without secrets.
    pub explanation: String,
}

impl Failure {
    /// A failure of the closed table.
    pub fn new(code: FailureCode, explanation: impl Into<String>) -> Self {
        Self { code: code.as_str().to_owned(), explanation: explanation.into() }
    }
}
