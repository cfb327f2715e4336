//! A launcher is released only when the start of its run is on disk, and wanted.
//!
//! What comes between the hold and the start is put there: the launcher's place is taken by one that does it
//! while it holds, and counts what it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use matins::engine::{Attached, Ending, Executor, Held, Job, OutcomeRequest, Watched};
use matins::exec::{Ended, ExitReport};
use matins::ids::{BootId, Epoch, RunId, SystemEntropy};
use matins::model::{Failure, Outcome, RunState, SeededSkill};
use matins::proc::Identity;

use crate::support::{Home, TestDaemon, eventually_sync};

/// What happened to the launchers.
#[derive(Default)]
struct Told {
    held: AtomicUsize,
    released: AtomicUsize,
    left: AtomicUsize,
}

/// Launchers of programs that end well at once. While the first is held its statement is carried out on the
/// database, while each other one the second statement.
struct Between {
    database: PathBuf,
    statements: [&'static str; 2],
    told: Arc<Told>,
}

struct Launcher {
    identity: Identity,
    told: Arc<Told>,
    released: bool,
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.told.left.fetch_add(usize::from(!self.released), Ordering::SeqCst);
    }
}

impl Executor for Between {
    fn hold(&self, _: Arc<Job>) -> BoxFuture<'static, Result<Box<dyn Held>, Failure>> {
        let before = self.told.held.fetch_add(1, Ordering::SeqCst);
        let database = rusqlite::Connection::open(&self.database).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database.execute_batch(self.statements[before.min(1)]).unwrap();
        let identity = Identity { boot_id: BootId::new("test"), pid: 1, start_ticks: 1, pidfd_inode: 1 };
        let launcher = Launcher { identity, told: Arc::clone(&self.told), released: false };
        Box::pin(async { Ok(Box::new(launcher) as Box<dyn Held>) })
    }

    fn reattach(&self, _: Identity, _: RunId, _: u32, _: Epoch) -> BoxFuture<'static, Attached> {
        Box::pin(async { Attached::Ended(Ended::Vanished) })
    }

    fn outcome(&self, _: OutcomeRequest, _: ExitReport) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Outcome { exit_code: Some(0), ..Outcome::default() } })
    }
}

impl Held for Launcher {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn skills(&self) -> &[SeededSkill] {
        &[]
    }

    fn release(mut self: Box<Self>, _: Epoch) -> BoxFuture<'static, Result<Box<dyn Watched>, Failure>> {
        self.released = true;
        self.told.released.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(self as Box<dyn Watched>) })
    }
}

impl Watched for Launcher {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        let report = ExitReport::new(RunId::generate(0, &SystemEntropy), 1, 1, 0);
        Box::pin(async move { Ended::Report(ExitReport { started: true, exit_code: Some(0), ..report }) })
    }

    fn end(&self, _: Ending) {}
}

/// A daemon whose launchers do this while they are held, and what they are told.
fn daemon(statements: [&'static str; 2]) -> (TestDaemon, Arc<Told>) {
    let home = Home::new();
    home.agent("a", "true", "");
    let told = Arc::new(Told::default());
    let database = home.state().join("matins.db");
    let between = Between { database, statements, told: Arc::clone(&told) };
    (TestDaemon::start_over(home, Arc::new(between)), told)
}

fn counts(told: &Told) -> [usize; 3] {
    [&told.held, &told.released, &told.left].map(|n| n.load(Ordering::SeqCst))
}

/// A cancel is written while nobody is there yet who could be told of it.
#[test]
fn a_run_that_is_cancelled_while_its_launcher_is_held_never_begins() {
    let cancel = "UPDATE runs SET cancel_by = 'ann', cancel_at = created_at WHERE claimed_at IS NOT NULL";
    let (daemon, told) = daemon([cancel, ""]);
    let event = daemon.wait_end(daemon.trigger("a")).event;
    assert_eq!((event.status, event.failure_code), (RunState::Failed, Some("cancelled".to_owned())));
    assert_eq!((event.started_at, event.failure_explanation.as_deref()), (None, Some("cancelled by ann")));
    assert_eq!(counts(&told), [1, 0, 1], "held, released, left");
}

/// A program whose run is not on disk as RUNNING would be started a second time after a crash.
#[test]
fn a_launcher_whose_start_cannot_be_written_is_never_released() {
    let refuse = "CREATE TRIGGER no_start BEFORE UPDATE OF pid ON runs BEGIN SELECT RAISE(ABORT, 'no'); END";
    let (daemon, told) = daemon([refuse, "DROP TRIGGER IF EXISTS no_start"]);
    let run = daemon.trigger("a");
    eventually_sync("it waits again", || (counts(&told)[2] == 1).then_some(()));
    assert_eq!(counts(&told)[1], 0, "nothing was released without its row");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(event.exit_code, Some(0));
    assert_eq!(counts(&told), [2, 1, 1], "held, released, left");
}
