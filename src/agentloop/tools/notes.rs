//! `note_get`, `note_set`, `note_list`: what an agent remembers from run to run, and `last_run`.
//!
//! The notes that a run sees are those that stood when it began and its own. They are kept by whoever takes the lines
//! of the events file, in the transaction that ends the run: a run that never ended has changed none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Answer, Tool, text_of};
use crate::agentloop::model::ToolSpec;
use crate::model::{NOTE_KEY_MAX, NOTE_MAX, NOTES_MAX};

/// The notes of an agent, by key.
type Notes = Arc<Mutex<BTreeMap<String, String>>>;

/// What one of the three does.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Get,
    Set,
    List,
}

struct NoteTool {
    verb: Verb,
    notes: Notes,
}

/// The three tools over the notes of this file; a missing file has none.
pub(super) fn tools(file: &Path) -> Result<Vec<Box<dyn Tool>>, super::Error> {
    let unreadable = |why: String| super::Error::Notes { path: file.to_owned(), why };
    let notes = match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(unreadable(e.to_string())),
    };
    let notes = Arc::new(Mutex::new(notes));
    let tool = |verb| Box::new(NoteTool { verb, notes: Arc::clone(&notes) }) as Box<dyn Tool>;
    Ok(vec![tool(Verb::Get), tool(Verb::Set), tool(Verb::List)])
}

impl Tool for NoteTool {
    fn spec(&self) -> ToolSpec {
        let key = json!({"type": "string", "minLength": 1, "maxLength": NOTE_KEY_MAX, "description": "Name of the note"});
        let (name, description, properties, required) = match self.verb {
            Verb::Get => (
                "note_get",
                "Reads a note that you, or an earlier run of this agent, has set.",
                json!({"key": key}),
                json!(["key"]),
            ),
            Verb::Set => (
                "note_set",
                "Sets a note for later runs of this agent, in place of the one with the same key. An empty text \
                 removes it.",
                json!({"key": key, "text": {"type": "string", "maxLength": NOTE_MAX, "description": "What to remember"}}),
                json!(["key", "text"]),
            ),
            Verb::List => {
                ("note_list", "Lists the notes of this agent: key and first words.", json!({}), json!([]))
            }
        };
        let parameters = json!({"type": "object", "properties": properties, "required": required,
                                "additionalProperties": false});
        ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = text_of(arguments, "key");
        let answer = match self.verb {
            Verb::Get => get(&notes, key),
            Verb::Set => set(&mut notes, key, text_of(arguments, "text")),
            Verb::List => Answer::done(list(&notes)),
        };
        drop(notes);
        Box::pin(std::future::ready(answer))
    }
}

fn get(notes: &BTreeMap<String, String>, key: &str) -> Answer {
    match notes.get(key) {
        Some(text) => Answer::done(text),
        // Not a failure: to look is how one learns that there is none.
        None => Answer::done(format!("There is no note {key:?}.")),
    }
}

fn set(notes: &mut BTreeMap<String, String>, key: &str, text: &str) -> Answer {
    let length = text.chars().count();
    let kept = if text.is_empty() {
        notes.remove(key);
        None
    } else if length > NOTE_MAX {
        return Answer::failed(format!("The text has {length} characters; a note has at most {NOTE_MAX}."));
    } else if notes.len() >= NOTES_MAX && !notes.contains_key(key) {
        return Answer::failed(format!("There are {NOTES_MAX} notes, which is the most; remove one first."));
    } else {
        notes.insert(key.to_owned(), text.to_owned());
        Some(text.to_owned())
    };
    let said = if kept.is_some() { "The note is set." } else { "The note is removed." };
    Answer { note: Some((key.to_owned(), kept)), ..Answer::done(said) }
}

fn list(notes: &BTreeMap<String, String>) -> String {
    /// Characters that are shown of each.
    const SHOWN: usize = 80;
    if notes.is_empty() {
        return "There are no notes.".to_owned();
    }
    let line = |(key, text): (&String, &String)| {
        let first: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let more = if text.chars().nth(SHOWN).is_some() { ".." } else { "" };
        format!("{key}: {first}{more}")
    };
    notes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `last_run`: what the newest success before this run gave.
pub(super) struct LastRun(pub(super) Value);

impl Tool for LastRun {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "last_run".to_owned(),
            description:
                "Gives the result of the last successful run of this agent, with its id and when it ended."
                    .to_owned(),
            parameters: json!({"type": "object", "properties": {}, "additionalProperties": false}),
        }
    }

    fn call<'a>(&'a self, _: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        let content = match &self.0 {
            Value::Null => "There was no successful run before this one.".to_owned(),
            run => serde_json::to_string_pretty(run).unwrap_or_else(|_| run.to_string()),
        };
        Box::pin(std::future::ready(Answer::done(content)))
    }
}
