//! Presets: agents' command line tools whose arguments and whose output we know.
//!
//! A preset adds to the command of a definition what makes the tool print its doings line by line and never wait for
//! a person ([`command()`]), and reads those lines as they come ([`Listener`]) into the same events file that a program
//! of the protocol `matins` writes itself. So steps, usage, result and failure have one way into the record, and the
//! reading is the launcher's: it goes on without a daemon.
//!
//! The invariant: an exit code of 0 and the word "success" are never enough. Each tool here was seen to say one or
//! the other of a run that had failed, so a run is done only where the tool's last line says so, nothing it was asked
//! for was denied to it, and the result, where one is promised, fits the schema by our own reading of it.

mod account;
mod classify;
mod claude;
mod codex;
mod command;
mod gemini;
mod listener;
mod place;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::account::Account;
use crate::model::{Protocol, Usage};

pub use command::{Ask, command, tool_model};
pub use listener::Listener;
pub use place::{Conversation, Placement, place, read_conversation};

/// How a tool is listened to; part of a [`Spec`](super::Spec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Which tool.
    pub tool: Protocol,
    /// The model that it was asked for, where it does not tell which one answered.
    #[serde(default)]
    pub model: Option<String>,
    /// Most steps, where the tool does not keep that limit itself.
    pub max_steps: Option<u64>,
    /// Most tokens, where the tool does not keep that limit itself.
    pub max_tokens: Option<u64>,
    /// Whether a schema says what the result is: then it is JSON, else the tool's last words.
    pub schema: bool,
    /// Whether something beside the tool's word tells that the work was done: a schema or `success_when`.
    pub judged: bool,
    /// Where the handle of the conversation is kept, for who goes on with it.
    pub conversation: PathBuf,
    /// What the conversation had used up before, where the tool counts on.
    #[serde(default)]
    pub before: Usage,
}

/// One tool's way of telling what it does.
trait Tool: std::fmt::Debug {
    /// A line on stdout.
    fn said(&mut self, line: &Map<String, Value>, account: &mut Account);

    /// A line on stderr.
    fn complained(&mut self, _line: &str, _account: &mut Account) {}

    /// Its output has ended.
    fn ended(&mut self, _account: &mut Account) {}
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(fields: &Map<String, Value>, name: &str) -> Option<u64> {
    fields.get(name).and_then(Value::as_u64)
}

fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    fields.get(name).and_then(Value::as_object)
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
