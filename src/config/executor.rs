//! `executor:` and `cwd:`: what is started, and where.
//!
//! The program is looked for at load: a definition whose program is missing would fail at nine in
//! the morning. A path must lead to a file that may be executed; a bare name is only warned about,
//! for the PATH of the daemon may not be that of whoever runs the check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::codes::Warning;
use super::context::{Context, is_program};
use super::reader::{Fields, Reader};
use super::source::{Span, Spanned};
use super::yaml::Node;
use super::{keys, llm, parts, presets};
use crate::model::{Executor, Preset, Protocol, SecretSource};
use crate::template;

const EXAMPLE: &str = "write e.g. `executor: { type: command, command: [python3, watch.py] }`";

/// Reads `executor:`; `secrets` are those of the agent.
pub(super) fn executor(
    r: &mut Reader,
    cx: &mut Context,
    f: &mut Fields<'_>,
    dir: &Path,
    secrets: &BTreeMap<String, SecretSource>,
) -> Option<Executor> {
    let Some(node) = f.take("executor") else {
        if f.key("command").is_none() {
            r.error_help(Span::whole(f.span.source), "this agent has no `executor`", EXAMPLE);
        }
        return None;
    };
    let mut fields = r.map(&keys::EXECUTOR, "executor", node)?;
    let kind = kind(r, &mut fields);
    let program = [("command", fields.take("command")), ("protocol", fields.take("protocol"))];
    let of_llm = llm::KEYS.map(|key| (key, fields.take(key)));
    let span = fields.span;
    fields.finish(
        r,
        &[
            ("args", "write the arguments into `command: [program, argument, ..]`"),
            ("cmd", "write `command: [program, argument, ..]`"),
            ("env", "write `env:` beside `executor:`"),
            ("cwd", "write `cwd:` beside `executor:`"),
            ("timeout", "write `timeout:` beside `executor:`"),
            ("max_steps", "write `limits: { max_steps: .. }`"),
            ("max_tokens", "write `limits: { max_tokens: .. }`"),
            ("fallbacks", "write `fallback:`, a list"),
            ("mcp_servers", "write `mcp:`"),
        ],
    );
    match kind {
        Some(Kind::Command) => {
            let of_preset = ["model", "limits"];
            let (shared, own): (Vec<_>, Vec<_>) = of_llm.iter().partition(|(key, _)| of_preset.contains(key));
            belongs(r, &own, "llm");
            let of = |name| shared.iter().find(|(key, _)| *key == name).and_then(|(_, node)| *node);
            let [model, limits] = of_preset.map(of);
            command(r, cx, dir, span, &Command { argv: program[0].1, protocol: program[1].1, model, limits })
        }
        Some(Kind::Llm) => {
            belongs(r, &program, "command");
            llm::llm(r, cx, &llm::At { dir, span, secrets }, &of_llm)
        }
        None => {
            if let (_, Some(node)) = program[0] {
                argv(r, cx, node, dir);
            }
            None
        }
    }
}

/// Notes keys of the other kind of executor.
fn belongs(r: &mut Reader, keys: &[(&'static str, Option<&Spanned<Node>>)], kind: &str) {
    for (key, node) in keys.iter().filter_map(|(key, node)| Some((key, (*node)?))) {
        let help = if *key == "shell" { "write `command: [sh, -c, \"..\"]`" } else { "remove the key" };
        r.error_help(node.span, format!("`{key}` belongs to `type: {kind}`"), help);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Command,
    Llm,
}

fn kind(r: &mut Reader, fields: &mut Fields<'_>) -> Option<Kind> {
    let Some(node) = fields.take("type") else {
        r.error_help(fields.span, "this executor has no `type`", "write `type: command` or `type: llm`");
        return None;
    };
    match r.text("type", node)?.as_str() {
        "command" => Some(Kind::Command),
        "llm" => Some(Kind::Llm),
        other => {
            let message = format!("unknown executor type `{}`", other.escape_debug());
            r.error_help(node.span, message, "write `type: command` or `type: llm`");
            None
        }
    }
}

/// The keys of a program.
struct Command<'a> {
    argv: Option<&'a Spanned<Node>>,
    protocol: Option<&'a Spanned<Node>>,
    model: Option<&'a Spanned<Node>>,
    limits: Option<&'a Spanned<Node>>,
}

fn command(r: &mut Reader, cx: &mut Context, dir: &Path, span: Span, keys: &Command<'_>) -> Option<Executor> {
    if keys.argv.is_none() {
        r.error_help(span, "this executor has no `command`", EXAMPLE);
    }
    let argv = keys.argv.and_then(|node| argv(r, cx, node, dir));
    let protocol = match keys.protocol {
        Some(node) => {
            let known: Vec<_> = Protocol::ALL.iter().map(|p| p.as_str()).collect();
            r.choice("protocol", node, &known, &[])
        }
        None => Some(Protocol::Plain),
    };
    let preset = match protocol {
        Some(protocol) if protocol.is_preset() => presets::read(r, cx, protocol, keys.model, keys.limits)?,
        Some(_) => {
            for (key, node) in [("model", keys.model), ("limits", keys.limits)] {
                if let Some(node) = node {
                    let message = format!("`{key}` belongs to `type: llm` and to presets");
                    let help = "remove the key, or write e.g. `protocol: claude` where that is the program";
                    r.error_help(node.span, message, help);
                }
            }
            Preset::default()
        }
        None => Preset::default(),
    };
    Some(Executor::Command { command: argv?, protocol: protocol?, preset })
}

/// Reads a command: a program, resolved where it is a path, and its arguments.
pub(super) fn argv(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    dir: &Path,
) -> Option<Vec<String>> {
    if let Node::Text(text) = &node.value {
        let help = if text.contains(['|', '>', '<', '&', ';', '$', '"', '\'', '`', '\n']) {
            "write a list, with a shell where you need one: `command: [sh, -c, \"..\"]`".to_owned()
        } else {
            let words: Vec<_> = text.split_whitespace().collect();
            format!("write a list: `command: [{}]`", words.join(", "))
        };
        r.error_help(node.span, "`command` must be a list of the program and its arguments", help);
        return None;
    }
    let items = r.list("command", node)?;
    if items.is_empty() {
        r.error_help(
            node.span,
            "`command` is empty",
            "write the program and its arguments: `[python3, watch.py]`",
        );
        return None;
    }
    let before = r.errors();
    let mut argv: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let Some(word) = r.word("command", item) else {
            continue;
        };
        if let Err(e) = template::check_command(&word) {
            let message = format!("this argument is no valid template: {e}");
            r.error_help(item.span, message, "to write `{{` as it is, write `{{ '{{' }}`");
        }
        argv.push(word);
    }
    if r.errors() > before {
        return None;
    }
    if let (Some(first), Some(item)) = (argv.first_mut(), items.first()) {
        *first = program(r, cx, item.span, first, dir)?;
    }
    Some(argv)
}

/// The program of a command: resolved where it is a path, looked for where it is fixed.
fn program(r: &mut Reader, cx: &mut Context, span: Span, text: &str, dir: &Path) -> Option<String> {
    if text.trim().is_empty() {
        r.error_help(span, "the program of `command` is empty", "write its name or its path");
        return None;
    }
    if template::is_dynamic_command(text) {
        return Some(text.to_owned());
    }
    if !text.contains('/') {
        if !cx.in_path(text) {
            let path = cx.path.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned());
            let message = format!("program `{}` is not found in PATH ({path})", text.escape_debug());
            let help = if dir.join(text).is_file() {
                format!("for the file beside this definition write `./{text}`")
            } else if text.contains(' ') {
                "write each argument as an entry of its own".to_owned()
            } else {
                "install it, write its full path, or set `env: { PATH: .. }`".to_owned()
            };
            r.warn(Warning::MissingProgram, span, message, help);
        }
        return Some(text.to_owned());
    }
    let path = dir.join(text.strip_prefix("./").unwrap_or(text));
    if !is_program(&path) {
        program_error(r, span, &path, Path::new(text).is_absolute());
        return None;
    }
    let resolved = path.to_str().map(ToOwned::to_owned);
    if resolved.is_none() {
        r.error_help(span, "the path of this program is not UTF-8", "rename the directory");
    }
    resolved
}

fn program_error(r: &mut Reader, span: Span, path: &Path, absolute: bool) {
    let shown = path.display();
    if path.is_dir() {
        r.error_help(span, format!("program {shown} is a directory"), "write the path of a file");
    } else if path.exists() {
        let help = format!("run `chmod +x {shown}`");
        r.error_help(span, format!("program {shown} is not executable"), help);
    } else {
        let help = if absolute {
            "install it, or correct the path"
        } else {
            "relative paths begin at the directory of this file"
        };
        r.error_help(span, format!("program {shown} does not exist"), help);
    }
}

/// Reads `cwd:`.
pub(super) fn cwd(r: &mut Reader, node: &Spanned<Node>, dir: &Path) -> Option<PathBuf> {
    let path = parts::path(r, "cwd", node, dir)?;
    if !path.is_dir() {
        let message = format!("the directory {} does not exist", path.display());
        r.warn(
            Warning::MissingDirectory,
            node.span,
            message,
            "create it before the first run, or correct `cwd`",
        );
    }
    Some(path)
}
