//! What a model is shown: the words before the conversation, and the conversation.
//!
//! The beginning is the same bytes for every call of a run and, but for the last lines of the first message, for
//! every run of an agent: instructions, seeded skills verbatim, prompt, input; the facts of the run come last. So a
//! provider's cache finds it again.
//!
//! A session that runs share keeps its conversation in a file. It is written when a run has ended, whole and at
//! once: a run that is killed leaves it as it was.

use std::io::{self, Read as _};
use std::path::Path;

use serde_json::{Value, json};

use super::brief::Brief;
use super::model::{Message, Said, ToolResult};
use super::record::{Record, json_of};
use crate::proc::{read_regular, write_whole};

/// Largest conversation of a session that is read, bytes; a larger one begins anew.
pub const CONVERSATION_MAX: u64 = 8 << 20;
/// Largest prompt, input or skill that is read, bytes.
const TEXT_MAX: u64 = 16 << 20;
/// Most names of files that the first message lists.
const FILES_LISTED: usize = 100;

/// What stands before every conversation.
const INSTRUCTIONS: &str = "\
You carry out one task, alone. Nobody reads along and nobody can answer: never ask and never wait for a person, \
decide and go on.
Use the tools for what you need to know and to do. A tool that fails says why: try otherwise. A tool that is denied \
stays denied: find another way, or stop.
When the task is done, call `finish` with its result. When it cannot be done, call `stop_execution` with the reason. \
Never make up a result.";

/// A conversation as it grows.
#[derive(Debug, Default)]
pub struct Conversation {
    /// What stands before it.
    pub system: Vec<String>,
    messages: Vec<Message>,
    sizes: Vec<usize>,
    /// How many messages the runs before have left.
    inherited: usize,
}

/// What a run is about, as it lies in its folder.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// The prompt.
    pub prompt: String,
    /// The input.
    pub input: Value,
    /// What a result must be.
    pub result_schema: Option<Value>,
    /// Seeded skills: name and text.
    pub skills: Vec<(String, String)>,
    /// Names in the folder of files.
    pub files: Vec<String>,
}

impl Task {
    /// Reads what the engine has prepared.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(brief: &Brief) -> Result<Self, String> {
        let paths = &brief.paths;
        let json = |path: &Path| {
            let value = serde_json::from_str(&read(path, TEXT_MAX)?);
            value.map_err(|e| format!("{} is not JSON: {e}", path.display()))
        };
        let skill = |name: &String| {
            let text = read(&paths.skills.join(name).join("SKILL.md"), TEXT_MAX)?;
            Ok((name.clone(), without_front_matter(&text).to_owned()))
        };
        Ok(Self {
            prompt: read(&paths.prompt, TEXT_MAX)?,
            input: json(&paths.input)?,
            result_schema: paths.result_schema.as_deref().map(json).transpose()?,
            skills: brief.seeded.iter().map(skill).collect::<Result<_, String>>()?,
            files: names(&paths.files),
        })
    }
}

impl Task {
    /// What of a `SKILL.md` is shown.
    #[must_use]
    pub fn skill_text(text: &str) -> String {
        without_front_matter(text).to_owned()
    }
}

impl Conversation {
    /// The beginning of a run; `before` is what the runs before it in the session have left.
    #[must_use]
    pub fn begin(brief: &Brief, task: &Task, before: Vec<Message>) -> Self {
        let skill = |(name, text): &(String, String)| {
            let text = text.trim();
            // No path of this run: the same words in every run are what a provider's cache finds again.
            format!(
                "<skill_content name={name:?}>\n{text}\n\nIts files are @skills/{name}/.. for read_file, and \
                 $MATINS_SKILLS_DIR/{name}/.. for programs.\n</skill_content>"
            )
        };
        let mut system = vec![INSTRUCTIONS.to_owned()];
        system.extend(task.skills.iter().map(skill));
        let mut conversation = Self { system, ..Self::default() };
        for message in before {
            conversation.push(message);
        }
        conversation.inherited = conversation.messages.len();
        conversation.push(Message::User { text: first(brief, task) });
        conversation
    }

    /// What was said, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// How many of them are of runs before.
    #[must_use]
    pub fn inherited(&self) -> usize {
        self.inherited
    }

    /// Bytes of it, the words before it included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.system.iter().map(String::len).sum::<usize>() + self.sizes.iter().sum::<usize>()
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.sizes.push(size(&message));
        self.messages.push(message);
    }

    /// Adds what a model said, unless it said nothing at all.
    pub fn said(&mut self, said: Said) {
        if said.text.is_some() || !said.calls.is_empty() || said.echo.is_some() {
            self.push(Message::Assistant(said));
        }
    }

    /// Tells the model something of ours. It is added to the last message where that is ours too: some providers take
    /// no message of a user after results of tools.
    pub fn tell(&mut self, text: &str) {
        match self.messages.last_mut() {
            Some(Message::Tools { results }) if !results.is_empty() => {
                if let Some(ToolResult { content, .. }) = results.last_mut() {
                    content.push_str("\n\n");
                    content.push_str(text);
                }
            }
            Some(Message::User { text: said }) => {
                said.push_str("\n\n");
                said.push_str(text);
            }
            _ => return self.push(Message::User { text: text.to_owned() }),
        }
        self.measure_again(self.messages.len() - 1);
    }

    /// Replaces the content of a result.
    pub fn replace(&mut self, index: usize, result: usize, content: String) {
        if let Some(Message::Tools { results }) = self.messages.get_mut(index)
            && let Some(result) = results.get_mut(result)
        {
            result.content = content;
            self.measure_again(index);
        }
    }

    /// Forgets the oldest messages of runs before, `n` of them.
    pub fn forget(&mut self, n: usize) {
        let n = n.min(self.inherited);
        self.messages.drain(..n);
        self.sizes.drain(..n);
        self.inherited -= n;
    }

    /// Counts the first `n` messages as those of runs before.
    #[cfg(test)]
    pub(super) fn inherit(&mut self, n: usize) {
        self.inherited = n;
    }

    fn measure_again(&mut self, index: usize) {
        if let (Some(message), Some(known)) = (self.messages.get(index), self.sizes.get_mut(index)) {
            *known = size(message);
        }
    }
}

/// The first message of a run: what changes from run to run stands at its end.
fn first(brief: &Brief, task: &Task) -> String {
    let mut text = task.prompt.trim().to_owned();
    if task.input.as_object().is_none_or(|input| !input.is_empty()) {
        text = format!("{text}\n\nInput:\n```json\n{}\n```", task.input);
    }
    if !task.files.is_empty() {
        let names: Vec<&str> = task.files.iter().map(String::as_str).collect();
        text = format!("{text}\n\nFiles in {}: {}", brief.paths.files.display(), names.join(", "));
    }
    let mut facts = format!("run {}, trigger {}", brief.run, brief.trigger);
    if let Some(at) = &brief.scheduled_for {
        facts = format!("{facts}, scheduled for {at}");
    }
    format!("{text}\n\n({facts})")
}

/// Bytes of a message as a provider counts them, about.
fn size(message: &Message) -> usize {
    const FRAME: usize = 16;
    FRAME
        + match message {
            Message::User { text } => text.len(),
            Message::Assistant(said) => json_of(said).to_string().len(),
            Message::Tools { results } => {
                results.iter().map(|r| FRAME + r.name.len() + r.call.len() + r.content.len()).sum()
            }
        }
}

/// The body of a skill.
fn without_front_matter(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}');
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else { return text };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        at += line.len();
        if line.trim_end() == "---" {
            return rest.get(at..).unwrap_or_default();
        }
    }
    text
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let name = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).take(FILES_LISTED).collect();
    names.sort();
    names
}

/// The text of a file.
pub(super) fn read(path: &Path, max: u64) -> Result<String, String> {
    let fail = |e: io::Error| format!("cannot read {}: {e}", path.display());
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(max + 1).read_to_string(&mut text)).map_err(fail)?;
    if text.len() as u64 > max {
        return Err(format!("{} is larger than {} MiB", path.display(), max >> 20));
    }
    Ok(text)
}

/// The conversation that the runs before in a session have left; none where there is none, or none that can be read.
#[must_use]
pub fn load(path: &Path) -> Vec<Message> {
    let bytes = read_regular(path, CONVERSATION_MAX).ok().flatten().unwrap_or_default();
    let kept: Option<Kept> = serde_json::from_slice(&bytes).ok();
    kept.filter(|kept| kept.version == VERSION).map(|kept| kept.messages).unwrap_or_default()
}

/// Version of the file of a conversation.
const VERSION: u32 = 1;

#[derive(serde::Deserialize)]
struct Kept {
    version: u32,
    messages: Vec<Message>,
}

/// Keeps a conversation for the runs after. Runs of one session may end at once: the file is whole, and the last one's.
///
/// # Errors
/// Those of the file system.
pub fn save(path: &Path, messages: &[Message], record: &Record) -> io::Result<()> {
    let kept = record.clean_value(json!({"version": VERSION, "messages": json_of(&messages)}));
    write_whole(path, kept.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_left_out() {
        assert_eq!(without_front_matter("---\nname: x\n---\nbody\n---\n"), "body\n---\n");
        assert_eq!(without_front_matter("---\r\nname: x\r\n---\r\nbody"), "body");
        for whole in ["body", "---\nname: x\nbody", "--- \nx"] {
            assert_eq!(without_front_matter(whole), whole);
        }
    }

    #[test]
    fn what_is_told_joins_the_last_message_of_ours() {
        let mut c = Conversation::default();
        c.tell("a");
        c.tell("b");
        assert_eq!(c.messages(), [Message::User { text: "a\n\nb".to_owned() }]);
        c.said(Said { text: Some("x".to_owned()), ..Said::default() });
        c.said(Said::default());
        c.tell("c");
        let result = ToolResult { call: "1".into(), name: "t".into(), content: "r".into(), is_error: false };
        c.push(Message::Tools { results: vec![result] });
        c.tell("d");
        assert_eq!(c.messages().len(), 4, "saying nothing is no message");
        assert!(matches!(&c.messages()[3], Message::Tools { results } if results[0].content == "r\n\nd"));
        let sizes: usize = c.messages().iter().map(size).sum();
        assert_eq!(c.bytes(), sizes, "it is measured as it is");
    }

    #[test]
    fn a_session_keeps_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("conversation.json");
        assert_eq!(load(&path), []);
        let said = vec![Message::User { text: "a".to_owned() }, Message::Assistant(Said::default())];
        save(&path, &said, &Record::nowhere()).unwrap();
        assert_eq!(load(&path), said);
        std::fs::write(&path, "{\"version\":2,\"messages\":[]}").unwrap();
        assert_eq!(load(&path), []);
    }
}
