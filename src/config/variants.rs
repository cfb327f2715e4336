//! Names that an agent defines for its callers: `executions:`, its variants, and `failure_codes:`, the
//! failures of its own.

use std::collections::BTreeMap;
use std::path::Path;

use super::context::Context;
use super::reader::{Fields, Reader};
use super::source::Spanned;
use super::yaml::Node;
use super::{keys, prompt, schemas};
use crate::model::{FailureCode, Variant};

/// Longest failure code, characters.
const LONGEST_CODE: usize = 63;

/// Reads `executions:`.
pub(super) fn executions(
    r: &mut Reader,
    cx: &mut Context,
    f: &mut Fields<'_>,
    dir: &Path,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, Variant> {
    let mut variants = BTreeMap::new();
    let Some(map) = f.take("executions").and_then(|node| r.names("executions", node)) else {
        return variants;
    };
    for (key, node) in map {
        let id = r.check_name("an execution", key);
        let variant = variant(r, cx, &key.value, node, dir, env);
        if let (Some(id), Some(variant)) = (id, variant) {
            variants.insert(id, variant);
        }
    }
    variants
}

fn variant(
    r: &mut Reader,
    cx: &mut Context,
    id: &str,
    node: &Spanned<Node>,
    dir: &Path,
    env: &BTreeMap<String, String>,
) -> Option<Variant> {
    let mut f = r.map(&keys::EXECUTION, "execution", node)?;
    let name = f.take("name").and_then(|node| r.filled("name", node));
    let variant = Variant {
        name: name.unwrap_or_else(|| id.to_owned()),
        description: f.take("description").and_then(|node| r.text("description", node)),
        prompt: f.take("prompt").and_then(|node| prompt::template(r, "prompt", node, env)),
        input_schema: f
            .take("input_schema")
            .and_then(|node| schemas::schema(r, cx, "input_schema", node, dir)),
        result_schema: f
            .take("result_schema")
            .and_then(|node| schemas::schema(r, cx, "result_schema", node, dir)),
        files: f.take("files").map_or_else(Vec::new, |node| files(r, node)),
    };
    f.finish(
        r,
        &[
            ("schema", "write `input_schema:` or `result_schema:`"),
            ("input", "a caller gives the input; write `input_schema:` for what it must be"),
            ("executor", "the executor is that of the agent; write another agent"),
        ],
    );
    Some(variant)
}

/// Extensions, in lower case and with their dot.
fn files(r: &mut Reader, node: &Spanned<Node>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for item in r.list("files", node).unwrap_or_default() {
        let Some(text) = r.filled("files", item) else {
            continue;
        };
        let lower = text.to_ascii_lowercase();
        let good = lower.strip_prefix('.').is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        });
        if !good {
            let message = format!("`{}` is no extension of files", text.escape_debug());
            r.error_help(item.span, message, "write it with its dot: `.pdf`");
        } else if !found.contains(&lower) {
            found.push(lower);
        }
    }
    found
}

/// Reads `failure_codes:`.
pub(super) fn failure_codes(r: &mut Reader, f: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    let Some(map) = f.take("failure_codes").and_then(|node| r.names("failure_codes", node)) else {
        return codes;
    };
    for (key, node) in map {
        let sentence = r.filled(&key.value, node);
        if is_code(r, key)
            && let Some(sentence) = sentence
        {
            codes.insert(key.value.clone(), sentence);
        }
    }
    codes
}

fn is_code(r: &mut Reader, key: &Spanned<String>) -> bool {
    let text = &key.value;
    let shown = text.escape_debug();
    if text.parse::<FailureCode>().is_ok() {
        let message = format!("`{shown}` is a code of matins' own, whose meaning does not change");
        r.error_help(key.span, message, "choose another name");
        return false;
    }
    let good = (1..=LONGEST_CODE).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && text.starts_with(|c: char| c.is_ascii_lowercase());
    if !good {
        let message = format!("`{shown}` is no failure code");
        r.error_help(key.span, message, "use a-z, 0-9 and _, at most 63 characters, e.g. `price_missing`");
    }
    good
}
