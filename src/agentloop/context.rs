//! Keeps a conversation within what a model takes.
//!
//! One answer of a tool shows its head and its tail; the whole is saved beside the run's files. When a conversation
//! comes near the model's window, the oldest answers of tools are taken out first, then the messages of runs before
//! in the session. Skills, instructions, the task and what the model said itself are never touched. It is done
//! rarely and then by much: each time it breaks the provider's cache.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::conversation::Conversation;
use super::model::Message;
use super::record::Record;
use super::spent::Spent;
use super::tools::ACTIVATE_SKILL;
use crate::ids::hex;
use crate::proc::write_anew;

/// Longest answer of a tool that is shown whole, bytes.
pub const ANSWER_MAX: usize = 16 << 10;
/// Longest sentence in the place of what was cut, bytes.
const NOTE_MAX: usize = 512;
/// What of it is not the place of the whole, bytes.
const FRAME_MAX: usize = 64;
/// How much of a digest names a file, bytes.
const NAME_BYTES: usize = 8;
/// Share of a window at which something is taken out, and down to which, per cent.
const HIGH: u64 = 70;
const LOW: u64 = 50;
/// What stands in the place of an answer that was taken out.
const REMOVED: &str = "[This answer was taken out to make room. Call the tool again if you need it.]";
/// Shortest answer that is worth being taken out, bytes.
const WORTH: usize = 256;

/// An answer as the model is shown it. What is cut is saved in `files`, under a name that tells nothing but what it
/// holds: equal answers are shown as equal, also when they are played again. A record that keeps nothing saves nothing.
#[must_use]
pub fn shown(content: String, files: &Path, record: &Record) -> String {
    if content.len() <= ANSWER_MAX {
        return content;
    }
    let (head, tail) = ends(&content);
    let cut = content.len() - head.len() - tail.len();
    let name = hex(&Sha256::digest(&content)[..NAME_BYTES]);
    let file = files.join(format!("tool-output-{name}.txt"));
    let saving = if record.keeps() { write_anew(&file, content.as_bytes()) } else { Ok(()) };
    let mut saved = match saving {
        Ok(()) => format!("the whole is in the file {}", file.display()),
        Err(e) => format!("the whole could not be saved: {e}"),
    };
    saved.truncate(saved.floor_char_boundary(NOTE_MAX - FRAME_MAX));
    format!("{head}\n[{cut} bytes cut; {saved}]\n{tail}")
}

/// Head and tail of a text, cut between characters: with what is said between them no more than is shown whole, so
/// that an answer that was cut is not cut again when it is played once more.
fn ends(content: &str) -> (&str, &str) {
    let half = (ANSWER_MAX - NOTE_MAX) / 2;
    (
        &content[..content.floor_char_boundary(half)],
        &content[content.ceil_char_boundary(content.len() - half)..],
    )
}

/// Takes out what must go for a window of `window` tokens; how many bytes went. `hard`: the provider has said that it
/// is too long.
pub fn trim(conversation: &mut Conversation, spent: &Spent, window: Option<u64>, hard: bool) -> usize {
    let before = conversation.bytes();
    let high = window.map(|w| w / 100 * HIGH);
    if !hard && high.is_none_or(|high| spent.estimate(before) <= high) {
        return 0;
    }
    let half = spent.estimate(before) / 2;
    let low = window.filter(|_| !hard).map_or(half, |w| w / 100 * LOW);
    let is_long = |c: &Conversation| spent.estimate(c.bytes()) > low;
    // The newest answers are what the model works with.
    let last = conversation.messages().len().saturating_sub(1);
    for index in 0..last {
        if !is_long(conversation) {
            break;
        }
        take_out(conversation, index);
    }
    while is_long(conversation) && conversation.inherited() > 0 {
        conversation.forget(oldest_exchange(conversation));
    }
    before.saturating_sub(conversation.bytes())
}

fn take_out(conversation: &mut Conversation, index: usize) {
    let Some(Message::Tools { results }) = conversation.messages().get(index) else { return };
    let large = |(n, r): (usize, &super::model::ToolResult)| {
        (r.name != ACTIVATE_SKILL && r.content.len() > WORTH).then_some(n)
    };
    let large: Vec<usize> = results.iter().enumerate().filter_map(large).collect();
    for n in large {
        conversation.replace(index, n, REMOVED.to_owned());
    }
}

/// How many messages the oldest run of a session has left: up to the next one that a user said.
fn oldest_exchange(conversation: &Conversation) -> usize {
    let inherited = conversation.messages().iter().take(conversation.inherited());
    let users = inherited.enumerate().filter(|(_, m)| matches!(m, Message::User { .. })).map(|(n, _)| n);
    users.filter(|n| *n > 0).min().unwrap_or(conversation.inherited())
}

#[cfg(test)]
mod tests {
    use super::super::model::{Said, ToolResult};
    use super::*;
    use crate::secret::Redactor;

    #[test]
    fn a_long_answer_shows_its_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, short) = (tempfile::tempdir().unwrap(), "x".repeat(ANSWER_MAX));
        let place = |name| kept.path().join(name);
        let record = Record::open(&place("e"), &place("t"), Redactor::new([])).unwrap();
        let show = |content: &str, files: &Path| shown(content.to_owned(), files, &record);
        assert_eq!(show(&short, dir.path()), short);
        let long = format!("begin{}é-end", "ü".repeat(ANSWER_MAX));
        let cut = show(&long, dir.path());
        assert!(cut.starts_with("begin") && cut.ends_with("é-end") && cut.len() <= ANSWER_MAX);
        assert_eq!(show(&long, dir.path()), cut, "the same is shown as the same");
        let saved: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(saved.len(), 1, "{saved:?}");
        assert!(cut.contains(&format!("the whole is in the file {}]", saved[0].display())), "{cut}");
        let elsewhere = Path::new("/none");
        assert_eq!(show(&cut, elsewhere), cut, "what was cut is not cut again");
        let played = shown(long.clone(), elsewhere, &Record::nowhere());
        assert!(played.contains("the whole is in the file /none/tool-output-"), "{played}");
        let far = dir.path().join("x".repeat(300));
        assert!(show(&long, &far).len() <= ANSWER_MAX, "whatever the place is called");
        assert_eq!(std::fs::read_to_string(&saved[0]).unwrap(), long);
    }

    fn tools(name: &str, bytes: usize) -> Message {
        let (call, name, content) = ("1".to_owned(), name.to_owned(), "x".repeat(bytes));
        Message::Tools { results: vec![ToolResult { call, name, content, is_error: false }] }
    }

    #[test]
    fn the_oldest_answers_go_first_and_skills_stay() {
        let mut c = Conversation::default();
        for message in [
            Message::User { text: "task".to_owned() },
            tools("activate_skill", 3_000),
            tools("fetch", 3_000),
            Message::Assistant(Said { text: Some("y".repeat(300)), ..Said::default() }),
            tools("fetch", 3_000),
            tools("fetch", 3_000),
        ] {
            c.push(message);
        }
        let spent = Spent::default();
        assert_eq!(trim(&mut c, &spent, Some(10_000), false), 0, "it is far from the window");
        assert_eq!(trim(&mut c, &spent, None, false), 0, "no window is known");
        let went = trim(&mut c, &spent, Some(5_000), false);
        assert!((5_000..6_500).contains(&went), "{went}");
        assert_eq!(c.messages()[1], tools("activate_skill", 3_000));
        assert_eq!(c.messages()[5], tools("fetch", 3_000), "the newest stays");
        assert!(trim(&mut c, &spent, None, true) == 0, "nothing is left to take out");
    }

    #[test]
    fn runs_before_go_as_a_whole() {
        let text = |text: &str| Message::User { text: text.to_owned() };
        let said = || Message::Assistant(Said { text: Some("y".repeat(3_000)), ..Said::default() });
        let mut c = Conversation::default();
        for message in [text("one"), said(), text("two"), said(), text("three")] {
            c.push(message);
        }
        c.inherit(4);
        trim(&mut c, &Spent::default(), Some(2_600), false);
        assert_eq!(c.messages()[0], text("two"));
        assert_eq!((c.messages().len(), c.inherited()), (3, 2));
    }
}
