//! `model` and `limits` of a program that is an agent's command line tool: `protocol: claude | codex | gemini`.
//!
//! A limit that the tool gives no means to keep is an error here and not a hope: of a tool that tells only at its
//! end what it has used up, tokens and money cannot be limited while it runs.

use super::codes::Warning;
use super::context::Context;
use super::reader::Reader;
use super::source::{Span, Spanned};
use super::yaml::Node;
use super::{keys, policies};
use crate::model::{Executor, Preset, Protocol};

/// Reads what a preset's tool is asked for.
pub(super) fn read(
    r: &mut Reader,
    cx: &Context,
    protocol: Protocol,
    model: Option<&Spanned<Node>>,
    limits: Option<&Spanned<Node>>,
) -> Option<Preset> {
    let before = r.errors();
    let mut preset = Preset { model: model.and_then(|node| name(r, cx, node)), ..Preset::default() };
    if let Some(mut f) = limits.and_then(|node| r.map(&keys::LLM_LIMITS, "limits", node)) {
        let most = i64::MAX.unsigned_abs();
        preset.max_steps = f.take("max_steps").and_then(|node| r.whole("max_steps", node, 1, most));
        let tokens = f.take("max_tokens");
        let cost = f.take("max_cost_usd");
        if protocol == Protocol::Claude {
            preset.max_tokens = tokens.and_then(|node| r.whole("max_tokens", node, 1, most));
            preset.max_cost_usd = cost.and_then(|node| policies::usd(r, "max_cost_usd", node));
        } else {
            for (key, node) in [("max_tokens", tokens), ("max_cost_usd", cost)] {
                if let Some(node) = node {
                    let message = format!(
                        "`{key}` cannot be kept: {protocol} tells only at its end what it has used up"
                    );
                    r.error_help(
                        node.span,
                        message,
                        "remove it; `max_steps` and `timeout` are kept, and so is `budget`",
                    );
                }
            }
        }
        for key in ["max_output_tokens", "call_timeout", "tool_timeout"] {
            if let Some(node) = f.take(key) {
                r.error_help(node.span, format!("`limits.{key}` belongs to `type: llm`"), "remove the key");
            }
        }
        let hints = &[
            ("memory", "write it under the agent's own `limits:`"),
            ("output", "write it under the agent's own `limits:`"),
        ];
        f.finish(r, hints);
    }
    (r.errors() == before).then_some(preset)
}

/// Codex under the sandbox of matins with a sandbox of its own, which cannot be set up there.
pub(super) fn beside_the_sandbox(r: &mut Reader, at: Span, executor: &Executor) {
    let Executor::Command { command, protocol: Protocol::Codex, .. } = executor else { return };
    let own = |word: &&String| {
        ["--sandbox=", "sandbox_mode="].iter().any(|begin| word.starts_with(begin)) || *word == "--full-auto"
    };
    let pair = command.windows(2).find(|pair| pair[0] == "-s" || pair[0] == "--sandbox");
    let asked = pair.map(|pair| pair.join(" ")).or_else(|| command.iter().find(own).cloned());
    if let Some(asked) = asked.filter(|asked| !asked.contains("danger-full-access")) {
        let message = format!("`{}` cannot be kept under `sandbox: on`", asked.escape_debug());
        let help = "each command of codex would fail: write `sandbox: off` for codex' own sandbox alone, or remove it \
                    for that of matins alone";
        r.warn(Warning::NoEffect, at, message, help);
    }
}

/// An alias of the daemon's `models:`, provider/model, or a name that only the tool knows.
fn name(r: &mut Reader, cx: &Context, node: &Spanned<Node>) -> Option<String> {
    let text = r.filled("model", node)?;
    let alias = cx.models.contains(&text);
    if !alias && (text.starts_with('-') || text.contains(char::is_whitespace)) {
        let message = format!("`{}` is no model", text.escape_debug());
        r.error_help(node.span, message, "write a name that the program knows, or an alias of `models:`");
        return None;
    }
    Some(text)
}
