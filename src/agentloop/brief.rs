//! What an agent's process is told: everything of its run but the secrets, which are in its environment.
//!
//! The engine writes it as `brief.json` into the attempt's folder, and the process is started as `matins __agent
//! BRIEF`. It is complete: the agent reads no settings and speaks to no daemon, so it goes on whether the daemon
//! lives or not. What a later version added has a default, so that a brief of the version before is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AgentId, RunId};
pub use crate::model::Price;
use crate::model::{Llm, Trigger, Workflow};
use crate::time::millis_u64;

/// Version of [`Brief`]; an agent refuses another.
pub const BRIEF_VERSION: u32 = 1;

/// One attempt as the built-in agent carries it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// [`BRIEF_VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: AgentId,
    /// What made the run.
    pub trigger: Trigger,
    /// Nominal instant of the slot, RFC 3339.
    #[serde(default)]
    pub scheduled_for: Option<String>,
    /// The model that is asked, and those that are asked in its place, in order; at least one.
    pub models: Vec<Candidate>,
    /// Where everything is.
    pub paths: Paths,
    /// Names of the seeded skills, in order.
    pub seeded: Vec<String>,
    /// Skills that it may activate: read-only folders.
    #[serde(default)]
    pub catalogue: Vec<CatalogueSkill>,
    /// Tools beside those that every agent has.
    #[serde(default)]
    pub tools: Vec<String>,
    /// `shell:`; `None`: it has none.
    #[serde(default)]
    pub shell: Option<Shell>,
    /// Hosts that `http_fetch` reaches (`shop.example`, `*.shop.example`); empty: every public one.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The browser that the tool `browser` drives; `None`: it has none.
    #[serde(default)]
    pub browser: Option<Browser>,
    /// MCP servers, by name.
    #[serde(default)]
    pub mcp: BTreeMap<String, McpServer>,
    /// Commands that judge a result beyond its schema, in order.
    #[serde(default)]
    pub validators: Vec<Validator>,
    /// What bounds it.
    pub limits: Limits,
    /// The newest success before this run: `{id, completed_at, result}`; null where there is none.
    #[serde(default)]
    pub last_run: Value,
    /// What there is of workflows; `None`: the run has no browser, and none is recorded.
    #[serde(default)]
    pub cached: Option<Cached>,
    /// Names of environment variables that hold secrets of the definition: programs that it starts get them, and
    /// their values are shown nowhere.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// A model and how its provider is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The provider's name in the settings; names the candidate in steps and failures.
    pub provider: String,
    /// How it speaks: `openai`, `deepseek`, `anthropic`, `google`, `groq`, `mistral` or `together`; another name
    /// of the settings is one that speaks as `openai`.
    pub wire: String,
    /// The model's name there.
    pub model: String,
    /// Where its API is, with a slash at its end.
    pub base_url: String,
    /// The environment variable that holds the API key, which nobody but this process sees; `None`: it takes none.
    pub key_env: Option<String>,
    /// What it costs; `None`: unknown.
    pub price: Option<Price>,
    /// Most tokens of a conversation with it; `None`: unknown.
    #[serde(default)]
    pub context: Option<u64>,
}

/// The files and folders of an attempt, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The prompt, rendered.
    pub prompt: PathBuf,
    /// The input, JSON.
    pub input: PathBuf,
    /// What a result must be; `None`: anything.
    pub result_schema: Option<PathBuf>,
    /// The seeded skills, each a folder of its name.
    pub skills: PathBuf,
    /// Files that belong to the run.
    pub files: PathBuf,
    /// The session's workspace.
    pub workspace: PathBuf,
    /// Where steps are told.
    pub events: PathBuf,
    /// Where every exchange is recorded.
    pub transcript: PathBuf,
    /// Notes that persist across runs of the agent, a JSON object of texts, as they were when the run began.
    pub notes: PathBuf,
    /// The conversation of a session that runs share; `None`: the run has one of its own.
    pub conversation: Option<PathBuf>,
}

/// A skill that an agent may activate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueSkill {
    /// Its id: the name of its folder.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// Its folder.
    pub dir: PathBuf,
}

/// What a run is told of workflows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cached {
    /// What the one that it leaves is for.
    pub purpose: String,
    /// The one that it begins with; `None`: the model does all.
    #[serde(default)]
    pub given: Option<Given>,
    /// Why there is none, where one was wanted.
    #[serde(default)]
    pub said: Option<String>,
    /// Whether what it does is recorded: all that it was told is its own task.
    #[serde(default = "yes")]
    pub alone: bool,
}

fn yes() -> bool {
    true
}

/// A workflow to begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// Its version among the agent's; `None`: it is the caller's.
    pub version: Option<i64>,
    /// It.
    pub workflow: Workflow,
}

/// What the tool `shell` may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shell {
    /// Programs that may be started, by name; `*`: any.
    pub allow: Vec<String>,
    /// Longest time of one command, milliseconds.
    pub timeout_ms: u64,
}

/// A browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Browser {
    /// Its program; `None`: the first known one that is in `PATH`.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// Width and height of a page, pixels.
    pub viewport: (u32, u32),
    /// How it calls itself; `None`: as it does.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// A proxy that its connections go through, `http://..` or `socks5://..`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// The environment variable that holds the password there; nobody but this process sees it.
    #[serde(default)]
    pub proxy_password: Option<String>,
    /// Whether each step leaves a picture of the page in the run's files.
    #[serde(default)]
    pub screenshots: bool,
    /// How its cookies are kept from run to run; `None`: they are not.
    #[serde(default)]
    pub cookies: Option<Cookies>,
}

/// Cookies that a session keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookies {
    /// Their file; `None`: the run has no session, and keeps none.
    pub file: Option<PathBuf>,
    /// The environment variable that holds the secret they are encrypted with; nobody but this process sees it.
    pub secret: String,
    /// Whose they are: they are read for nobody else.
    pub of: String,
}

impl Browser {
    /// Secrets that are its own: neither a page nor a program of the agent is given them.
    pub fn own_secrets(&self) -> impl Iterator<Item = &str> {
        let cookies = self.cookies.as_ref().map(|cookies| cookies.secret.as_str());
        cookies.into_iter().chain(self.proxy_password.as_deref())
    }

    /// `viewport` where the definition says nothing.
    pub const VIEWPORT: (u32, u32) = (1280, 800);
}

impl Default for Browser {
    fn default() -> Self {
        let viewport = Self::VIEWPORT;
        Self {
            program: None,
            viewport,
            user_agent: None,
            proxy: None,
            proxy_password: None,
            screenshots: false,
            cookies: None,
        }
    }
}

/// A server of tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    /// Program and arguments of one that is started and spoken to over stdin and stdout.
    #[serde(default)]
    pub command: Vec<String>,
    /// Address of one that is spoken to over HTTP.
    #[serde(default)]
    pub url: Option<String>,
    /// The environment variable whose value is sent as bearer token to `url`.
    #[serde(default)]
    pub token_env: Option<String>,
    /// Tools that may be called, by the names that the server gives them; empty: all.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// A command that judges a result: exit code 0 accepts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// Program and arguments; the result is on its stdin.
    pub command: Vec<String>,
    /// Longest time, milliseconds.
    pub timeout_ms: u64,
}

/// What bounds an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Most calls of a model.
    pub max_steps: u64,
    /// Most tokens, sent and received; `None`: any number.
    pub max_tokens: Option<u64>,
    /// Whether that is what a budget of the day has left, and not the agent's own limit.
    #[serde(default)]
    pub tokens_of_budget: bool,
    /// Most US dollars; `None`: any number.
    pub max_cost_usd: Option<f64>,
    /// Whether that is what a budget of the day has left, and not the agent's own limit.
    #[serde(default)]
    pub cost_of_budget: bool,
    /// Most tokens of one answer.
    pub max_output: u64,
    /// Most corrections of a refused result.
    pub corrections: u32,
    /// Longest time of one call of a model, milliseconds.
    pub call_timeout_ms: u64,
    /// Longest time of one tool, milliseconds.
    pub tool_timeout_ms: u64,
    /// When the attempt is over, milliseconds after its start; `None`: it has no end.
    pub deadline_ms: Option<u64>,
}

impl Limits {
    /// `max_steps` where the definition says nothing.
    pub const MAX_STEPS: u64 = 30;
    /// `max_output` where the definition says nothing, tokens.
    pub const MAX_OUTPUT: u64 = 8_192;
    /// `corrections` where the definition says nothing.
    pub const CORRECTIONS: u32 = 3;
    /// Longest time of one call of a model, milliseconds.
    pub const CALL_TIMEOUT_MS: u64 = 120_000;
    /// Longest time of one tool, milliseconds.
    pub const TOOL_TIMEOUT_MS: u64 = 60_000;

    /// Those of a definition. When an attempt is over is no part of it.
    #[must_use]
    pub fn of(llm: &Llm) -> Self {
        Self {
            max_steps: llm.max_steps.unwrap_or(Self::MAX_STEPS),
            max_tokens: llm.max_tokens,
            max_cost_usd: llm.max_cost_usd,
            max_output: llm.max_output_tokens.unwrap_or(Self::MAX_OUTPUT),
            corrections: llm.corrections.unwrap_or(Self::CORRECTIONS),
            call_timeout_ms: llm.call_timeout.map_or(Self::CALL_TIMEOUT_MS, millis_u64),
            tool_timeout_ms: llm.tool_timeout.map_or(Self::TOOL_TIMEOUT_MS, millis_u64),
            ..Self::default()
        }
    }

    /// The same, bounded by what the budgets of the day have left where that is less.
    #[must_use]
    pub fn within(self, tokens: Option<u64>, cost_usd: Option<f64>) -> Self {
        let tokens = tokens.filter(|left| self.max_tokens.is_none_or(|own| *left < own));
        let cost_usd = cost_usd.filter(|left| self.max_cost_usd.is_none_or(|own| *left < own));
        Self {
            max_tokens: tokens.or(self.max_tokens),
            tokens_of_budget: tokens.is_some(),
            max_cost_usd: cost_usd.or(self.max_cost_usd),
            cost_of_budget: cost_usd.is_some(),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_steps: Self::MAX_STEPS,
            max_tokens: None,
            tokens_of_budget: false,
            max_cost_usd: None,
            cost_of_budget: false,
            max_output: Self::MAX_OUTPUT,
            corrections: Self::CORRECTIONS,
            call_timeout_ms: Self::CALL_TIMEOUT_MS,
            tool_timeout_ms: Self::TOOL_TIMEOUT_MS,
            deadline_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_budget_leaves_bounds_a_run_where_it_is_less_than_its_own_limits() {
        let own = Limits::of(&Llm { max_tokens: Some(1_000), ..Llm::default() });
        let within = |tokens, cost| own.clone().within(tokens, cost);
        assert_eq!(within(None, None), own);
        assert_eq!(within(Some(1_000), None), own, "its own limit is met first");
        let bound = within(Some(2_000), Some(2.5));
        assert_eq!((bound.max_tokens, bound.tokens_of_budget), (Some(1_000), false), "each has its own");
        assert_eq!((bound.max_cost_usd, bound.cost_of_budget), (Some(2.5), true));
        let bound = within(Some(400), None);
        assert_eq!(
            (bound.max_tokens, bound.tokens_of_budget, bound.cost_of_budget),
            (Some(400), true, false)
        );
    }
}
