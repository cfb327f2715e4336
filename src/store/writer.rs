//! The writer: one thread that owns the one writing connection.
//!
//! Jobs queue up while a commit is under way; the next transaction takes all of them, so the cost
//! of a sync is shared and nobody waits for a timer. A caller is answered only after the commit:
//! what was answered is on disk.
//!
//! A job that fails takes nothing of its neighbours with it. A savepoint for each job would see to
//! that, but it copies every page that the job touches, so jobs run without one; if any fails, the
//! transaction is rolled back and its jobs run once more, each in a savepoint of its own. So a job may
//! run twice, of which one run counts: it does nothing but read and write rows.
//!
//! A file of the database that is not at its path any more is a failure of the storage ([`Files`]).
//!
//! Dropping the caller's future does not undo its job: it was queued, it runs, nobody listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::files::Files;
use super::{Error, checkpoint, tally};
use crate::model::{NotRun, RunState};
use crate::time::{Histogram, Sizes};

/// Jobs that may wait for the writer before callers wait to hand theirs in.
pub const QUEUE_JOBS: usize = 4096;
/// Most jobs of one transaction.
const BATCH_JOBS: usize = 1024;
/// Longest time that one transaction collects jobs.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// One unit of writing. `run` happens inside the transaction, and again in the next one where that was
/// rolled back; `answer` comes after the commit.
trait Job: Send {
    fn run(&mut self, db: &Connection) -> Result<(), Error>;
    fn answer(self: Box<Self>, failed: Option<Error>);
}

struct ClosureJob<F, T> {
    work: F,
    done: Option<T>,
    caller: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Job for ClosureJob<F, T>
where
    F: Fn(&Connection) -> Result<T, Error> + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> Result<(), Error> {
        self.done = None;
        self.done = Some((self.work)(db)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        let answer = match (failed, self.done) {
            (Some(e), _) => Err(e),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Error::Closed),
        };
        // A caller that went away does not want to know.
        let _ = self.caller.send(answer);
    }
}

/// Counts of the writer since it started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Jobs in them.
    pub jobs: AtomicU64,
    /// Jobs of one transaction.
    pub batch: Sizes,
    /// Time of a commit, with its sync.
    pub commit_time: Histogram,
    /// Slots by what became of them: as a run, then by the reason why not.
    slots: [AtomicU64; 1 + NotRun::ALL.len()],
    /// How long runs ran: those that completed, those that failed.
    runs: [Histogram; 2],
    /// Runs that never started.
    unstarted: AtomicU64,
}

impl Counts {
    fn slot(&self, reason: Option<NotRun>) -> &AtomicU64 {
        let place = reason.and_then(|r| NotRun::ALL.iter().position(|known| *known == r));
        &self.slots[place.map_or(0, |place| place + 1)]
    }

    pub(super) fn add_slots(&self, reason: Option<NotRun>, count: u64) {
        self.slot(reason).fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn add_run(&self, state: RunState, ran: Option<Duration>) {
        match ran {
            Some(ran) => self.runs(state).record(ran),
            None => {
                self.unstarted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Slots that became a run, or did not for this reason.
    #[must_use]
    pub fn slots(&self, reason: Option<NotRun>) -> u64 {
        self.slot(reason).load(Ordering::Relaxed)
    }

    /// How long runs ran that ended in this state.
    #[must_use]
    pub fn runs(&self, state: RunState) -> &Histogram {
        &self.runs[usize::from(state != RunState::Completed)]
    }

    /// Runs that ended without having started.
    #[must_use]
    pub fn unstarted(&self) -> u64 {
        self.unstarted.load(Ordering::Relaxed)
    }
}

/// The handle of the writer thread.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    failed: watch::Receiver<Option<Error>>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread on `db`, and one that checkpoints on a connection of its own. They end when
    /// the last handle is dropped.
    pub(super) fn start(
        db: Connection,
        checkpointing: Connection,
        files: Files,
    ) -> std::io::Result<(Self, [std::thread::JoinHandle<()>; 2])> {
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let (fail, failed) = watch::channel(None);
        let counts = Arc::new(Counts::default());
        let whole_wanted = Arc::new(AtomicBool::new(false));
        let (running, over) = std::sync::mpsc::channel();
        let (shared, wanted) = (Arc::clone(&counts), Arc::clone(&whole_wanted));
        let writer = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            run(&db, &files, queue, &fail, &shared, &wanted);
            drop(running);
        })?;
        let shared = Arc::clone(&counts);
        let checkpointer = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || checkpoint::run(&checkpointing, &shared, &whole_wanted, &over))?;
        Ok((Self { jobs, failed, counts }, [writer, checkpointer]))
    }

    /// Runs `work` in the next transaction and returns its value after the commit. It is handed in when
    /// this is called, not when the future is first polled, unless the queue is full. Where a neighbour
    /// fails it runs once more, from the same rows.
    pub fn write<T, F>(&self, work: F) -> impl Future<Output = Result<T, Error>> + Send + use<T, F>
    where
        F: Fn(&Connection) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(ClosureJob { work, done: None, caller });
        let handed_in = match self.jobs.try_send(job) {
            Ok(()) => Ok(None),
            Err(mpsc::error::TrySendError::Full(job)) => Ok(Some((self.jobs.clone(), job))),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::Closed),
        };
        async move {
            if let Some((jobs, job)) = handed_in? {
                jobs.send(job).await.map_err(|_| Error::Closed)?;
            }
            answer.await.map_err(|_| Error::Closed)?
        }
    }

    /// Ends when the storage below has failed; the daemon must stop then.
    pub async fn failed(&mut self) -> Error {
        match self.failed.wait_for(Option::is_some).await {
            Ok(e) => e.clone().unwrap_or(Error::Closed),
            Err(_) => Error::Closed,
        }
    }

    /// Counts since start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn run(
    db: &Connection,
    files: &Files,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    fail: &watch::Sender<Option<Error>>,
    counts: &Counts,
    whole_wanted: &AtomicBool,
) {
    let mut batch: Vec<(Box<dyn Job>, Option<Error>)> = Vec::with_capacity(BATCH_JOBS);
    let mut read_only = false;
    while let Some(first) = queue.blocking_recv() {
        let failure = transaction(db, first, &mut queue, &mut batch, &counts.commit_time);
        // Before anybody is answered: a commit into a file that is gone is none.
        let was_read_only = read_only;
        let failure = failure.map(|e| files.judge(e, was_read_only)).or_else(|| files.check().err());
        read_only = matches!(failure, Some(Error::ReadOnly));
        if failure.is_none() {
            tally::settle(counts);
        }
        tally::back_to(0);
        counts.batch.record(batch.len());
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.jobs.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for (job, own) in batch.drain(..) {
            job.answer(own.map(|e| files.judge(e, was_read_only)).or_else(|| failure.clone()));
        }
        if whole_wanted.swap(false, Ordering::Relaxed)
            && let Err(e) = checkpoint::whole(db)
        {
            tracing::warn!(error = %e, "a checkpoint failed and is tried again: {e}");
        }
        if let Some(e) = failure.filter(Error::is_fatal) {
            // Whether the last commit is on disk cannot be known any more. Refuse everything.
            fail.send_replace(Some(e.clone()));
            while let Some(job) = queue.blocking_recv() {
                job.answer(Some(e.clone()));
            }
        }
    }
}

/// One transaction over `first` and what has queued up; the error, if any, concerns all of them.
fn transaction(
    db: &Connection,
    first: Box<dyn Job>,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    batch: &mut Vec<(Box<dyn Job>, Option<Error>)>,
    commit_time: &Histogram,
) -> Option<Error> {
    let begun = Instant::now();
    if let Err(e) = execute(db, "BEGIN IMMEDIATE") {
        batch.push((first, None));
        return Some(e);
    }
    let mut next = Some(first);
    while let Some(mut job) = next.take() {
        let failed = guarded(db, job.as_mut()).err();
        batch.push((job, None));
        if let Some(e) = failed {
            if db.is_autocommit() {
                // SQLite rolled the whole transaction back (disk full, I/O error): all of it failed.
                return Some(e);
            }
            return one_by_one(db, batch, commit_time);
        }
        if batch.len() < BATCH_JOBS && begun.elapsed() < BATCH_TIME {
            next = queue.try_recv().ok();
        }
    }
    commit(db, commit_time)
}

/// A job of `batch` has failed: all of it is taken back and done again, the jobs kept apart.
fn one_by_one(
    db: &Connection,
    batch: &mut [(Box<dyn Job>, Option<Error>)],
    commit_time: &Histogram,
) -> Option<Error> {
    tally::back_to(0);
    if let Err(e) = execute(db, "ROLLBACK").and_then(|()| execute(db, "BEGIN IMMEDIATE")) {
        return Some(e);
    }
    for (job, own) in batch {
        *own = savepoint(db, job.as_mut());
        if own.is_some() && db.is_autocommit() {
            return own.take();
        }
    }
    commit(db, commit_time)
}

fn commit(db: &Connection, commit_time: &Histogram) -> Option<Error> {
    let committing = Instant::now();
    let committed = tally::write(db).and_then(|()| execute(db, "COMMIT"));
    commit_time.record(committing.elapsed());
    if committed.is_err() && !db.is_autocommit() {
        // The failed COMMIT left the transaction open; nothing of it may come later.
        let _ = execute(db, "ROLLBACK");
    }
    committed.err()
}

/// A panic in a job is a defect of that job; the others go on.
fn guarded(db: &Connection, job: &mut dyn Job) -> Result<(), Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run(db))).unwrap_or_else(|_| {
        Err(Error::Inconsistent { table: "writer", row: 0, what: "a write panicked".to_owned() })
    })
}

fn savepoint(db: &Connection, job: &mut dyn Job) -> Option<Error> {
    let mark = tally::mark();
    match execute(db, "SAVEPOINT job").and_then(|()| guarded(db, job)) {
        Ok(()) => execute(db, "RELEASE job").err(),
        Err(e) => {
            tally::back_to(mark);
            if !db.is_autocommit() {
                let _ = execute(db, "ROLLBACK TO job").and_then(|()| execute(db, "RELEASE job"));
            }
            Some(e)
        }
    }
}

fn execute(db: &Connection, sql: &'static str) -> Result<(), Error> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}
