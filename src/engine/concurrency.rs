//! Concurrency keys: what an agent's `concurrency_key:` says for one run.
//!
//! The key is rendered when the run is admitted, for it decides who is in the way. A template that
//! cannot be rendered loses no slot: the run is admitted with its agent as the key, like the runs of
//! an agent without one, and ends FAILED `launch_error` with the template's error when its turn has
//! come. A slot that vanished would leave no run to look at.

use serde_json::{Value, json};

use crate::ids::RunId;
use crate::model::{Agent, Trigger, Window};
use crate::template;
use crate::time::rfc3339_ms;

/// Longest key, bytes.
pub const KEY_MAX: usize = 255;

/// What a key's template sees of its run. All of it is known at admission and does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub id: RunId,
    pub trigger: Trigger,
    pub window: Option<Window>,
    pub user: Option<&'a str>,
    pub input: &'a Value,
}

/// The key of a run; `None`: its agent.
///
/// # Errors
/// A sentence that says why the template gives none.
pub(super) fn key(agent: &Agent, facts: &Facts<'_>) -> Result<Option<String>, String> {
    let Some(source) = &agent.policies.concurrency_key else { return Ok(None) };
    let key = if source.contains('{') {
        template::render(source, &context(agent, facts)).map_err(|e| e.to_string())?
    } else {
        source.clone()
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("it is empty".to_owned());
    }
    if key.len() > KEY_MAX {
        return Err(format!("it has {} bytes; at most {KEY_MAX} are taken", key.len()));
    }
    Ok(Some(key.to_owned()))
}

fn context(agent: &Agent, facts: &Facts<'_>) -> Value {
    let instant = |pick: fn(&Window) -> i64| facts.window.as_ref().map(pick).map(rfc3339_ms);
    json!({
        "input": facts.input,
        "env": agent.env,
        "run": {
            "id": facts.id.to_string(),
            "agent": agent.id.as_str(),
            "trigger": facts.trigger.as_str(),
            "scheduled_for": instant(|w| w.end_ms),
            "user": facts.user,
        },
        "window": {
            "start": instant(|w| w.start_ms),
            "end": instant(|w| w.end_ms),
            "slots": facts.window.map(|w| w.slots),
        },
    })
}
