//! Launchers that are played: they outlive the daemon as real ones do, and end when the simulation
//! says so.
//!
//! This stands at the engine's own seam (`engine::Executor`). What it promises is what a launcher
//! promises: nothing runs before its release, a held one leaves when the daemon dies, how a program
//! ended is known to whoever comes back. A crash can be asked for at each of these points; the daemon
//! then gets no answer any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use matins::engine::{Attached, Executor, Held, Job, OutcomeRequest, Watched};
use matins::exec::{Ended, ExitReport, Reason};
use matins::ids::{BootId, Epoch, RunId};
use matins::model::{Failure, FailureCode, Outcome, SeededSkill};
use matins::proc::Identity;
use tokio::sync::watch;

/// Where the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// At once, whatever it does.
    Now,
    /// When a launcher is held.
    Held,
    /// When it is about to be released: RUNNING is on disk.
    Release,
    /// When it has been released and nobody was told.
    Released,
    /// When a program has ended and nobody was told.
    Ended,
    /// When a receiver has a message and has not answered.
    Delivery,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    /// It was told to.
    Cancelled,
    /// Its launcher was killed from outside.
    Vanished,
}

/// One attempt as the machine knows it.
#[derive(Debug)]
pub struct Attempt {
    pub run: RunId,
    pub number: u32,
    /// Epochs under which its program was released.
    pub released: Vec<i64>,
    pub end: Option<End>,
    held: bool,
    pid: i32,
    ending: watch::Sender<Option<End>>,
}

#[derive(Debug, Default)]
struct State {
    attempts: BTreeMap<(String, u32), Attempt>,
    count: u64,
    armed: Option<Point>,
    /// What went on that must not.
    wrong: Vec<String>,
    /// Grows with everything that happens.
    moves: u64,
}

/// All launchers of the machine.
#[derive(Debug, Clone, Default)]
pub struct Launchers(Arc<Mutex<State>>);

impl Launchers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets the daemon die at `point`.
    pub fn arm(&self, point: Point) {
        let mut state = self.state();
        state.armed = Some(point);
    }

    /// Whether this is the point; if so it is reached now.
    pub fn reach(&self, point: Point) -> bool {
        let mut state = self.state();
        let reached = state.armed == Some(point);
        if reached {
            state.armed = None;
        }
        reached
    }

    /// A number that grows with everything that happens here.
    pub fn moves(&self) -> u64 {
        self.state().moves
    }

    /// What went on that must not.
    pub fn wrong(&self) -> Option<String> {
        self.state().wrong.first().cloned()
    }

    /// The daemon has died: launchers that are held leave.
    pub fn daemon_died(&self) {
        let mut state = self.state();
        state.armed = None;
        for attempt in state.attempts.values_mut() {
            attempt.held = false;
        }
    }

    /// Reads something of one attempt.
    pub fn with<T>(&self, run: RunId, number: u32, read: impl FnOnce(&Attempt) -> T) -> Option<T> {
        self.state().attempts.get(&(run.to_string(), number)).map(read)
    }

    /// Attempts that run.
    pub fn running(&self) -> Vec<(RunId, u32)> {
        let state = self.state();
        let live = state.attempts.values().filter(|a| !a.released.is_empty() && a.end.is_none());
        live.map(|a| (a.run, a.number)).collect()
    }

    /// Ends a program; `false` if it has ended already.
    pub fn end(&self, run: RunId, number: u32, how: End) -> bool {
        let mut state = self.state();
        state.moves += 1;
        let Some(attempt) = state.attempts.get_mut(&(run.to_string(), number)) else { return false };
        if attempt.end.is_some() {
            return false;
        }
        attempt.end = Some(how);
        attempt.ending.send_replace(Some(how));
        true
    }

    fn hold(&self, run: RunId, number: u32) -> Identity {
        let mut state = self.state();
        state.moves += 1;
        state.count += 1;
        let pid = i32::try_from(state.count).unwrap() + 5_000_000;
        let key = (run.to_string(), number);
        if state.attempts.get(&key).is_some_and(|a| !a.released.is_empty()) {
            state.wrong.push(format!("attempt {number} of run {run} is started once more after its release"));
        }
        let attempt = Attempt {
            run,
            number,
            released: Vec::new(),
            end: None,
            held: true,
            pid,
            ending: watch::channel(None).0,
        };
        state.attempts.insert(key, attempt);
        Identity { boot_id: BootId::new("sim"), pid, start_ticks: state.count, pidfd_inode: state.count }
    }

    fn release(&self, run: RunId, number: u32, epoch: Epoch) -> PlayedLauncher {
        let mut state = self.state();
        state.moves += 1;
        let attempt = state.attempts.get_mut(&(run.to_string(), number)).unwrap();
        attempt.released.push(epoch.0);
        attempt.held = false;
        PlayedLauncher { all: self.clone(), run, number, epoch, ending: attempt.ending.subscribe() }
    }

    fn report(&self, run: RunId, number: u32, epoch: Epoch, end: End) -> Ended {
        let pid = self.with(run, number, |a| a.pid).unwrap_or_default();
        let report = ExitReport::new(run, number, pid, 0);
        let report = ExitReport { epoch: Some(epoch), started: true, ..report };
        match end {
            End::Exit(code) => Ended::Report(ExitReport { exit_code: Some(code), ..report }),
            End::Cancelled => {
                Ended::Report(ExitReport { signal: Some(15), reason: Reason::Cancelled, ..report })
            }
            End::Vanished => Ended::Vanished,
        }
    }
}

struct HeldLauncher {
    all: Launchers,
    run: RunId,
    number: u32,
    identity: Identity,
}

impl Held for HeldLauncher {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn skills(&self) -> &[SeededSkill] {
        &[]
    }

    fn release(self: Box<Self>, epoch: Epoch) -> BoxFuture<'static, Result<Box<dyn Watched>, Failure>> {
        Box::pin(async move {
            if self.all.reach(Point::Release) {
                std::future::pending::<()>().await;
            }
            let launcher = self.all.release(self.run, self.number, epoch);
            if self.all.reach(Point::Released) {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(launcher) as Box<dyn Watched>)
        })
    }
}

struct PlayedLauncher {
    all: Launchers,
    run: RunId,
    number: u32,
    epoch: Epoch,
    ending: watch::Receiver<Option<End>>,
}

impl Watched for PlayedLauncher {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        Box::pin(async move {
            let end = self.ending.wait_for(Option::is_some).await.ok().and_then(|end| *end);
            if self.all.reach(Point::Ended) {
                std::future::pending::<()>().await;
            }
            self.all.report(self.run, self.number, self.epoch, end.unwrap_or(End::Vanished))
        })
    }

    fn end(&self, how: matins::engine::Ending) {
        if how != matins::engine::Ending::No {
            self.all.end(self.run, self.number, End::Cancelled);
        }
    }
}

impl Executor for Launchers {
    fn hold(&self, job: Arc<Job>) -> BoxFuture<'static, Result<Box<dyn Held>, Failure>> {
        let all = self.clone();
        Box::pin(async move {
            let (run, number) = job.attempt_dir().names().unwrap();
            let identity = all.hold(run, number);
            if all.reach(Point::Held) {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(HeldLauncher { all, run, number, identity }) as Box<dyn Held>)
        })
    }

    fn reattach(
        &self,
        launcher: Identity,
        run: RunId,
        number: u32,
        epoch: Epoch,
    ) -> BoxFuture<'static, Attached> {
        let all = self.clone();
        Box::pin(async move {
            let known = all.with(run, number, |a| {
                (a.pid == launcher.pid, a.released.clone(), a.end, a.ending.subscribe())
            });
            let Some((same, released, end, ending)) = known else { return Attached::NeverStarted };
            if released.is_empty() {
                return Attached::NeverStarted;
            }
            if !same || released != [epoch.0] {
                all.state()
                    .wrong
                    .push(format!("run {run} is looked for under another claim than its release"));
            }
            match end {
                None => Attached::Alive(Box::new(PlayedLauncher { all, run, number, epoch, ending })),
                Some(end) => Attached::Ended(all.report(run, number, epoch, end)),
            }
        })
    }

    fn outcome(&self, _: OutcomeRequest, report: ExitReport) -> BoxFuture<'static, Outcome> {
        let failure =
            (report.exit_code != Some(0)).then(|| Failure::new(FailureCode::RuntimeError, "it failed"));
        let outcome =
            Outcome { failure, exit_code: report.exit_code, signal: report.signal, ..Outcome::default() };
        Box::pin(std::future::ready(outcome))
    }
}
