//! The steps of one attempt: gate, program, verifier.
//!
//! Each is started and watched by the same code, one after the other, and each ends with an empty tree: so
//! limits, cancel, orphan rules, logs and secrets hold for a gate and a verifier as they do for the program.
//! The gate decides before anything of the run has cost anything; the verifier judges only a program that
//! ended by itself, for what was ended by a limit or a person has failed whatever it left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{AttemptDir, ExitReport, HookEnd, HookSpec, Reason, Release};
use super::hear::Hearing;
use super::limits::{self, Caps};
use super::scrub;
use super::signals::Signals;
use super::start::{self, Order, Output, Started};
use super::watch::{Bounds, Seen, Watch};
use crate::proc::{Status, remove_any};
use crate::secret::Redactor;
use crate::time::{Clock as _, SystemClock};

/// Exit code by which a gate says that there is nothing to do.
const NOTHING_TO_DO: i32 = 75;
/// Most bytes that a gate or a verifier may write.
const HOOK_OUTPUT_MAX: u64 = 1 << 20;
/// stdin of a gate and of a verifier.
const NO_INPUT: &str = "/dev/null";

/// One attempt on its way.
pub(super) struct Phases<'a> {
    dir: &'a AttemptDir,
    signals: &'a Signals,
    release: &'a Release,
    caps: Caps,
    redactor: Redactor,
    /// When the time of all attempts is over.
    total: Option<Instant>,
    errors: Vec<String>,
}

impl<'a> Phases<'a> {
    pub(super) fn new(dir: &'a AttemptDir, signals: &'a Signals, release: &'a Release) -> Self {
        let secrets =
            release.secrets.iter().chain(&release.keys).map(|(name, value)| (name.as_str(), value.as_str()));
        // A bound beyond the end of time is none.
        let after = |ms| Instant::now().checked_add(Duration::from_millis(ms));
        Self {
            dir,
            signals,
            release,
            caps: Caps::default(),
            redactor: Redactor::new(secrets),
            total: release.spec.total_ms.and_then(after),
            errors: Vec::new(),
        }
    }

    /// Carries them out and fills the report in.
    pub(super) fn run(mut self, report: &mut ExitReport) {
        if let Err(why) = self.steps(report) {
            report.launch_error = Some(why);
        }
        self.errors.extend(self.caps.remove());
        // Whatever was killed could not clear up. What cannot be removed goes with the run.
        let _ = remove_any(&self.dir.tmp());
        self.errors.extend(scrub::scrub(self.dir, &self.redactor).err());
        report.log_error = (!self.errors.is_empty()).then(|| self.errors.join("; "));
    }

    fn steps(&mut self, report: &mut ExitReport) -> Result<(), String> {
        start::begin(self.dir, &self.release.spec)?;
        let spec = &self.release.spec;
        self.caps = limits::set(&spec.confine)?;
        if let Some(gate) = &spec.gate
            && !self.gate(gate, report)?
        {
            return Ok(());
        }
        self.program(report)?;
        if let Some(verify) = &spec.verify
            && report.reason == Reason::Exited
            && report.exit_code.is_some()
        {
            self.verify(verify, report);
        }
        Ok(())
    }

    /// Whether the gate lets the program start.
    fn gate(&mut self, gate: &HookSpec, report: &mut ExitReport) -> Result<bool, String> {
        let log = self.dir.gate_log();
        let started = self.start_hook(gate, &log).map_err(|why| format!("the gate: {why}"))?;
        (report.started, report.started_at_ms) = (true, SystemClock.now_ms());
        let seen = self.watch(started, &hook_bounds(gate));
        if self.imposed(&seen, report) {
            return Ok(false);
        }
        let end = hook_end(&seen);
        let asleep = end.passed() && says_sleep(&seen.stdout_tail);
        report.hooks.gated = asleep || (end.reason == Reason::Exited && end.exit_code == Some(NOTHING_TO_DO));
        let open = end.passed() && !asleep;
        report.hooks.gate = Some(end);
        Ok(open)
    }

    fn program(&mut self, report: &mut ExitReport) -> Result<(), String> {
        let spec = &self.release.spec;
        let (stdout, stderr) = (self.dir.stdout(), self.dir.stderr());
        let order = Order {
            argv: &spec.argv,
            stdin: &spec.stdin,
            output: Output::Apart { stdout: &stdout, stderr: &stderr },
            keys: true,
        };
        let hearing = spec.listen.as_ref().map(|listen| Hearing::begin(self.dir, listen)).transpose()?;
        let started = start::start(&order, self.release, &self.caps, &self.redactor)?;
        (report.started, report.started_at_ms) = (true, SystemClock.now_ms());
        let bounds = Bounds {
            timeout_ms: spec.timeout_ms,
            idle_timeout_ms: spec.idle_timeout_ms,
            output_limit: spec.output_limit,
        };
        let seen = self.watch_hearing(started, &bounds, hearing);
        (report.reason, report.limit, report.total) = (seen.reason, seen.limit, seen.total);
        if let (Reason::Exited, Some(bytes)) = (seen.reason, self.caps.exceeded(&spec.confine)) {
            (report.reason, report.limit) = (Reason::MemoryLimit, Some(bytes));
        }
        (report.exit_code, report.signal) = codes(seen.status);
        (report.stdout_bytes, report.stderr_bytes) = (seen.stdout_bytes, seen.stderr_bytes);
        report.record_cut = seen.record_cut;
        Ok(())
    }

    fn verify(&mut self, verify: &HookSpec, report: &mut ExitReport) {
        let log = self.dir.verify_log();
        let end = match self.start_hook(verify, &log) {
            Err(why) => HookEnd {
                exit_code: None,
                signal: None,
                reason: Reason::Exited,
                limit: None,
                launch_error: Some(why),
            },
            Ok(started) => {
                let seen = self.watch(started, &hook_bounds(verify));
                if self.imposed(&seen, report) {
                    return;
                }
                hook_end(&seen)
            }
        };
        report.hooks.verify = Some(end);
    }

    /// What ends the attempt as a whole, not the hook alone, stands in the report itself.
    fn imposed(&self, seen: &Seen, report: &mut ExitReport) -> bool {
        let whole = matches!(seen.reason, Reason::Cancelled | Reason::Orphaned) || seen.total;
        if whole {
            (report.reason, report.limit, report.total) = (seen.reason, seen.limit, seen.total);
        } else if self.signals.asked_to_end() {
            report.reason = Reason::Cancelled;
        }
        whole || report.reason == Reason::Cancelled
    }

    fn start_hook(&self, hook: &HookSpec, log: &Path) -> Result<Started, String> {
        let order = Order {
            argv: &hook.argv,
            stdin: Path::new(NO_INPUT),
            output: Output::Together { log },
            keys: false,
        };
        start::start(&order, self.release, &self.caps, &self.redactor)
    }

    fn watch(&mut self, started: Started, bounds: &Bounds) -> Seen {
        self.watch_hearing(started, bounds, None)
    }

    fn watch_hearing(&mut self, started: Started, bounds: &Bounds, hearing: Option<Hearing>) -> Seen {
        let watch =
            Watch::new(&self.release.spec, bounds, &self.caps, self.total, self.dir, self.signals, started);
        let mut seen = watch.listening(hearing).run();
        self.errors.append(&mut seen.errors);
        seen
    }
}

fn hook_bounds(hook: &HookSpec) -> Bounds {
    Bounds { timeout_ms: Some(hook.timeout_ms), idle_timeout_ms: None, output_limit: HOOK_OUTPUT_MAX }
}

fn hook_end(seen: &Seen) -> HookEnd {
    let (exit_code, signal) = codes(seen.status);
    HookEnd { exit_code, signal, reason: seen.reason, limit: seen.limit, launch_error: None }
}

fn codes(status: Option<Status>) -> (Option<i32>, Option<i32>) {
    match status {
        Some(Status::Code(code)) => (Some(code), None),
        Some(Status::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    }
}

/// Whether the last line that says something is `{"wakeAgent": false}`.
fn says_sleep(stdout: &[u8]) -> bool {
    let last = stdout.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).rfind(|line| !line.is_empty());
    let said = last.and_then(|line| serde_json::from_slice::<Value>(line).ok());
    said.is_some_and(|said| said.get("wakeAgent") == Some(&Value::Bool(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_sends_the_agent_back_to_sleep() {
        for asleep in ["{\"wakeAgent\": false}", "x\n{\"wakeAgent\":false,\"why\":\"none\"}\n\n  \n"] {
            assert!(says_sleep(asleep.as_bytes()), "{asleep:?}");
        }
        for awake in ["", "{\"wakeAgent\": true}", "{\"wakeAgent\": false}\nmore", "wakeAgent false", "false"]
        {
            assert!(!says_sleep(awake.as_bytes()), "{awake:?}");
        }
    }
}
