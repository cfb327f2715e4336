//! What differs between two runs: "it worked yesterday" is mostly answered by what was changed since.
//!
//! Both are read from what they kept: the snapshot of the definition, prompt and input as they were given,
//! digests of the skills, the model that answered, the result. Nothing is taken from the files of now.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Core;
use crate::exec::{RunDirs, read_given};
use crate::model::Workflow;
use crate::store::{self, EventDetail};
use crate::task;

/// Most changes that are listed.
const CHANGES_MAX: usize = 1000;

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The run.
    pub id: String,
    /// Its agent.
    pub agent_id: String,
    /// How it is, or ended.
    pub status: String,
    /// SHA-256 of its definition.
    pub definition_sha256: String,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// JSON pointer; between runs its first part is `definition`, `prompt`, `skills`, `model`, `input` or `result`.
    pub pointer: String,
    /// `add`, `remove` or `replace`, from the first run to the second.
    pub op: String,
    /// What the first run has there.
    pub from: Option<Value>,
    /// What the second run has there.
    pub to: Option<Value>,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Diff {
    /// The first run.
    pub a: Side,
    /// The second run.
    pub b: Side,
    /// From the first to the second.
    pub changes: Vec<Change>,
    /// Whether there are more than are listed.
    pub truncated: bool,
}

impl Core {
    /// What differs between two runs, by their numbers.
    ///
    /// # Errors
    /// Those of the store; [`store::Error::Inconsistent`] for a run that is gone meanwhile.
    pub async fn diff(&self, a: i64, b: i64) -> Result<Diff, store::Error> {
        let (one, one_facts) = self.facts(a).await?;
        let (other, other_facts) = self.facts(b).await?;
        let compare = move || changes(&one_facts, &other_facts);
        let (changes, truncated) = task::blocking(compare).await?;
        Ok(Diff { a: one, b: other, changes, truncated })
    }

    async fn facts(&self, number: i64) -> Result<(Side, Value), store::Error> {
        let gone = || store::inconsistent("runs", number, "it is gone");
        let EventDetail { event, overrides, definition, .. } =
            self.store.event(number).await?.ok_or_else(gone)?;
        let (body, _) = self.store.definition(definition).await?.ok_or_else(gone)?;
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let given = match event.id.parse() {
            Ok(id) => {
                let dirs = RunDirs::new(self.state_dir(), id);
                task::blocking(move || read_given(&dirs)).await?
            }
            Err(_) => crate::exec::Given::default(),
        };
        let prompt = given.prompt.or(overrides.prompt).map(Value::String);
        let skills: Map<String, Value> =
            event.skills.iter().flatten().map(|skill| (skill.id.clone(), json!(skill.sha256))).collect();
        let facts = json!({
            "prompt": prompt.unwrap_or_else(|| body["prompt"].clone()),
            "input": given.input.or(overrides.input).unwrap_or_else(|| body["input"].clone()),
            "skills": skills,
            "model": event.final_model,
            "result": event.result,
            "definition": body,
        });
        let side = Side {
            id: event.id,
            agent_id: event.agent_id,
            status: event.status.to_string(),
            definition_sha256: event.definition_sha256,
        };
        Ok((side, facts))
    }
}

/// What differs between two versions of a workflow; whether there is more than is listed.
#[must_use]
pub fn workflow_changes(a: &Workflow, b: &Workflow) -> (Vec<Change>, bool) {
    let json = |workflow| serde_json::to_value(workflow).unwrap_or_default();
    changes(&json(a), &json(b))
}

fn changes(a: &Value, b: &Value) -> (Vec<Change>, bool) {
    let patch = serde_json::to_value(json_patch::diff(a, b)).unwrap_or(Value::Null);
    let all = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut from = a.clone();
    let mut changes = Vec::new();
    for step in all.iter().take(CHANGES_MAX) {
        let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        let (pointer, op) = (text("path"), text("op"));
        // A pointer counts in the document as the steps before have left it.
        let before = from.pointer(&pointer).filter(|_| op != "add").cloned();
        changes.push(Change { pointer, op, from: before, to: step.get("value").cloned() });
        if let Ok(step) = serde_json::from_value::<json_patch::PatchOperation>(step.clone()) {
            // A step of a patch that was made of this very document applies.
            let _ = json_patch::patch(&mut from, &[step]);
        }
    }
    (changes, all.len() > CHANGES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_names_its_place_and_both_values() {
        let a = json!({"prompt": "x", "result": {"n": 1, "list": [1, 2, 3]}, "skills": {"a": "00"}});
        let b = json!({"prompt": "y", "result": {"n": 1, "list": [1]}, "skills": {"b": "11"}});
        let (found, truncated) = changes(&a, &b);
        assert!(!truncated);
        let mut seen: Vec<_> =
            found.iter().map(|c| (c.pointer.as_str(), c.op.as_str(), c.from.clone(), c.to.clone())).collect();
        seen.sort_by_key(|c| c.0);
        let replaced = ("/prompt", "replace", Some(json!("x")), Some(json!("y")));
        assert_eq!(seen.iter().find(|c| c.0 == "/prompt"), Some(&replaced));
        assert!(seen.contains(&("/skills/a", "remove", Some(json!("00")), None)), "{seen:?}");
        assert!(seen.contains(&("/skills/b", "add", None, Some(json!("11")))), "{seen:?}");
        let removed: Vec<_> =
            found.iter().filter(|c| c.op == "remove").filter_map(|c| c.from.clone()).collect();
        assert!(removed.contains(&json!(2)) && removed.contains(&json!(3)), "{removed:?}");
        assert_eq!(changes(&a, &a), (Vec::new(), false));
    }

    #[test]
    fn a_list_has_an_end() {
        let long =
            |n: usize| json!({ "result": (0..n).map(|i| (i.to_string(), json!(i))).collect::<Map<_, _>>() });
        let (found, truncated) = changes(&long(0), &long(CHANGES_MAX + 1));
        assert_eq!((found.len(), truncated), (CHANGES_MAX, true));
    }
}
