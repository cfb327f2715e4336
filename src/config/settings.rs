//! The daemon's settings: flag over `MATINS_CONFIG_..` variable over file over default.
//!
//! The layers are laid over each other as trees before anything is read, each value with the place
//! it is from. So there is one reader for all of them, a mistake in a variable is shown like one in
//! the file, and the source of every effective value is known.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::overlay;
use super::problem::Severity;
use super::reader::{Elsewhere, Fields, Reader};
use super::source::{Origin, Source, Span, Spanned};
use super::yaml::Node;
use super::{Env, Location, Problems, context, load, parts};
use crate::model::{Budget, Hook, SecretSource, Webhook};

/// Longest path of a Unix socket, bytes: `sun_path` holds 108 with its terminating NUL.
pub const MAX_SOCKET_PATH: usize = 107;
/// Keys of the settings, dotted, in the order of `config/matins.yaml`.
pub const KEYS: &[&str] = &[
    "agents_dir",
    "skills_dir",
    "state_dir",
    "listen.socket",
    "timezone",
    "max_running",
    "drain_timeout",
    "kill_grace",
    "orphan_grace",
    "webhooks",
    "webhook_secret",
    "allow_private_webhooks",
];

const ELSEWHERE: Elsewhere = Elsewhere {
    planned: &[
        "providers",
        "kaizen_version",
        "retention",
        "housekeeping",
        "budget",
        "wait_ceiling",
        "on_failure",
        "ping_url",
        "prices",
    ],
    hints: &[
        ("socket", "write `listen: { socket: PATH }`"),
        ("tz", "write `timezone:`"),
        ("agents", "agents are files in `agents_dir`, one each"),
        ("schedules", "schedules belong to agents, in the files of `agents_dir`"),
    ],
};

/// Where an effective value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// Compiled in.
    Default,
    /// A line of the settings file.
    File {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A command line flag.
    Flag(String),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The control socket.
    pub socket: PathBuf,
}

/// How many ended runs of one kind are kept: the newest `keep` of each agent, and none older than `days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Runs of an agent.
    pub keep: u64,
    /// Age.
    pub days: u64,
}

/// How much history is kept. The latest failure of an agent is never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// COMPLETED runs.
    pub completed: Keep,
    /// FAILED runs.
    pub failed: Keep,
    /// Most bytes of the logs of all runs together; the oldest go first.
    pub logs: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            completed: Keep { keep: 1000, days: 90 },
            failed: Keep { keep: 1000, days: 365 },
            logs: 2 << 30,
        }
    }
}

/// What the daemon does for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Housekeeping {
    /// When a backup is made: a cron pattern in the daemon's zone; `None`: never.
    pub backup: Option<String>,
    /// Backups that are kept.
    pub keep_backups: u32,
}

impl Default for Housekeeping {
    fn default() -> Self {
        Self { backup: Some("0 3 * * *".to_owned()), keep_backups: 7 }
    }
}

/// The effective settings; paths are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The settings file; it may not exist.
    pub file: PathBuf,
    /// Directory of agent files.
    pub agents_dir: PathBuf,
    /// Directory of skills.
    pub skills_dir: PathBuf,
    /// Directory of the database, the runs and the files.
    pub state_dir: PathBuf,
    /// Listeners.
    pub listen: Listen,
    /// Zone of schedules that name none.
    pub timezone: String,
    /// Most runs at once.
    pub max_running: u32,
    /// How long running runs may go on when the daemon stops.
    pub drain_timeout: Duration,
    /// Time between the first signal of an end and SIGKILL.
    pub kill_grace: Duration,
    /// How long a launcher goes on without a daemon.
    pub orphan_grace: Duration,
    /// Places that runs of each pool share.
    pub pools: BTreeMap<String, u32>,
    /// Models by alias: `full`, `lite` and others.
    pub models: BTreeMap<String, String>,
    /// What all agents together may use up.
    pub budget: Budget,
    /// How much history is kept.
    pub retention: Retention,
    /// Backups.
    pub housekeeping: Housekeeping,
    /// Started for each failure of any agent that is told of.
    pub on_failure: Option<Hook>,
    /// An outside monitor's address for the daemon itself.
    pub ping_url: Option<String>,
    /// Endpoints that hear of every agent.
    pub webhooks: Vec<Webhook>,
    /// Signs messages to URLs that were given per run; without it they are unsigned.
    pub webhook_secret: Option<SecretSource>,
    /// Whether URLs that were given per run may lead into private networks.
    pub allow_private_webhooks: bool,
    sources: BTreeMap<&'static str, ValueSource>,
}

impl Settings {
    /// The compiled-in settings of a location.
    #[must_use]
    pub fn defaults(at: &Location) -> Self {
        let dir = at.dir();
        let state_dir = at.state_dir.clone().unwrap_or_else(|| dir.join("var"));
        let socket = at.runtime_dir.as_ref().unwrap_or(&state_dir).join("matins.sock");
        Self {
            file: at.file.clone(),
            agents_dir: dir.join("agents"),
            skills_dir: dir.join("skills"),
            state_dir,
            listen: Listen { socket },
            timezone: "UTC".to_owned(),
            max_running: 4,
            drain_timeout: Duration::from_mins(1),
            kill_grace: Duration::from_secs(10),
            orphan_grace: Duration::from_hours(1),
            pools: BTreeMap::new(),
            models: BTreeMap::new(),
            budget: Budget::default(),
            retention: Retention::default(),
            housekeeping: Housekeeping::default(),
            on_failure: None,
            ping_url: None,
            webhooks: Vec::new(),
            webhook_secret: None,
            allow_private_webhooks: false,
            sources: BTreeMap::new(),
        }
    }

    /// Where the value of one of [`KEYS`] is from.
    #[must_use]
    pub fn source(&self, key: &str) -> ValueSource {
        self.sources.get(key).cloned().unwrap_or(ValueSource::Default)
    }

    /// Every key with its value as it is written in the file, and its source. Secrets show where
    /// they come from, never their value.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, String, ValueSource)> {
        KEYS.iter().map(|key| (*key, self.value(key), self.source(key))).collect()
    }

    fn value(&self, key: &str) -> String {
        let time = crate::time::human_duration;
        let json = |v: serde_json::Result<String>| v.unwrap_or_default();
        match key {
            "agents_dir" => self.agents_dir.display().to_string(),
            "skills_dir" => self.skills_dir.display().to_string(),
            "state_dir" => self.state_dir.display().to_string(),
            "listen.socket" => self.listen.socket.display().to_string(),
            "timezone" => self.timezone.clone(),
            "max_running" => self.max_running.to_string(),
            "drain_timeout" => time(self.drain_timeout),
            "kill_grace" => time(self.kill_grace),
            "orphan_grace" => time(self.orphan_grace),
            "webhooks" => json(serde_json::to_string(&self.webhooks)),
            "webhook_secret" => json(serde_json::to_string(&self.webhook_secret)),
            "allow_private_webhooks" => self.allow_private_webhooks.to_string(),
            _ => String::new(),
        }
    }
}

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
            r.map("settings", &root);
            empty
        }
        None => empty,
    };
    overlay::environment(&mut r, &mut root, env);
    overlay::flags(&mut r, &mut root, &at.flags);
    let settings = read(&mut r, at, &root);
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

fn read(r: &mut Reader, at: &Location, root: &Spanned<Node>) -> Settings {
    let mut s = Settings::defaults(at);
    let Some(mut f) = r.map("settings", root) else {
        return s;
    };
    let dir = at.dir().to_owned();
    read_dirs(r, &mut f, &mut s, &dir, at);
    read_times(r, &mut f, &mut s);
    if let Some(node) = f.take("timezone")
        && let Some(name) = r.filled("timezone", node)
    {
        match context::zone_name(name.trim()) {
            Ok(zone) => set(r, &mut s.timezone, zone, &mut s.sources, "timezone", node),
            Err(sentence) => r.sentence(node.span, Severity::Error, &sentence),
        }
    }
    if let Some(node) = f.take("max_running")
        && let Some(n) = r.count("max_running", node)
    {
        set(r, &mut s.max_running, n, &mut s.sources, "max_running", node);
    }
    if let Some(node) = f.take("webhooks") {
        let hooks = parts::webhooks(r, node, &dir);
        set(r, &mut s.webhooks, hooks, &mut s.sources, "webhooks", node);
    }
    if let Some(node) = f.take("webhook_secret")
        && node.value != Node::Null
        && let Some(secret) = parts::secret(r, "webhook_secret", node, &dir)
    {
        set(r, &mut s.webhook_secret, Some(secret), &mut s.sources, "webhook_secret", node);
    }
    if let Some(node) = f.take("allow_private_webhooks")
        && let Some(allow) = r.flag("allow_private_webhooks", node)
    {
        set(r, &mut s.allow_private_webhooks, allow, &mut s.sources, "allow_private_webhooks", node);
    }
    if let Some(node) = f.take("pools") {
        let pools = pools(r, node);
        set(r, &mut s.pools, pools, &mut s.sources, "pools", node);
    }
    if let Some(node) = f.take("models") {
        let models = models(r, node);
        set(r, &mut s.models, models, &mut s.sources, "models", node);
    }
    f.finish(r, &ELSEWHERE);
    s
}

fn pools(r: &mut Reader, node: &Spanned<Node>) -> BTreeMap<String, u32> {
    let mut pools = BTreeMap::new();
    for (key, node) in r.map("pools", node).map_or(&[][..], |f| f.entries()) {
        if let (Some(name), Some(places)) = (r.check_name("a pool", key), r.count(&key.value, node)) {
            pools.insert(name, places);
        }
    }
    pools
}

fn models(r: &mut Reader, node: &Spanned<Node>) -> BTreeMap<String, String> {
    let mut models = BTreeMap::new();
    for (key, node) in r.map("models", node).map_or(&[][..], |f| f.entries()) {
        let model = r.filled(&key.value, node).filter(|text| {
            let good = text.split_once('/').is_some_and(|(p, m)| !p.is_empty() && !m.is_empty());
            if !good {
                let message = format!("`{}` is no model", text.escape_debug());
                r.error_help(node.span, message, "write provider/model, e.g. `anthropic/claude-opus`");
            }
            good
        });
        if let (Some(alias), Some(model)) = (r.check_name("an alias", key), model) {
            models.insert(alias, model);
        }
    }
    models
}

fn read_dirs(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings, dir: &Path, at: &Location) {
    let path = |f: &mut Fields<'_>, key: &'static str, r: &mut Reader| {
        let node = f.take(key)?;
        Some((parts::path(r, key, node, dir)?, node.clone()))
    };
    if let Some((to, node)) = path(f, "agents_dir", r) {
        set(r, &mut s.agents_dir, to, &mut s.sources, "agents_dir", &node);
    }
    if let Some((to, node)) = path(f, "skills_dir", r) {
        set(r, &mut s.skills_dir, to, &mut s.sources, "skills_dir", &node);
    }
    if let Some((to, node)) = path(f, "state_dir", r) {
        set(r, &mut s.state_dir, to, &mut s.sources, "state_dir", &node);
        if at.runtime_dir.is_none() {
            s.listen.socket = s.state_dir.join("matins.sock");
        }
    }
    let mut span = f.key("state_dir").unwrap_or(f.span);
    if let Some(mut listen) = f.take("listen").and_then(|node| r.map("listen", node)) {
        if let Some((to, node)) = path(&mut listen, "socket", r) {
            set(r, &mut s.listen.socket, to, &mut s.sources, "listen.socket", &node);
            span = node.span;
        }
        listen.finish(r, &Elsewhere { planned: &["http", "tls", "allowed_hosts"], hints: &[] });
    }
    check_socket(r, span, &s.listen.socket);
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

fn read_times(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings) {
    if let Some(node) = f.take("drain_timeout")
        && let Some(time) = r.duration("drain_timeout", node)
    {
        set(r, &mut s.drain_timeout, time, &mut s.sources, "drain_timeout", node);
    }
    if let Some(node) = f.take("kill_grace")
        && let Some(time) = r.duration("kill_grace", node)
    {
        set(r, &mut s.kill_grace, time, &mut s.sources, "kill_grace", node);
    }
    if let Some(node) = f.take("orphan_grace")
        && let Some(time) = r.some_time("orphan_grace", node)
    {
        set(r, &mut s.orphan_grace, time, &mut s.sources, "orphan_grace", node);
    }
}

/// Sets a value and remembers where it is from.
fn set<T>(
    r: &Reader,
    field: &mut T,
    value: T,
    sources: &mut BTreeMap<&'static str, ValueSource>,
    key: &'static str,
    node: &Spanned<Node>,
) {
    *field = value;
    let Some(source) = r.source(node.span) else {
        return;
    };
    let name = || source.path.to_string_lossy().into_owned();
    let from = match source.origin {
        Origin::File => ValueSource::File { file: source.path.clone(), line: node.span.line },
        Origin::Env => ValueSource::Env(name()),
        Origin::Flag => ValueSource::Flag(name()),
    };
    sources.insert(key, from);
}
