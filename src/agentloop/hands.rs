//! What the loop needs of the tools of a run: which there are, and to call one.
//!
//! The toolbox of a run is behind it, or the answers of a recording.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::model::ToolSpec;
use super::tools::Answer;

/// Tools to call.
pub trait Hands: Send + Sync {
    /// How they are shown to the model; in any order.
    fn specs(&self) -> Vec<ToolSpec>;

    /// Calls one by its name, which may be none of theirs. Dropping the future ends the call.
    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer>;
}

/// No tools at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHands;

impl Hands for NoHands {
    fn specs(&self) -> Vec<ToolSpec> {
        Vec::new()
    }

    fn call<'a>(&'a self, name: &'a str, _: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(std::future::ready(Answer::failed(format!("there is no tool {name:?}"))))
    }
}
