//! The daemon's settings: flag over `MATINS_CONFIG_..` variable over file over default.
//!
//! The layers are laid over each other as trees before anything is read, each value with the place
//! it is from. So there is one reader for all of them, a mistake in a variable is shown like one in
//! the file, and the source of every effective value is known.

mod models;
mod read;
mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Location;
use crate::model::{BrowserTool, Budget, Hook, Price, SecretSource, Webhook, Wire};

pub use read::load_settings;

/// Where HTTP is answered over TCP unless the settings say otherwise.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700);

/// Longest path of a Unix socket, bytes: `sun_path` holds 108 with its terminating NUL.
pub const MAX_SOCKET_PATH: usize = 107;

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
    /// Address and port for HTTP over TCP.
    pub http: Option<SocketAddr>,
    /// Certificate and key of the HTTP listener.
    pub tls: Option<Tls>,
    /// Host names beside the address itself by which the HTTP listener may be asked.
    pub allowed_hosts: Vec<String>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Where a provider of models is asked, and with which key.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Provider {
    /// Where its API is; `None`: the provider's own address.
    pub base_url: Option<String>,
    /// How it is spoken to; `None`: as the provider of its name, where that is known, else as
    /// `openai` without what only that one takes.
    pub wire: Option<Wire>,
    /// Where its API key comes from; `None`: the variable in which its own programs look.
    pub key: Option<SecretSource>,
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

/// Files that callers upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// Most bytes of one.
    pub max_size: u64,
    /// Most bytes of all.
    pub max_total: u64,
    /// How long one stays that no run has.
    pub keep_unused: Duration,
}

impl Default for Files {
    fn default() -> Self {
        Self { max_size: 100 << 20, max_total: 10 << 30, keep_unused: Duration::from_hours(7 * 24) }
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
    /// Whether changes of the files are put in force by themselves.
    pub watch: bool,
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
    /// Longest time that a request is held which waits for a run's end.
    pub wait_ceiling: Duration,
    /// Places that runs of each pool share.
    pub pools: BTreeMap<String, u32>,
    /// The program of the tool `browser`; `None`: the first known one in `PATH`.
    pub browser_program: Option<PathBuf>,
    /// Models by alias: `full`, `lite` and others.
    pub models: BTreeMap<String, String>,
    /// The alias of the model for callers that name no tier.
    pub kaizen_version: String,
    /// Providers of models, by name.
    pub providers: BTreeMap<String, Provider>,
    /// What models cost, by provider/model.
    pub prices: BTreeMap<String, Price>,
    /// What all agents together may use up.
    pub budget: Budget,
    /// How much history is kept.
    pub retention: Retention,
    /// Uploaded files.
    pub files: Files,
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
    /// The places of each pool; that of agents with a browser has as many as the machine has cores where it is not
    /// given.
    #[must_use]
    pub fn places(&self) -> BTreeMap<String, u32> {
        let mut places = self.pools.clone();
        places.entry(BrowserTool::POOL.to_owned()).or_insert_with(|| {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u32::try_from(cores).unwrap_or(u32::MAX)
        });
        places
    }

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
            watch: true,
            state_dir,
            listen: Listen { socket, http: Some(HTTP), tls: None, allowed_hosts: Vec::new() },
            timezone: "UTC".to_owned(),
            max_running: 4,
            drain_timeout: Duration::from_mins(1),
            kill_grace: Duration::from_secs(10),
            orphan_grace: Duration::from_hours(1),
            wait_ceiling: Duration::from_mins(5),
            pools: BTreeMap::new(),
            browser_program: None,
            models: BTreeMap::new(),
            kaizen_version: "full".to_owned(),
            providers: BTreeMap::new(),
            prices: BTreeMap::new(),
            budget: Budget::default(),
            retention: Retention::default(),
            files: Files::default(),
            housekeeping: Housekeeping::default(),
            on_failure: None,
            ping_url: None,
            webhooks: Vec::new(),
            webhook_secret: None,
            allow_private_webhooks: false,
            sources: BTreeMap::new(),
        }
    }

    /// Where the value of a setting is from; `key` is dotted, as in [`Settings::entries`].
    #[must_use]
    pub fn source(&self, key: &str) -> ValueSource {
        self.sources.get(key).cloned().unwrap_or(ValueSource::Default)
    }
}
