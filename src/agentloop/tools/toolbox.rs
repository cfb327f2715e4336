//! The tools of one run, and the one way to call one.
//!
//! A call is answered whatever it is: a name that nobody has, arguments that do not fit and a tool that the agent was
//! not given are answers too, so a run goes on and nothing ever waits for a person. What a call may take is the loop's
//! to say: it drops the future.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};

use super::mcp::{self, Server};
use super::{Answer, Error, Tool, browser, files, http, notes, shell, skills};
use crate::agentloop::brief::Brief;
use crate::agentloop::browser::Browser;
use crate::agentloop::model::ToolSpec;
use crate::schema::Schema;

/// Tools that a definition gives or withholds: a call of one that was withheld is a denial, not a mistake.
const WITHHELD: [(&str, &[&str]); 6] = [
    ("browser", browser::NAMES),
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
#[derive(Default)]
pub struct Toolbox {
    entries: BTreeMap<String, Entry>,
    specs: Vec<ToolSpec>,
    /// For the model, before the conversation.
    words: Vec<String>,
    notices: Vec<String>,
    servers: Vec<Arc<Server>>,
    browser: Option<Arc<Browser>>,
    /// Servers that did not start, by name, and why.
    dead: BTreeMap<String, String>,
    /// Tools of servers that the definition does not allow.
    withheld: BTreeSet<String>,
}

/// Makes the tools that the brief gives, and starts the servers of tools that it names, all at once.
///
/// # Errors
/// The notes cannot be read. A server that does not start is no error but a notice.
pub async fn toolbox(brief: &Brief, world: &World) -> Result<Toolbox, Error> {
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
    if let Some(shell) = &brief.shell {
        let cwd = brief.paths.workspace.clone();
        tools.push(Box::new(shell::ShellTool::new(shell, cwd, world.env.clone())));
    }
    if has("notes") {
        tools.extend(notes::tools(&brief.paths.notes)?);
    }
    if has("last_run") {
        tools.push(Box::new(notes::LastRun(brief.last_run.clone())));
    }
    let mut toolbox = Toolbox::default();
    if let Some(of) = &brief.browser {
        let (browser, more) = browser::tools(of, brief, world);
        toolbox.browser = Some(browser);
        tools.extend(more);
    }
    if let Some(skill) = skills::ActivateSkill::new(&brief.catalogue, &brief.seeded) {
        toolbox.words.push(skill.catalogue());
        tools.push(Box::new(skill));
    }
    toolbox.add(tools);
    toolbox.start_servers(brief, world).await;
    toolbox.specs = toolbox.entries.values().map(|entry| entry.tool.spec()).collect();
    Ok(toolbox)
}

impl Toolbox {
    fn add(&mut self, tools: Vec<Box<dyn Tool>>) {
        for tool in tools {
            let spec = tool.spec();
            let schema = Schema::compile(&spec.parameters).ok();
            self.entries.insert(spec.name, Entry { tool, schema });
        }
    }

    async fn start_servers(&mut self, brief: &Brief, world: &World) {
        let servers = brief.mcp.iter();
        let offers =
            join_all(servers.map(|(name, of)| mcp::start(name, of, &brief.paths.workspace, world))).await;
        for (name, offer) in brief.mcp.keys().zip(offers) {
            match offer {
                Ok(offer) => {
                    self.words.extend(offer.server.instructions());
                    self.add(offer.tools);
                    self.withheld.extend(offer.withheld);
                    self.notices.extend(offer.notices);
                    self.servers.push(offer.server);
                }
                Err(why) => {
                    self.notices.push(format!("The MCP server {name} did not start: {why}"));
                    self.dead.insert(name.clone(), why);
                }
            }
        }
    }

    /// The tools as a model is shown them, by name in ascending order; the same for the whole run.
    #[must_use]
    pub fn specs(&self) -> &[ToolSpec] {
        &self.specs
    }

    /// What the model is told of them before the conversation: the skills that it may activate, and what servers of
    /// tools say of themselves.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// What is amiss with the tools, a sentence each: servers that did not start, tools that they do not have.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The browser, where the agent has one.
    #[must_use]
    pub fn browser(&self) -> Option<Arc<Browser>> {
        self.browser.clone()
    }

    /// Calls a tool. Whatever happens is an answer.
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
        entry.tool.call(arguments).await
    }

    /// Keeps what the browser leaves to later runs, and ends the servers that were started; what could not be kept.
    pub async fn close(self) -> Option<String> {
        let lost = match &self.browser {
            Some(browser) => browser.close().await,
            None => None,
        };
        join_all(self.servers.iter().map(|server| server.close())).await;
        lost
    }

    fn unknown(&self, name: &str) -> Answer {
        if let Some((given_by, _)) = WITHHELD.iter().find(|(_, names)| names.contains(&name)) {
            return Answer::denied(format!(
                "This agent may not use {name}: its definition does not list {given_by:?} under `tools:`. Nobody is \
                 there to allow it; do without."
            ));
        }
        if self.withheld.contains(name) {
            return Answer::denied(format!(
                "This agent may not use {name}: its definition does not allow it. Nobody is there to allow it; do \
                 without."
            ));
        }
        let dead = self.dead.iter().find(|(server, _)| name.starts_with(&mcp::shown_name(server, "")));
        if let Some((server, why)) = dead {
            return Answer::failed(format!(
                "The MCP server {server} did not start, so it has no tools: {why}"
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
