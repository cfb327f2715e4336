//! The steps of a run, read from what its program wrote about itself, over all its attempts.
//!
//! The files belong to programs, so a reading is bounded twice: by [`STEPS_MAX`] and by
//! [`STEPS_BYTES_MAX`]. What lies beyond is had by asking again after the last one. Steps outlive the logs of
//! a run: they go with its directory.

use std::io;

use super::Core;
use crate::exec;
use crate::ids::RunId;
use crate::model::Step;
use crate::store;
use crate::task;

/// Most steps of one reading.
pub const STEPS_MAX: usize = 10_000;
/// Most bytes of the steps of one reading, as JSON. The first one fits whatever its size.
pub const STEPS_BYTES_MAX: usize = 16 << 20;

/// Why steps cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StepsError {
    /// The program has put something else in the place of its events file.
    #[error("the steps of run {run} cannot be read")]
    File {
        /// The run.
        run: RunId,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Some steps of a run, oldest first.
#[derive(Debug, Clone, Default)]
pub struct StepsPage {
    /// The steps.
    pub steps: Vec<Step>,
    /// Whether there are more after them.
    pub more: bool,
}

impl Core {
    /// The steps of a run, by its number, oldest first; no more than one reading takes. None of a run that has not
    /// started, or whose program reports none.
    ///
    /// # Errors
    /// [`StepsError`].
    pub async fn steps(&self, run: i64) -> Result<Vec<Step>, StepsError> {
        Ok(self.steps_after(run, (0, 0), STEPS_MAX).await?.steps)
    }

    /// The steps of a run from `(attempt, index)` on, at most `limit`.
    ///
    /// # Errors
    /// [`StepsError`].
    pub async fn steps_after(
        &self,
        run: i64,
        from: (u32, u64),
        limit: usize,
    ) -> Result<StepsPage, StepsError> {
        let Some((id, attempts)) = self.store.attempts_of(run).await? else {
            return Ok(StepsPage::default());
        };
        let runs = self.state_dir().join("runs");
        let limit = limit.min(STEPS_MAX);
        let read = move || {
            let read = |attempt| exec::read_steps(&runs, id, attempt);
            gather((from.0.max(1)..=attempts).map(read), from, limit)
        };
        let read = task::blocking(read).await.unwrap_or_else(|e| Err(e.into()));
        read.map_err(|source| StepsError::File { run: id, source })
    }
}

/// The first steps of these attempts from `from` on.
fn gather(
    attempts: impl Iterator<Item = io::Result<exec::Steps>>,
    from: (u32, u64),
    limit: usize,
) -> io::Result<StepsPage> {
    let mut page = StepsPage::default();
    let mut bytes = 0;
    for steps in attempts {
        for step in steps?.filter(|step| (step.attempt, step.index) >= from) {
            bytes += serde_json::to_vec(&step)?.len();
            if page.steps.len() >= limit || (bytes > STEPS_BYTES_MAX && !page.steps.is_empty()) {
                page.more = true;
                return Ok(page);
            }
            page.steps.push(step);
        }
    }
    Ok(page)
}
