//! The seam between the loop and a provider of models: one conversation in, one turn out.
//!
//! A request is the whole conversation in words of no provider, so a run may go on with another provider in the
//! middle of it, and a recorded run can be repeated without one. What a provider wants to see again in its own
//! words (a signature of a thought, its reasoning) travels in [`Said::echo`] and is shown to that provider alone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::Usage;

/// Whoever answers a conversation: a provider, or a recording.
pub trait Model: Send + Sync {
    /// Asks for the next turn, once: nothing is tried again here. Dropping the future ends the call.
    fn turn<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>>;

    /// How many calls got no word of the provider on what they took since this was asked last: they have cost what was
    /// sent, and nobody says what that was.
    fn unanswered(&self) -> u64 {
        0
    }
}

/// One conversation, as far as it has come, and what may be done next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What stands before the conversation, in order; the same bytes for every call of a run.
    pub system: Vec<String>,
    /// What was said, oldest first.
    pub messages: Vec<Message>,
    /// Tools that may be called, by name in ascending order.
    pub tools: Vec<ToolSpec>,
    /// Whether one must be called. Not every provider can be told so (a model that thinks refuses it), so an answer
    /// may call none all the same.
    pub must_call: bool,
    /// Most tokens of the answer.
    pub max_output: u64,
    /// Most calls that may be given up without an answer before there is none any more; `None`: any number.
    pub calls_max: Option<u64>,
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Its name: `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments: an object.
    pub parameters: Value,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// From us.
    User {
        /// Its text.
        text: String,
    },
    /// From the model.
    Assistant(Said),
    /// What the calls of the message before gave, all of them, in their order.
    Tools {
        /// One for each call.
        results: Vec<ToolResult>,
    },
}

/// What a model said in one turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What it calls, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// The name of the provider that said it, and what only that one is shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<(String, Value)>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its id, unique in the conversation; ours where the provider gives none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
}

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arguments {
    /// An object.
    Object(Map<String, Value>),
    /// Something else, as the model wrote it, and what is wrong with it (with line and column).
    Malformed {
        /// As it was written.
        raw: String,
        /// What is wrong.
        why: String,
    },
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of its call.
    pub call: String,
    /// The tool's name.
    pub name: String,
    /// What the model is told.
    pub content: String,
    /// Whether it failed.
    #[serde(default)]
    pub is_error: bool,
}

/// One turn of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What it said.
    pub said: Said,
    /// Why it ended.
    pub stop: Stop,
    /// What it consumed, as every provider's figures mean the same: input is all that was sent, output with reasoning.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// What it cost, US dollars, by the price of the candidate that answered; `None`: it has no known price.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// Why a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It has said what it wanted to say, or calls tools.
    End,
    /// Its output was cut: at `max_output` or at the model's own limit.
    Length,
    /// It, or a filter of the provider, refuses.
    Refused(String),
    /// The provider interrupted it: the same conversation goes on when it is sent again.
    Paused,
    /// It tried to call a tool in a way that the provider could not read.
    MalformedCall(String),
}

/// Why there is no turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ModelError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// A sentence that names the provider, without anything of the request.
    pub message: String,
}

impl ModelError {
    /// Whether the call may have cost something all the same: what was sent has perhaps been answered, and no figure
    /// of it came here. An error in the provider's own words costs nothing.
    #[must_use]
    pub fn may_have_cost(&self) -> bool {
        self.kind == ErrorKind::Lost || self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// What kind of failure a [`ModelError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Worth another try: 408, 409, 500, 502, 503, 504, 529, nobody who answers, a broken answer.
    Transient,
    /// Worth another try: the connection broke off with the request under way.
    Lost,
    /// Worth another try later: 429.
    RateLimited,
    /// The account is used up: final.
    Quota,
    /// The key is missing, wrong or not allowed: final.
    Auth,
    /// The conversation is longer than the model takes.
    TooLong,
    /// The provider refuses what was asked for: final.
    Invalid,
}
