//! From the tree to values: the tools that every reader of a file uses.
//!
//! A reader never stops at a mistake. It notes the problem at its place and goes on with the next
//! key; what it could not read is `None`, and a file with an error gives no model at the end. A map
//! is read through [`Fields`] against its [`Shape`], the list of its keys: what is not in it is unknown,
//! and a debug build stops where a reader leaves out a key of it or asks for another.

use std::str::FromStr;
use std::time::Duration;

use super::codes::Warning;
use super::keys::Shape;
use super::problem::{Problem, Severity};
use super::source::{Source, Span, Spanned};
use super::suggest;
use super::yaml::{self, Node};

/// One reading: the texts it reads from and the problems it found.
#[derive(Debug, Default)]
pub(super) struct Reader {
    sources: Vec<Source>,
    problems: Vec<Problem>,
    errors: usize,
}

impl Reader {
    /// Adds a text; its index is what the spans of its tree carry.
    pub fn add(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// Adds a text and reads its YAML; its mistakes are noted. A tree beside mistakes is there to find
    /// more of them: the reading has failed.
    pub fn parse(&mut self, source: Source) -> Option<Spanned<Node>> {
        let text = source.text.clone();
        let index = self.add(source);
        let (root, mistakes) = yaml::parse_all(&text, index);
        for m in mistakes {
            self.note(m.span, Severity::Error, m.message, m.help);
        }
        root
    }

    /// The text a span is from.
    pub fn source(&self, span: Span) -> Option<&Source> {
        self.sources.get(span.source)
    }

    /// The characters of a place, exactly as they are written.
    pub fn written(&self, span: Span) -> &str {
        self.source(span).map_or("", |source| source.slice(span))
    }

    /// Notes an error.
    pub fn error(&mut self, span: Span, message: impl Into<String>) {
        self.note(span, Severity::Error, message.into(), None);
    }

    /// Notes an error and what to write instead.
    pub fn error_help(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.note(span, Severity::Error, message.into(), Some(help.into()));
    }

    /// Notes a warning, or what is only worth a note, and what to write instead.
    pub fn warn(&mut self, code: Warning, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let severity = if code == Warning::Past { Severity::Note } else { Severity::Warning };
        let mut problem = self.problem(span, severity, message.into(), Some(help.into()));
        problem.code = Some(code);
        self.push(problem);
    }

    /// Notes a problem.
    pub fn note(&mut self, span: Span, severity: Severity, message: String, help: Option<String>) {
        let problem = self.problem(span, severity, message, help);
        self.push(problem);
    }

    fn problem(&self, span: Span, severity: Severity, message: String, help: Option<String>) -> Problem {
        match self.sources.get(span.source) {
            Some(source) => Problem::at(source, span, severity, message, help),
            None => Problem::of_file(std::path::Path::new("?"), message, help),
        }
    }

    /// Adds a finished problem.
    pub fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.severity == Severity::Error);
        self.problems.push(problem);
    }

    /// Whether an error was noted.
    pub fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Number of errors so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// What was found.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Notes a value of another kind than is wanted.
    pub fn wrong_kind(&mut self, key: &str, node: &Spanned<Node>, wanted: &str, help: Option<String>) {
        let message = match &node.value {
            Node::Null => format!("`{key}` is empty, it must be {wanted}"),
            other => format!("`{key}` must be {wanted}, not {}", other.kind()),
        };
        let help = help.or_else(|| {
            matches!(node.value, Node::Null)
                .then(|| "write a value, or remove the key for the default".to_owned())
        });
        self.note(node.span, Severity::Error, message, help);
    }

    /// Text. A number or boolean is refused with the quotes it needs.
    pub fn text(&mut self, key: &str, node: &Spanned<Node>) -> Option<String> {
        match &node.value {
            Node::Text(text) => Some(text.clone()),
            Node::Number(_) | Node::Bool(_) => {
                let help = format!("write it in quotes: \"{}\"", self.written(node.span));
                self.wrong_kind(key, node, "text", Some(help));
                None
            }
            _ => {
                self.wrong_kind(key, node, "text", None);
                None
            }
        }
    }

    /// Text that is not empty.
    pub fn filled(&mut self, key: &str, node: &Spanned<Node>) -> Option<String> {
        let text = self.text(key, node)?;
        if text.trim().is_empty() {
            self.error_help(node.span, format!("`{key}` is empty"), "write a value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// Text, or a number or boolean as it is written: what a variable or an argument holds.
    pub fn word(&mut self, key: &str, node: &Spanned<Node>) -> Option<String> {
        match &node.value {
            Node::Text(text) => Some(text.clone()),
            Node::Number(_) | Node::Bool(_) => Some(self.written(node.span).to_owned()),
            _ => {
                self.wrong_kind(key, node, "text", None);
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, node: &Spanned<Node>) -> Option<bool> {
        if let Node::Bool(b) = &node.value {
            return Some(*b);
        }
        let help = match &node.value {
            Node::Text(t) if ["yes", "on", "y"].contains(&t.to_lowercase().as_str()) => {
                Some("write `true`".to_owned())
            }
            Node::Text(t) if ["no", "off", "n"].contains(&t.to_lowercase().as_str()) => {
                Some("write `false`".to_owned())
            }
            _ => Some("write `true` or `false`".to_owned()),
        };
        self.wrong_kind(key, node, "a boolean", help);
        None
    }

    /// A whole number of at least 1.
    pub fn count(&mut self, key: &str, node: &Spanned<Node>) -> Option<u32> {
        let Node::Number(number) = &node.value else {
            self.wrong_kind(key, node, "a whole number", None);
            return None;
        };
        let count = number.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        if count.is_none() {
            let message = format!("`{key}` must be a whole number from 1 to {}", u32::MAX);
            self.error(node.span, message);
        }
        count
    }

    /// A duration such as `1h 30m`.
    pub fn duration(&mut self, key: &str, node: &Spanned<Node>) -> Option<Duration> {
        let text = match &node.value {
            Node::Text(text) => text,
            Node::Number(n) => {
                let help = format!("write the unit: `{n}s`, `{n}m` or `{n}h`");
                self.wrong_kind(key, node, "a duration", Some(help));
                return None;
            }
            _ => {
                self.wrong_kind(key, node, "a duration", None);
                return None;
            }
        };
        match crate::time::parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(sentence) => {
                self.sentence(node.span, Severity::Error, &sentence);
                None
            }
        }
    }

    /// A duration that is longer than nothing.
    pub fn some_time(&mut self, key: &str, node: &Spanned<Node>) -> Option<Duration> {
        let duration = self.duration(key, node)?;
        if duration.is_zero() {
            self.error_help(node.span, format!("`{key}` must be longer than nothing"), "write e.g. `10m`");
            return None;
        }
        Some(duration)
    }

    /// A size in bytes such as `512M`; units are powers of 1024.
    pub fn size(&mut self, key: &str, node: &Spanned<Node>) -> Option<u64> {
        let size = match &node.value {
            Node::Number(n) => n.as_u64(),
            Node::Text(text) => parse_size(text),
            _ => {
                self.wrong_kind(key, node, "a size", None);
                return None;
            }
        };
        if size.is_none_or(|n| n == 0) {
            let written = self.written(node.span).escape_debug().to_string();
            let message = format!("`{written}` is not a size");
            self.error_help(node.span, message, "write e.g. `512K`, `64M` or `2G`");
            return None;
        }
        size
    }

    /// One word of a closed vocabulary. `planned` are words of later versions.
    pub fn choice<T: FromStr>(
        &mut self,
        key: &str,
        node: &Spanned<Node>,
        known: &[&str],
        planned: &[&str],
    ) -> Option<T> {
        let Node::Text(text) = &node.value else {
            let help = format!("write one of {}", suggest::list(known));
            self.wrong_kind(key, node, "a word", Some(help));
            return None;
        };
        if let Ok(word) = text.parse() {
            return Some(word);
        }
        if planned.contains(&text.as_str()) {
            let help = format!("write one of {}", suggest::list(known));
            self.error_help(node.span, format!("`{key}: {text}` is not available in this version"), help);
        } else {
            let message = format!("unknown word `{}` for `{key}`", text.escape_debug());
            self.note(node.span, Severity::Error, message, suggest::help(text, known));
        }
        None
    }

    /// The entries of a list.
    pub fn list<'n>(&mut self, key: &str, node: &'n Spanned<Node>) -> Option<&'n [Spanned<Node>]> {
        match &node.value {
            Node::Seq(items) => Some(items),
            Node::Text(_) | Node::Number(_) => {
                let help = format!("write a list: `{key}: [{}]`", self.written(node.span).trim());
                self.wrong_kind(
                    key,
                    node,
                    "a list",
                    Some(help).filter(|h| h.len() < 100 && !h.contains('\n')),
                );
                None
            }
            Node::Null => {
                let help = format!("write `{key}: []`, or remove the key");
                self.wrong_kind(key, node, "a list", Some(help));
                None
            }
            _ => {
                self.wrong_kind(key, node, "a list", Some("begin each entry with `- `".to_owned()));
                None
            }
        }
    }

    /// The keys of a map of a shape; `what` is what it is called.
    pub fn map<'n>(
        &mut self,
        shape: &'static Shape,
        what: &'static str,
        node: &'n Spanned<Node>,
    ) -> Option<Fields<'n>> {
        let entries = self.names(what, node)?;
        Some(Fields { what, shape, span: node.span, entries, asked: Vec::new() })
    }

    /// The entries of a map whose keys are names that its writer chooses.
    pub fn names<'n>(
        &mut self,
        what: &str,
        node: &'n Spanned<Node>,
    ) -> Option<&'n [(Spanned<String>, Spanned<Node>)]> {
        if let Node::Map(entries) = &node.value {
            return Some(entries);
        }
        self.wrong_kind(what, node, "a map", Some("write `key: value` pairs".to_owned()));
        None
    }

    /// A sentence of another module, split at its `;` into what is wrong and what to write.
    pub fn sentence(&mut self, span: Span, severity: Severity, sentence: &str) {
        let (message, help) = match sentence.split_once("; ") {
            Some((message, help)) => (message, Some(help.to_owned())),
            None => (sentence, None),
        };
        self.note(span, severity, message.to_owned(), help);
    }
}

/// The keys of one map, and which of them were asked for.
pub(super) struct Fields<'n> {
    what: &'static str,
    shape: &'static Shape,
    /// The place of the map.
    pub span: Span,
    entries: &'n [(Spanned<String>, Spanned<Node>)],
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The value of a key. A reader asks for every key of its shape, whatever the others say.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Spanned<Node>> {
        debug_assert!(self.shape.key(key).is_some(), "`{key}` is not in the table of {}", self.shape.name);
        self.asked.push(key);
        self.entries.iter().find(|(k, _)| k.value == key).map(|(_, v)| v)
    }

    /// The place of a key.
    pub fn key(&self, key: &str) -> Option<Span> {
        self.entries.iter().find(|(k, _)| k.value == key).map(|(k, _)| k.span)
    }

    /// The names under a key whose value is a map of names that its writer chooses.
    pub fn names(&self, key: &str) -> Vec<&'n str> {
        let value = self.entries.iter().find(|(k, _)| k.value == key).map(|(_, v)| &v.value);
        match value {
            Some(Node::Map(entries)) => entries.iter().map(|(name, _)| name.value.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Notes every key that the shape does not have. `hints` are keys that people look for, and what
    /// to write instead.
    pub fn finish(self, r: &mut Reader, hints: &[(&str, &str)]) {
        debug_assert!(
            self.shape.keys.iter().all(|key| self.asked.contains(&key.name)),
            "the reader of {} does not read {:?}",
            self.shape.name,
            self.shape.names().into_iter().filter(|name| !self.asked.contains(name)).collect::<Vec<_>>()
        );
        for (key, _) in self.entries {
            let name = key.value.as_str();
            if self.shape.key(name).is_some() {
                continue;
            }
            let message = format!("unknown key `{}` in {}", name.escape_debug(), self.what);
            let help = match hints.iter().find(|(k, _)| *k == name) {
                Some((_, hint)) => Some((*hint).to_owned()),
                None => suggest::help(name, &self.shape.names()),
            };
            r.note(key.span, Severity::Error, message, help);
        }
    }
}

/// `512`, `64M`, `2 GiB`, `10kB`: bytes, units are powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("512", 512),
            ("1k", 1 << 10),
            ("64M", 64 << 20),
            ("2 GiB", 2 << 30),
            ("10MB", 10 << 20),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "99999999999999999999", "20000000T", "1 0"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
