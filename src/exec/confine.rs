//! What an attempt is confined to: what it may reach, what it may use up, as whom it runs.
//!
//! Part of a [`Spec`](super::Spec): decided by the daemon, which knows the settings, and carried out by the launcher
//! just before the program starts. Nothing in it is secret; it stands in `spec.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunDirs;
use crate::proc::{GroupLimits, Reach, User};

/// The confinement of one attempt. The default is none at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confine {
    /// Places that are treated otherwise than the rest of the file system; `None`: no sandbox.
    pub sandbox: Option<Vec<(PathBuf, Reach)>>,
    /// `limits.network: deny`.
    pub no_tcp: bool,
    /// Most that it may use.
    pub limits: GroupLimits,
    /// Its control group, to be made by the launcher; `None`: the daemon has none to give.
    pub group: Option<PathBuf>,
    /// The user that it runs as; `None`: the daemon's.
    pub user: Option<User>,
}

impl Confine {
    /// Whether the program may start as it is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a sandbox is made of.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The run's folders.
    pub dirs: &'a RunDirs,
    /// The name of its session.
    pub session: &'a str,
    /// Folders that may be read: agents and skills.
    pub readable: [&'a Path; 2],
    /// What is nobody's business: the state directory, settings, credentials, files of secrets.
    pub hidden: &'a [PathBuf],
}

/// The places of a sandbox.
#[must_use]
pub fn sandbox(around: &Surroundings<'_>) -> Vec<(PathBuf, Reach)> {
    let hidden = around.hidden.iter().map(|path| (path.clone(), Reach::Hidden));
    let readable = around.readable.iter().map(|path| ((*path).to_owned(), Reach::Read));
    let own = [around.dirs.root().to_owned(), around.dirs.session(around.session)];
    hidden.chain(readable).chain(own.map(|path| (path, Reach::Full))).collect()
}
