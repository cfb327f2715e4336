//! `activate_skill`: the text of a skill of the catalogue, when the model finds that it needs it.
//!
//! A model sees of each skill what it is for; the text costs tokens only when it is wanted, and once. Files beside it
//! are named, not read: they are reached by `read_file` as `@skills/ID/..`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Answer, Tool, text_of};
use crate::agentloop::brief::CatalogueSkill;
use crate::agentloop::model::ToolSpec;
use crate::model::SkillFile;

/// The name of the tool; what it gives is not to be cut, and stays in the conversation.
pub const ACTIVATE_SKILL: &str = "activate_skill";
/// Most of a `SKILL.md` that is read, bytes.
pub const SKILL_MAX: u64 = 256 << 10;
/// Most files that are named.
const FILES_MAX: usize = 200;
/// How deep they are looked for.
const DEPTH_MAX: usize = 6;

pub(super) struct ActivateSkill {
    catalogue: Vec<CatalogueSkill>,
    /// Those whose text the model has.
    active: Mutex<BTreeSet<String>>,
}

impl ActivateSkill {
    /// `None` where there is nothing to activate; what is seeded is there already.
    pub(super) fn new(catalogue: &[CatalogueSkill], seeded: &[String]) -> Option<Self> {
        let catalogue: Vec<_> =
            catalogue.iter().filter(|skill| !seeded.contains(&skill.id)).cloned().collect();
        (!catalogue.is_empty()).then(|| Self { catalogue, active: Mutex::default() })
    }

    /// Which there are and what each is for, for the model.
    pub(super) fn catalogue(&self) -> String {
        let line = |skill: &CatalogueSkill| format!("- {}: {}", skill.id, skill.description);
        let lines: Vec<String> = self.catalogue.iter().map(line).collect();
        format!(
            "<available_skills>\nBefore work that one of these describes, get its instructions by \
             {ACTIVATE_SKILL}:\n{}\n</available_skills>",
            lines.join("\n")
        )
    }

    fn activate(&self, name: &str) -> Answer {
        let Some(skill) = self.catalogue.iter().find(|skill| skill.id == name) else {
            return Answer::failed(format!("There is no skill {name:?}."));
        };
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if active.contains(name) {
            return Answer::done(format!("The skill {name} is active already: its text stands above."));
        }
        match content(skill) {
            Ok(content) => {
                active.insert(name.to_owned());
                Answer::done(content)
            }
            Err(e) => Answer::failed(format!("The skill {name} cannot be read: {e}")),
        }
    }
}

impl Tool for ActivateSkill {
    fn spec(&self) -> ToolSpec {
        let ids: Vec<&str> = self.catalogue.iter().map(|skill| skill.id.as_str()).collect();
        ToolSpec {
            name: ACTIVATE_SKILL.to_owned(),
            description: "Gives the instructions of one of the available skills.".to_owned(),
            parameters: json!({"type": "object", "properties": {"name": {"type": "string", "enum": ids}},
                               "required": ["name"], "additionalProperties": false}),
        }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(std::future::ready(self.activate(text_of(arguments, "name"))))
    }
}

fn content(skill: &CatalogueSkill) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(skill.dir.join("SKILL.md"))?.take(SKILL_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SKILL_MAX {
        return Err(std::io::Error::other(format!("its SKILL.md is larger than {} KiB", SKILL_MAX >> 10)));
    }
    let file = SkillFile::read(&skill.id, &String::from_utf8_lossy(&bytes));
    let id = &skill.id;
    let mut text = format!("<skill_content name=\"{id}\">\n{}\n", file.body.trim_end());
    let mut files = Vec::new();
    resources(&skill.dir, "", 0, &mut files);
    if !files.is_empty() {
        let more = files.len() > FILES_MAX;
        let _ = writeln!(text, "\nPaths in it are relative to @skills/{id}/\n<skill_resources>");
        for file in files.iter().take(FILES_MAX) {
            let _ = writeln!(text, "  <file>{file}</file>");
        }
        text.push_str(if more { "  (and others)\n</skill_resources>\n" } else { "</skill_resources>\n" });
    }
    text.push_str("</skill_content>");
    Ok(text)
}

/// The files below a folder of a skill, by path; hidden ones and links are left out.
fn resources(dir: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if found.len() > FILES_MAX || name.starts_with('.') || path == "SKILL.md" {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => {
                resources(&entry.path(), &format!("{path}/"), depth + 1, found);
            }
            Ok(kind) if kind.is_file() => found.push(path),
            Ok(_) | Err(_) => {}
        }
    }
}
