//! What a run is confined to, from the settings and the definitions, and which launcher belongs to which run.
//!
//! A run shares the daemon's user, so by itself it could read every other run's files and speak to the control socket
//! as an administrator. What it must not see is listed here: the state directory, the settings, the credentials and
//! every file that a definition names as a secret's source. A run that was started keeps its list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Core;
use crate::config::Settings;
use crate::exec::{self, Confine, RunDirs, Surroundings};
use crate::ids::{AgentId, RunId};
use crate::model::{Agent, ApiScope, Failure, FailureCode, Limits, Network, SecretSource};
use crate::proc::{self, Delegated, GroupLimits, Identity, Member, User};

/// What is hidden from every run, as of one generation of the catalog and of the settings.
#[derive(Debug, Default)]
pub(super) struct Hidden(Mutex<Option<Listed>>);

#[derive(Debug)]
struct Listed {
    generation: u64,
    settings: Arc<Settings>,
    places: Arc<[PathBuf]>,
}

/// The run that a launcher carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningAs {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentId,
    /// What it may do on the control socket.
    pub api: ApiScope,
}

/// A launcher and its run.
#[derive(Debug)]
pub(super) struct Launched {
    pid: i32,
    start_ticks: u64,
    run: RunningAs,
}

fn group_limits(limits: &Limits) -> GroupLimits {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked when it was read")]
    let millis = |cpus: f64| (cpus * 1000.0).round().max(1.0) as u64;
    GroupLimits { memory: limits.memory, cpu_millis: limits.cpu.map(millis), processes: limits.processes }
}

/// The user that an agent's programs run as; `None`: the daemon's.
pub(super) fn run_as(agent: &Agent) -> Result<Option<User>, Failure> {
    let Some(name) = agent.policies.user.as_deref() else {
        return Ok(None);
    };
    let fail = |why: String| Failure::new(FailureCode::LaunchError, why);
    if !proc::is_root() {
        return Err(fail(format!(
            "`user: {name}` needs a daemon that runs as root, and this one does not; leave it out"
        )));
    }
    proc::find_user(name).map(Some).ok_or_else(|| {
        fail(format!(
            "`user: {name}` names nobody: /etc/passwd has no such user; `useradd --system {name}` makes one"
        ))
    })
}

impl Core {
    /// What an attempt of this agent is confined to.
    ///
    /// # Errors
    /// A `user:` that does not exist or that this daemon cannot become, as a `launch_error`.
    pub(super) fn confinement(
        &self,
        agent: &Agent,
        dirs: &RunDirs,
        session: &str,
        attempt: u32,
    ) -> Result<Confine, Failure> {
        let settings = self.settings();
        let hidden = self.hidden_places(&settings);
        let sandbox = (!agent.policies.unconfined).then(|| {
            exec::sandbox(&Surroundings {
                dirs,
                session,
                readable: [&settings.agents_dir, &settings.skills_dir],
                hidden: &hidden,
            })
        });
        Ok(Confine {
            sandbox,
            no_tcp: agent.limits.network == Network::Deny,
            limits: group_limits(&agent.limits),
            group: self.groups.get().map(|groups| groups.of_attempt(&dirs.run().to_string(), attempt)),
            user: run_as(agent)?,
        })
    }

    /// Takes the subtree of control groups that was delegated to the daemon.
    pub fn use_groups(&self, groups: Delegated) {
        // A second one is the same one.
        let _ = self.groups.set(groups);
    }

    /// Ends what is left in the control group of a run whose launcher is gone.
    pub(super) async fn end_group(&self, run: RunId, agent: &Agent) {
        let Some(groups) = self.groups.get().cloned() else {
            return;
        };
        let ended = crate::task::blocking(move || groups.end_run(&run.to_string())).await;
        if matches!(ended, Ok(true)) {
            tracing::warn!(run.id = %run, agent = %agent.id, "what run {run} had left in its control group was ended");
        }
    }

    /// Sets HOME and USER where the definition does not: of `user:`, its own; and where the daemon's home is hidden by
    /// the sandbox, as that of a service often is, the workspace.
    pub(super) fn at_home(&self, confine: &Confine, workspace: &Path, env: &mut BTreeMap<String, String>) {
        let inherited = |name: &str, value: Option<&String>| {
            value.is_none_or(|value| self.env.get(name).is_some_and(|own| own == value.as_str()))
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let own_home = inherited("HOME", env.get("HOME"));
        if let Some(user) = &confine.user {
            if inherited("USER", env.get("USER")) {
                env.insert("USER".to_owned(), user.name.clone());
            }
            if own_home {
                env.insert("HOME".to_owned(), text(&user.home));
            }
        }
        let hidden = env.get("HOME").is_some_and(|home| Path::new(home).starts_with(self.state_dir()));
        if own_home && hidden && confine.sandbox.is_some() {
            env.insert("HOME".to_owned(), text(workspace));
        }
    }

    fn hidden_places(&self, settings: &Arc<Settings>) -> Arc<[PathBuf]> {
        let generation = self.catalog.generation();
        let mut known = self.hidden.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listed) = known.as_ref()
            && listed.generation == generation
            && Arc::ptr_eq(&listed.settings, settings)
        {
            return Arc::clone(&listed.places);
        }
        let places: Arc<[PathBuf]> = self.list_hidden(settings).into();
        *known = Some(Listed { generation, settings: Arc::clone(settings), places: Arc::clone(&places) });
        places
    }

    fn list_hidden(&self, settings: &Settings) -> Vec<PathBuf> {
        let mut places = vec![self.state_dir().clone(), settings.state_dir.clone(), settings.file.clone()];
        places.extend(self.env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from));
        let mut note = |source: &SecretSource| {
            if let SecretSource::File(path) = source {
                places.push(path.clone());
            }
        };
        settings.webhook_secret.iter().for_each(&mut note);
        settings.webhooks.iter().filter_map(|hook| hook.secret.as_ref()).for_each(&mut note);
        for entry in self.catalog.all() {
            entry.agent.secrets.values().for_each(&mut note);
            entry.agent.webhooks.iter().filter_map(|hook| hook.secret.as_ref()).for_each(&mut note);
        }
        places.sort();
        places.dedup();
        places
    }

    /// Notes which launcher carries out a run; before its release.
    pub(super) fn launched(&self, number: i64, launcher: &Identity, run: RunId, agent: &Agent) {
        let run = RunningAs { run, agent: agent.id.clone(), api: agent.policies.api };
        let launched = Launched { pid: launcher.pid, start_ticks: launcher.start_ticks, run };
        if let Some(live) = self.live().get_mut(&number) {
            live.launched = Some(launched);
        }
    }

    /// The run that this process carries out, if it is a launcher of a run that has not ended.
    #[must_use]
    pub fn run_of(&self, launcher: &Member) -> Option<RunningAs> {
        let live = self.live();
        let found = live.values().filter_map(|live| live.launched.as_ref()).find(|l| {
            // Where /proc gave no start time, the pid of an unreaped child is proof enough.
            l.pid == launcher.pid && (l.start_ticks == 0 || l.start_ticks == launcher.start_ticks)
        });
        found.map(|l| l.run.clone())
    }
}
