//! `browser_*`: a real browser, a tool for each thing that a person does in one.
//!
//! The tools only read what is asked and tell what came of it; the browser is their one and the same, and does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::files::Roots;
use super::{Answer, Tool, World};
use crate::agentloop::brief::{self, Brief, Cookies};
use crate::agentloop::browser::{Browser, Deed, Fault, How, Jar, Options};
use crate::agentloop::model::ToolSpec;

/// Names of all tools.
pub(super) const NAMES: &[&str] = &[
    "browser_navigate",
    "browser_back",
    "browser_snapshot",
    "browser_click",
    "browser_type",
    "browser_keys",
    "browser_wait_for",
    "browser_screenshot",
    "browser_select",
    "browser_scroll",
    "browser_extract",
    "browser_tabs",
    "browser_upload",
    "browser_download",
    "browser_dialog",
];

struct BrowserTool {
    name: &'static str,
    roots: Arc<Roots>,
    browser: Arc<Browser>,
}

/// The browser of a run, and its tools.
pub(super) fn tools(of: &brief::Browser, brief: &Brief, world: &World) -> (Arc<Browser>, Vec<Box<dyn Tool>>) {
    let attempt = || brief.paths.events.parent().unwrap_or(Path::new("/tmp")).to_owned();
    let tmp = world.env.get("TMPDIR").map_or_else(attempt, PathBuf::from);
    let how = How {
        program: of.program.clone(),
        env: world.env.clone(),
        tmp,
        viewport: of.viewport,
        user_agent: of.user_agent.clone(),
    };
    let browser = Arc::new(Browser::new(Options {
        how,
        files: brief.paths.files.clone(),
        screenshots: of.screenshots,
        secrets: brief.secrets.clone(),
        hosts: brief.hosts.clone(),
        proxy: of.proxy.clone(),
        proxy_password: of.proxy_password.clone(),
        jar: of.cookies.clone().map(|Cookies { file, secret, of }| Jar { file, secret, of }),
    }));
    let roots = Arc::new(Roots::of(brief));
    let tool = |name: &&'static str| {
        Box::new(BrowserTool { name, roots: Arc::clone(&roots), browser: Arc::clone(&browser) })
            as Box<dyn Tool>
    };
    let tools = NAMES.iter().map(tool).collect();
    (browser, tools)
}

/// What a tool is for, and its arguments: those that it needs, and those that it may have.
fn told(name: &str) -> (&'static str, Value, &'static [&'static str]) {
    let reference = json!({"type": "string", "pattern": "^e[0-9]+$", "description": "An element: its [ref=..] in the last snapshot, as e12"});
    match name {
        "browser_navigate" => {
            ("Goes to an address.", json!({"url": {"type": "string", "minLength": 1}}), &["url"])
        }
        "browser_back" => ("Goes back to the page before.", json!({}), &[]),
        "browser_snapshot" => (
            "Looks at the page: its elements, each with a reference by which other tools name it.",
            json!({"ref": reference, "from": {"type": "integer", "minimum": 0, "description": "First line to show"}}),
            &[],
        ),
        "browser_click" => (
            "Clicks an element.",
            json!({"ref": reference, "double": {"type": "boolean"}, "button": {"enum": ["left", "middle", "right"]}}),
            &["ref"],
        ),
        "browser_type" => (
            "Writes into a field. Give the text, or the name of a secret, whose value you do not see.",
            json!({
                "ref": reference, "text": {"type": "string"}, "secret": {"type": "string"},
                "clear": {"type": "boolean", "description": "Over what is there; default true"},
                "submit": {"type": "boolean", "description": "Press Enter behind it"},
            }),
            &["ref"],
        ),
        "browser_keys" => (
            "Presses a key or a chord, as Enter, Escape, ArrowDown, Control+a.",
            json!({"keys": {"type": "string", "minLength": 1}, "ref": reference}),
            &["keys"],
        ),
        "browser_wait_for" => (
            "Waits until all that is given is so: a text is on the page, another is gone, the address holds something, an \
             element can be used. At most so many seconds, default 10.",
            json!({
                "text": {"type": "string", "minLength": 1}, "gone": {"type": "string", "minLength": 1},
                "url": {"type": "string", "minLength": 1}, "ref": reference,
                "seconds": {"type": "number", "minimum": 0, "maximum": 50},
            }),
            &[],
        ),
        other => told_more(other, &reference),
    }
}

/// As [`told`], of the others.
fn told_more(name: &str, reference: &Value) -> (&'static str, Value, &'static [&'static str]) {
    match name {
        "browser_select" => (
            "Chooses options of a list by their labels or values.",
            json!({"ref": reference, "options": {"type": "array", "items": {"type": "string"}}}),
            &["ref", "options"],
        ),
        "browser_scroll" => (
            "Scrolls the page, or what an element stands in: to the top, the bottom or the element, or down by pixels.",
            json!({"ref": reference, "to": {"enum": ["top", "bottom", "element"]}, "by": {"type": "number"}}),
            &[],
        ),
        "browser_extract" => (
            "Reads data from the page as JSON. `from` says where it stands: {\"text\": {\"ref\"}}, {\"value\": {\"ref\"}}, \
             {\"attribute\": {\"ref\", \"name\"}}, {\"page\": \"url\" or \"title\"}, {\"object\": {field: source}}, {\"rows\": {\"ref\" \
             of a table, \"columns\": {field: header}}} or {\"items\": {\"ref\" of a list, \"role\"?, \"fields\": {field: {\"role\", \
             \"name\"?, \"take\": \"text\", \"value\" or an attribute}}}}; rows and items take \"next\": {\"ref\"} of what leads to \
             their next page, and go on to the last. `schema` says what each is, as numbers. Take results from here.",
            json!({"from": {"type": "object"}, "schema": {"type": "object"}}),
            &["from"],
        ),
        "browser_tabs" => (
            "Lists the tabs, opens one, makes one the current one, or closes one.",
            json!({
                "action": {"enum": ["list", "open", "select", "close"]}, "tab": {"type": "integer", "minimum": 1},
                "url": {"type": "string"},
            }),
            &["action"],
        ),
        "browser_upload" => (
            "Gives files to a field for files, or to the button that asks for them. A plain path is in the workspace, \
             @files/.. are files of this run.",
            json!({"ref": reference, "files": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 20}}),
            &["ref", "files"],
        ),
        "browser_download" => (
            "Downloads what an element or an address leads to, into the files of the run.",
            json!({"ref": reference, "url": {"type": "string"}, "name": {"type": "string"}}),
            &[],
        ),
        "browser_dialog" => (
            "Answers the dialog that is open. Any other call dismisses it.",
            json!({"accept": {"type": "boolean"}, "text": {"type": "string", "description": "What a prompt asks for"}}),
            &["accept"],
        ),
        _ => (
            "Saves a picture of the page, or of an element, among the files of the run.",
            json!({"name": {"type": "string"}, "ref": reference, "full": {"type": "boolean", "description": "All of the page"}}),
            &[],
        ),
    }
}

impl Tool for BrowserTool {
    fn spec(&self) -> ToolSpec {
        let (description, properties, required) = told(self.name);
        let parameters = json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        });
        ToolSpec { name: self.name.to_owned(), description: description.to_owned(), parameters }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let mut arguments = arguments.clone();
            if let Some(Value::Array(files)) = arguments.get_mut("files") {
                for file in files {
                    match self.roots.real(file.as_str().unwrap_or_default()) {
                        Ok(path) => *file = json!(path),
                        Err(refused) => return refused,
                    }
                }
            }
            let deed: Deed = match serde_json::from_value(json!({self.name: arguments})) {
                Ok(deed) => deed,
                Err(e) => return Answer::failed(format!("The arguments of {} do not fit: {e}", self.name)),
            };
            let came = self.browser.act(&deed).await;
            let answer = match came.said {
                Ok(said) => Answer::done(said),
                Err(Fault::Failed(why)) => Answer::failed(why),
                Err(Fault::Denied(why)) => Answer::denied(why),
            };
            Answer { notice: came.notice, ..answer }
        })
    }
}
