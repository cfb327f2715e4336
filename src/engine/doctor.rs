//! `matins doctor`: what of this machine and this installation does not do what it should, and what helps.
//!
//! A daemon that answers looks at itself, since only it knows its user, its control groups and its credentials; without
//! one the command looks as far as it can from outside. A check never changes anything but for a file of a few bytes that
//! it writes and removes. Names of secrets are told, values never.

mod browser;
mod files;
mod machine;
mod service;
mod state;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use files::FREE_FAIL;

use super::Core;
use crate::config::{Env, Settings};
use crate::model::{Agent, words};
pub(super) use machine::some;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something that is promised elsewhere is not kept here.
    Warn,
    /// It does not work, or will not soon.
    Fail,
}

words!(Level { Ok => "ok", Warn => "warn", Fail => "fail" });

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Check {
    /// What was looked at; stable, for programs.
    pub name: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What helps, where something is wrong.
    pub remedy: Option<String>,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: Level::Ok, found: found.into(), remedy: None }
    }

    /// A promise that is not kept.
    #[must_use]
    pub fn warn(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    /// It does not work.
    #[must_use]
    pub fn fail(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }
}

/// What is looked at.
#[derive(Debug)]
pub struct Patient<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The environment of the daemon, or of the command where none answers.
    pub env: &'a Env,
    /// The agents that can be used.
    pub agents: Vec<Arc<Agent>>,
    /// Agent files that cannot.
    pub invalid: usize,
    /// The daemon's controllers; `None`: no daemon looks.
    pub daemon: Option<Groups>,
}

/// The control groups of a daemon.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// Where they lie, if it has any.
    pub root: Option<std::path::PathBuf>,
    /// Their controllers.
    pub controllers: BTreeSet<String>,
}

impl Core {
    /// Looks at this daemon. Blocking.
    #[must_use]
    pub fn doctor(&self) -> Vec<Check> {
        let settings = self.settings();
        let entries = self.catalog.all();
        let groups = self
            .groups
            .get()
            .map(|g| Groups { root: Some(g.root.clone()), controllers: g.controllers.clone() });
        let patient = Patient {
            settings: &settings,
            env: &self.env,
            agents: entries.iter().map(|entry| Arc::clone(&entry.agent)).collect(),
            invalid: entries.iter().filter(|entry| !entry.valid).count(),
            daemon: Some(groups.unwrap_or_default()),
        };
        examine(&patient)
    }
}

/// Looks at everything. Blocking.
#[must_use]
pub fn examine(patient: &Patient<'_>) -> Vec<Check> {
    let state = patient.settings.state_dir.as_path();
    let mut checks = vec![machine::landlock(), machine::pidfd()];
    checks.extend(patient.daemon.as_ref().map(|groups| machine::groups(groups, &patient.agents)));
    checks.extend([machine::user(&patient.agents), machine::tracing_of_processes()]);
    checks.extend(browser::check(patient));
    checks.extend(machine::clock());
    checks.extend([machine::zones(Path::new("/usr/share/zoneinfo")), machine::sqlite()]);
    checks.extend(files::state_dir(state));
    checks.extend(files::agents_in_the_way(state, &patient.agents));
    checks.extend(super::models::check(patient.settings, patient.env, &patient.agents));
    checks.extend([
        service::lock(state, patient.daemon.is_some()),
        service::unit(patient.env, patient.daemon.is_some()),
        service::secrets(patient),
        service::agents(patient),
    ]);
    checks.extend(service::user_unit(patient.env, &patient.settings.file));
    checks
}
