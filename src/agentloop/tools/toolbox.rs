//! The tools of one run, and the one way to call one.
//!
//! A call is answered whatever it is: a name that nobody has, arguments that do not fit, a tool that takes too long
//! and one that the agent was not given are answers too, so a run goes on and nothing ever waits for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Answer, Error, Tool, files, http, notes, skills};
use crate::agentloop::brief::Brief;
use crate::agentloop::model::ToolSpec;
use crate::schema::Schema;

/// Tools that a definition gives or withholds: a call of one that was withheld is a denial, not a mistake.
const WITHHELD: [(&str, &[&str]); 5] = [
    ("files", &["read_file", "write_file", "list_dir"]),
    ("http_fetch", &["http_fetch"]),
    ("shell", &["shell"]),
    ("notes", &["note_get", "note_set", "note_list"]),
    ("last_run", &["last_run"]),
];

/// What tools need beside the brief.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The whole environment of programs that are started: with the secrets of the definition, without the keys of
    /// providers.
    pub env: BTreeMap<String, String>,
}

struct Entry {
    tool: Box<dyn Tool>,
    /// `None`: whoever answers checks the arguments.
    schema: Option<Schema>,
}

/// The tools of one run.
pub struct Toolbox {
    entries: BTreeMap<String, Entry>,
    specs: Vec<ToolSpec>,
    notices: Vec<String>,
    timeout: Duration,
}

/// Makes the tools that the brief gives, and starts the servers of tools that it names.
///
/// # Errors
/// The notes cannot be read. A server that does not start is no error but a notice.
#[expect(clippy::unused_async, reason = "servers of tools are started here")]
pub async fn toolbox(brief: &Brief, _world: &World) -> Result<Toolbox, Error> {
    let has = |name: &str| brief.tools.iter().any(|tool| tool == name);
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    if has("files") {
        tools.extend(files::tools(brief));
    } else if !brief.seeded.is_empty() || !brief.catalogue.is_empty() {
        tools.push(files::reader(brief));
    }
    if has("http_fetch") {
        tools.push(Box::new(http::Fetch::new(&brief.hosts)));
    }
    if has("notes") {
        tools.extend(notes::tools(&brief.paths.notes)?);
    }
    if has("last_run") {
        tools.push(Box::new(notes::LastRun(brief.last_run.clone())));
    }
    if let Some(skill) = skills::ActivateSkill::new(&brief.catalogue, &brief.seeded) {
        tools.push(Box::new(skill));
    }
    Ok(Toolbox::new(tools, Vec::new(), Duration::from_millis(brief.limits.tool_timeout_ms)))
}

impl Toolbox {
    fn new(tools: Vec<Box<dyn Tool>>, notices: Vec<String>, timeout: Duration) -> Self {
        let entry = |tool: Box<dyn Tool>| {
            let spec = tool.spec();
            let schema = Schema::compile(&spec.parameters).ok();
            (spec.name, Entry { tool, schema })
        };
        let entries: BTreeMap<String, Entry> = tools.into_iter().map(entry).collect();
        let specs = entries.values().map(|entry| entry.tool.spec()).collect();
        Self { entries, specs, notices, timeout }
    }

    /// The tools as a model is shown them, by name in ascending order; the same for the whole run.
    #[must_use]
    pub fn specs(&self) -> &[ToolSpec] {
        &self.specs
    }

    /// What is amiss with the tools, a sentence each: servers that did not start.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Calls a tool. Whatever happens is an answer; it takes at most the time of a tool.
    pub async fn call(&self, name: &str, arguments: &Map<String, Value>) -> Answer {
        let Some(entry) = self.entries.get(name) else {
            return self.unknown(name);
        };
        if let Some(schema) = &entry.schema
            && let Err(violations) = schema.validate(&Value::Object(arguments.clone()))
        {
            let lines: Vec<String> = violations.iter().map(|v| format!("- {v}")).collect();
            return Answer::failed(format!(
                "The arguments of {name} do not fit its schema:\n{}",
                lines.join("\n")
            ));
        }
        match tokio::time::timeout(self.timeout, entry.tool.call(arguments)).await {
            Ok(answer) => answer,
            Err(_) => Answer::failed(format!(
                "{name} was ended: it took longer than {} s, the most that a tool may take.",
                self.timeout.as_secs_f64()
            )),
        }
    }

    /// Ends what the tools have started.
    #[expect(clippy::unused_async, reason = "servers of tools are ended here")]
    pub async fn close(self) {
        drop(self);
    }

    fn unknown(&self, name: &str) -> Answer {
        if let Some((given_by, _)) = WITHHELD.iter().find(|(_, names)| names.contains(&name)) {
            return Answer::denied(format!(
                "This agent may not use {name}: its definition does not list {given_by:?} under `tools:`. Nobody is \
                 there to allow it; do without."
            ));
        }
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Answer::failed(format!(
            "There is no tool {name:?}; beside finish and stop_execution there are: {there}."
        ))
    }
}

#[cfg(test)]
mod tests;
