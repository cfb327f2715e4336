//! What the tests of the tools share: a brief whose paths are in a folder of the test.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Answer, Outcome, Toolbox};
use crate::agentloop::brief::{Brief, CatalogueSkill};

/// A brief with these tools; workspace, files, skills and notes are below `dir`, and exist.
pub(in crate::agentloop) fn brief(dir: &Path, tools: &[&str]) -> Brief {
    for folder in ["workspace", "files", "skills", "attempt"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let text = json!({
        "version": 1, "run": "01931a5c-0000-7000-8000-000000000001", "attempt": 1, "agent": "a", "trigger": "manual",
        "models": [], "seeded": [], "tools": tools,
        "paths": {
            "prompt": dir.join("prompt.md"), "input": dir.join("input.json"), "result_schema": null,
            "skills": dir.join("skills"), "files": dir.join("files"), "workspace": dir.join("workspace"),
            "events": dir.join("attempt/events.ndjson"), "transcript": dir.join("attempt/transcript.ndjson"),
            "notes": dir.join("attempt/notes.json"), "conversation": null
        },
        "limits": {"max_steps": 5, "max_tokens": null, "max_cost_usd": null, "max_output": 100, "corrections": 3,
                   "call_timeout_ms": 5000, "tool_timeout_ms": 20_000, "deadline_ms": null}
    });
    serde_json::from_value(text).unwrap()
}

/// A skill of the catalogue, with its `SKILL.md`.
pub(in crate::agentloop) fn catalogue_skill(dir: &Path, id: &str, text: &str) -> CatalogueSkill {
    let folder = dir.join("all-skills").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("SKILL.md"), text).unwrap();
    CatalogueSkill { id: id.to_owned(), description: format!("what {id} is for"), dir: folder }
}

/// A call with these arguments.
pub(super) async fn call(toolbox: &Toolbox, name: &str, arguments: Value) -> Answer {
    let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
    toolbox.call(name, &arguments).await
}

/// What a call gave that has to be done.
pub(super) async fn done(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Done, "{}", answer.content);
    answer.content
}

/// What a call gave that has to fail.
pub(super) async fn failed(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Failed, "{}", answer.content);
    answer.content
}

/// What a call gave that has to be denied.
pub(super) async fn denied(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Denied, "{}", answer.content);
    answer.content
}
