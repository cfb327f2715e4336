//! `prompt:` and the other templates of a definition (`session:`, `concurrency_key:`): each is checked at load, its mistakes shown in the line of the file where they
//! stand, and names that it will not see are warned about: at nine in the morning they would fail
//! the run.

use std::collections::BTreeMap;

use super::codes::Warning;
use super::reader::Reader;
use super::source::{Span, Spanned};
use super::suggest;
use super::yaml::Node;
use crate::template;

/// Names that every prompt sees, besides those of `env:`.
const PROMPT_NAMES: &[&str] = &["input", "run", "window", "last_run", "env"];

/// Reads a template that sees what a prompt sees; `what` names its key.
pub(super) fn template(
    r: &mut Reader,
    what: &str,
    node: &Spanned<Node>,
    env: &BTreeMap<String, String>,
) -> Option<String> {
    let text = r.text(what, node)?;
    match template::names(&text) {
        Ok(names) => {
            let known: Vec<&str> =
                PROMPT_NAMES.iter().copied().chain(env.keys().map(String::as_str)).collect();
            for name in names.iter().filter(|n| !known.contains(&n.as_str())) {
                let span = find_name(r, node, name);
                let message = format!("the {what} asks for `{name}`, which it will not see");
                let help = suggest::nearest(name, known.iter().copied()).map_or_else(
                    || format!("a {what} sees `input`, `run`, `window`, `last_run` and the names of `env:`"),
                    |near| format!("did you mean `{near}`?"),
                );
                r.warn(Warning::UnknownName, span, message, help);
            }
        }
        Err(e) => {
            let span = template_line(r, node, &text, e.line);
            let message = format!("the {what} is no valid template: {}", e.message);
            r.error_help(
                span,
                message,
                "to write `{{`, `{%` or `{#` as they are, enclose them in `{% raw %}` .. `{% endraw %}`",
            );
            return None;
        }
    }
    Some(text)
}

/// The place of a line of a template: its own where the text is a block that stands in the file line
/// by line, else the start of the value.
fn template_line(r: &Reader, node: &Spanned<Node>, text: &str, line: usize) -> Span {
    let found = || {
        let source = r.source(node.span)?;
        let wanted = text.lines().nth(line - 1)?;
        let start_of_value = source.text.get(..node.span.start)?.rfind('\n').map_or(0, |i| i + 1);
        let mut at = start_of_value;
        for written in source.text.get(start_of_value..)?.split_inclusive('\n').take(line - 1) {
            at += written.len();
        }
        let written = source.text.get(at..)?.lines().next()?;
        let indent = written.len() - written.trim_start().len();
        (!wanted.trim().is_empty() && written.trim() == wanted.trim())
            .then(|| source.span(node.span.source, at + indent, at + written.trim_end().len()))
    };
    found().unwrap_or(node.span)
}

/// The first place where a value names something.
fn find_name(r: &Reader, node: &Spanned<Node>, name: &str) -> Span {
    let found = || {
        let source = r.source(node.span)?;
        let written = source.slice(node.span);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        written.match_indices(name).find_map(|(at, _)| {
            let before = written[..at].chars().next_back();
            let after = written[at + name.len()..].chars().next();
            let whole = !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word);
            let inside = written[..at].rfind("{{").max(written[..at].rfind("{%")).is_some();
            let start = node.span.start + at;
            (whole && inside).then(|| source.span(node.span.source, start, start + name.len()))
        })
    };
    found().unwrap_or(node.span)
}
