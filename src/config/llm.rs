//! `executor: { type: llm, .. }`: the model, the tools and the limits of a built-in agent.
//!
//! What can be known at load is held here: that a provider exists, that a tool is one, that the key of a tool
//! stands beside the tool, that a token is a secret of the agent. Whether a model exists only its provider knows.

use std::collections::BTreeMap;
use std::path::Path;

use super::codes::Warning;
use super::context::Context;
use super::reader::Reader;
use super::source::{Span, Spanned};
use super::yaml::Node;
use super::{executor, hook, keys, policies, suggest};
use crate::model::{
    BrowserTool, Cache, Executor, Llm, Mcp, Screenshots, SecretSource, ShellTool, ToolName, Wire, known_model,
};
use crate::net;

/// The keys of an executor that are of a built-in agent.
pub(super) const KEYS: [&str; 11] = [
    "model",
    "fallback",
    "tools",
    "limits",
    "shell",
    "browser",
    "hosts",
    "mcp",
    "validators",
    "corrections",
    "cache",
];

/// Where an executor stands.
pub(super) struct At<'a> {
    /// The directory of the agent's file.
    pub dir: &'a Path,
    /// The executor.
    pub span: Span,
    /// The agent's secrets.
    pub secrets: &'a BTreeMap<String, SecretSource>,
}

/// Reads it from the values of [`KEYS`], in their order.
pub(super) fn llm(
    r: &mut Reader,
    cx: &mut Context,
    at: &At<'_>,
    nodes: &[(&'static str, Option<&Spanned<Node>>); KEYS.len()],
) -> Option<Executor> {
    let before = r.errors();
    let [model, fallback, tools, limits, shell, browser, hosts, mcp, validators, corrections, cache] =
        nodes.map(|(_, n)| n);
    let mut llm = Llm { model: model.and_then(|node| model_of(r, cx, "model", node)), ..Llm::default() };
    if model.is_none() {
        no_model(r, cx, at.span);
    }
    for item in fallback.and_then(|node| r.list("fallback", node)).unwrap_or_default() {
        llm.fallback.extend(model_of(r, cx, "fallback", item));
    }
    if let Some(node) = tools {
        llm.tools = read_tools(r, node);
    }
    if let Some(node) = limits {
        read_limits(r, node, &mut llm);
    }
    let tools_known = r.errors() == before;
    llm.shell = shell.and_then(|node| read_shell(r, node));
    llm.browser = browser.map_or_else(Box::default, |node| Box::new(read_browser(r, at, node)));
    llm.hosts = hosts.map_or_else(Vec::new, |node| read_hosts(r, node));
    if tools_known {
        beside_their_tools(r, at.span, &llm.tools, [shell, browser, hosts]);
    }
    if let Some(node) = mcp {
        llm.mcp = servers(r, cx, at, node);
    }
    for item in validators.and_then(|node| r.list("validators", node)).unwrap_or_default() {
        llm.validators.extend(hook::hook(r, cx, "validators", item, at.dir));
    }
    llm.corrections = corrections
        .and_then(|node| r.whole("corrections", node, 0, Llm::CORRECTIONS_MAX.into()))
        .and_then(|n| u32::try_from(n).ok());
    let known: Vec<&str> = Cache::ALL.iter().map(|word| word.as_str()).collect();
    llm.cache = cache.and_then(|node| r.choice("cache", node, &known, &[])).unwrap_or_default();
    let browses = llm.tools.contains(&ToolName::Browser);
    if let Some(node) = cache.filter(|_| llm.cache == Cache::Auto && tools_known && !browses) {
        let message = "`cache` has no effect: only what was done in a browser is done again, and it is not among `tools`";
        r.warn(Warning::NoEffect, node.span, message, "write `tools: [browser]`, or remove the key");
    }
    (r.errors() == before).then_some(Executor::Llm(Box::new(llm)))
}

/// Without a model the alias [`Llm::DEFAULT_MODEL`] is meant, which the settings then must have.
fn no_model(r: &mut Reader, cx: &Context, span: Span) {
    let alias = Llm::DEFAULT_MODEL;
    if cx.models.is_empty() {
        let message =
            format!("this agent names no model, and the settings have no `models: {{ {alias}: .. }}`");
        let help =
            "write e.g. `model: openai/gpt-mini`, with the key in OPENAI_API_KEY of the daemon's environment";
        r.warn(Warning::NoModel, span, message, help);
    } else if !cx.models.iter().any(|m| m == alias) {
        unknown_model(r, cx, span, alias);
    }
}

/// An alias of the daemon's `models:`, or provider/model.
fn model_of(r: &mut Reader, cx: &Context, key: &str, node: &Spanned<Node>) -> Option<String> {
    let text = r.filled(key, node)?;
    if let Some((provider, model)) = text.split_once('/') {
        if provider.is_empty() || model.is_empty() || text.contains(char::is_whitespace) {
            let message = format!("`{}` is no model", text.escape_debug());
            r.error_help(node.span, message, "write an alias of `models:`, or provider/model");
            return None;
        }
        return provider_of(r, node.span, provider, cx.providers.iter().map(String::as_str)).then_some(text);
    }
    if !cx.models.is_empty() && !cx.models.contains(&text) {
        unknown_model(r, cx, node.span, &text);
        return None;
    }
    Some(text)
}

fn unknown_model(r: &mut Reader, cx: &Context, span: Span, alias: &str) {
    let known: Vec<&str> = cx.models.iter().map(String::as_str).collect();
    let provider = Wire::ALL.iter().map(|wire| wire.as_str()).find(|name| known_model(name, alias).is_some());
    let help = match provider {
        Some(provider) => format!("write `{provider}/{alias}`: provider/model"),
        None => suggest::help(alias, &known)
            .unwrap_or_else(|| "write it under `models:` of matins.yaml, or write provider/model".to_owned()),
    };
    r.error_help(span, format!("unknown model `{}`", alias.escape_debug()), help);
}

/// Whether a provider is known to everybody, or is one of the `given`; else that it is not is noted.
pub(super) fn provider_of<'a>(
    r: &mut Reader,
    span: Span,
    name: &str,
    given: impl Iterator<Item = &'a str>,
) -> bool {
    let known: Vec<&str> = Wire::ALL.iter().map(|wire| wire.as_str()).chain(given).collect();
    if known.contains(&name) {
        return true;
    }
    let shown = name.escape_debug();
    let help = suggest::nearest(name, known.iter().copied()).map_or_else(
        || format!("write it under `providers:` of matins.yaml: `{{ {shown}: {{ base_url: .. }} }}`"),
        |near| format!("did you mean `{near}`?"),
    );
    r.error_help(span, format!("unknown provider `{shown}`"), help);
    false
}

fn read_tools(r: &mut Reader, node: &Spanned<Node>) -> Vec<ToolName> {
    let known: Vec<&str> = ToolName::ALL.iter().map(|tool| tool.as_str()).collect();
    let mut tools = Vec::new();
    for item in r.list("tools", node).unwrap_or_default() {
        let Some(tool) = r.choice::<ToolName>("tools", item, &known, &[]) else {
            continue;
        };
        if tools.contains(&tool) {
            let message = format!("`{tool}` is listed twice");
            r.warn(Warning::ListedTwice, item.span, message, "remove one of the two");
        } else {
            tools.push(tool);
        }
    }
    tools
}

fn read_limits(r: &mut Reader, node: &Spanned<Node>, llm: &mut Llm) {
    let Some(mut f) = r.map(&keys::LLM_LIMITS, "limits", node) else {
        return;
    };
    let most = i64::MAX.unsigned_abs();
    let mut whole = |r: &mut Reader, key| f.take(key).and_then(|node| r.whole(key, node, 1, most));
    llm.max_steps = whole(r, "max_steps");
    llm.max_tokens = whole(r, "max_tokens");
    llm.max_output_tokens = whole(r, "max_output_tokens");
    llm.max_cost_usd = f.take("max_cost_usd").and_then(|node| policies::usd(r, "max_cost_usd", node));
    llm.call_timeout = f.take("call_timeout").and_then(|node| r.some_time("call_timeout", node));
    llm.tool_timeout = f.take("tool_timeout").and_then(|node| r.some_time("tool_timeout", node));
    let agents_own = "write it under the agent's own `limits:`";
    f.finish(
        r,
        &[("memory", agents_own), ("output", agents_own), ("timeout", "write `timeout:` beside `executor:`")],
    );
}

fn read_shell(r: &mut Reader, node: &Spanned<Node>) -> Option<ShellTool> {
    const EXAMPLE: &str = "write e.g. `shell: { allow: [git, jq] }`, or `[\"*\"]` for any program";
    let mut f = r.map(&keys::SHELL, "shell", node)?;
    let list = f.take("allow");
    let timeout = f.take("timeout").and_then(|node| r.some_time("timeout", node));
    let span = f.span;
    f.finish(r, &[]);
    let Some(list) = list else {
        r.error_help(span, "`shell` has no `allow`", EXAMPLE);
        return None;
    };
    let mut allow = Vec::new();
    for item in r.list("allow", list)? {
        let Some(name) = r.filled("allow", item) else {
            continue;
        };
        if name != "*" && (name.contains('/') || name.contains(char::is_whitespace)) {
            let message = format!("`{}` is no name of a program", name.escape_debug());
            r.error_help(item.span, message, "write the name alone: programs are looked up in PATH");
        } else {
            allow.push(name);
        }
    }
    if allow.is_empty() {
        r.error_help(list.span, "this shell may start nothing", EXAMPLE);
    }
    Some(ShellTool { allow, timeout })
}

fn read_browser(r: &mut Reader, at: &At<'_>, node: &Spanned<Node>) -> BrowserTool {
    let Some(mut f) = r.map(&keys::BROWSER, "browser", node) else { return BrowserTool::default() };
    let viewport = f.take("viewport").and_then(|node| {
        let mut f = r.map(&keys::VIEWPORT, "viewport", node)?;
        let mut side = |r: &mut Reader, key| {
            let whole =
                f.take(key).and_then(|node| r.whole(key, node, 200, BrowserTool::VIEWPORT_MAX.into()));
            whole.and_then(|n| u32::try_from(n).ok())
        };
        let sides = (side(r, "width"), side(r, "height"));
        let span = f.span;
        f.finish(r, &[]);
        if let (Some(width), Some(height)) = sides {
            return Some((width, height));
        }
        r.error_help(
            span,
            "a viewport has a width and a height",
            "write e.g. `{ width: 1280, height: 800 }`",
        );
        None
    });
    let user_agent = f.take("user_agent").and_then(|node| r.filled("user_agent", node));
    let proxy = f.take("proxy").and_then(|node| read_proxy(r, node));
    let proxy_password = f.take("proxy_password").and_then(|node| {
        let name = secret_named(r, at, "proxy_password", node)?;
        let of_user = |proxy: &String| proxy.starts_with("http://") && proxy.contains('@');
        if !proxy.as_ref().is_some_and(of_user) {
            let help = "write `proxy: http://USER@proxy.example:3128`; a `socks5://` proxy is asked without a password";
            r.error_help(node.span, "`proxy_password` needs a `proxy` that names its user", help);
        }
        Some(name)
    });
    let words: Vec<&str> = Screenshots::ALL.iter().map(|word| word.as_str()).collect();
    let screenshots = f.take("screenshots").and_then(|node| r.choice("screenshots", node, &words, &[]));
    let cookies = f.take("cookies").and_then(|node| secret_named(r, at, "cookies", node));
    f.finish(
        r,
        &[
            ("program", "write `browser: { program: .. }` into matins.yaml"),
            ("hosts", "write `hosts:` beside it"),
        ],
    );
    BrowserTool {
        viewport,
        user_agent,
        proxy,
        proxy_password,
        screenshots: screenshots.unwrap_or_default(),
        cookies,
    }
}

/// A proxy: who reads a definition may not thereby use it, so its password is a secret.
fn read_proxy(r: &mut Reader, node: &Spanned<Node>) -> Option<String> {
    let text = r.filled("proxy", node)?;
    let url =
        url::Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "socks5") && url.has_host());
    let Some(url) = url else {
        let message = format!("`{}` is no proxy", text.escape_debug());
        let help = "write `http://proxy.example:3128` or `socks5://proxy.example:1080`";
        r.error_help(node.span, message, help);
        return None;
    };
    if url.password().is_some() {
        let help = "write `proxy: http://USER@HOST:PORT` and `proxy_password: NAME`, the name of a secret of the agent";
        r.error_help(node.span, "the password of `proxy` stands in the definition for all to read", help);
        return None;
    }
    Some(text)
}

fn read_hosts(r: &mut Reader, node: &Spanned<Node>) -> Vec<String> {
    let mut hosts = Vec::new();
    for item in r.list("hosts", node).unwrap_or_default() {
        let Some(text) = r.filled("hosts", item) else {
            continue;
        };
        if net::Host::read(&text).is_some() {
            hosts.push(text.to_ascii_lowercase());
        } else {
            let message = format!("`{}` is no host", text.escape_debug());
            let help = "write the host alone: `shop.example`, `*.shop.example`, `192.0.2.7` or `[2001:db8::1]`, with \
                        `:8443` behind it for this port alone";
            r.error_help(item.span, message, help);
        }
    }
    hosts
}

/// A tool that needs a key, and a key that needs a tool.
fn beside_their_tools(
    r: &mut Reader,
    span: Span,
    tools: &[ToolName],
    [shell, browser, hosts]: [Option<&Spanned<Node>>; 3],
) {
    match shell {
        None if tools.contains(&ToolName::Shell) => {
            let help =
                "write e.g. `shell: { allow: [git, jq] }` beside `tools:`, or `[\"*\"]` for any program";
            r.error_help(span, "the tool `shell` does not say what it may start", help);
        }
        Some(node) if !tools.contains(&ToolName::Shell) => {
            let message = "`shell` has no effect: the tool is not among `tools`";
            r.warn(Warning::NoEffect, node.span, message, "write `tools: [shell]`, or remove the key");
        }
        _ => {}
    }
    if let Some(node) = browser.filter(|_| !tools.contains(&ToolName::Browser)) {
        let message = "`browser` has no effect: the tool is not among `tools`";
        r.warn(Warning::NoEffect, node.span, message, "write `tools: [browser]`, or remove the key");
    }
    let reach = [ToolName::HttpFetch, ToolName::Browser].iter().any(|tool| tools.contains(tool));
    if let Some(node) = hosts.filter(|_| !reach) {
        let message = "`hosts` has no effect: neither `http_fetch` nor `browser` is among `tools`";
        r.warn(Warning::NoEffect, node.span, message, "write `tools: [http_fetch]`, or remove the key");
    }
}

fn servers(r: &mut Reader, cx: &mut Context, at: &At<'_>, node: &Spanned<Node>) -> BTreeMap<String, Mcp> {
    let mut servers = BTreeMap::new();
    for (key, node) in r.names("mcp", node).unwrap_or_default() {
        let server = server(r, cx, at, node);
        let Some(name) = r.check_name("a server of tools", key) else {
            continue;
        };
        if name.len() > Llm::MCP_NAME_MAX {
            let message = format!("`{name}` is too long: it becomes a part of the names of its tools");
            r.error_help(key.span, message, format!("use at most {} characters", Llm::MCP_NAME_MAX));
        } else if let Some(server) = server {
            servers.insert(name, server);
        }
    }
    servers
}

fn server(r: &mut Reader, cx: &mut Context, at: &At<'_>, node: &Spanned<Node>) -> Option<Mcp> {
    const FORMS: &str = "write `{ command: [program, argument] }` or `{ url: https://.. }`";
    let mut f = r.map(&keys::MCP, "server of tools", node)?;
    let (command, url, token, allow) = (f.take("command"), f.take("url"), f.take("token"), f.take("allow"));
    let span = f.span;
    let hints = [
        ("args", "write the arguments into `command: [program, argument, ..]`"),
        ("env", "write `env:` or `secrets:` beside `executor:`"),
        ("headers", "write `token:`, the name of a secret"),
        ("tools", "write `allow:`"),
    ];
    f.finish(r, &hints);
    match (command, url) {
        (None, None) => r.error_help(span, "this server has no `command` and no `url`", FORMS),
        (Some(_), Some(node)) => {
            r.error_help(node.span, "a server has a `command` or a `url`, not both", "remove one of the two");
        }
        _ => {}
    }
    if let (Some(_), Some(node)) = (command, token) {
        let help = "remove it: a program gets the agent's `secrets:` in its environment";
        r.error_help(node.span, "`token` belongs to a server with a `url`", help);
    }
    let token = token.and_then(|node| secret_named(r, at, "token", node));
    let mut allowed = Vec::new();
    for item in allow.and_then(|node| r.list("allow", node)).unwrap_or_default() {
        allowed.extend(r.filled("allow", item));
    }
    let command = command.map(|node| executor::argv(r, cx, node, at.dir));
    let url = url.map(|node| r.address("url", node).map(Into::into));
    match (command, url) {
        (Some(command), None) => Some(Mcp { command: command?, allow: allowed, ..Mcp::default() }),
        (None, Some(url)) => Some(Mcp { url: Some(url?), token, allow: allowed, ..Mcp::default() }),
        _ => None,
    }
}

/// The name of a secret of the agent.
fn secret_named(r: &mut Reader, at: &At<'_>, key: &'static str, node: &Spanned<Node>) -> Option<String> {
    if matches!(node.value, Node::Map(_)) {
        let help = "write `secrets: { NAME: .. }` beside `executor:`, and its name here";
        r.error_help(node.span, format!("`{key}` is the name of a secret of the agent"), help);
        return None;
    }
    let name = r.filled(key, node)?;
    if at.secrets.contains_key(&name) {
        return Some(name);
    }
    let known: Vec<&str> = at.secrets.keys().map(String::as_str).collect();
    let shown = name.escape_debug().to_string();
    let help = suggest::nearest(&name, known.iter().copied()).map_or_else(
        || format!("write it beside `executor:`: `secrets: {{ {shown}: {{ env: {shown} }} }}`"),
        |near| format!("did you mean `{near}`?"),
    );
    let help = if shown == name { help } else { "write the name of one of `secrets:`".to_owned() };
    r.error_help(node.span, format!("`{shown}` is no secret of this agent"), help);
    None
}
