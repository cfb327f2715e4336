//! Workflows: what a run did in its browser, recorded, and played again without a model.
//!
//! A replay never guesses. It begins only where the run's input is what the workflow was made for; each step finds its
//! element and is held to how the page stood; the result is made of what was extracted now. Where one of these fails
//! the model gets the situation and may have the rest played once it has done what was otherwise. A run that completed
//! tells what it did; one that failed tells nothing.

mod dates;
mod play;
mod record;
mod step;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use play::Progress;
pub(super) use record::Recorder;

use super::browser::Snapshot;
use super::model::ToolSpec;

/// The tool by which a model has the rest of a workflow played.
pub const CONTINUE: &str = "workflow_continue";

/// The page that the browser shows.
pub trait Page: Send + Sync {
    /// Looks at it now.
    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<Snapshot>, String>>;

    /// As it was looked at last.
    fn last(&self) -> Option<Arc<Snapshot>>;

    /// How many things were done in the browser, and how long it was open.
    fn measured(&self) -> (u64, Duration);
}

/// What a transcript keeps of playing steps: what came of it, and all that was read so far, by the number of the step.
pub type PlayedSteps = (Played, Vec<(usize, Value)>);

/// What came of playing steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Played {
    /// All were played, and this is the result.
    Result(Value),
    /// The model goes on, and is told this.
    Handed(String),
}

/// [`CONTINUE`] as the model sees it.
pub(super) fn continue_spec() -> ToolSpec {
    ToolSpec {
        name: CONTINUE.to_owned(),
        description:
            "Has the remaining steps of the recorded workflow played, after you have done what could not be \
                      played."
                .to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {"from": {"type": "integer", "minimum": 1, "description":
                "The step to go on with; by default the one behind the step that could not be played."}},
            "additionalProperties": false,
        }),
    }
}

#[cfg(test)]
mod tests;
