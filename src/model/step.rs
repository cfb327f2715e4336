//! One step of a run as its program told it: what it did, action by action.
//!
//! The published fields of a history item (`description`, `actions`) keep their spelling; `attempt`, `index`, `at`,
//! `kind` and `usage` are ours. The program writes steps itself, so nothing here is trusted: a field that does
//! not fit is as if it were not there. Whether the task is done well is known only of an action that ends it: a single
//! call that failed has an `error` and no `success`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Usage;

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Step {
    /// The attempt that it is of, from 1.
    pub attempt: u32,
    /// Its number within the attempt, from 0.
    pub index: u64,
    /// When, as the program says it; null where it does not.
    pub at: Option<String>,
    /// What kind of step; null where the program does not say.
    pub kind: Option<String>,
    /// What was done, for people.
    pub description: String,
    /// What was done, one by one.
    pub actions: Vec<StepAction>,
    /// What it consumed; null where unknown.
    pub usage: Option<Usage>,
}

/// One action of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepAction {
    /// Its name.
    pub name: String,
    /// What it was called with: an object.
    #[schema(value_type = Object)]
    pub params: Map<String, Value>,
    /// Whether the task is done by it.
    pub is_done: bool,
    /// Whether the task is done well; null unless it is done.
    pub success: Option<bool>,
    /// What it found.
    pub extracted_content: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether what it found, or what went wrong, stays in the conversation with the model.
    pub include_in_memory: bool,
}

impl Step {
    /// The step of a line's fields.
    #[must_use]
    pub fn of(attempt: u32, index: u64, fields: &Map<String, Value>) -> Self {
        let actions = fields.get("actions").and_then(Value::as_array).into_iter().flatten();
        let usage = fields.get("usage").filter(|usage| usage.is_object());
        Self {
            attempt,
            index,
            at: text(fields, &["at"]),
            kind: text(fields, &["kind"]),
            description: text(fields, &["description", "title"]).unwrap_or_default(),
            actions: actions.filter_map(Value::as_object).map(StepAction::of).collect(),
            usage: usage.and_then(|usage| Usage::deserialize(usage).ok()),
        }
    }
}

impl StepAction {
    fn of(fields: &Map<String, Value>) -> Self {
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
        let is_done = flag("is_done").unwrap_or(false);
        Self {
            name: text(fields, &["name"]).unwrap_or_default(),
            params: fields.get("params").and_then(Value::as_object).cloned().unwrap_or_default(),
            is_done,
            success: flag("success").filter(|_| is_done),
            extracted_content: text(fields, &["extracted_content"]),
            error: text(fields, &["error"]),
            include_in_memory: flag("include_in_memory").unwrap_or(false),
        }
    }
}

/// The first of these fields that is text.
fn text(fields: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| fields.get(*name)?.as_str()).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(fields: &Value) -> Value {
        serde_json::to_value(Step::of(2, 3, fields.as_object().unwrap())).unwrap()
    }

    #[test]
    fn a_step_has_every_published_field() {
        let told = json!({
            "description": "open the shop", "kind": "browser", "at": "2026-03-02T09:00:00.000Z",
            "usage": {"inputTokens": 5},
            "actions": [{"name": "done", "params": {"url": "x"}, "is_done": true, "success": true,
                         "extracted_content": "7", "error": "no", "include_in_memory": true}],
        });
        let usage = json!({"inputTokens": 5, "cachedInputTokens": null, "cacheWriteTokens": null,
                           "outputTokens": null, "reasoningTokens": null, "modelCalls": null});
        let action = json!({"name": "done", "params": {"url": "x"}, "is_done": true, "success": true,
                            "extracted_content": "7", "error": "no", "include_in_memory": true});
        assert_eq!(
            step(&told),
            json!({"attempt": 2, "index": 3, "at": "2026-03-02T09:00:00.000Z", "kind": "browser",
                   "description": "open the shop", "actions": [action], "usage": usage})
        );
    }

    #[test]
    fn what_does_not_fit_is_as_if_it_were_not_there() {
        let none = json!({"attempt": 2, "index": 3, "at": null, "kind": null, "description": "", "actions": [], "usage": null});
        assert_eq!(step(&json!({})), none);
        let odd =
            json!({"description": 5, "actions": {"a": 1}, "usage": {"inputTokens": -1}, "at": 7, "kind": []});
        assert_eq!(step(&odd), none);
        let actions =
            json!({"title": "t", "actions": [1, {"success": true}, {"success": false, "params": 1}]});
        let read = step(&actions);
        assert_eq!(read["description"], "t");
        assert_eq!(read["actions"][0]["success"], Value::Null, "nothing is done by it");
        assert_eq!(
            (&read["actions"][1]["success"], &read["actions"][1]["params"]),
            (&Value::Null, &json!({}))
        );
        assert_eq!(read["actions"].as_array().unwrap().len(), 2);
    }
}
