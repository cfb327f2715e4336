//! The shapes of a message: what is stored as its body, and what goes over the wire.
//!
//! `standard` is the signed JSON. `slack` is the `{"text": ..}` that incoming webhooks of Slack,
//! Mattermost and Discord (`/slack`) take. `ntfy` is a text with its title, priority and tags in
//! headers; it is stored as JSON, because a row has one body, and taken apart for each attempt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::notice::{Notice, Tone};
use super::payload;
use crate::model::{Format, WebhookEvent};

/// Longest text for Slack's like, characters; Discord refuses more than 2000.
const SLACK_MAX: usize = 1900;
/// Longest text for ntfy, bytes; beyond 4096 it becomes an attachment.
const NTFY_MAX: usize = 3900;
/// What a block begins and ends with.
const FENCE: &str = "```";
/// Bytes of one encoded word of a header.
const WORD_BYTES: usize = 45;

/// A message for ntfy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ntfy {
    pub title: String,
    pub priority: u8,
    pub tags: String,
    pub message: String,
}

/// The body of a message as it is stored: of `standard` and `slack` what is sent, byte for byte.
#[must_use]
pub fn body(format: Format, kind: WebhookEvent, at_ms: i64, data: &Value) -> String {
    match format {
        Format::Standard => payload(kind.as_str(), at_ms, data),
        Format::Slack => {
            json!({ "text": slack(&Notice::of(kind, data), &crate::proc::host_name()) }).to_string()
        }
        // Text always serialises.
        Format::Ntfy => serde_json::to_string(&ntfy(Notice::of(kind, data), &crate::proc::host_name()))
            .unwrap_or_default(),
    }
}

/// A message as plain text for a person: title, lines, and the command that shows more.
#[must_use]
pub fn plain_text(kind: WebhookEvent, data: &Value) -> String {
    let notice = Notice::of(kind, data);
    let parts = std::iter::once(notice.title).chain(notice.lines).chain(notice.look);
    parts.collect::<Vec<_>>().join("\n")
}

/// Which machine a message is from.
fn from(host: &str) -> String {
    format!(" on {host}")
}

fn slack(notice: &Notice, host: &str) -> String {
    let sign = match notice.tone {
        Tone::Good => ":white_check_mark:",
        Tone::Note => ":warning:",
        Tone::Bad => ":rotating_light:",
    };
    let mut text = Bounded { text: format!("{sign} *"), left: SLACK_MAX };
    text.push(&notice.title);
    text.push(&from(host));
    text.text.push('*');
    // The commands keep their room whatever the lines take.
    let commands: usize = notice.look.iter().map(|look| look.chars().count() + 3).sum();
    text.left = text.left.saturating_sub(commands + 2 * FENCE.len() + 2);
    // What a program wrote stands in a block: `*` and `_` format nothing there.
    if !notice.lines.is_empty() {
        text.text.push('\n');
        text.text.push_str(FENCE);
        for line in &notice.lines {
            text.text.push('\n');
            text.push(line);
        }
        text.text.push('\n');
        text.text.push_str(FENCE);
    }
    for look in &notice.look {
        text.text.push_str("\n`");
        text.left = SLACK_MAX;
        text.push(look);
        text.text.push('`');
    }
    text.text
}

/// Text that is escaped as it grows and never longer than it may be.
struct Bounded {
    text: String,
    left: usize,
}

impl Bounded {
    /// Appends a line. `&`, `<` and `>` are all that Slack's markup asks to escape: without them nothing
    /// is a link or a mention. What others take for a mention is broken by a blank of no width.
    fn push(&mut self, line: &str) {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let escaped = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '`' => "'",
                '@' if ["everyone", "here", "channel", "all"].iter().any(|w| starts_with(rest, w)) => {
                    "@\u{200b}"
                }
                _ => "",
            };
            let length = if escaped.is_empty() { 1 } else { escaped.chars().count() };
            if self.left <= length {
                self.text.push('…');
                self.left = 0;
                return;
            }
            self.left -= length;
            if escaped.is_empty() { self.text.push(c) } else { self.text.push_str(escaped) }
        }
    }
}

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn ntfy(notice: Notice, host: &str) -> Ntfy {
    let (priority, tags) = match notice.tone {
        Tone::Good => (3, "white_check_mark"),
        Tone::Note => (3, "warning"),
        Tone::Bad => (4, "rotating_light"),
    };
    let look = notice.look.join("\n");
    let mut message = notice.lines.join("\n");
    let room = NTFY_MAX.saturating_sub(look.len() + 4);
    if message.len() > room {
        message.truncate(message.floor_char_boundary(room));
        message.push('…');
    }
    if !look.is_empty() {
        let gap = if message.is_empty() { "" } else { "\n" };
        message = format!("{message}{gap}{look}");
    }
    // An empty text would be shown as "triggered".
    if message.is_empty() {
        message.clone_from(&notice.title);
    }
    Ntfy { title: notice.title + &from(host), priority, tags: tags.to_owned(), message }
}

/// A header's value: as it is where it is ASCII, else in encoded words (RFC 2047).
pub(super) fn header(text: &str) -> String {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) && !text.contains("=?") {
        return text.to_owned();
    }
    let (mut words, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (word, more) = rest.split_at(rest.floor_char_boundary(WORD_BYTES.min(rest.len())));
        words.push(format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
        rest = more;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(data: &Value) -> String {
        let body: Value =
            serde_json::from_str(&body(Format::Slack, WebhookEvent::RunFailed, 0, data)).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1);
        body["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn slack_gets_a_text_that_is_no_markup() {
        let data = json!({
            "id": "0192", "agentId": "a", "failureCode": "runtime_error",
            "failureExplanation": "<!channel> & `x` <https://e|b> @Everyone me@hereford.example @b *c* _d_",
        });
        assert_eq!(
            text_of(&data).replace(&crate::proc::host_name(), "box"),
            ":rotating_light: *a failed: runtime_error on box*\n```\n&lt;!channel&gt; &amp; 'x' &lt;https://e|b&gt; \
             @\u{200b}Everyone me@\u{200b}hereford.example @b *c* _d_\n```\n`matins show 0192`"
        );
    }

    #[test]
    fn no_shape_is_longer_than_its_service_takes() {
        let long = "<&é>".repeat(10_000);
        let data = json!({ "id": "0192", "agentId": "a", "failureCode": long, "failureExplanation": long });
        let text = text_of(&data);
        assert!(text.chars().count() <= 2000, "{}", text.chars().count());
        assert!(text.ends_with("`matins show 0192`"), "{text}");
        let stored = body(Format::Ntfy, WebhookEvent::RunFailed, 0, &data);
        let ntfy: Ntfy = serde_json::from_str(&stored).unwrap();
        assert!(ntfy.message.len() <= 4096 && ntfy.message.ends_with("matins show 0192"));
        assert!(header(&ntfy.title).len() < 2000);
    }

    #[test]
    fn a_header_is_ascii_whatever_it_says() {
        assert_eq!(header("a failed: timeout"), "a failed: timeout");
        assert_eq!(header("Ä"), "=?UTF-8?B?w4Q=?=");
        let long = "übergroße Prüfung ".repeat(9);
        let encoded = header(&long);
        assert!(encoded.is_ascii() && encoded.split(' ').all(|w| w.len() <= 75));
        let decoded: Vec<u8> = encoded
            .split(' ')
            .flat_map(|w| {
                let inner = w.strip_prefix("=?UTF-8?B?").unwrap().strip_suffix("?=").unwrap();
                STANDARD.decode(inner).unwrap()
            })
            .collect();
        assert_eq!(String::from_utf8(decoded).unwrap(), long);
        assert_ne!(header("=?UTF-8?B?w4Q=?="), "=?UTF-8?B?w4Q=?=", "what looks encoded is encoded");
    }

    #[test]
    fn ntfy_is_loud_for_failures_and_never_empty() {
        let of = |kind, data: &Value| -> Ntfy {
            serde_json::from_str(&body(Format::Ntfy, kind, 0, data)).unwrap()
        };
        let failed = of(WebhookEvent::RunFailed, &json!({ "agentId": "a", "failureCode": "timeout" }));
        assert_eq!((failed.priority, failed.tags.as_str()), (4, "rotating_light"));
        let done = of(WebhookEvent::RunCompleted, &json!({ "agentId": "a" }));
        assert_eq!((done.priority, done.message.as_str()), (3, "a completed"));
    }

    #[test]
    fn plain_text_is_for_people() {
        let data = json!({ "id": "1", "agentId": "a", "failureCode": "timeout", "failureExplanation": "too <long>" });
        assert_eq!(
            plain_text(WebhookEvent::RunFailed, &data),
            "a failed: timeout\ntoo <long>\nmatins show 1"
        );
    }
}
