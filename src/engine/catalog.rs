//! The catalog: agents, definitions and schedules in memory, as the store numbered them.
//!
//! It is a cache of rows and files and owns nothing. It is replaced as a whole; whoever holds an
//! entry keeps that entry, so a change never reaches into a run that is under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use super::reload::{Changed, Changes, differing_keys};
use crate::config::LoadedAgents;
use crate::ids::AgentId;
use crate::model::{Agent, Schedule};
use crate::plan::Calendar;
use crate::store::{self, AgentRow, AgentSync, Store};

/// What the scheduler tells of a schedule whose next instant no calendar gives.
#[derive(Debug)]
pub struct Live {
    next_ms: AtomicI64,
    runs: AtomicU32,
}

impl Live {
    fn new(runs: u32) -> Self {
        Self { next_ms: AtomicI64::new(i64::MAX), runs: AtomicU32::new(runs) }
    }

    /// Keeps what the scheduler has found.
    pub(super) fn tell(&self, next_ms: Option<i64>, runs: u32) {
        self.next_ms.store(next_ms.unwrap_or(i64::MAX), Ordering::Relaxed);
        self.runs.store(runs, Ordering::Relaxed);
    }
}

/// One schedule, ready to be planned.
#[derive(Debug, Clone)]
pub struct ScheduleEntry {
    /// Its number in the store.
    pub number: i64,
    /// Its watermark when the catalog was made, Unix ms.
    pub watermark_ms: i64,
    /// Runs of it that `max_runs` counts, when the catalog was made.
    pub runs: u32,
    /// Its definition.
    pub schedule: Arc<Schedule>,
    /// Its compiled timing.
    pub calendar: Calendar,
    /// What only the scheduler knows, where there is something of the kind.
    pub live: Option<Arc<Live>>,
}

impl ScheduleEntry {
    /// Runs that `max_runs` leaves it.
    #[must_use]
    pub fn runs_left(&self) -> u64 {
        let Some(max) = self.schedule.bounds.max_runs else { return u64::MAX };
        let runs = self.live.as_ref().map_or(self.runs, |live| live.runs.load(Ordering::Relaxed));
        u64::from(max.saturating_sub(runs))
    }

    /// The next instant of a schedule that follows events, as the scheduler knows it, Unix ms.
    #[must_use]
    pub fn next_ms(&self) -> Option<i64> {
        let next = self.live.as_ref()?.next_ms.load(Ordering::Relaxed);
        (next != i64::MAX).then_some(next)
    }
}

/// One agent that has a file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its stable integer.
    pub number: i64,
    /// Number of the definition that new runs get.
    pub definition: i64,
    /// SHA-256 of that definition.
    pub sha256: [u8; 32],
    /// The definition; of an invalid file, the last good one.
    pub agent: Arc<Agent>,
    /// Whether its file can be read now.
    pub valid: bool,
    /// Its schedules, in the order of the file.
    pub schedules: Vec<ScheduleEntry>,
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<AgentId, Arc<Entry>>,
    by_number: HashMap<i64, Arc<Entry>>,
    generation: u64,
}

/// The agents of the daemon.
#[derive(Debug, Default)]
pub struct Catalog {
    maps: RwLock<Maps>,
    /// Definitions of runs that are older than the agents' present ones.
    old: RwLock<HashMap<i64, Arc<Agent>>>,
    /// Definitions as YAML, as they are put beside each run.
    yaml: RwLock<HashMap<i64, Arc<str>>>,
}

/// Old definitions that are kept in memory.
const OLD_DEFINITIONS: usize = 256;

impl Catalog {
    /// The agent of this id.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<Arc<Entry>> {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).by_id.get(id).cloned()
    }

    /// The agent of this number.
    #[must_use]
    pub fn by_number(&self, number: i64) -> Option<Arc<Entry>> {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).by_number.get(&number).cloned()
    }

    /// Every agent, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).by_id.values().cloned().collect()
    }

    /// Grows with every replacement.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).generation
    }

    /// How many agents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings the stored agents in line with `loaded` and replaces the catalog.
    ///
    /// # Errors
    /// Those of the store; then the catalog is as before.
    pub async fn replace(
        &self,
        store: &Store,
        loaded: &LoadedAgents,
        now_ms: i64,
    ) -> Result<(), store::Error> {
        self.apply(store, self.plan(loaded)?, now_ms).await
    }

    /// What `loaded` changes. Agents whose definition is the same keep their entry.
    ///
    /// # Errors
    /// [`store::Error::Inconsistent`] for a definition that JSON cannot hold.
    pub fn plan(&self, loaded: &LoadedAgents) -> Result<Update, store::Error> {
        let mut update = Update::default();
        let before = self.all();
        let mut gone: HashMap<&AgentId, &Arc<Entry>> = before.iter().map(|e| (&e.agent.id, e)).collect();
        for agent in &loaded.agents {
            let (body, sha256) = snapshot(agent)?;
            match gone.remove(&agent.id) {
                Some(entry) if entry.valid && entry.sha256 == sha256 => {
                    update.changes.unchanged += 1;
                    update.kept.push(Arc::clone(entry));
                    continue;
                }
                Some(entry) => update.changes.changed.push(changed(entry, &body)?),
                None => update.changes.added.push(agent.id.to_string()),
            }
            update.good.insert(agent.id.clone(), (Arc::clone(agent), sha256));
            let schedules = agent.schedules.iter().map(|s| s.id.clone()).collect();
            update.wanted.push(AgentSync {
                id: agent.id.clone(),
                definition: Some((body, sha256)),
                schedules,
            });
        }
        for broken in loaded.invalid.iter().filter_map(|broken| broken.id.clone()) {
            gone.remove(&broken);
            if !update.good.contains_key(&broken) {
                update.wanted.push(AgentSync { id: broken, definition: None, schedules: Vec::new() });
            }
        }
        update.changes.removed = gone.keys().map(ToString::to_string).collect();
        update.changes.removed.sort();
        Ok(update)
    }

    /// Writes what has changed and replaces the catalog.
    ///
    /// # Errors
    /// Those of the store; then the catalog is as before.
    pub async fn apply(&self, store: &Store, update: Update, now_ms: i64) -> Result<(), store::Error> {
        let Update { wanted, mut good, kept, .. } = update;
        let numbers = kept.iter().map(|e| e.number).collect();
        let rows = store.change_definitions(wanted, numbers, now_ms).await?;
        let mut entries = kept;
        for row in rows {
            let Some(definition) = row.definition else {
                continue;
            };
            let (agent, sha256) = match good.remove(&row.id) {
                Some(known) => known,
                None => stored(store, definition).await?,
            };
            entries.push(Arc::new(entry(&row, definition, agent, sha256)?));
        }
        let mut maps = self.maps.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        maps.by_id = entries.iter().map(|e| (e.agent.id.clone(), Arc::clone(e))).collect();
        maps.by_number = entries.into_iter().map(|e| (e.number, e)).collect();
        maps.generation += 1;
        Ok(())
    }

    /// The definition of this number as YAML.
    #[must_use]
    pub fn yaml(&self, definition: i64, agent: &Agent) -> Arc<str> {
        let known =
            self.yaml.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&definition).cloned();
        known.unwrap_or_else(|| {
            let text: Arc<str> = crate::config::to_yaml(agent).into();
            let mut yaml = self.yaml.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if yaml.len() >= OLD_DEFINITIONS {
                yaml.clear();
            }
            yaml.insert(definition, Arc::clone(&text));
            text
        })
    }

    /// The definition that a run was admitted with.
    ///
    /// # Errors
    /// Those of the store, and [`store::Error::Inconsistent`] for a snapshot that cannot be read.
    pub async fn definition(
        &self,
        store: &Store,
        agent: i64,
        number: i64,
    ) -> Result<Arc<Agent>, store::Error> {
        if let Some(entry) = self.by_number(agent).filter(|e| e.definition == number) {
            return Ok(Arc::clone(&entry.agent));
        }
        let known = self.old.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&number).cloned();
        if let Some(agent) = known {
            return Ok(agent);
        }
        let (agent, _) = stored(store, number).await?;
        let mut old = self.old.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if old.len() >= OLD_DEFINITIONS {
            old.clear();
        }
        old.insert(number, Arc::clone(&agent));
        Ok(agent)
    }
}

/// What a reading of the files changes in the catalog.
#[derive(Debug, Default)]
pub struct Update {
    /// Agents to be written.
    wanted: Vec<AgentSync>,
    /// Those of them that can be read.
    good: HashMap<AgentId, (Arc<Agent>, [u8; 32])>,
    /// Entries that stay.
    kept: Vec<Arc<Entry>>,
    /// The difference, for people.
    pub(super) changes: Changes,
}

pub(super) fn snapshot(agent: &Agent) -> Result<(String, [u8; 32]), store::Error> {
    agent.snapshot().map_err(|e| store::inconsistent("definitions", 0, e.to_string()))
}

/// The keys in which an agent's new definition differs from its entry.
fn changed(entry: &Entry, body: &str) -> Result<Changed, store::Error> {
    let (old, _) = snapshot(&entry.agent)?;
    let tree = |body: &str| serde_json::from_str(body).unwrap_or_default();
    Ok(Changed { id: entry.agent.id.to_string(), keys: differing_keys(&tree(&old), &tree(body)) })
}

async fn stored(store: &Store, number: i64) -> Result<(Arc<Agent>, [u8; 32]), store::Error> {
    let found = store.definition(number).await?;
    let (body, sha256) = found.ok_or_else(|| store::inconsistent("definitions", number, "it is missing"))?;
    let agent = serde_json::from_str(&body)
        .map_err(|e| store::inconsistent("definitions", number, format!("it cannot be read: {e}")))?;
    Ok((Arc::new(agent), sha256))
}

fn entry(
    row: &AgentRow,
    definition: i64,
    agent: Arc<Agent>,
    sha256: [u8; 32],
) -> Result<Entry, store::Error> {
    let mut schedules = Vec::with_capacity(agent.schedules.len());
    for schedule in &agent.schedules {
        let Some(stored) = row.schedules.iter().find(|s| s.id == schedule.id) else {
            continue;
        };
        let calendar = Calendar::of(schedule)
            .map_err(|e| store::inconsistent("schedules", stored.number, e.to_string()))?;
        schedules.push(ScheduleEntry {
            number: stored.number,
            watermark_ms: stored.watermark_ms,
            runs: stored.runs,
            live: (calendar.event().is_some() || schedule.bounds.max_runs.is_some())
                .then(|| Arc::new(Live::new(stored.runs))),
            schedule: Arc::new(schedule.clone()),
            calendar,
        });
    }
    Ok(Entry { number: row.number, definition, sha256, agent, valid: row.valid, schedules })
}
