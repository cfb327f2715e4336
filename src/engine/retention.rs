//! Retention: keeps history within the bounds of the settings, a little at a time.
//!
//! A pass does a bounded amount of everything and remembers where it stopped, so a database that has
//! grown for years is brought down over many passes and no pass is felt. What it decides by is rows;
//! folders are touched only where rows say so. Logs of runs that ended are packed after a while, for
//! nobody waits for them any more, and readers notice nothing.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use super::{Core, files};
use crate::config::Keep;
use crate::exec;
use crate::ids::RunId;
use crate::model::{Budget, RunState};
use crate::store::{self, EndedRun, Garbage, LogRow, REMOVE_BATCH, Store};
use crate::task::blocking;

/// How long the logs of a run that has ended stay as they were written.
const LOOSE_MS: i64 = 3_600_000;
/// Logs of this size are packed at once, bytes.
const LARGE: i64 = 16 << 20;
/// How long it is kept what a run used up of models, beside the run itself.
const SPENDS_MS: i64 = 90 * 86_400_000;
/// Agents whose history one pass looks at because runs of theirs have ended.
const BUSY_AGENTS: usize = 200;
/// Agents that it looks at in turn, whatever they do.
const AGENTS_IN_TURN: usize = 50;
/// Rounds of one batch each that one pass spends on one kind of rows.
const ROUNDS: usize = 20;
/// An agent is looked at again when this part of what is kept has come anew.
const SLACK: u64 = 50;

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs that were removed.
    pub runs: usize,
    /// Slots, messages, keys, sessions and files that were removed.
    pub rows: usize,
    /// Folders that were removed.
    pub folders: usize,
    /// Runs whose logs were packed.
    pub packed: usize,
    /// Runs whose logs were removed for the disk's sake.
    pub logs_removed: usize,
}

/// Where retention has come to.
#[derive(Debug, Default)]
pub struct Retention {
    /// Runs of each agent that have ended since it was last looked at.
    fresh: HashMap<i64, u64>,
    /// Agents to be looked at.
    busy: VecDeque<i64>,
    /// The last agent that was looked at in turn.
    turn: i64,
    /// Up to which number runs were looked at for their age: completed, failed.
    aged: [i64; 2],
    /// Up to where transitions were looked at.
    transition: i64,
}

impl Retention {
    /// One pass.
    ///
    /// # Errors
    /// Those of the store; what was done by then stays done.
    pub async fn pass(&mut self, core: &Core) -> Result<Report, store::Error> {
        let mut report = Report::default();
        self.note_ended(core).await?;
        report.packed = pack(core).await?;
        report.logs_removed = cap(core).await?;
        self.remove_excess(core, &mut report).await?;
        self.remove_outdated(core, &mut report).await?;
        self.remove_rest(core, &mut report).await?;
        report.folders = sweep(core).await?;
        if report != Report::default() {
            tracing::info!(
                runs = report.runs,
                rows = report.rows,
                folders = report.folders,
                packed = report.packed,
                logs.removed = report.logs_removed,
                "retention removed {} runs and packed the logs of {}",
                report.runs,
                report.packed
            );
        }
        Ok(report)
    }

    /// Learns which runs have ended and what they have left.
    async fn note_ended(&mut self, core: &Core) -> Result<(), store::Error> {
        let mut seq = core.store.progress("logs").await?;
        for _ in 0..ROUNDS {
            let (ended, next) = core.store.ended_since(seq).await?;
            if next == seq {
                break;
            }
            for run in &ended {
                *self.fresh.entry(run.agent).or_default() += 1;
            }
            let runs = runs_dir(core);
            let found = blocking(move || measure(&runs, &ended)).await?;
            core.store.note_logs(found, next).await?;
            seq = next;
        }
        Ok(())
    }

    /// Removes what is beyond the number that is kept of each agent.
    async fn remove_excess(&mut self, core: &Core, report: &mut Report) -> Result<(), store::Error> {
        let retention = core.settings().retention;
        let (completed, failed) = (retention.completed, retention.failed);
        let enough = (completed.keep.min(failed.keep) / SLACK).max(1);
        self.busy.extend(self.fresh.iter().filter(|(_, n)| **n >= enough).map(|(agent, _)| *agent));
        self.fresh.retain(|_, n| *n < enough);
        let mut agents: Vec<i64> = self.busy.drain(..self.busy.len().min(BUSY_AGENTS)).collect();
        let turn = core.store.agents_after(self.turn, AGENTS_IN_TURN).await?;
        self.turn = if turn.len() < AGENTS_IN_TURN { 0 } else { turn.last().copied().unwrap_or(0) };
        agents.extend(turn);
        agents.sort_unstable();
        agents.dedup();
        let now_ms = core.clock.now_ms();
        let oldest_ms = cutoff(now_ms, completed.days.max(failed.days));
        let slots = completed.keep.saturating_add(failed.keep);
        for agent in agents {
            for (state, keep) in [(RunState::Completed, completed), (RunState::Failed, failed)] {
                let before_ms = if budgeted(core, agent) { now_ms - store::DAY_MS } else { i64::MAX };
                let beyond = core.store.excess_runs(agent, state, keep.keep, before_ms).await?;
                report.runs += remove_runs(&core.store, &beyond).await?;
            }
            report.rows += core.store.remove_slots(agent, oldest_ms, slots).await?;
            report.rows += core.store.remove_tallies(Some(agent), now_ms).await?;
        }
        Ok(())
    }

    /// Removes what is too old.
    async fn remove_outdated(&mut self, core: &Core, report: &mut Report) -> Result<(), store::Error> {
        let retention = core.settings().retention;
        let kinds = [(RunState::Completed, retention.completed), (RunState::Failed, retention.failed)];
        for ((state, Keep { days, .. }), aged) in kinds.into_iter().zip(&mut self.aged) {
            // A key answers, and a budget counts, for a day.
            let before_ms = cutoff(core.clock.now_ms(), days.max(1));
            for _ in 0..ROUNDS {
                let (old, next) = core.store.outdated_runs(state, before_ms, *aged).await?;
                report.runs += remove_runs(&core.store, &old).await?;
                // From the beginning again next time: what stayed may go by then.
                *aged = next.unwrap_or(0);
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn remove_rest(&mut self, core: &Core, report: &mut Report) -> Result<(), store::Error> {
        let (store, now_ms) = (&core.store, core.clock.now_ms());
        let retention = core.settings().retention;
        let old_ms = cutoff(now_ms, retention.completed.days.max(retention.failed.days));
        let unused_ms = now_ms.saturating_sub(crate::time::millis(core.settings().files.keep_unused));
        for _ in 0..ROUNDS {
            let gone = [
                store.remove_keys(now_ms).await?,
                store.remove_spends(now_ms - SPENDS_MS).await?,
                store.remove_messages(old_ms).await?,
                store.remove_sessions(old_ms).await?,
                store.remove_files(unused_ms).await?,
            ];
            report.rows += gone.iter().sum::<usize>();
            if gone.iter().all(|n| *n < REMOVE_BATCH) {
                break;
            }
        }
        report.rows += store.remove_tallies(None, now_ms).await?;
        for _ in 0..ROUNDS {
            self.transition = store.remove_transitions(self.transition).await?;
            if self.transition == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Packs the logs that nobody is likely to follow any more.
async fn pack(core: &Core) -> Result<usize, store::Error> {
    let loose = core.store.loose_logs(core.clock.now_ms() - LOOSE_MS, LARGE).await?;
    let mut packed = 0;
    for log in loose {
        if core.tasks.stop().is_soft() {
            break;
        }
        let (runs, id) = (runs_dir(core), log.id);
        match blocking(move || exec::pack_logs(&runs, id)).await? {
            Ok(bytes) => {
                core.store.logs_packed(log.run, bytes).await?;
                packed += 1;
            }
            Err(e) => {
                tracing::warn!(run.id = %id, agent = log.agent, error = %e, "the logs of run {id} cannot be packed and stay as they are: {e}");
                // Noted as packed: what cannot be read today would be tried for ever.
                core.store.logs_packed(log.run, u64::try_from(log.bytes).unwrap_or(0)).await?;
            }
        }
    }
    Ok(packed)
}

/// Removes the oldest logs until all together take up no more than they may.
async fn cap(core: &Core) -> Result<usize, store::Error> {
    let most = i64::try_from(core.settings().retention.logs).unwrap_or(i64::MAX);
    let mut bytes = core.store.log_bytes().await?;
    let mut removed = 0;
    while bytes > most {
        let mut over = Vec::new();
        for log in core.store.oldest_logs().await? {
            if bytes <= most {
                break;
            }
            bytes -= log.bytes;
            over.push(log);
        }
        if over.is_empty() {
            break;
        }
        for some in over.chunks(REMOVE_BATCH) {
            removed += remove_logs(core, some.to_vec()).await?;
        }
    }
    Ok(removed)
}

/// The files first: a crash in between repeats this.
async fn remove_logs(core: &Core, logs: Vec<LogRow>) -> Result<usize, store::Error> {
    let runs = runs_dir(core);
    let numbers: Vec<i64> = logs.iter().map(|log| log.run).collect();
    let failed = blocking(move || {
        let remove =
            |log: &LogRow| exec::remove_logs(&runs, log.id).err().map(|e| (log.id, log.agent.clone(), e));
        logs.iter().filter_map(remove).collect::<Vec<_>>()
    })
    .await?;
    for (id, agent, e) in failed {
        tracing::warn!(run.id = %id, agent, error = %e, "the logs of run {id} cannot be removed: {e}");
    }
    let removed = numbers.len();
    core.store.logs_removed(numbers, core.clock.now_ms()).await?;
    Ok(removed)
}

async fn remove_runs(store: &Store, runs: &[i64]) -> Result<usize, store::Error> {
    let mut gone = 0;
    for some in runs.chunks(REMOVE_BATCH) {
        gone += store.remove_runs(some.to_vec()).await?;
    }
    Ok(gone)
}

/// Removes the folders of what has no rows any more.
async fn sweep(core: &Core) -> Result<usize, store::Error> {
    let mut swept = 0;
    for _ in 0..ROUNDS {
        let garbage = core.store.garbage().await?;
        let state = core.state_dir().clone();
        let gone = blocking(move || garbage.into_iter().filter(|one| remove(&state, one)).collect()).await?;
        let gone: Vec<Garbage> = gone;
        if gone.is_empty() {
            break;
        }
        swept += gone.len();
        for some in gone.chunks(REMOVE_BATCH) {
            core.store.garbage_gone(some.to_vec()).await?;
        }
    }
    Ok(swept)
}

/// Removes a folder with all it holds; whether it is gone. Links in it are not followed.
fn remove(state: &Path, garbage: &Garbage) -> bool {
    let (kind, name) = match garbage {
        Garbage::Run(name) => ("runs", name),
        Garbage::Session(name) => ("sessions", name),
        Garbage::File(name) => (files::FOLDER, name),
    };
    // One component that stays where it is.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return true;
    }
    let path = state.join(kind).join(name);
    let removed = match garbage {
        Garbage::File(_) => std::fs::remove_file(&path),
        Garbage::Run(_) | Garbage::Session(_) => std::fs::remove_dir_all(&path),
    };
    match removed {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => {
            tracing::warn!(error = %e, "{} cannot be removed yet: {e}", path.display());
            false
        }
    }
}

/// What the runs have left, as far as it is something.
fn measure(runs: &Path, ended: &[EndedRun]) -> Vec<(EndedRun, u64)> {
    let bytes = |id: RunId| exec::log_bytes(runs, id).unwrap_or(0);
    ended.iter().map(|run| (*run, bytes(run.id))).filter(|(_, bytes)| *bytes > 0).collect()
}

/// Whether a budget counts the runs of this agent.
fn budgeted(core: &Core, agent: i64) -> bool {
    let none = Budget::default();
    let of_agent = |entry: std::sync::Arc<super::Entry>| entry.agent.policies.budget != none;
    core.settings().budget != none || core.catalog.by_number(agent).is_some_and(of_agent)
}

fn runs_dir(core: &Core) -> PathBuf {
    core.state_dir().join("runs")
}

fn cutoff(now_ms: i64, days: u64) -> i64 {
    now_ms.saturating_sub(i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(86_400_000))
}
