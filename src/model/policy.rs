//! What an agent says beside its prompt and its schedules: how a run is tried again, stopped, judged,
//! confined and told of.
//!
//! Every type here has the meaning of a missing key as its `Default`, and is read with
//! `#[serde(default)]`, so that the snapshot of a definition that was stored before a key existed is
//! still the definition that it was.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FailureCode, words};

/// A kind of failure after which another attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// The program ended with a code that is not 0, or by a signal.
    Exit,
    /// A time limit was reached: `timeout` or `idle_timeout`.
    Timeout,
    /// Something that may be gone the next time: the model's provider failed or its rate limit was hit.
    Transient,
    /// The attempt was lost with the daemon's machine or its launcher.
    Interrupted,
}

words!(RetryOn { Exit => "exit", Timeout => "timeout", Transient => "transient", Interrupted => "interrupted" });

impl RetryOn {
    /// The kind to which a failure code belongs; `None`: never tried again.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        match code.parse().ok()? {
            FailureCode::RuntimeError => Some(Self::Exit),
            FailureCode::Timeout | FailureCode::IdleTimeout => Some(Self::Timeout),
            FailureCode::ProviderError | FailureCode::RateLimited => Some(Self::Transient),
            FailureCode::Interrupted => Some(Self::Interrupted),
            _ => None,
        }
    }
}

/// How often and when a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub max: u32,
    /// Wait before the second attempt.
    pub initial: Duration,
    /// By what each wait is longer than the one before, at least 1.
    pub factor: f64,
    /// Longest wait, before jitter.
    pub max_delay: Duration,
    /// Random part of a wait, 0 to 1: 0.2 is +-20 %.
    pub jitter: f64,
    /// After which failures.
    pub on: Vec<RetryOn>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 1,
            initial: Duration::from_secs(30),
            factor: 2.0,
            max_delay: Duration::from_mins(15),
            jitter: 0.2,
            on: RetryOn::ALL.to_vec(),
        }
    }
}

impl Retry {
    /// The wait after attempt number `attempt` (from 1); `random` is uniform in 0..1.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let longest = self.max_delay.as_secs_f64();
        let plain = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(longest);
        let jittered = plain * (1.0 + self.jitter * (2.0 * random - 1.0));
        Duration::try_from_secs_f64(jittered.max(0.0)).unwrap_or(self.max_delay)
    }
}

/// What becomes of a run whose attempt was lost with the daemon's machine or its launcher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnInterrupt {
    /// It ends FAILED `interrupted`: at most once per slot.
    #[default]
    Fail,
    /// Another attempt is made; only for an agent that says `idempotent: true`.
    Retry,
}

words!(OnInterrupt { Fail => "fail", Retry => "retry" });

/// The circuit breaker: consecutive failed runs pause the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failed runs in a row that open it; 0: never.
    pub failures: u32,
    /// After this time one run is let through as a probe; `None`: only `matins resume` closes it.
    pub probe_after: Option<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, probe_after: None }
    }
}

/// What may be used up in 24 hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Model tokens, input and output.
    pub tokens_per_day: Option<u64>,
    /// US dollars.
    pub usd_per_day: Option<f64>,
    /// Runs admitted by schedules.
    pub runs_per_day: Option<u64>,
}

/// Order among runs that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// First.
    High,
    /// In between.
    #[default]
    Normal,
    /// Last. Catch-ups too.
    Low,
}

words!(Priority { High => "high", Normal => "normal", Low => "low" });

/// A program that is run beside the executor: a gate, a verifier, an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program and arguments, as in an executor.
    pub command: Vec<String>,
    /// Longest time.
    #[serde(default = "Hook::default_timeout")]
    pub timeout: Duration,
}

impl Hook {
    /// Longest time of a hook where the file says nothing.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

    fn default_timeout() -> Duration {
        Self::DEFAULT_TIMEOUT
    }
}

/// What must hold beside the exit code for a run to be COMPLETED.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuccessWhen {
    /// A result is there and fits `result_schema`.
    pub result: bool,
    /// This file exists and is not empty; relative to the working directory.
    pub file: Option<String>,
    /// This regular expression matches stdout.
    pub output: Option<String>,
    /// This verifier ends with code 0.
    pub verify: Option<Hook>,
}

impl SuccessWhen {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run may do on the control socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiScope {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Read,
    /// Read, and trigger agents.
    Trigger,
}

words!(ApiScope { None => "none", Read => "read", Trigger => "trigger" });

/// What the holder of a token may do. Each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenScope {
    /// Read.
    Read,
    /// Start and stop runs.
    Trigger,
    /// Everything.
    Admin,
}

words!(TokenScope { Read => "read", Trigger => "trigger", Admin => "admin" });

/// Whether a run may open network connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// Yes.
    #[default]
    Allow,
    /// No TCP connection and no TCP listener.
    Deny,
}

words!(Network { Allow => "allow", Deny => "deny" });

/// Which ends of runs are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NotifyWhen {
    /// Each.
    #[default]
    Always,
    /// Failures, and successes whose result differs from that of the success before.
    Changed,
    /// Failures.
    Failed,
    /// Failures, and the first success after one.
    Recovered,
}

words!(NotifyWhen { Always => "always", Changed => "changed", Failed => "failed", Recovered => "recovered" });

/// The shape of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Standard Webhooks: the event as JSON, signed.
    #[default]
    Standard,
    /// An incoming webhook of Slack, or of what speaks like it.
    Slack,
    /// A topic of ntfy.
    Ntfy,
}

words!(Format { Standard => "standard", Slack => "slack", Ntfy => "ntfy" });

/// A named variant of an agent, an entry of `executions:`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variant {
    /// Its name for people; its key where the file gives none.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Replaces the agent's prompt; a template.
    pub prompt: Option<String>,
    /// Replaces the agent's `input_schema`.
    pub input_schema: Option<Value>,
    /// Replaces the agent's `result_schema`.
    pub result_schema: Option<Value>,
    /// Extensions of files that may be uploaded, with their dot; empty: none.
    pub files: Vec<String>,
}

/// What an agent asks for beside what every agent needs. Flattened into [`super::Agent`] it would be
/// one more screen of fields; the keys stand at the top of the file all the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// Attempts.
    pub retry: Retry,
    /// Bound on all attempts and the waits between them, from the first start.
    pub total_timeout: Option<Duration>,
    /// Bound on silence: no output and no step.
    pub idle_timeout: Option<Duration>,
    /// What becomes of an interrupted run.
    pub on_interrupt: OnInterrupt,
    /// Whether doing it twice does no harm.
    pub idempotent: bool,
    /// When it is paused by itself.
    pub breaker: Breaker,
    /// What it may use up.
    pub budget: Budget,
    /// First signal of an end; `None`: SIGTERM.
    pub kill_signal: Option<i32>,
    /// Runs with the same value, of whichever agent, stand in each other's way as runs of one agent
    /// do. A template; `None`: the agent.
    pub concurrency_key: Option<String>,
    /// Pool of the daemon's `pools:` in which it takes a place.
    pub pool: Option<String>,
    /// Order among runs that wait.
    pub priority: Priority,
    /// Asked first whether there is anything to do.
    pub gate: Option<Hook>,
    /// What must hold at the end.
    pub success_when: SuccessWhen,
    /// Session that its runs share. A template; `None`: each run has one of its own.
    pub session: Option<String>,
    /// User that runs it; `None`: the daemon's.
    pub user: Option<String>,
    /// `sandbox: off`: no Landlock.
    pub unconfined: bool,
    /// What its runs may do on the control socket.
    pub api: ApiScope,
    /// Which ends are told of.
    pub notify: NotifyWhen,
    /// Started for each failure that is told of.
    pub on_failure: Option<Hook>,
    /// `agent.overdue` is raised after this time without a success.
    pub expect_success_within: Option<Duration>,
    /// An outside monitor's address: `/start`, nothing or `/fail` is added to its path.
    pub ping_url: Option<String>,
    /// Number of a data set, for callers that know one.
    pub dataset_id: Option<i64>,
    /// Failure codes of its own, with a sentence each.
    pub failure_codes: BTreeMap<String, String>,
    /// Named variants.
    pub executions: BTreeMap<String, Variant>,
}

/// Limits of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Most bytes on stdout and stderr together.
    pub output: u64,
    /// Most memory, bytes: of the whole tree in a cgroup, else of each process (`RLIMIT_DATA`).
    pub memory: Option<u64>,
    /// Most processors, in whole ones; needs a cgroup.
    pub cpu: Option<f64>,
    /// Most processes; needs a cgroup.
    pub processes: Option<u64>,
    /// Whether it may reach the network.
    pub network: Network,
}

impl Limits {
    /// `limits.output` where the file says nothing, bytes.
    pub const DEFAULT_OUTPUT: u64 = 64 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            output: Self::DEFAULT_OUTPUT,
            memory: None,
            cpu: None,
            processes: None,
            network: Network::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let retry = Retry::default();
        let secs: Vec<u64> = (1..8).map(|n| retry.delay(n, 0.5).as_secs()).collect();
        assert_eq!(secs, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(retry.delay(1, 0.0), Duration::from_secs(24));
        assert_eq!(retry.delay(u32::MAX, 1.0).as_secs(), 1080);
    }

    #[test]
    fn an_empty_snapshot_is_the_default() {
        assert_eq!(serde_json::from_str::<Policies>("{}").unwrap(), Policies::default());
        assert_eq!(serde_json::from_str::<Limits>(r#"{"output":7}"#).unwrap().output, 7);
    }

    #[test]
    fn a_cancelled_run_is_never_tried_again() {
        for code in ["cancelled", "deadline", "superseded", "validation_failed", "refused", "ours"] {
            assert_eq!(RetryOn::of(code), None, "{code}");
        }
        assert_eq!(RetryOn::of("idle_timeout"), Some(RetryOn::Timeout));
    }
}
