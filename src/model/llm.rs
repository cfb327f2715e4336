//! What a definition says of the built-in agent: `executor: { type: llm, .. }`.
//!
//! A missing key is `None` or empty here, not the built-in agent's default: that is its own affair, and a snapshot
//! of a definition that says nothing of a key follows a later version's default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Hook, words};

/// How a provider of models is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wire {
    /// `OpenAI`'s chat completions, and whatever speaks as they do.
    OpenAi,
    /// `DeepSeek`.
    DeepSeek,
    /// Anthropic's messages.
    Anthropic,
    /// Google's Gemini.
    Google,
    /// Groq.
    Groq,
    /// Mistral.
    Mistral,
    /// Together.
    Together,
}

words!(Wire {
    OpenAi => "openai",
    DeepSeek => "deepseek",
    Anthropic => "anthropic",
    Google => "google",
    Groq => "groq",
    Mistral => "mistral",
    Together => "together",
});

/// A tool that a definition gives its model, beside those that every agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ToolName {
    /// Reads and writes files of the workspace.
    Files,
    /// Fetches a web address.
    HttpFetch,
    /// Runs programs.
    Shell,
    /// Keeps texts for later runs.
    Notes,
    /// Looks at the newest success before this run.
    LastRun,
    /// Uses websites as a person does.
    Browser,
}

words!(ToolName {
    Files => "files",
    HttpFetch => "http_fetch",
    Shell => "shell",
    Notes => "notes",
    LastRun => "last_run",
    Browser => "browser",
});

/// Whether a run begins with what an earlier one did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Cache {
    /// It does, where one is kept.
    Auto,
    /// It does not, unless its caller asks for that.
    #[default]
    Off,
}

words!(Cache { Auto => "auto", Off => "off" });

/// What the tool `shell` may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellTool {
    /// Programs that may be started, by name; `*` alone: any, by a shell.
    pub allow: Vec<String>,
    /// Longest time of one command; `None`: that of every tool.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// What the tool `browser` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrowserTool {
    /// Width and height of a page, pixels; `None`: the built-in agent's default.
    pub viewport: Option<(u32, u32)>,
    /// How it calls itself; `None`: as it does.
    pub user_agent: Option<String>,
    /// The proxy that it goes through.
    pub proxy: Option<String>,
    /// The name of the secret, of the definition's own, that is the password of its user there.
    pub proxy_password: Option<String>,
    /// When it leaves pictures of its own accord.
    pub screenshots: Screenshots,
    /// The name of the secret, of the definition's own, that the cookies of a session are encrypted with; `None`: none
    /// are kept.
    pub cookies: Option<String>,
}

impl BrowserTool {
    /// The pool of agents with a browser that name none.
    pub const POOL: &'static str = "browser";
    /// Widest and highest page, pixels.
    pub const VIEWPORT_MAX: u32 = 8_192;
}

/// When a browser leaves pictures of its own accord.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Screenshots {
    /// Never.
    #[default]
    Off,
    /// After each step.
    EachStep,
}

words!(Screenshots {
    Off => "off",
    EachStep => "each_step",
});

/// A server of tools that speaks the Model Context Protocol: a program, or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mcp {
    /// Program and arguments, as in an executor; empty where there is an address.
    pub command: Vec<String>,
    /// The address; `None` where there is a program.
    pub url: Option<String>,
    /// The name of the secret, of the definition's own, that is sent to the address as bearer token.
    pub token: Option<String>,
    /// Tools that may be called, by the names that the server gives them; empty: all.
    pub allow: Vec<String>,
}

/// What a built-in agent works with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Llm {
    /// An alias of the daemon's `models:`, or provider/model; `None`: the alias [`Llm::DEFAULT_MODEL`].
    pub model: Option<String>,
    /// Models that are asked in its place, in order.
    pub fallback: Vec<String>,
    /// Tools it may call.
    #[serde(deserialize_with = "known_tools")]
    pub tools: Vec<ToolName>,
    /// Most calls of a model.
    pub max_steps: Option<u64>,
    /// Most tokens, input and output.
    pub max_tokens: Option<u64>,
    /// Most US dollars.
    pub max_cost_usd: Option<f64>,
    /// Most tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// Longest time of one call of a model.
    pub call_timeout: Option<Duration>,
    /// Longest time of one call of a tool.
    pub tool_timeout: Option<Duration>,
    /// Most corrections of a refused result.
    pub corrections: Option<u32>,
    /// What the tool `shell` may do; there where [`ToolName::Shell`] is among the tools.
    pub shell: Option<ShellTool>,
    /// How the browser is; there only where [`ToolName::Browser`] is among the tools.
    pub browser: Box<BrowserTool>,
    /// Hosts that `http_fetch` and the browser reach: a name, or `*.` and a name for everything below it; empty: every public one.
    pub hosts: Vec<String>,
    /// Servers of tools, by name.
    pub mcp: BTreeMap<String, Mcp>,
    /// Commands that judge a result beyond its schema, in order.
    pub validators: Vec<Hook>,
    /// Whether a run begins with what an earlier one did in its browser.
    pub cache: Cache,
}

impl Llm {
    /// The alias of a file that names no model.
    pub const DEFAULT_MODEL: &'static str = "full";
    /// Longest name of a server of tools, characters: with it and two marks a tool's name must have at most 64.
    pub const MCP_NAME_MAX: usize = 24;
    /// Most corrections that a definition may ask for.
    pub const CORRECTIONS_MAX: u32 = 10;
}

/// A snapshot of a version before may hold names that no tool has: such a tool is not there.
fn known_tools<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<ToolName>, D::Error> {
    let names = Vec::<String>::deserialize(d)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_a_version_before_is_read() {
        let before = r#"{"model":"full","tools":["browser","files","gone"],"max_steps":30,"max_tokens":null,"max_cost_usd":0.5}"#;
        let read: Llm = serde_json::from_str(before).unwrap();
        let model = Some("full".to_owned());
        let tools = vec![ToolName::Browser, ToolName::Files];
        let wanted = Llm { model, tools, max_steps: Some(30), max_cost_usd: Some(0.5), ..Llm::default() };
        assert_eq!(read, wanted);
    }
}
