//! Reloading: the files take the place of what was read from them before, all or nothing.
//!
//! Everything is read first, beside the running daemon. With one error in one file nothing changes:
//! the last good set stays in force and every problem is kept to be shown. The exchange itself happens
//! inside a tick of the scheduler, behind a pass of the old set up to the same instant: a slot that
//! was due is decided by the definition under which it came due, a new schedule begins right after,
//! and no slot falls between the two sets or is decided by both. Runs keep the definition that they
//! were admitted with, whether they wait or run.
//!
//! Agents whose definition is the same keep their entry and are not written, so a reload of ten
//! thousand files of which one has changed costs the store one agent.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::Core;
use super::catalog::Update;
use crate::config::{self, Env, LoadedAgents, Location, Problem, Problems, Settings, count};
use crate::store;
use crate::task;

/// Problems that are kept of a reload and answered to who asked for it.
pub const PROBLEMS_MAX: usize = 200;

/// Who asks for a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A person or a program, over the API or by SIGHUP, under this name.
    Somebody(String),
    /// The look at the files. It takes an empty directory for one that is not mounted.
    Watch,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Somebody(who) => f.write_str(who),
            Self::Watch => f.write_str("a change of the files"),
        }
    }
}

/// One mistake, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The fields of the problem: file, line, column, severity, message, help.
    #[serde(flatten)]
    pub problem: Value,
    /// The same for people, with its snippet.
    pub rendered: String,
}

impl utoipa::PartialSchema for Mistake {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let place = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let maybe = || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        ObjectBuilder::new()
            .description(Some("A mistake in a file."))
            .property("file", text())
            .required("file")
            .property("line", place())
            .property("column", place())
            .property("severity", text().enum_values(Some(["error", "warning", "note"])))
            .required("severity")
            .property("message", text())
            .required("message")
            .property("help", maybe())
            .property("rendered", text().description(Some("All of it for people, with its snippet.")))
            .required("rendered")
            .into()
    }
}

impl utoipa::ToSchema for Mistake {}

/// An agent whose definition became another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// The keys that changed.
    pub keys: Vec<String>,
}

/// What a reload has changed, agents by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Agents that are new.
    pub added: Vec<String>,
    /// Agents that have no file any more.
    pub removed: Vec<String>,
    /// Agents that are not what they were.
    pub changed: Vec<Changed>,
    /// How many others there are.
    pub unchanged: usize,
    /// Settings that took effect.
    pub settings: Vec<String>,
    /// Settings that were changed and take effect with the next start only.
    pub restart_to_apply: Vec<String>,
}

/// One reload, as the status shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// When, Unix ms.
    pub at_ms: i64,
    /// Who asked for it.
    pub by: String,
    /// Whether the files are in force.
    pub ok: bool,
    /// Errors and warnings, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Mistake>,
    /// How many of all of them are errors.
    pub errors: usize,
    /// How many more there were.
    pub omitted: usize,
    /// What has changed; nothing where it was refused.
    pub changes: Changes,
}

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files have errors; what was in force stays in force.
    #[error("nothing was changed: {}", count(*.0, "error"))]
    Problems(usize, Arc<Reload>),
    /// The daemon is stopping.
    #[error("the daemon is stopping; it reads the files anew when it is back")]
    Stopping,
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What reloading keeps between two reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    location: OnceLock<Location>,
    /// One reload at a time.
    turn: tokio::sync::Mutex<()>,
    swap: Mutex<Option<Swap>>,
    last: Mutex<Option<Arc<Reload>>>,
}

impl Reloads {
    /// Where the settings are read again; without it the settings file is read where it was.
    pub fn locate(&self, location: Location) {
        // Only the daemon that starts says this, once.
        let _ = self.location.set(location);
    }

    /// The last reload; `None`: the files are in force as they were at the start.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Reload>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The exchange that waits for the scheduler.
    pub(super) fn take(&self) -> Option<Swap> {
        self.swap.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn remember(&self, reload: Reload) -> Arc<Reload> {
        let reload = Arc::new(reload);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&reload));
        reload
    }
}

/// A new set that is ready to take over.
#[derive(Debug)]
pub(super) struct Swap {
    update: Update,
    settings: Settings,
    done: oneshot::Sender<Result<(), store::Error>>,
}

impl Swap {
    /// Exchanges the sets, if the old one is decided up to `now_ms`.
    pub(super) async fn carry_out(self, core: &Core, decided: Result<i64, store::Error>) {
        let done = match decided {
            Ok(now_ms) => core.catalog.apply(&core.store, self.update, now_ms).await,
            Err(e) => Err(e),
        };
        if done.is_ok() {
            core.put_settings(self.settings);
        }
        // Who asked may have gone; the exchange stands.
        let _ = self.done.send(done);
    }
}

/// What was read, free of errors.
struct Fresh {
    settings: Settings,
    loaded: LoadedAgents,
    warnings: Problems,
    restart: Vec<String>,
}

impl Core {
    /// Reads settings and agents anew and puts them in force, or leaves everything as it is.
    ///
    /// # Errors
    /// [`ReloadError`] says why nothing has changed.
    pub async fn reload(&self, by: By) -> Result<Arc<Reload>, ReloadError> {
        let _turn = self.reloads.turn.lock().await;
        if self.tasks.stop().is_soft() {
            return Err(ReloadError::Stopping);
        }
        let fresh = match self.read_again(&by).await? {
            Ok(fresh) => fresh,
            Err(problems) => return Err(self.refuse(&by, &problems)),
        };
        let mut update = self.catalog.plan(&fresh.loaded)?;
        let mut changes = std::mem::take(&mut update.changes);
        changes.settings = differing(&self.settings(), &fresh.settings);
        changes.restart_to_apply = fresh.restart;
        self.exchange(update, fresh.settings).await?;
        let (problems, omitted) = mistakes(&fresh.warnings);
        let at_ms = self.clock.now_ms();
        let by_whom = by.to_string();
        let reload = Reload { at_ms, by: by_whom, ok: true, errors: 0, problems, omitted, changes };
        self.metrics.reloads_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        log_done(&by, &reload.changes, &fresh.warnings);
        Ok(self.reloads.remember(reload))
    }

    async fn read_again(&self, by: &By) -> Result<Result<Fresh, Problems>, ReloadError> {
        let old = self.settings();
        let location = self.reloads.location.get().cloned().unwrap_or_else(|| Location::of_file(&old.file));
        let (env, now) = (self.env.clone(), self.clock.now());
        // An empty directory is how a file system looks that is not mounted.
        let had = if *by == By::Watch { self.catalog.len() } else { 0 };
        let reading = task::blocking(move || read(&location, &env, &old, had, now));
        Ok(reading.await.map_err(store::Error::from)?)
    }

    fn refuse(&self, by: &By, found: &Problems) -> ReloadError {
        let (problems, omitted) = mistakes(found);
        let at_ms = self.clock.now_ms();
        let (changes, errors) = (Changes::default(), found.errors());
        let reload = Reload { at_ms, by: by.to_string(), ok: false, errors, problems, omitted, changes };
        self.metrics.reloads_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let rendered = found.render(false);
        tracing::error!(
            errors,
            "the reload asked for by {by} is refused and nothing has changed: {}\n{rendered}",
            count(errors, "error")
        );
        ReloadError::Problems(errors, self.reloads.remember(reload))
    }

    /// Hands a new set to the scheduler and waits until it is in force.
    async fn exchange(&self, update: Update, settings: Settings) -> Result<(), ReloadError> {
        let (done, over) = oneshot::channel();
        let swap = Swap { update, settings, done };
        *self.reloads.swap.lock().unwrap_or_else(PoisonError::into_inner) = Some(swap);
        self.wake.scheduler.notify_one();
        let over = tokio::select! {
            over = over => over,
            () = self.tasks.stop().softened() => {
                // A scheduler that has left takes nothing any more; one that has it already finishes it.
                drop(self.reloads.take());
                return Err(ReloadError::Stopping);
            }
        };
        over.map_err(|_| ReloadError::Stopping)??;
        // Room, endpoints and pools may be others now.
        self.wake.dispatcher.notify_one();
        self.wake.deliverer.notify_one();
        self.changed();
        Ok(())
    }
}

/// Reads everything; the problems if there is an error among them. Blocks.
fn read(
    location: &Location,
    env: &Env,
    old: &Settings,
    had: usize,
    now: Timestamp,
) -> Result<Fresh, Problems> {
    let (mut settings, mut problems) = config::load_settings(location, env);
    let mut loaded = config::load_agents(&settings, env, now);
    problems.merge(std::mem::take(&mut loaded.problems));
    if had > 0 && loaded.agents.is_empty() && !problems.has_errors() {
        problems.merge(emptied(&settings.agents_dir, had));
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let mut restart = Vec::new();
    for key in differing(old, &settings) {
        if key == "state_dir" || key.starts_with("listen.") {
            restart.push(key);
        }
    }
    settings.state_dir.clone_from(&old.state_dir);
    settings.listen = old.listen.clone();
    Ok(Fresh { settings, loaded, warnings: problems, restart })
}

fn emptied(dir: &Path, had: usize) -> Problems {
    let message = format!("the directory of agents is empty; it held {}", count(had, "agent"));
    let help = "if they are meant to go, say so: `matins reload`; else mount or restore the directory";
    Problem::of_file(dir, message, Some(help.to_owned())).into()
}

/// Keys of the settings whose values differ.
fn differing(old: &Settings, new: &Settings) -> Vec<String> {
    let pairs = old.entries().into_iter().zip(new.entries());
    pairs.filter(|(old, new)| old.1 != new.1).map(|(old, _)| old.0).collect()
}

/// Errors and warnings: a note would come back with each reload.
fn mistakes(problems: &Problems) -> (Vec<Mistake>, usize) {
    let problems = problems.serious();
    let mistake = |p: &Problem| Mistake { problem: p.to_json(), rendered: p.rendered() };
    let kept: Vec<Mistake> = problems.iter().take(PROBLEMS_MAX).map(mistake).collect();
    let omitted = problems.iter().count() - kept.len();
    (kept, omitted)
}

fn log_done(by: &By, changes: &Changes, warnings: &Problems) {
    let warnings = warnings.serious();
    if !warnings.is_empty() {
        let rendered = warnings.render(false);
        tracing::warn!("{rendered}");
    }
    tracing::info!(
        agents.added = changes.added.len(),
        agents.removed = changes.removed.len(),
        agents.changed = changes.changed.len(),
        agents.unchanged = changes.unchanged,
        "reloaded, asked for by {by}: {}",
        changes.sentence()
    );
    for key in &changes.restart_to_apply {
        tracing::warn!("the setting {key} was changed; restart to apply it");
    }
}

impl Changes {
    /// The difference in a line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let named = |verb: &str, ids: Vec<String>| {
            if ids.is_empty() { None } else { Some(format!("{} {verb} ({})", ids.len(), some(&ids))) }
        };
        let changed = self.changed.iter().map(|c| format!("{}: {}", c.id, c.keys.join(" "))).collect();
        let parts = [
            named("added", self.added.clone()),
            named("removed", self.removed.clone()),
            named("changed", changed),
            Some(format!("{} unchanged", self.unchanged)),
        ];
        let agents = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if self.settings.is_empty() {
            return format!("agents {agents}");
        }
        format!("agents {agents}; settings {}", self.settings.join(", "))
    }
}

/// The first few of a list.
fn some(all: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN { format!("{shown}, ..") } else { shown }
}

/// The keys in which two definitions differ, as the file says them.
pub(super) fn differing_keys(old: &Value, new: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
        let (a, b) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
        if a == b {
            continue;
        }
        match key.as_str() {
            // One screen of keys stands below this one in the snapshot, at the top in the file.
            "policies" => keys.extend(differing_keys(a, b)),
            "unconfined" => keys.push("sandbox".to_owned()),
            key => keys.push(key.to_owned()),
        }
    }
    keys.sort();
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_those_of_the_file() {
        let old = json!({"prompt": "a", "env": {"A": "1"}, "policies": {"pool": null, "unconfined": false}});
        let new = json!({"prompt": "b", "env": {"A": "1"}, "policies": {"pool": "x", "unconfined": true}, "cwd": "/"});
        assert_eq!(differing_keys(&old, &new), ["cwd", "pool", "prompt", "sandbox"]);
        assert!(differing_keys(&old, &old).is_empty());
    }

    #[test]
    fn the_sentence_names_what_it_can() {
        let ids = |n: usize| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>();
        let changed = vec![Changed { id: "x".into(), keys: vec!["env".into(), "prompt".into()] }];
        let changes =
            Changes { added: ids(11), changed, unchanged: 3, settings: ids(1), ..Changes::default() };
        assert_eq!(
            changes.sentence(),
            "agents 11 added (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, ..), 1 changed (x: env prompt), 3 unchanged; settings a0"
        );
    }
}
