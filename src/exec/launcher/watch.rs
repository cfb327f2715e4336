//! Watches one program from its start until the last process of its tree is reaped.
//!
//! One loop around `poll`: output, signals and deadlines. Ending has stages that only go forward: running ->
//! asked (TERM, then grace) -> killing (KILL to every descendant, again and again, until the kernel says that
//! no child is left). The program's own end leads through the same stages for what it left behind. The first
//! cause of an end is the one that is reported.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::{AttemptDir, Reason, Spec};
use super::KILL_PATIENCE;
use super::hear::Hearing;
use super::limits::Caps;
use super::signals::Signals;
use super::start::Started;
use super::streams::{Budget, CHUNK, Stream};
use crate::proc::{self, LockHolder, Reaped, Signal, Status};
use crate::time::{Clock as _, SystemClock};

/// Between two passes of SIGKILL when no signal wakes.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// Longest and shortest time between two looks at the state lock.
const PROBE_MAX: Duration = Duration::from_secs(30);
const PROBE_MIN: Duration = Duration::from_millis(50);

/// What was seen of an attempt.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: Option<Status>,
    pub(super) reason: Reason,
    pub(super) limit: Option<u64>,
    /// Whether the timeout was that of all attempts together.
    pub(super) total: bool,
    pub(super) stdout_bytes: u64,
    pub(super) stderr_bytes: u64,
    /// The end of stdout, where it was kept.
    pub(super) stdout_tail: Vec<u8>,
    pub(super) errors: Vec<String>,
    /// Whether what was heard of it is not whole any more.
    pub(super) record_cut: bool,
}

/// The bounds of one program.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) timeout_ms: Option<u64>,
    pub(super) idle_timeout_ms: Option<u64>,
    pub(super) output_limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Asked to end; `rest_told`: so were those outside of the program's group.
    Asked {
        until: Instant,
        rest_told: bool,
    },
    Killing {
        until: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Watch<'a> {
    spec: &'a Spec,
    bounds: &'a Bounds,
    signals: &'a Signals,
    program: i32,
    streams: [Stream; 2],
    caps: &'a Caps,
    budget: Budget,
    status: Option<Status>,
    cause: Option<Reason>,
    stage: Stage,
    timeout: Option<Instant>,
    /// When the time of all attempts is over.
    total: Option<Instant>,
    idle: Option<Idle>,
    orphan: Option<Orphan<'a>>,
    buffer: Vec<u8>,
    errors: Vec<String>,
    hearing: Option<Hearing>,
    record_cut: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        spec: &'a Spec,
        bounds: &'a Bounds,
        caps: &'a Caps,
        total: Option<Instant>,
        dir: &AttemptDir,
        signals: &'a Signals,
        started: Started,
    ) -> Self {
        let now = Instant::now();
        let idle = bounds.idle_timeout_ms.map(|ms| Idle {
            limit: Duration::from_millis(ms),
            last: now,
            events: dir.events(),
            events_bytes: 0,
        });
        let orphan = spec.state_lock.as_deref().map(|lock| Orphan::new(lock, spec.orphan_grace_ms, now));
        Self {
            spec,
            bounds,
            signals,
            program: started.pid,
            streams: started.streams,
            caps,
            budget: Budget { left: bounds.output_limit, exceeded: false },
            status: None,
            cause: None,
            stage: Stage::Running,
            // A timeout beyond the end of time is none.
            timeout: bounds.timeout_ms.and_then(|ms| now.checked_add(Duration::from_millis(ms))),
            total,
            idle,
            orphan,
            buffer: vec![0; CHUNK],
            errors: Vec::new(),
            hearing: None,
            record_cut: false,
        }
    }

    /// Listens to what the program prints.
    pub(super) fn listening(mut self, hearing: Option<Hearing>) -> Self {
        if hearing.is_some() {
            self.streams.iter_mut().for_each(Stream::listen);
        }
        self.hearing = hearing;
        self
    }

    /// Returns when nothing of the tree is left.
    pub(super) fn run(mut self) -> Seen {
        while !self.is_tree_gone() {
            let now = Instant::now();
            self.heed_signals(now);
            self.check_limits(now);
            if !self.advance(now) {
                self.errors.push("some processes could not be ended by SIGKILL".to_owned());
                break;
            }
            self.wait(now);
        }
        for stream in &mut self.streams {
            stream.finish(&mut self.budget, &mut self.buffer);
        }
        self.hear();
        if let Some(hearing) = self.hearing.take() {
            let heard = hearing.end(self.status);
            self.errors.extend(heard.error);
            self.record_cut = heard.cut;
        }
        self.note_output_limit();
        self.seen()
    }

    fn seen(self) -> Seen {
        let reason = self.cause.unwrap_or(Reason::Exited);
        let total = reason == Reason::Timeout && self.is_total();
        let limit = match reason {
            Reason::Timeout if total => self.spec.total_ms,
            Reason::Timeout => self.bounds.timeout_ms,
            Reason::IdleTimeout => self.bounds.idle_timeout_ms,
            Reason::OutputLimit => Some(self.bounds.output_limit),
            Reason::Orphaned => Some(self.spec.orphan_grace_ms),
            Reason::Exited | Reason::Cancelled | Reason::MemoryLimit => None,
        };
        let [out, err] = self.streams;
        let (stdout_bytes, stderr_bytes) = (out.seen, err.seen);
        Seen {
            status: self.status,
            reason,
            limit,
            total,
            stdout_bytes,
            stderr_bytes,
            record_cut: self.record_cut,
            errors: self.errors.into_iter().chain(out.error.clone()).chain(err.error).collect(),
            stdout_tail: out.into_tail(),
        }
    }

    /// Whether the time of all attempts is over before that of this program.
    fn is_total(&self) -> bool {
        self.total.is_some_and(|total| self.timeout.is_none_or(|own| total <= own))
    }

    /// When its time is over.
    fn out_of_time(&self) -> Option<Instant> {
        self.timeout.into_iter().chain(self.total).min()
    }

    /// Reaps who has ended; whether there is no child any more.
    fn is_tree_gone(&mut self) -> bool {
        loop {
            match proc::reap_any() {
                Reaped::Child(pid, status) if pid == self.program => self.status = Some(status),
                Reaped::Child(..) => {}
                Reaped::Nothing => return false,
                Reaped::NoChildren => return true,
            }
        }
    }

    fn heed_signals(&mut self, now: Instant) {
        if !self.signals.asked_to_end() {
            return;
        }
        if self.stage == Stage::Running && self.status.is_none() {
            self.end(Reason::Cancelled, now);
        }
        if self.signals.asked_to_kill() && !matches!(self.stage, Stage::Killing { .. }) {
            self.kill(now);
        }
    }

    fn check_limits(&mut self, now: Instant) {
        self.note_output_limit();
        if self.stage != Stage::Running || self.status.is_some() {
            return;
        }
        let reason = if self.budget.exceeded {
            Reason::OutputLimit
        } else if self.out_of_time().is_some_and(|at| now >= at) {
            Reason::Timeout
        } else if self.idle.as_mut().is_some_and(|idle| idle.is_over(now)) {
            Reason::IdleTimeout
        } else if self.orphan.as_mut().is_some_and(|orphan| orphan.is_over(now)) {
            Reason::Orphaned
        } else if self.hearing.as_ref().is_some_and(Hearing::is_hopeless) {
            // No cause of ours: why it failed stands in its events.
            return self.ask(now);
        } else {
            return;
        };
        self.end(reason, now);
    }

    /// Too much output is the cause also where the program had ended before it was read.
    fn note_output_limit(&mut self) {
        if self.budget.exceeded {
            self.cause.get_or_insert(Reason::OutputLimit);
        }
    }

    /// Asks the program's group to end.
    fn end(&mut self, reason: Reason, now: Instant) {
        self.cause.get_or_insert(reason);
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        let signal = Signal::from_named_raw(self.spec.kill_signal).unwrap_or(Signal::TERM);
        proc::signal_group(self.program, signal);
        // A stopped process hears nothing.
        proc::signal_group(self.program, Signal::CONT);
        self.stage = Stage::Asked { until: self.grace(now), rest_told: false };
    }

    fn grace(&self, now: Instant) -> Instant {
        let grace = Duration::from_millis(self.spec.kill_grace_ms);
        now.checked_add(grace).unwrap_or_else(|| now + KILL_PATIENCE)
    }

    fn kill(&mut self, now: Instant) {
        self.caps.kill();
        proc::kill_tree();
        self.stage = Stage::Killing { until: now + KILL_PATIENCE };
    }

    /// Takes the next stage where it is due; `false`: SIGKILL does not help.
    fn advance(&mut self, now: Instant) -> bool {
        match self.stage {
            Stage::Running if self.status.is_some() => {
                proc::signal_tree(Signal::TERM, None);
                self.stage = Stage::Asked { until: self.grace(now), rest_told: true };
            }
            Stage::Asked { until, .. } if now >= until => self.kill(now),
            Stage::Asked { until, rest_told: false } if self.status.is_some() => {
                proc::signal_tree(Signal::TERM, Some(self.program));
                self.stage = Stage::Asked { until, rest_told: true };
            }
            Stage::Killing { until } if now >= until => return false,
            Stage::Killing { .. } => proc::kill_tree(),
            Stage::Running | Stage::Asked { .. } => {}
        }
        true
    }

    /// Sleeps until there is something to do, and takes the output that came.
    fn wait(&mut self, now: Instant) {
        let timeout = self.next_deadline(now).map(|at| at.saturating_duration_since(now));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        let mut ready = [false; 2];
        {
            let mut fds = vec![PollFd::from_borrowed_fd(self.signals.wake(), PollFlags::IN)];
            let open = |i: &usize| self.streams[*i].pipe().is_some();
            let which: Vec<usize> = (0..self.streams.len()).filter(open).collect();
            let pipes = self.streams.iter().filter_map(Stream::pipe);
            fds.extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
            // An interrupted poll saw nothing; the signal's byte is in the socket for the next one.
            if poll(&mut fds, timeout.as_ref()).is_err() {
                return;
            }
            for (fd, i) in fds.iter().skip(1).zip(which) {
                ready[i] = !fd.revents().is_empty();
            }
        }
        self.signals.settle();
        for (stream, ready) in self.streams.iter_mut().zip(ready) {
            if ready
                && stream.pump(&mut self.budget, &mut self.buffer)
                && let Some(idle) = &mut self.idle
            {
                idle.last = Instant::now();
            }
        }
        self.hear();
    }

    /// Passes on what the streams have shown.
    fn hear(&mut self) {
        if let Some(hearing) = &mut self.hearing {
            for (i, stream) in self.streams.iter_mut().enumerate() {
                hearing.take(i, &stream.take_heard());
            }
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Running => {
                let idle = self.idle.as_ref().and_then(Idle::deadline);
                let probe = self.orphan.as_ref().map(|orphan| orphan.next);
                [self.out_of_time(), idle, probe].into_iter().flatten().min()
            }
            Stage::Asked { until, .. } => Some(until),
            Stage::Killing { until } => Some(until.min(now + KILL_EVERY)),
        }
    }
}

/// Silence: no output and no line in the events file.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    events: std::path::PathBuf,
    events_bytes: u64,
}

impl Idle {
    fn deadline(&self) -> Option<Instant> {
        self.last.checked_add(self.limit)
    }

    /// Looks at the events file only when the output has been silent for the whole time.
    fn is_over(&mut self, now: Instant) -> bool {
        let over = |idle: &Self| idle.deadline().is_some_and(|at| now >= at);
        if !over(self) {
            return false;
        }
        let Ok(meta) = self.events.symlink_metadata() else {
            return true;
        };
        if meta.len() == self.events_bytes {
            return true;
        }
        self.events_bytes = meta.len();
        let written = meta.modified().ok().and_then(|at| jiff::Timestamp::try_from(at).ok());
        let age = written.and_then(|at| Duration::try_from(SystemClock.now().duration_since(at)).ok());
        self.last = now.checked_sub(age.unwrap_or_default()).unwrap_or(now).max(self.last);
        over(self)
    }
}

/// Whether a daemon still holds the state lock; probed, never taken.
#[derive(Debug)]
struct Orphan<'a> {
    lock: &'a Path,
    grace: Duration,
    every: Duration,
    next: Instant,
    since: Option<Instant>,
}

impl<'a> Orphan<'a> {
    fn new(lock: &'a Path, grace_ms: u64, now: Instant) -> Self {
        let grace = Duration::from_millis(grace_ms);
        let every = (grace / 4).clamp(PROBE_MIN, PROBE_MAX);
        Self { lock, grace, every, next: now + every, since: None }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        match proc::lock_holder(self.lock) {
            Ok(LockHolder::Nobody) => now.duration_since(*self.since.get_or_insert(now)) >= self.grace,
            // What cannot be seen does not end a run.
            Ok(LockHolder::Pid(_) | LockHolder::Elsewhere) | Err(_) => {
                self.since = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::StateLock;

    #[test]
    fn only_an_unbroken_absence_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut orphan = Orphan::new(&path, 1_000, start);
        assert!(!orphan.is_over(at(0)), "not looked at before its time");
        assert!(!orphan.is_over(at(300)), "absent for the first time");
        assert!(!orphan.is_over(at(1_200)));
        let held = StateLock::acquire(&path).unwrap();
        assert!(!orphan.is_over(at(1_500)), "a daemon came back");
        drop(held);
        assert!(!orphan.is_over(at(2_000)), "absent anew");
        assert!(!orphan.is_over(at(2_900)));
        assert!(orphan.is_over(at(3_200)));
    }
}
