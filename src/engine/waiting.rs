//! What a run waits for, in words for whoever asks why it does not start.
//!
//! The claim's own rules say it ([`Store::waits`](crate::store::Store::waits)): the run's time, the runs in its
//! way, its pool. What is left is room in the daemon as a whole, which the dispatcher bounds.

use serde::{Deserialize, Serialize};

use super::Core;
use super::dispatcher::CATCH_UP_LANE;
use crate::ids::RunId;
use crate::store::{self, Hurdle, Waits};
use crate::time::rfc3339_ms;

/// What a waiting run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingFor {
    /// Of which kind that is.
    pub kind: WaitKind,
    /// It in words.
    pub sentence: String,
    /// The runs that hold it, the first of them.
    pub runs: Vec<String>,
}

/// The kinds of what a run may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// Its time: a retry's delay, jitter or spread.
    Time,
    /// Runs of its agent.
    Agent,
    /// Runs of its concurrency key.
    ConcurrencyKey,
    /// A place in its pool.
    Pool,
    /// The lane of the catch-ups.
    CatchUp,
    /// A place in the daemon.
    MaxRunning,
    /// The daemon's next start.
    Start,
    /// Nothing: it starts now.
    Nothing,
}

impl WaitingFor {
    /// It as somebody may see it for whom not all agents exist: the runs of others are not named.
    #[must_use]
    pub fn as_seen_by(mut self, all: bool) -> Self {
        if !all && matches!(self.kind, WaitKind::ConcurrencyKey | WaitKind::Pool | WaitKind::CatchUp) {
            self.runs.clear();
            let end = self.sentence.find(", held by").or_else(|| self.sentence.find(", all held by"));
            self.sentence.truncate(end.unwrap_or(self.sentence.len()));
        }
        self
    }
}

impl Core {
    /// What a run waits for; `None`: it does not wait.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn waiting_for(&self, number: i64) -> Result<Option<WaitingFor>, store::Error> {
        let settings = self.settings();
        let waits = self.store.waits(number, settings.places(), self.clock.now_ms()).await?;
        let Some(waits) = waits else { return Ok(None) };
        let most = usize::try_from(settings.max_running).unwrap_or(usize::MAX);
        Ok(Some(self.in_words(&waits, most)))
    }

    fn in_words(&self, waits: &Waits, max_running: usize) -> WaitingFor {
        if self.tasks.stop().is_soft() {
            return told(WaitKind::Start, "the next start of the daemon, which is stopping".to_owned(), &[]);
        }
        let held =
            |n: i64| format!("{} by {}", if n == 1 { "held" } else { "all held" }, named(&waits.holders, n));
        let (kind, sentence) = match &waits.hurdle {
            Some(Hurdle::Time(at)) if waits.between_attempts => {
                (WaitKind::Time, format!("its next attempt, at {}", rfc3339_ms(*at)))
            }
            Some(Hurdle::Time(at)) => (WaitKind::Time, format!("its time, {}", rfc3339_ms(*at))),
            Some(Hurdle::Agent(n)) => {
                (WaitKind::Agent, format!("the end of {} of the same agent", named(&waits.holders, *n)))
            }
            Some(Hurdle::Key(key, n)) => {
                (WaitKind::ConcurrencyKey, format!("the concurrency key {key:?}, {}", held(*n)))
            }
            Some(Hurdle::Pool(pool, 0)) => (
                WaitKind::Pool,
                format!("a place in the pool {pool:?}, which has none: see pools: in the settings"),
            ),
            Some(Hurdle::Pool(pool, n)) => {
                (WaitKind::Pool, format!("a place in the pool {pool:?}, {}", held(*n)))
            }
            None => return self.for_room(waits.catch_up, max_running),
        };
        told(kind, sentence, &waits.holders)
    }

    /// Where nothing is in its way but what runs at all.
    fn for_room(&self, catch_up: bool, max_running: usize) -> WaitingFor {
        let live = self.live();
        let mut catch_ups: Vec<RunId> = live.values().filter(|l| l.catch_up).map(|l| l.id).collect();
        if catch_up && catch_ups.len() >= CATCH_UP_LANE {
            catch_ups.sort_unstable();
            let sentence = format!("the lane of the catch-ups, held by {}", named(&catch_ups, 1));
            return told(WaitKind::CatchUp, sentence, &catch_ups);
        }
        if live.len() >= max_running {
            let sentence = format!(
                "a place in the daemon: {} runs are under way and max_running is {max_running}",
                live.len()
            );
            return told(WaitKind::MaxRunning, sentence, &[]);
        }
        told(WaitKind::Nothing, "nothing: it is about to start".to_owned(), &[])
    }
}

fn told(kind: WaitKind, sentence: String, runs: &[RunId]) -> WaitingFor {
    WaitingFor { kind, sentence, runs: runs.iter().map(ToString::to_string).collect() }
}

/// Names runs of which there are `n`.
fn named(runs: &[RunId], n: i64) -> String {
    let names: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let more = usize::try_from(n).unwrap_or(0).saturating_sub(names.len());
    let runs = if names.len() == 1 && more == 0 { "run" } else { "runs" };
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{runs} {}{and_more}", names.join(", "))
}
