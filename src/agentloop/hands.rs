//! What the loop needs of the tools of a run: which there are, and to call one.
//!
//! The toolbox of a run is behind it, or the answers of a recording.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::browser::{Browser, Snapshot};
use super::model::ToolSpec;
use super::tools::{Answer, Toolbox};
use super::workflow::{Page, PlayedSteps};

/// Tools to call.
pub trait Hands: Send + Sync {
    /// How they are shown to the model; in any order.
    fn specs(&self) -> Vec<ToolSpec>;

    /// What the model is told of them before the conversation.
    fn words(&self) -> Vec<String> {
        Vec::new()
    }

    /// Calls one by its name, which may be none of theirs. Dropping the future ends the call.
    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer>;

    /// The page of the browser; `None`: there is none.
    fn page(&self) -> Option<Arc<dyn Page>> {
        None
    }

    /// What came of playing a workflow, where a recording answers.
    fn played(&self) -> Option<PlayedSteps> {
        None
    }
}

impl Hands for Toolbox {
    fn specs(&self) -> Vec<ToolSpec> {
        Toolbox::specs(self).to_vec()
    }

    fn words(&self) -> Vec<String> {
        Toolbox::words(self).to_vec()
    }

    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(Toolbox::call(self, name, arguments))
    }

    fn page(&self) -> Option<Arc<dyn Page>> {
        self.browser().map(|browser| browser as Arc<dyn Page>)
    }
}

impl Page for Browser {
    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<Snapshot>, String>> {
        Box::pin(Browser::snapshot(self))
    }

    fn last(&self) -> Option<Arc<Snapshot>> {
        Browser::last(self)
    }

    fn measured(&self) -> (u64, Duration) {
        Browser::measured(self)
    }
}
