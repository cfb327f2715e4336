//! One home that is killed again and again, and the life that each of its daemons leads.
//!
//! Each life fires a schedule, takes three triggers, cancels one run, tries another a second time, tells a receiver
//! of every end, and stops by itself where nothing killed it.

use std::path::PathBuf;
use std::time::Duration;

use super::points::{Point, cut, everything};
use crate::support::chronos::History;
use crate::support::strace::{self, Calls};
use crate::support::wait::within;
use crate::support::witness::{Witness, this_second};

/// How long a daemon may take to be ready, and to stop.
const READY: Duration = Duration::from_secs(60);
/// How long it goes on when everything was asked for: the schedule fires in it.
const GOES_ON: Duration = Duration::from_millis(1100);
/// How long the run that is to be cancelled may take to begin.
const BEGINS: Duration = Duration::from_millis(400);

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The fault killed it, at what the trace says.
    Killed(&'static str),
    /// It stopped when it was told to: the call was not made that often.
    Stopped,
}

/// A home and the lives on it.
pub struct Chain {
    seen: Witness,
    lives: usize,
}

impl Chain {
    /// A home on which nothing has happened.
    pub fn new() -> Self {
        let mut seen = Witness::new();
        // One worker, so that a count of calls is a moment; see `support::strace`.
        let quiet = [("TOKIO_WORKER_THREADS", "1"), ("MATINS_LOG", "warn")];
        seen.daemon.env.extend(quiet.map(|(n, v)| (n.to_owned(), v.to_owned())));
        Self { seen, lives: 0 }
    }

    fn trace(&self) -> PathBuf {
        self.seen.daemon.home.path().join(format!("trace-{}", self.lives))
    }

    /// A life that nothing disturbs; everything that it called.
    /// It goes on until a receiver has heard of an end of each kind, so that it crosses every boundary however slow
    /// the machine is.
    pub fn record(&mut self) -> String {
        let names: &'static str = everything().leak();
        let heard = self.seen.heard();
        let whole = |seen: &Witness| seen.heard() > heard + 3;
        assert!(!self.live(Calls { names, file: None }, "", whole), "nothing kills it");
        std::fs::read_to_string(self.trace()).unwrap()
    }

    /// A life that is killed at `point`, where it comes there.
    pub fn die_at(&mut self, point: Point) -> End {
        let fault = format!("signal=SIGKILL:when={}", point.when);
        if self.live(point.boundary().calls, &fault, |_| true) {
            let trace = std::fs::read_to_string(self.trace()).unwrap_or_default();
            return End::Killed(cut(point, &trace));
        }
        End::Stopped
    }

    /// One life, which goes on until it is `whole`; whether it was killed.
    fn live(&mut self, calls: Calls, fault: &str, whole: impl Fn(&Witness) -> bool) -> bool {
        self.lives += 1;
        let daemon = &mut self.seen.daemon;
        let trace = daemon.home.path().join(format!("trace-{}", self.lives));
        daemon.prefix = strace::under(&daemon.home, calls, fault, &trace);
        daemon.spawn();
        self.steps();
        within(READY, || whole(&self.seen).then_some(()));
        let daemon = &mut self.seen.daemon;
        if daemon.ended().is_none() {
            daemon.try_signal(15);
        }
        let status = within(READY, || daemon.ended()).expect("it ends when it is told to");
        // Only `strace` kills here, so a signal is its own.
        status.code().is_none()
    }

    fn steps(&mut self) {
        let daemon = &mut self.seen.daemon;
        let up = within(READY, || {
            (daemon.ended().is_some() || daemon.try_get("/healthz").is_some()).then_some(())
        });
        assert!(up.is_some(), "it neither answers nor ends: {}", self.seen.said());
        self.seen.trigger("manual");
        self.seen.trigger("flaky");
        let long = self.seen.trigger("long");
        // Every other cancel comes before the run has begun.
        if let Some(id) = self.seen.asked[long].answered.clone().filter(|_| self.lives.is_multiple_of(2)) {
            let seen = &mut self.seen;
            within(BEGINS, || (seen.daemon.ended().is_some() || seen.effects().contains(&id)).then_some(()));
        }
        self.seen.cancel(long);
        within(GOES_ON, || self.seen.daemon.ended());
    }

    /// Starts it a last time, undisturbed, and tells what happened.
    pub fn history(&mut self) -> History {
        self.seen.daemon.prefix = Vec::new();
        self.seen.daemon.restart();
        self.seen.ask_again(true);
        self.seen.history(this_second())
    }

    /// What the daemons of this home said last.
    pub fn said(&self) -> String {
        self.seen.said()
    }
}
