//! What an agent says beside its prompt, program and schedules: how a run is tried again, stopped,
//! judged, confined and told of.
//!
//! Each key is read by itself; what two keys say together (`on_interrupt` and `idempotent`, a pool and
//! the daemon's `pools:`) is held against each other here too, so that a contradiction is told where
//! it stands and not by the run that meets it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::codes::Warning;
use super::context::Context;
use super::reader::{Fields, Reader};
use super::source::Spanned;
use super::yaml::Node;
use super::{hook, keys, prompt, suggest, variants};
use crate::model::{
    Breaker, Budget, Limits, Network, NotifyWhen, OnInterrupt, Policies, Retry, RetryOn, SuccessWhen,
};

/// Most attempts of one run.
const MAX_ATTEMPTS: u64 = 100;
/// Most failed runs in a row that a breaker counts.
const MAX_FAILURES: u64 = 10_000;
/// Largest factor between two waits.
const MAX_FACTOR: f64 = 100.0;
/// Most US dollars of a budget.
const MAX_USD: f64 = 1e9;
/// Most processors of one attempt.
const MAX_CPU: f64 = 4096.0;
/// Longest expression of `success_when.output`, bytes.
const MAX_EXPRESSION: usize = 4096;
/// Signals that ask a program to end.
const SIGNALS: &[&str] = &["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL"];

/// What the reading of the policies needs to know of the rest of the agent.
pub(super) struct Of<'a> {
    /// Directory of the agent's file.
    pub dir: &'a Path,
    /// Its `env:`.
    pub env: &'a BTreeMap<String, String>,
    /// Its `timeout:`.
    pub timeout: Option<Duration>,
}

/// Reads every policy.
pub(super) fn policies(r: &mut Reader, cx: &mut Context, f: &mut Fields<'_>, of: &Of<'_>) -> Policies {
    let mut p = Policies::default();
    attempts(r, f, of, &mut p);
    limits_of_use(r, f, &mut p);
    lane(r, cx, f, of, &mut p);
    confinement(r, f, &mut p);
    hooks(r, cx, f, of.dir, &mut p);
    p.executions = variants::executions(r, cx, f, of.dir, of.env);
    p.failure_codes = variants::failure_codes(r, f);
    p
}

fn attempts(r: &mut Reader, f: &mut Fields<'_>, of: &Of<'_>, p: &mut Policies) {
    if let Some(node) = f.take("retry") {
        p.retry = retry(r, node);
    }
    if let Some(node) = f.take("total_timeout") {
        p.total_timeout = r.some_time("total_timeout", node);
        if let (Some(total), Some(one)) = (p.total_timeout, of.timeout)
            && f.key("timeout").is_some()
            && total < one
        {
            let message = "`total_timeout` is shorter than `timeout`, which is then never reached";
            r.warn(
                Warning::Unreachable,
                node.span,
                message,
                "it bounds all attempts together and the waits between them",
            );
        }
    }
    if let Some(node) = f.take("idle_timeout") {
        p.idle_timeout = r.some_time("idle_timeout", node);
        if let (Some(idle), Some(one)) = (p.idle_timeout, of.timeout)
            && idle >= one
        {
            let one = crate::time::human_duration(one);
            let message = format!("`idle_timeout` is not shorter than `timeout`, {one}, and never reached");
            r.warn(Warning::Unreachable, node.span, message, "write a shorter time");
        }
    }
    let idempotent = f.take("idempotent").and_then(|node| r.flag("idempotent", node));
    p.idempotent = idempotent.unwrap_or(false);
    if let Some(node) = f.take("on_interrupt") {
        p.on_interrupt = word(r, "on_interrupt", node, OnInterrupt::ALL.iter().map(|w| w.as_str()));
        if p.on_interrupt == OnInterrupt::Retry && !p.idempotent {
            r.error_help(
                node.span,
                "`on_interrupt: retry` may do a run's work twice, and this agent is not `idempotent`",
                "add `idempotent: true` if doing it twice does no harm, else remove the key",
            );
        }
    }
    if let Some(node) = f.take("breaker") {
        p.breaker = breaker(r, node);
    }
    p.kill_signal = f.take("kill_signal").and_then(|node| signal(r, node));
}

/// One word of a vocabulary, or its default.
fn word<'w, T: std::str::FromStr + Default>(
    r: &mut Reader,
    key: &str,
    node: &Spanned<Node>,
    known: impl Iterator<Item = &'w str>,
) -> T {
    let known: Vec<&str> = known.collect();
    r.choice(key, node, &known, &[]).unwrap_or_default()
}

fn retry(r: &mut Reader, node: &Spanned<Node>) -> Retry {
    let mut retry = Retry::default();
    if let Node::Number(n) = &node.value {
        let help = format!("write `retry: {{ max: {n} }}`: attempts in all");
        r.error_help(node.span, "`retry` must be a map, not a number", help);
        return retry;
    }
    let Some(mut f) = r.map(&keys::RETRY, "retry", node) else {
        return retry;
    };
    let max = f.take("max");
    if let Some(n) = max.and_then(|node| r.whole("max", node, 1, MAX_ATTEMPTS)) {
        retry.max = u32::try_from(n).unwrap_or(u32::MAX);
    }
    if let Some(time) = f.take("initial").and_then(|node| r.duration("initial", node)) {
        retry.initial = time;
    }
    if let Some(factor) = f.take("factor").and_then(|node| r.number("factor", node, 1.0, MAX_FACTOR)) {
        retry.factor = factor;
    }
    if let Some(time) = f.take("max_delay").and_then(|node| r.some_time("max_delay", node)) {
        retry.max_delay = time;
    }
    if let Some(share) = f.take("jitter").and_then(|node| r.share("jitter", node)) {
        retry.jitter = share;
    }
    if let Some(node) = f.take("on") {
        retry.on = retry_on(r, node);
    }
    let span = f.span;
    let wants_max = max.is_none();
    f.finish(r, &[("attempts", "write `max:`"), ("count", "write `max:`"), ("delay", "write `initial:`")]);
    if wants_max {
        r.error_help(span, "`retry` has no `max`", "write e.g. `retry: { max: 3 }`: attempts in all");
    } else if retry.max_delay < retry.initial {
        r.warn(
            Warning::NoEffect,
            span,
            "`retry.max_delay` is shorter than `retry.initial` and cuts every wait",
            "write a longer one",
        );
    }
    retry
}

fn retry_on(r: &mut Reader, node: &Spanned<Node>) -> Vec<RetryOn> {
    let known: Vec<_> = RetryOn::ALL.iter().map(|w| w.as_str()).collect();
    let mut on = Vec::new();
    let items = r.list("on", node).unwrap_or_default();
    for item in items {
        if let Some(kind) = r.choice("on", item, &known, &[])
            && !on.contains(&kind)
        {
            on.push(kind);
        }
    }
    if items.is_empty() && matches!(node.value, Node::Seq(_)) {
        r.error_help(
            node.span,
            "`on` is empty, so nothing is tried again",
            "name a kind of failure, or remove the key",
        );
    }
    on
}

fn breaker(r: &mut Reader, node: &Spanned<Node>) -> Breaker {
    let mut breaker = Breaker::default();
    let help = match &node.value {
        Node::Number(n) => Some(format!("write `breaker: {{ failures: {n} }}`")),
        Node::Text(t) if t == "off" => Some("write `breaker: { failures: 0 }`".to_owned()),
        Node::Bool(false) => Some("write `breaker: { failures: 0 }`".to_owned()),
        _ => None,
    };
    if let Some(help) = help {
        r.wrong_kind("breaker", node, "a map", Some(help));
        return breaker;
    }
    let Some(mut f) = r.map(&keys::BREAKER, "breaker", node) else {
        return breaker;
    };
    if let Some(n) = f.take("failures").and_then(|node| r.whole("failures", node, 0, MAX_FAILURES)) {
        breaker.failures = u32::try_from(n).unwrap_or(u32::MAX);
    }
    breaker.probe_after = f.take("probe_after").and_then(|node| r.some_time("probe_after", node));
    f.finish(r, &[("max", "write `failures:`"), ("cooldown", "write `probe_after:`")]);
    breaker
}

fn signal(r: &mut Reader, node: &Spanned<Node>) -> Option<i32> {
    use rustix::process::Signal;
    let text = r.text("kill_signal", node)?;
    let signal = match text.strip_prefix("SIG").unwrap_or(&text) {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "KILL" => Signal::KILL,
        other => {
            let message = format!("unknown signal `{}` for `kill_signal`", text.escape_debug());
            let help = suggest::help(&other.to_uppercase(), SIGNALS);
            r.note(node.span, super::Severity::Error, message, help);
            return None;
        }
    };
    Some(signal.as_raw())
}

fn limits_of_use(r: &mut Reader, f: &mut Fields<'_>, p: &mut Policies) {
    if let Some(node) = f.take("budget") {
        p.budget = budget(r, node);
    }
    p.expect_success_within =
        f.take("expect_success_within").and_then(|node| r.some_time("expect_success_within", node));
    p.dataset_id = f.take("dataset_id").and_then(|node| r.integer("dataset_id", node));
    p.ping_url = f.take("ping_url").and_then(|node| r.address("ping_url", node)).map(Into::into);
}

fn budget(r: &mut Reader, node: &Spanned<Node>) -> Budget {
    let mut budget = Budget::default();
    let Some(mut f) = r.map(&keys::BUDGET, "budget", node) else {
        return budget;
    };
    let most = i64::MAX.unsigned_abs();
    let mut given = |key| f.take(key).filter(|node| node.value != Node::Null);
    let (tokens, dollars, runs) = (given("tokens_per_day"), given("usd_per_day"), given("runs_per_day"));
    budget.tokens_per_day = tokens.and_then(|node| r.whole("tokens_per_day", node, 1, most));
    budget.usd_per_day = dollars.and_then(|node| usd(r, "usd_per_day", node));
    budget.runs_per_day = runs.and_then(|node| r.whole("runs_per_day", node, 1, most));
    f.finish(r, &[]);
    budget
}

/// An amount of US dollars that is more than nothing.
pub(super) fn usd(r: &mut Reader, key: &str, node: &Spanned<Node>) -> Option<f64> {
    let usd = r.number(key, node, 0.0, MAX_USD)?;
    if usd <= 0.0 {
        r.error_help(node.span, format!("`{key}` must be more than nothing"), "write e.g. `0.50`");
        return None;
    }
    Some(usd)
}

fn lane(r: &mut Reader, cx: &mut Context, f: &mut Fields<'_>, of: &Of<'_>, p: &mut Policies) {
    p.concurrency_key =
        f.take("concurrency_key").and_then(|node| filled_template(r, "concurrency_key", node, of.env));
    p.session = f.take("session").and_then(|node| filled_template(r, "session", node, of.env));
    if let Some(node) = f.take("pool") {
        p.pool = pool(r, cx, node);
    }
    if let Some(node) = f.take("priority") {
        p.priority = word(r, "priority", node, crate::model::Priority::ALL.iter().map(|w| w.as_str()));
    }
}

fn filled_template(
    r: &mut Reader,
    key: &str,
    node: &Spanned<Node>,
    env: &BTreeMap<String, String>,
) -> Option<String> {
    r.filled(key, node)?;
    prompt::template(r, key, node, env)
}

fn pool(r: &mut Reader, cx: &Context, node: &Spanned<Node>) -> Option<String> {
    let name = r.name("a pool", node)?;
    if cx.pools.contains(&name) {
        return Some(name);
    }
    let known: Vec<&str> = cx.pools.iter().map(String::as_str).collect();
    let help = match suggest::nearest(&name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write `pools: {{ {name}: 1 }}` into matins.yaml"),
    };
    r.error_help(node.span, format!("unknown pool `{name}`"), help);
    None
}

fn confinement(r: &mut Reader, f: &mut Fields<'_>, p: &mut Policies) {
    p.user = f.take("user").and_then(|node| user(r, node));
    let sandbox = f.take("sandbox").and_then(|node| r.switch("sandbox", node));
    p.unconfined = sandbox == Some(false);
    if let Some(node) = f.take("api") {
        p.api = word(r, "api", node, crate::model::ApiScope::ALL.iter().map(|w| w.as_str()));
    }
}

/// A user's name or number; whether it exists is found out where it is used.
fn user(r: &mut Reader, node: &Spanned<Node>) -> Option<String> {
    const LONGEST: usize = 32;
    let text = r.word("user", node)?;
    let good = (1..=LONGEST).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
    if !good {
        let message = format!("`{}` cannot be the name of a user", text.escape_debug());
        r.error_help(node.span, message, "write the name as in /etc/passwd");
        return None;
    }
    Some(text)
}

fn hooks(r: &mut Reader, cx: &mut Context, f: &mut Fields<'_>, dir: &Path, p: &mut Policies) {
    p.gate = f.take("gate").and_then(|node| hook::hook(r, cx, "gate", node, dir));
    p.on_failure = f.take("on_failure").and_then(|node| hook::hook(r, cx, "on_failure", node, dir));
    if let Some(node) = f.take("success_when") {
        p.success_when = success_when(r, cx, node, dir);
    }
    if let Some(mut f) = f.take("notify").and_then(|node| notify(r, node)) {
        if let Some(node) = f.take("when") {
            p.notify = word(r, "when", node, NotifyWhen::ALL.iter().map(|w| w.as_str()));
        }
        f.finish(r, &[]);
    }
}

fn notify<'n>(r: &mut Reader, node: &'n Spanned<Node>) -> Option<Fields<'n>> {
    if let Node::Text(text) = &node.value
        && text.parse::<NotifyWhen>().is_ok()
    {
        let help = format!("write `notify: {{ when: {text} }}`");
        r.error_help(node.span, "`notify` must be a map, not text", help);
        return None;
    }
    r.map(&keys::NOTIFY, "notify", node)
}

fn success_when(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>, dir: &Path) -> SuccessWhen {
    let mut when = SuccessWhen::default();
    let Some(mut f) = r.map(&keys::SUCCESS_WHEN, "success_when", node) else {
        return when;
    };
    when.result = f.take("result").and_then(|node| r.flag("result", node)).unwrap_or(false);
    when.file = f.take("file").and_then(|node| r.filled("file", node));
    when.output = f.take("output").and_then(|node| expression(r, node));
    when.verify = f.take("verify").and_then(|node| hook::hook(r, cx, "verify", node, dir));
    f.finish(r, &[("command", "write `verify: { command: [..] }`"), ("stdout", "write `output:`")]);
    when
}

fn expression(r: &mut Reader, node: &Spanned<Node>) -> Option<String> {
    let text = r.filled("output", node)?;
    if text.len() > MAX_EXPRESSION {
        r.error(node.span, format!("this regular expression is longer than {MAX_EXPRESSION} bytes"));
        return None;
    }
    if let Err(e) = regex::Regex::new(&text) {
        // The library draws a picture of several lines; its last one says what is wrong.
        let sentence = e.to_string();
        let last = sentence.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        r.error_help(
            node.span,
            format!("this is no regular expression: {last}"),
            "a text as it is needs `\\` before each of `\\.+*?()|[]{}^$`",
        );
        return None;
    }
    Some(text)
}

/// Reads `limits:`.
pub(super) fn limits(r: &mut Reader, f: &mut Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut f) = f.take("limits").and_then(|node| r.map(&keys::LIMITS, "limits", node)) else {
        return limits;
    };
    if let Some(output) = f.take("output").and_then(|node| r.size("output", node)) {
        limits.output = output;
    }
    limits.memory = f.take("memory").and_then(|node| r.size("memory", node));
    limits.cpu = f.take("cpu").and_then(|node| r.number("cpu", node, 0.01, MAX_CPU));
    limits.processes = f.take("processes").and_then(|node| r.whole("processes", node, 1, 1 << 22));
    if let Some(node) = f.take("network") {
        limits.network = word(r, "network", node, Network::ALL.iter().map(|w| w.as_str()));
    }
    f.finish(
        r,
        &[
            ("timeout", "write it beside `limits:`"),
            ("max_steps", "write it under the `limits:` of an llm executor"),
            ("max_tokens", "write it under the `limits:` of an llm executor"),
            ("max_cost_usd", "write it under the `limits:` of an llm executor"),
        ],
    );
    limits
}
