//! The seam between the loop and the tools of a run.
//!
//! A tool gets an object that fits its schema and gives one answer. It has no say in when the run ends, how long its
//! answer may be, or what is recorded: those are the loop's, so no tool can get them wrong. A call is ended by
//! dropping its future; whatever it started must end with it.

mod browser;
mod files;
mod http;
mod mcp;
mod notes;
mod shell;
mod skills;
#[cfg(test)]
pub(in crate::agentloop) mod testing;
mod toolbox;

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::model::ToolSpec;

pub use files::{ENTRIES_MAX, READ_MAX, WRITE_MAX};
pub use http::{BODY_MAX, REDIRECTS_MAX};
pub use mcp::{MESSAGE_MAX, RESULT_MAX, START_TIMEOUT, TOOLS_MAX};
pub use shell::OUTPUT_MAX;
pub use skills::{ACTIVATE_SKILL, SKILL_MAX};
pub use toolbox::{Toolbox, World, toolbox};

/// Why a run has no tools.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The notes of the agent cannot be read.
    #[error("the notes of the agent in {path} cannot be read: {why}", path = path.display())]
    Notes {
        /// Their file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Something that a model may call.
pub trait Tool: Send + Sync {
    /// How it is shown to the model.
    fn spec(&self) -> ToolSpec;

    /// Does it, with arguments that fit the schema.
    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer>;
}

/// What a call gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What the model is told, as long as it is.
    pub content: String,
    /// How it went.
    pub outcome: Outcome,
    /// A note that was set (or removed) by it, to be kept for later runs.
    pub note: Option<(String, Option<String>)>,
    /// Something that people should know of, and that is no affair of the model.
    pub notice: Option<String>,
}

/// How a call went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// It failed; the model may try otherwise.
    Failed,
    /// It is not allowed, and nobody is there who could allow it.
    Denied,
}

impl Answer {
    /// It was done.
    #[must_use]
    pub fn done(content: impl Into<String>) -> Self {
        Self { content: content.into(), ..Self::default() }
    }

    /// It failed, for the reason that the model is told.
    #[must_use]
    pub fn failed(why: impl Into<String>) -> Self {
        Self { content: why.into(), outcome: Outcome::Failed, ..Self::default() }
    }

    /// It is not allowed, for the reason that the model is told.
    #[must_use]
    pub fn denied(why: impl Into<String>) -> Self {
        Self { content: why.into(), outcome: Outcome::Denied, ..Self::default() }
    }
}

/// A text argument; empty where it is not given.
fn text_of<'a>(arguments: &'a Map<String, Value>, name: &str) -> &'a str {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default()
}
