//! An agent as it runs: everything its file says, resolved and checked.
//!
//! An agent serialises to JSON and back without loss. That JSON, named by its SHA-256, is the
//! snapshot that a run keeps: a run is carried out with the definition it was admitted with, and a
//! broken file can be answered from the last good one. No secret value is ever in it, only sources.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Format, Limits, Llm, Overlap, Overrides, Policies, Schedule, SlotOverrides, Variant, words};
use crate::ids::AgentId;

/// How a program's outcome is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Exit code, and the result file or stdout.
    Plain,
    /// As plain, and NDJSON lines in the events file.
    Matins,
    /// Claude Code, started by a preset: `claude -p --output-format stream-json`.
    Claude,
    /// Codex, started by a preset: `codex exec --json`.
    Codex,
    /// Gemini CLI, started by a preset: `gemini --output-format stream-json`.
    Gemini,
}

words!(Protocol {
    Plain => "plain",
    Matins => "matins",
    Claude => "claude",
    Codex => "codex",
    Gemini => "gemini",
});

impl Protocol {
    /// Whether the program is an agent's command line tool, whose arguments and output we know.
    #[must_use]
    pub fn is_preset(self) -> bool {
        matches!(self, Self::Claude | Self::Codex | Self::Gemini)
    }
}

/// What a command line tool of a preset is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preset {
    /// An alias of the daemon's `models:`, provider/model, or a name that the tool knows; `None`: the tool's own
    /// choice.
    pub model: Option<String>,
    /// Most steps.
    pub max_steps: Option<u64>,
    /// Most tokens.
    pub max_tokens: Option<u64>,
    /// Most US dollars.
    pub max_cost_usd: Option<f64>,
}

impl Preset {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How an attempt is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Executor {
    /// A program.
    Command {
        /// Program and arguments; each may hold `{{ }}`. A first element with a `/` that is
        /// relative is resolved against the agent file's directory, another is looked up in PATH.
        command: Vec<String>,
        /// How its outcome is read.
        protocol: Protocol,
        /// What a preset's tool is asked for; empty with another protocol.
        #[serde(default, skip_serializing_if = "Preset::is_empty")]
        preset: Preset,
    },
    /// The built-in agent.
    Llm(Box<Llm>),
}

/// Where a secret's value comes from. The value itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// An environment variable of the daemon.
    Env(String),
    /// A file; its trailing newline is cut.
    File(PathBuf),
    /// A systemd credential by name.
    Credential(String),
}

/// A type of webhook message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookEvent {
    /// A run ended COMPLETED.
    RunCompleted,
    /// A run ended FAILED.
    RunFailed,
    /// Slots were lost: nothing ran for them and nothing will.
    RunMissed,
    /// A slot was left out for an overlap, a full queue, a budget or an open breaker.
    RunSkipped,
    /// Failures in a row paused an agent.
    BreakerOpened,
    /// An agent had no success for as long as it should.
    AgentOverdue,
    /// An endpoint said that it is gone, and gets no more messages.
    EndpointDisabled,
    /// A test message.
    Ping,
}

impl WebhookEvent {
    /// What an endpoint hears of that names no events. That an agent is paused for its failures is one:
    /// after it there are no failures to hear of.
    pub const DEFAULT: [Self; 3] = [Self::RunCompleted, Self::RunFailed, Self::BreakerOpened];
}

words!(WebhookEvent {
    RunCompleted => "run.completed",
    RunFailed => "run.failed",
    RunMissed => "run.missed",
    RunSkipped => "run.skipped",
    BreakerOpened => "agent.breaker_opened",
    AgentOverdue => "agent.overdue",
    EndpointDisabled => "endpoint.disabled",
    Ping => "ping",
});

/// One endpoint of an agent or of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to send, http or https.
    pub url: String,
    /// Signing secret, `whsec_..`; without it messages are unsigned.
    pub secret: Option<SecretSource>,
    /// Which messages it gets.
    pub events: Vec<WebhookEvent>,
    /// The shape of its messages.
    #[serde(default)]
    pub format: Format,
}

/// A skill that an agent seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// Name of its folder below `skills_dir`.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
}

/// A checked agent definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name for people; the id where the file gives none.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The file it was read from.
    pub file: PathBuf,
    /// Prompt template.
    pub prompt: String,
    /// Skills that are seeded, in order.
    pub skills: Vec<Skill>,
    /// Input; `{}` where the file gives none.
    pub input: Value,
    /// What an input must be.
    pub input_schema: Option<Value>,
    /// What a result must be; a result is promised where it is given.
    pub result_schema: Option<Value>,
    /// How it is carried out.
    pub executor: Executor,
    /// Variables of the program.
    pub env: BTreeMap<String, String>,
    /// Secret variables of the program.
    pub secrets: BTreeMap<String, SecretSource>,
    /// When it is due.
    pub schedules: Vec<Schedule>,
    /// Overlap of its schedules where they say nothing.
    pub overlap: Overlap,
    /// Most runs at once where a schedule says nothing.
    pub max_concurrent: Option<u32>,
    /// Longest time of one attempt; `None` is unbounded.
    pub timeout: Option<Duration>,
    /// Time between the first signal of an end and SIGKILL; `None`: the daemon's.
    pub kill_grace: Option<Duration>,
    /// Working directory; `None`: the session's workspace.
    pub cwd: Option<PathBuf>,
    /// Limits of one attempt.
    pub limits: Limits,
    /// Endpoints that hear of its runs.
    pub webhooks: Vec<Webhook>,
    /// Everything else that it asks for.
    #[serde(default)]
    pub policies: Policies,
}

impl Agent {
    /// Timeout of one attempt where the file says nothing.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);
    /// The same of an agent that the built-in agent carries out.
    pub const LLM_TIMEOUT: Duration = Duration::from_mins(30);

    /// The directory of its file, against which relative paths of the definition resolve.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.file.parent().unwrap_or_else(|| std::path::Path::new("/"))
    }

    /// The variant that a run is of.
    #[must_use]
    pub fn variant(&self, overrides: &Overrides) -> Option<&Variant> {
        self.policies.executions.get(overrides.execution_key.as_deref()?)
    }

    /// The template of a run's prompt where its trigger gives none: of its variant, its schedule or the agent.
    #[must_use]
    pub fn template<'a>(&'a self, overrides: &Overrides, slot: Option<&'a SlotOverrides>) -> &'a str {
        let variant = self.variant(overrides).and_then(|variant| variant.prompt.as_deref());
        variant.or_else(|| slot?.prompt.as_deref()).unwrap_or(&self.prompt)
    }

    /// What the result of a run must be, as its trigger says, its variant or the agent.
    #[must_use]
    pub fn promised<'a>(&'a self, overrides: &'a Overrides) -> Option<&'a Value> {
        let variant = self.variant(overrides).and_then(|variant| variant.result_schema.as_ref());
        overrides.result_schema.as_ref().or(variant).or(self.result_schema.as_ref())
    }

    /// The snapshot: canonical JSON and its SHA-256.
    ///
    /// # Errors
    /// None for an agent that was read from a file; JSON cannot hold e.g. a path that is not UTF-8.
    pub fn snapshot(&self) -> Result<(String, [u8; 32]), serde_json::Error> {
        let json = serde_json::to_string(self)?;
        let digest = Sha256::digest(json.as_bytes());
        let mut sha = [0; 32];
        sha.copy_from_slice(&digest);
        Ok((json, sha))
    }
}
