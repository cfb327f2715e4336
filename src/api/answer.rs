//! What a run has answered, for callers who always expect something: its structured result, else what its program
//! wrote on stdout.

use std::path::Path;

use serde_json::Value;

use super::logfile::{CHUNK_MAX, LogFile};
use crate::engine::Core;
use crate::exec::RunDirs;
use crate::ids::RunId;

/// Most bytes of stdout that are taken for an answer: its end.
pub const ANSWER_MAX: u64 = CHUNK_MAX as u64;

/// Which run's stdout.
#[derive(Debug, Clone)]
pub(super) struct Of {
    pub(super) run: RunId,
    /// Its agent's id, for the log.
    pub(super) agent: String,
    /// Its last attempt; 0 where it has not started.
    pub(super) attempt: i64,
}

/// What these runs wrote on stdout, each without the white space around it; empty where there is nothing, or
/// nothing any more.
pub(super) async fn written(core: &Core, runs: Vec<Of>) -> Vec<String> {
    let state_dir = core.state_dir().clone();
    let none = runs.iter().map(|_| String::new()).collect();
    let read = move || runs.iter().map(|of| tail(&state_dir, of)).collect();
    // The reading is cut short by nothing but a defect, which the log has.
    crate::task::blocking(read).await.unwrap_or(none)
}

fn tail(state_dir: &Path, of: &Of) -> String {
    let Ok(attempt @ 1..) = u32::try_from(of.attempt) else { return String::new() };
    let path = RunDirs::new(state_dir, of.run).attempt(attempt).stdout();
    let runs = state_dir.join("runs");
    let below = path.strip_prefix(&runs).unwrap_or(&path);
    let read = || -> std::io::Result<Vec<u8>> {
        let Some(log) = LogFile::open(&runs, below)? else { return Ok(Vec::new()) };
        log.read_at(log.len()?.saturating_sub(ANSWER_MAX), ANSWER_MAX)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(e) => {
            tracing::warn!(
                run.id = %of.run, agent = %of.agent, error = %e, "the stdout of run {} cannot be read: {e}", of.run
            );
            String::new()
        }
    }
}

/// A text as JSON where it is some.
pub(super) fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}
