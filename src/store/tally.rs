//! What a transaction has decided, counted once it is on disk.
//!
//! The functions that write a slot or end a run note it here, in the writer's thread; the writer adds
//! the notes to the counts after the commit, and drops those of a job that failed. So a monitor never
//! sees what a full disk has taken back, and no function carries counters through its arguments.

use std::cell::RefCell;
use std::time::Duration;

use super::writer::Counts;
use crate::model::{NotRun, RunState};

/// One note.
#[derive(Debug, Clone, Copy)]
enum Note {
    /// Slots that ended as a run, or for this reason without one.
    Slots(Option<NotRun>, u64),
    /// A run that ended in this state after this many ms; `None`: it never started.
    Ended(RunState, Option<i64>),
}

thread_local! {
    static NOTES: RefCell<Vec<Note>> = const { RefCell::new(Vec::new()) };
}

/// Notes slots that were decided.
pub(super) fn slots(reason: Option<NotRun>, count: u64) {
    NOTES.with_borrow_mut(|notes| notes.push(Note::Slots(reason, count)));
}

/// Notes a run that has ended.
pub(super) fn ended(state: RunState, ran_ms: Option<i64>) {
    NOTES.with_borrow_mut(|notes| notes.push(Note::Ended(state, ran_ms)));
}

/// How many notes there are: what a failed job goes back to.
pub(super) fn mark() -> usize {
    NOTES.with_borrow(Vec::len)
}

/// Drops the notes after a mark.
pub(super) fn back_to(mark: usize) {
    NOTES.with_borrow_mut(|notes| notes.truncate(mark));
}

/// Adds the notes to the counts: the transaction is on disk.
pub(super) fn settle(counts: &Counts) {
    NOTES.with_borrow_mut(|notes| {
        for note in notes.drain(..) {
            match note {
                Note::Slots(reason, count) => counts.add_slots(reason, count),
                Note::Ended(state, ran_ms) => {
                    let ran = ran_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
                    counts.add_run(state, ran);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_disk_counts() {
        let counts = Counts::default();
        slots(None, 1);
        let mark = mark();
        slots(Some(NotRun::Overlap), 5);
        ended(RunState::Failed, None);
        back_to(mark);
        ended(RunState::Completed, Some(1500));
        settle(&counts);
        assert_eq!(counts.slots(None), 1);
        assert_eq!(counts.slots(Some(NotRun::Overlap)), 0);
        assert_eq!(counts.runs(RunState::Completed).count(), 1);
        assert_eq!(counts.unstarted(), 0);
        settle(&counts);
        assert_eq!(counts.slots(None), 1, "a note counts once");
    }
}
