//! From the layered tree to [`Settings`]. What is wrong is left at its default, so that the agents can
//! be checked in the same pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::models::read_models;
use super::{Keep, MAX_SOCKET_PATH, Settings, Tls, ValueSource};
use crate::config::context::{self, Context};
use crate::config::keys::{self, Shape};
use crate::config::problem::Severity;
use crate::config::reader::{Fields, Reader};
use crate::config::source::{Origin, Source, Span, Spanned};
use crate::config::yaml::Node;
use crate::config::{Env, Location, Problems, hook, load, overlay, parts, policies};
use crate::model::Cron;

/// Keys that people look for.
const HINTS: &[(&str, &str)] = &[
    ("socket", "write `listen: { socket: PATH }`"),
    ("http", "write `listen: { http: 127.0.0.1:7700 }`"),
    ("tz", "write `timezone:`"),
    ("agents", "agents are files in `agents_dir`, one each"),
    ("schedules", "schedules belong to agents, in the files of `agents_dir`"),
    ("backup", "write `housekeeping: { backup: \"0 3 * * *\" }`"),
];

/// Reads the settings of a location. What is wrong is left at its default, so that the agents can
/// be checked in the same pass; with errors among the problems the daemon must not start.
#[must_use]
pub fn load_settings(at: &Location, env: &Env) -> (Settings, Problems) {
    let mut r = Reader::default();
    let root = file_tree(&mut r, at);
    if r.source(Span::whole(0)).is_none() {
        // Without a file its name is still where a problem of the whole settings is shown.
        r.add(Source::named(&at.file.to_string_lossy(), Origin::File, ""));
    }
    let empty = Spanned { value: Node::Map(Vec::new()), span: Span::whole(0) };
    let mut root = match root {
        Some(root) if root.value == Node::Null => empty,
        Some(root) if matches!(root.value, Node::Map(_)) => root,
        Some(root) => {
            r.names("settings", &root);
            empty
        }
        None => empty,
    };
    overlay::environment(&mut r, &mut root, env);
    overlay::flags(&mut r, &mut root, &at.flags);
    let settings = read(&mut r, at, env, &root);
    let mut problems = Problems::default();
    problems.extend(r.into_problems());
    (settings, problems)
}

fn file_tree(r: &mut Reader, at: &Location) -> Option<Spanned<Node>> {
    if !at.explicit && matches!(at.file.try_exists(), Ok(false)) {
        return None;
    }
    load::parse_file(r, &at.file, "write `matins init DIR` for a first settings file, or correct the path")
}

fn read(r: &mut Reader, at: &Location, env: &Env, root: &Spanned<Node>) -> Settings {
    let mut s = Settings::defaults(at);
    let Some(mut f) = r.map(&keys::SETTINGS, "settings", root) else {
        return s;
    };
    let dir = at.dir().to_owned();
    read_dirs(r, &mut f, &mut s, &dir, at);
    read_numbers(r, &mut f, &mut s);
    read_models(r, &mut f, &mut s, &dir);
    read_messages(r, &mut f, &mut s, &dir, env);
    if let Some(mut f) = f.take("browser").and_then(|node| r.map(&keys::BROWSER_SETTINGS, "browser", node)) {
        let program = &mut s.browser_program;
        let read =
            or_null(|r: &mut Reader, node: &Spanned<Node>| r.filled("program", node).map(PathBuf::from));
        take(r, &mut f, &mut s.sources, "browser.program", program, read);
        f.finish(r, &[]);
    }
    if let Some(mut f) = f.take("budget").and_then(|node| r.map(&keys::BUDGET, "budget", node)) {
        read_budget(r, &mut f, &mut s);
        f.finish(r, &[]);
    }
    read_retention(r, &mut f, &mut s);
    read_files(r, &mut f, &mut s);
    read_housekeeping(r, &mut f, &mut s);
    f.finish(r, HINTS);
    s
}

/// Reads one key, and remembers where its value is from. `key` is dotted, its last part the name.
pub(super) fn take<T>(
    r: &mut Reader,
    f: &mut Fields<'_>,
    sources: &mut BTreeMap<&'static str, ValueSource>,
    key: &'static str,
    field: &mut T,
    read: impl FnOnce(&mut Reader, &Spanned<Node>) -> Option<T>,
) -> Option<Span> {
    let name = key.rsplit('.').next().unwrap_or(key);
    let node = f.take(name)?;
    *field = read(r, node)?;
    let source = r.source(node.span)?;
    let name = || source.path.to_string_lossy().into_owned();
    let from = match source.origin {
        Origin::File => ValueSource::File { file: source.path.clone(), line: node.span.line },
        Origin::Env => ValueSource::Env(name()),
        Origin::Flag => ValueSource::Flag(name()),
    };
    sources.insert(key, from);
    Some(node.span)
}

/// `null`, or what a reader takes.
fn or_null<T>(
    read: impl FnOnce(&mut Reader, &Spanned<Node>) -> Option<T>,
) -> impl FnOnce(&mut Reader, &Spanned<Node>) -> Option<Option<T>> {
    |r, node| if node.value == Node::Null { Some(None) } else { read(r, node).map(Some) }
}

fn read_dirs(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings, dir: &Path, at: &Location) {
    let path = |key: &'static str| move |r: &mut Reader, node: &Spanned<Node>| parts::path(r, key, node, dir);
    take(r, f, &mut s.sources, "agents_dir", &mut s.agents_dir, path("agents_dir"));
    take(r, f, &mut s.sources, "skills_dir", &mut s.skills_dir, path("skills_dir"));
    take(r, f, &mut s.sources, "watch", &mut s.watch, |r, node| r.flag("watch", node));
    let state = take(r, f, &mut s.sources, "state_dir", &mut s.state_dir, path("state_dir"));
    if state.is_some() && at.runtime_dir.is_none() {
        s.listen.socket = s.state_dir.join("matins.sock");
    }
    let mut span = f.key("state_dir").unwrap_or(f.span);
    if let Some(mut listen) = f.take("listen").and_then(|node| r.map(&keys::LISTEN, "listen", node)) {
        let socket =
            take(r, &mut listen, &mut s.sources, "listen.socket", &mut s.listen.socket, path("socket"));
        span = socket.unwrap_or(span);
        read_tcp(r, &mut listen, s, dir);
        listen.finish(r, &[("port", "write `http: 127.0.0.1:PORT`"), ("host", "write `http: HOST:PORT`")]);
    }
    check_socket(r, span, &s.listen.socket);
}

fn read_tcp(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings, dir: &Path) {
    let (listen, sources) = (&mut s.listen, &mut s.sources);
    take(r, f, sources, "listen.http", &mut listen.http, or_null(listener));
    take(r, f, sources, "listen.tls", &mut listen.tls, or_null(|r, node| tls(r, node, dir)));
    take(r, f, sources, "listen.allowed_hosts", &mut listen.allowed_hosts, hosts);
}

fn check_socket(r: &mut Reader, span: Span, socket: &Path) {
    let length = socket.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return;
    }
    let message = format!(
        "the path of the control socket is {length} bytes long, the system allows {MAX_SOCKET_PATH}: {}",
        socket.display()
    );
    let help =
        "set `listen: { socket: .. }` to a shorter path, such as /run/matins/matins.sock or one in /tmp";
    r.error_help(span, message, help);
}

fn listener(r: &mut Reader, node: &Spanned<Node>) -> Option<SocketAddr> {
    let text = r.filled("http", node)?;
    let at = text.strip_prefix("localhost:").map_or_else(|| text.clone(), |port| format!("127.0.0.1:{port}"));
    let found = at.parse().ok();
    if found.is_none() {
        let message = format!("`{}` is no address and port", text.escape_debug());
        r.error_help(node.span, message, "write e.g. `127.0.0.1:7700` or `\"[::1]:7700\"`");
    }
    found
}

fn tls(r: &mut Reader, node: &Spanned<Node>, dir: &Path) -> Option<Tls> {
    let mut f = r.map(&keys::TLS, "tls", node)?;
    let mut file = |key: &'static str| -> Option<PathBuf> {
        let Some(node) = f.take(key) else {
            r.error_help(node.span, format!("`tls` has no `{key}`"), "write `{ cert: FILE, key: FILE }`");
            return None;
        };
        let path = parts::path(r, key, node, dir)?;
        if !path.is_file() {
            let message = format!("the file {} does not exist", path.display());
            r.error_help(node.span, message, "correct the path");
            return None;
        }
        Some(path)
    };
    let (cert, key) = (file("cert"), file("key"));
    f.finish(r, &[("certificate", "write `cert:`")]);
    Some(Tls { cert: cert?, key: key? })
}

fn hosts(r: &mut Reader, node: &Spanned<Node>) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for item in r.list("allowed_hosts", node)? {
        let Some(text) = r.filled("allowed_hosts", item) else {
            continue;
        };
        let good =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']'));
        if good {
            hosts.push(text.to_ascii_lowercase());
        } else {
            let message = format!("`{}` is no host name", text.escape_debug());
            r.error_help(item.span, message, "write the name alone: `matins.example`, or with its port");
        }
    }
    Some(hosts)
}

fn read_numbers(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    let sources = &mut s.sources;
    take(r, f, sources, "timezone", &mut s.timezone, |r, node| {
        let name = r.filled("timezone", node)?;
        match context::zone_name(name.trim()) {
            Ok(zone) => Some(zone),
            Err(sentence) => {
                r.sentence(node.span, Severity::Error, &sentence);
                None
            }
        }
    });
    take(r, f, sources, "max_running", &mut s.max_running, |r, node| r.count("max_running", node));
    take(r, f, sources, "pools", &mut s.pools, pools);
    take(r, f, sources, "drain_timeout", &mut s.drain_timeout, |r, node| r.duration("drain_timeout", node));
    take(r, f, sources, "kill_grace", &mut s.kill_grace, |r, node| r.duration("kill_grace", node));
    take(r, f, sources, "orphan_grace", &mut s.orphan_grace, |r, node| r.some_time("orphan_grace", node));
    take(r, f, sources, "wait_ceiling", &mut s.wait_ceiling, |r, node| r.some_time("wait_ceiling", node));
}

fn pools(r: &mut Reader, node: &Spanned<Node>) -> Option<BTreeMap<String, u32>> {
    let mut pools = BTreeMap::new();
    for (key, node) in r.names("pools", node)? {
        if let (Some(name), Some(places)) = (r.check_name("a pool", key), r.count(&key.value, node)) {
            pools.insert(name, places);
        }
    }
    Some(pools)
}

fn read_messages(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings, dir: &Path, env: &Env) {
    // The programs of hooks are looked for as those of agents are; nothing else of it is used here.
    let mut cx = Context::new(s, env, jiff::Timestamp::UNIX_EPOCH);
    let sources = &mut s.sources;
    take(r, f, sources, "webhooks", &mut s.webhooks, |r, node| {
        r.list("webhooks", node)?;
        Some(parts::webhooks(r, node, dir))
    });
    take(
        r,
        f,
        sources,
        "webhook_secret",
        &mut s.webhook_secret,
        or_null(|r, node| parts::secret(r, "webhook_secret", node, dir)),
    );
    let key = "allow_private_webhooks";
    take(r, f, sources, key, &mut s.allow_private_webhooks, |r, node| r.flag(key, node));
    take(
        r,
        f,
        sources,
        "on_failure",
        &mut s.on_failure,
        or_null(|r, node| hook::hook(r, &mut cx, "on_failure", node, dir)),
    );
    take(
        r,
        f,
        sources,
        "ping_url",
        &mut s.ping_url,
        or_null(|r, node| r.address("ping_url", node).map(Into::into)),
    );
}

fn read_budget(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    let (budget, sources) = (&mut s.budget, &mut s.sources);
    let most = i64::MAX.unsigned_abs();
    let count =
        |key: &'static str| or_null(move |r: &mut Reader, node: &Spanned<Node>| r.whole(key, node, 1, most));
    take(r, f, sources, "budget.tokens_per_day", &mut budget.tokens_per_day, count("tokens_per_day"));
    take(
        r,
        f,
        sources,
        "budget.usd_per_day",
        &mut budget.usd_per_day,
        or_null(|r, node| policies::usd(r, "usd_per_day", node)),
    );
    take(r, f, sources, "budget.runs_per_day", &mut budget.runs_per_day, count("runs_per_day"));
}

fn read_retention(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    let Some(mut f) = f.take("retention").and_then(|node| r.map(&keys::RETENTION, "retention", node)) else {
        return;
    };
    let (retention, sources) = (&mut s.retention, &mut s.sources);
    let completed = ["retention.completed.keep", "retention.completed.days"];
    keep(r, &mut f, sources, &keys::KEEP, "completed", completed, &mut retention.completed);
    let failed = ["retention.failed.keep", "retention.failed.days"];
    keep(r, &mut f, sources, &keys::KEEP_FAILED, "failed", failed, &mut retention.failed);
    take(r, &mut f, sources, "retention.logs", &mut retention.logs, |r, node| r.size("logs", node));
    f.finish(
        r,
        &[
            ("keep", "write it under `completed:` or `failed:`"),
            ("days", "write it under `completed:` or `failed:`"),
        ],
    );
}

fn keep(
    r: &mut Reader,
    f: &mut Fields<'_>,
    sources: &mut BTreeMap<&'static str, ValueSource>,
    shape: &'static Shape,
    name: &'static str,
    [runs, days]: [&'static str; 2],
    keep: &mut Keep,
) {
    const MOST_DAYS: u64 = 100_000;
    if let Some(mut f) = f.take(name).and_then(|node| r.map(shape, name, node)) {
        take(r, &mut f, sources, runs, &mut keep.keep, |r, node| r.whole("keep", node, 0, u64::MAX >> 1));
        take(r, &mut f, sources, days, &mut keep.days, |r, node| r.whole("days", node, 0, MOST_DAYS));
        f.finish(r, &[]);
    }
}

fn read_files(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    let Some(mut f) = f.take("files").and_then(|node| r.map(&keys::FILES, "files", node)) else {
        return;
    };
    let (files, sources) = (&mut s.files, &mut s.sources);
    take(r, &mut f, sources, "files.max_size", &mut files.max_size, |r, node| r.size("max_size", node));
    take(r, &mut f, sources, "files.max_total", &mut files.max_total, |r, node| r.size("max_total", node));
    let key = "files.keep_unused";
    take(r, &mut f, sources, key, &mut files.keep_unused, |r, node| r.duration("keep_unused", node));
    f.finish(r, &[("max", "write `max_size:` or `max_total:`")]);
}

fn read_housekeeping(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    let node = f.take("housekeeping");
    let Some(mut f) = node.and_then(|node| r.map(&keys::HOUSEKEEPING, "housekeeping", node)) else {
        return;
    };
    let (housekeeping, sources) = (&mut s.housekeeping, &mut s.sources);
    take(
        r,
        &mut f,
        sources,
        "housekeeping.backup",
        &mut housekeeping.backup,
        or_null(|r, node| {
            let text = r.filled("backup", node)?;
            match Cron::parse(&text) {
                Ok(cron) => Some(cron.text().to_owned()),
                Err(e) => {
                    r.sentence(node.span, Severity::Error, &e.to_string());
                    None
                }
            }
        }),
    );
    let key = "housekeeping.keep_backups";
    take(r, &mut f, sources, key, &mut housekeeping.keep_backups, |r, node| {
        r.whole("keep_backups", node, 1, 10_000).and_then(|n| u32::try_from(n).ok())
    });
    f.finish(r, &[("keep", "write `keep_backups:`")]);
}
