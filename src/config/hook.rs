//! Programs beside the executor: a gate, a verifier, an alarm. `{ command: [..], timeout: 1m }`.

use std::path::Path;

use super::context::Context;
use super::reader::Reader;
use super::source::Spanned;
use super::yaml::Node;
use super::{executor, keys};
use crate::model::Hook;

/// Reads one; `key` names it.
pub(super) fn hook(
    r: &mut Reader,
    cx: &mut Context,
    key: &'static str,
    node: &Spanned<Node>,
    dir: &Path,
) -> Option<Hook> {
    if let Node::Seq(_) | Node::Text(_) = &node.value {
        let help = format!("write `{key}: {{ command: [..] }}`");
        r.error_help(node.span, format!("`{key}` must be a map, not {}", node.value.kind()), help);
        return None;
    }
    let mut fields = r.map(&keys::HOOK, key, node)?;
    let command = fields.take("command");
    let timeout = fields.take("timeout").map(|node| r.some_time("timeout", node));
    if command.is_none() {
        let help = format!("write `{key}: {{ command: [./program] }}`");
        r.error_help(fields.span, format!("`{key}` has no `command`"), help);
    }
    let command = command.and_then(|node| executor::argv(r, cx, node, dir));
    fields.finish(r, &[("args", "write the arguments into `command: [..]`")]);
    Some(Hook { command: command?, timeout: timeout.unwrap_or(Some(Hook::DEFAULT_TIMEOUT))? })
}
