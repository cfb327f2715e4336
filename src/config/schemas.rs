//! `input_schema:` and `result_schema:`: inline, or a path to a JSON or YAML file below the agent's
//! directory. A mistake inside a schema is shown where it stands, in the schema file too.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::context::Context;
use super::problem::{Problem, Severity};
use super::reader::Reader;
use super::skills::escapes;
use super::source::{Source, Span, Spanned};
use super::yaml::{self, Node};
use crate::schema;

/// Reads a schema and checks that it is one.
pub(super) fn schema(
    r: &mut Reader,
    cx: &mut Context,
    key: &'static str,
    node: &Spanned<Node>,
    dir: &Path,
) -> Option<Value> {
    match &node.value {
        Node::Map(_) | Node::Bool(_) => {
            let value = yaml::to_json(&node.value);
            check(r, cx, &value, |pointer| yaml::locate(node, pointer)).then_some(value)
        }
        Node::Text(path) => file(r, cx, key, node.span, path, dir),
        _ => {
            let message =
                format!("`{key}` must be a JSON Schema or the path of one, not {}", node.value.kind());
            r.error_help(node.span, message, "write e.g. `{ type: object }` or `schemas/prices.json`");
            None
        }
    }
}

fn check(r: &mut Reader, cx: &mut Context, value: &Value, at: impl Fn(&str) -> Span) -> bool {
    match cx.schema(value).as_ref() {
        Ok(_) => true,
        Err(e @ schema::Error::Invalid { pointer, .. }) => {
            let help = pointer
                .ends_with("/type")
                .then(|| "the types are string, number, integer, boolean, object, array and null".to_owned());
            r.note(at(pointer), Severity::Error, format!("this is no valid JSON Schema: {e}"), help);
            false
        }
        Err(e) => {
            r.error(at(""), format!("this JSON Schema cannot be used: {e}"));
            false
        }
    }
}

/// The path of a file that a definition names, which lies below the definition's directory: whoever
/// may write a definition must not be able to show other files of the daemon.
pub(super) fn below(
    r: &mut Reader,
    key: &str,
    span: Span,
    text: &str,
    dir: &Path,
    example: &str,
) -> Option<PathBuf> {
    let relative = Path::new(text);
    let shown = text.escape_debug().to_string();
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if text.trim().is_empty() || !plain {
        let message = format!("`{key}: {shown}` leads out of the directory of this file");
        r.error_help(span, message, format!("write a path below it, such as `{example}`"));
        return None;
    }
    let path = dir.join(relative);
    if let Some(outside) = escapes(dir, &path) {
        let message = format!("`{shown}` leads out of the directory of this file, to {}", outside.display());
        r.error_help(span, message, "copy the file instead of linking to it");
        return None;
    }
    Some(path)
}

fn file(r: &mut Reader, cx: &mut Context, key: &str, span: Span, text: &str, dir: &Path) -> Option<Value> {
    let path = below(r, key, span, text, dir, "schemas/prices.json")?;
    match cx.text_file(&path).as_ref() {
        Ok(source) => parse(r, cx, source.clone()),
        Err(e) => {
            let message = format!("the schema {}: {}", path.display(), super::load::read_error(e));
            r.error_help(span, message, "the path is relative to the directory of this file");
            None
        }
    }
}

fn parse(r: &mut Reader, cx: &mut Context, source: Source) -> Option<Value> {
    let is_yaml = source.path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    if is_yaml {
        let root = r.parse(source)?;
        let value = yaml::to_json(&root.value);
        return check(r, cx, &value, |pointer| yaml::locate(&root, pointer)).then_some(value);
    }
    match serde_json::from_str::<Value>(&source.text) {
        Ok(value) => {
            let whole = Span::whole(r.add(source));
            check(r, cx, &value, |_| whole).then_some(value)
        }
        Err(e) => {
            let (span, sentence) = json_place(&source, &e);
            r.push(Problem::at(&source, span, Severity::Error, format!("this is no JSON: {sentence}"), None));
            None
        }
    }
}

/// The place of a JSON error, and its sentence without that place.
fn json_place(source: &Source, error: &serde_json::Error) -> (Span, String) {
    let line_start: usize =
        source.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // The column counts bytes, from 1, and may stand on the line's end or inside a character.
    let mut at = (line_start + error.column().saturating_sub(1)).min(source.text.len());
    while !source.text.is_char_boundary(at) {
        at -= 1;
    }
    let sentence = error.to_string();
    let sentence = sentence.split(" at line ").next().unwrap_or(&sentence).to_owned();
    (source.span(0, at, at), sentence)
}
