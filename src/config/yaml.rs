//! All YAML is read here: text to a tree in which every key and value knows its place.
//!
//! The reader is serde-saphyr with the strict reading of scalars (`no`, `017` and `1_000` are text,
//! not a boolean and two numbers) and a small budget, so that an alias bomb or a file of brackets is
//! a problem with a place. A tree and not derived structs: a derive stops at its first error and
//! loses positions inside tagged enums, and whoever checks a definition wants all mistakes at once.
//!
//! Duplicate keys are let through by the parser and refused here, all of them, each with the place
//! of the first. Such a file is still a tree, so what else is wrong with it is found in the same reading.
//! Nothing is included from other files.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::MessageFormatter as _;

use super::source::{Span, Spanned, position};

mod advice;

/// Most nodes (maps, lists and scalars) of one document.
pub const MAX_NODES: usize = 20_000;
/// Most aliases (`*name`) of one document, and most anchors.
pub const MAX_ALIASES: usize = 100;
/// Deepest nesting of one document. The parser recurses through serde and an unoptimised build takes
/// about 40 KiB of stack a level; a thread has 2 MiB.
pub const MAX_DEPTH: usize = 32;

/// A value of the tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; finite.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    Seq(Vec<Spanned<Node>>),
    /// A map in the order of the file; keys are distinct.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// What it is, with its article, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Seq(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A mistake in the YAML itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntaxError {
    /// Where.
    pub span: Span,
    /// What.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Reads one document; `source` is the index that the spans carry.
///
/// # Errors
/// Every duplicate key, or the first other mistake: after that one the parser knows no place any more.
pub fn parse(text: &str, source: usize) -> Result<Spanned<Node>, Vec<SyntaxError>> {
    match parse_all(text, source) {
        (Some(root), errors) if errors.is_empty() => Ok(root),
        (_, errors) => Err(errors),
    }
}

/// Reads one document and goes on where that is possible: with duplicate keys there is a tree of the
/// first of each, beside the mistakes. Where there are mistakes the tree is for finding more, not for use.
#[must_use]
pub fn parse_all(text: &str, source: usize) -> (Option<Spanned<Node>>, Vec<SyntaxError>) {
    let parsed: Result<serde_saphyr::Spanned<Node>, _> = serde_saphyr::from_str_with_options(text, options());
    let mut root = match parsed {
        Ok(root) => ours(root),
        Err(error) => return (None, vec![describe(error.without_snippet(), text, source)]),
    };
    let mut errors = Vec::new();
    finish(&mut root, text, source, &mut errors);
    (Some(root), errors)
}

/// The tree as JSON, without places; the members of its objects by name, so that their order in the file is no
/// difference.
#[must_use]
pub fn to_json(node: &Node) -> Value {
    let mut json = as_written(node);
    json.sort_all_objects();
    json
}

fn as_written(node: &Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(b) => Value::Bool(*b),
        Node::Number(n) => Value::Number(n.clone()),
        Node::Text(s) => Value::String(s.clone()),
        Node::Seq(items) => items.iter().map(|item| as_written(&item.value)).collect(),
        Node::Map(entries) => {
            entries.iter().map(|(key, value)| (key.value.clone(), as_written(&value.value))).collect()
        }
    }
}

/// The place of a JSON pointer in the tree; where the tree ends, the deepest place on the way.
#[must_use]
pub fn locate(root: &Spanned<Node>, pointer: &str) -> Span {
    let mut at = root;
    let mut span = root.span;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let next = match &at.value {
            Node::Seq(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
            Node::Map(entries) => entries.iter().find(|(key, _)| key.value == part).map(|(key, value)| {
                span = key.span;
                value
            }),
            _ => None,
        };
        let Some(next) = next else { break };
        if matches!(at.value, Node::Seq(_)) || !matches!(next.value, Node::Map(_) | Node::Seq(_) | Node::Null)
        {
            span = next.span;
        }
        at = next;
    }
    span
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 3,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: 2, // the second one has an error of its own
            max_merge_keys: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES * 3,
            max_recorded_anchor_bytes: super::MAX_FILE_BYTES * 4,
            max_total_scalar_bytes: super::MAX_FILE_BYTES * 4,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: MAX_ALIASES,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

/// The place is where the value was written, not the alias that repeats it: there the mistake is.
fn place(location: serde_saphyr::Location) -> Span {
    let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let start = bytes(location.span().byte_offset()).unwrap_or(0);
    Span {
        source: 0,
        start,
        end: start + bytes(location.span().byte_len()).unwrap_or(0),
        line: number(location.line()),
        column: number(location.column()),
    }
}

/// The place of a mistake. The scanner, whose mistakes are those of the signs themselves, knows line and
/// column but no bytes.
fn place_in(location: serde_saphyr::Location, text: &str) -> Span {
    let mut span = place(location);
    if location.span().byte_offset().is_none() {
        span.start = offset_of(text, span.line, span.column);
        span.end =
            span.start + text[span.start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        (span.line, span.column) = position(text, span.start);
    }
    span
}

/// The byte of a line and column (from 1, in characters), at most the end of that line, or of the text.
/// What is missing at the end of the text is missing behind its last line that says something.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text[start..].find('\n') {
            Some(at) => start += at + 1,
            None => return text.trim_end().len(),
        }
    }
    let rest = &text[start..];
    if rest.is_empty() {
        return text.trim_end().len();
    }
    let line = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
    start + line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at)
}

fn ours<T>(theirs: serde_saphyr::Spanned<T>) -> Spanned<T> {
    Spanned { span: place(theirs.defined), value: theirs.value }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Node, E> {
        Number::from_f64(v).map(Node::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Node, E> {
        Ok(Node::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<serde_saphyr::Spanned<Node>>()? {
            items.push(ours(item));
        }
        Ok(Node::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<serde_saphyr::Spanned<String>>()? {
            let value = map.next_value::<serde_saphyr::Spanned<Node>>()?;
            entries.push((ours(key), ours(value)));
        }
        Ok(Node::Map(entries))
    }
}

/// Gives every span its source, an empty value the place of its key, and finds duplicate keys and
/// numbers that lost digits.
fn finish(node: &mut Spanned<Node>, text: &str, source: usize, errors: &mut Vec<SyntaxError>) {
    node.span.source = source;
    match &mut node.value {
        Node::Seq(items) => {
            for item in items {
                finish(item, text, source, errors);
            }
        }
        Node::Map(entries) => {
            for (key, value) in entries.iter_mut() {
                key.span.source = source;
                if value.value == Node::Null {
                    value.span = key.span;
                }
                finish(value, text, source, errors);
            }
            drop_duplicates(entries, errors);
        }
        Node::Number(number) if number.is_f64() => {
            let written = text.get(node.span.start..node.span.end).unwrap_or("");
            if is_whole(written) {
                errors.push(SyntaxError {
                    span: node.span,
                    message: "this whole number is longer than 64 bits and would lose digits".to_owned(),
                    help: Some(format!("write it as text: \"{written}\"")),
                });
            }
        }
        _ => {}
    }
}

/// Whether a number is written without a fraction and an exponent.
fn is_whole(written: &str) -> bool {
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Leaves the first of each key and tells of the others.
fn drop_duplicates(entries: &mut Vec<(Spanned<String>, Spanned<Node>)>, errors: &mut Vec<SyntaxError>) {
    let mut seen: HashMap<String, Span> = HashMap::with_capacity(entries.len());
    entries.retain(|(key, _)| {
        let Some(first) = seen.get(&key.value) else {
            seen.insert(key.value.clone(), key.span);
            return true;
        };
        errors.push(SyntaxError {
            span: key.span,
            message: format!("duplicate key `{}`", key.value.escape_debug()),
            help: Some(format!("it is already given in line {}; remove one of the two", first.line)),
        });
        false
    });
}

fn describe(error: &serde_saphyr::Error, text: &str, source: usize) -> SyntaxError {
    let mut span = error.location().map_or(Span::whole(0), |at| place_in(at, text));
    span.source = source;
    span.end = span.end.min(text.len());
    let mut cause = error;
    while let serde_saphyr::Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let (message, help) = match cause {
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasExpansionLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. } => (
            "this document is too large or too deeply nested".to_owned(),
            Some(format!(
                "the limits are {MAX_NODES} values, {MAX_DEPTH} levels, {MAX_ALIASES} anchors and aliases"
            )),
        ),
        serde_saphyr::Error::MultipleDocuments { .. } => (
            "a second document begins here".to_owned(),
            Some("one file holds one definition; remove the `---` line or split the file".to_owned()),
        ),
        other => (
            serde_saphyr::UserMessageFormatter.format_message(other).into_owned(),
            advice::of(text, span.start, &other.to_string()).map(ToOwned::to_owned),
        ),
    };
    SyntaxError { span, message, help }
}
