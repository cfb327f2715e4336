//! `exit.json`: the launcher's last deed and the only word on how an attempt ended.
//!
//! It is written to a temporary name and renamed, so a reader sees the whole report or none; what is torn
//! nevertheless does not parse and is no report. The file is synced before it gets its name. Its folder is
//! synced only where no daemon holds the state lock: a daemon that is there commits the outcome to its
//! database, synced, within milliseconds, and a power cut in between makes the run `interrupted`, which is
//! true of a machine that lost power. Where none is there the report is all there is, perhaps for days.

use std::fs::File;
use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::AttemptDir;
use crate::ids::{Epoch, RunId};
use crate::model::words;
use crate::proc::{Identity, create_anew, read_regular, remove_any};

/// Version of [`ExitReport`].
pub const REPORT_VERSION: u32 = 1;
/// Largest report, bytes.
const REPORT_MAX: u64 = 64 << 10;

/// What ended the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It ended by itself.
    Exited,
    /// It ran longer than its timeout.
    Timeout,
    /// It was silent longer than its idle timeout.
    IdleTimeout,
    /// It wrote more than its output limit.
    OutputLimit,
    /// Its control group used more than its memory limit, and the kernel ended it.
    MemoryLimit,
    /// Somebody told the launcher to end it.
    Cancelled,
    /// No daemon held the state lock for too long.
    Orphaned,
}

words!(Reason {
    Exited => "exited",
    Timeout => "timeout",
    IdleTimeout => "idle_timeout",
    OutputLimit => "output_limit",
    MemoryLimit => "memory_limit",
    Cancelled => "cancelled",
    Orphaned => "orphaned",
});

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Number of the attempt.
    pub attempt: u32,
    /// The claim in whose name it ran; `None` where the launcher was never released.
    pub epoch: Option<Epoch>,
    /// Pid of the launcher that wrote this.
    pub launcher_pid: i32,
    /// Whether the program, or a gate before it, was started.
    pub started: bool,
    /// Why it could not be started; `None` with `started: false`: it was never released.
    pub launch_error: Option<String>,
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What ended it.
    pub reason: Reason,
    /// The limit that ended it: milliseconds for the timeouts and `orphaned`, bytes for the others.
    pub limit: Option<u64>,
    /// When the program started, Unix milliseconds; when the launcher gave up where it did not.
    pub started_at_ms: i64,
    /// When the last process of its tree had ended, Unix milliseconds.
    pub ended_at_ms: i64,
    /// Bytes the program wrote on stdout, also those that were not kept.
    pub stdout_bytes: u64,
    /// Bytes the program wrote on stderr, also those that were not kept.
    pub stderr_bytes: u64,
    /// Why the logs are incomplete, or what of the tree could not be ended.
    pub log_error: Option<String>,
    /// With `timeout`: it was the time of all attempts together that was over.
    #[serde(default)]
    pub total: bool,
    /// Whether the lines in which a preset's tool was heard were removed or cut while it ran.
    #[serde(default)]
    pub record_cut: bool,
    /// What ran beside the program.
    #[serde(default)]
    pub hooks: Box<Hooks>,
}

/// How the programs ended that ran before and after the program. A launcher of a version without them
/// says nothing of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Whether the gate found nothing to do; the program was not started.
    pub gated: bool,
    /// How the gate ended, where there was one.
    pub gate: Option<HookEnd>,
    /// How the verifier ended, where there was one and it was its turn.
    pub verify: Option<HookEnd>,
}

/// How a gate or a verifier ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEnd {
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What ended it.
    pub reason: Reason,
    /// The limit that ended it, as in [`ExitReport::limit`].
    pub limit: Option<u64>,
    /// Why it could not be started.
    pub launch_error: Option<String>,
}

impl HookEnd {
    /// Whether it ended by itself with code 0.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.exit_code == Some(0) && self.reason == Reason::Exited && self.launch_error.is_none()
    }
}

impl ExitReport {
    /// Whether the program never ran and nothing was wrong: the run may be claimed anew.
    #[must_use]
    pub fn never_started(&self) -> bool {
        !self.started && self.launch_error.is_none()
    }

    /// The report of a launcher that has started nothing up to `now_ms`.
    #[must_use]
    pub fn new(run: RunId, attempt: u32, launcher_pid: i32, now_ms: i64) -> Self {
        Self {
            version: REPORT_VERSION,
            run,
            attempt,
            epoch: None,
            launcher_pid,
            started: false,
            launch_error: None,
            exit_code: None,
            signal: None,
            reason: Reason::Exited,
            limit: None,
            started_at_ms: now_ms,
            ended_at_ms: now_ms,
            stdout_bytes: 0,
            stderr_bytes: 0,
            log_error: None,
            total: false,
            record_cut: false,
            hooks: Box::default(),
        }
    }

    /// The report in the place of one that a launcher did not come to write: how the program ended nobody knows, only
    /// that it was ended.
    #[must_use]
    pub fn unseen(run: RunId, attempt: u32, now_ms: i64) -> Self {
        Self { started: true, reason: Reason::Cancelled, ..Self::new(run, attempt, 0, now_ms) }
    }

    /// The report of a launcher that was gone before it began anything; `cancelled`: as it was told.
    pub(super) fn not_begun(of: &Claim<'_>, cancelled: bool, now_ms: i64) -> Self {
        Self {
            epoch: Some(of.epoch),
            reason: if cancelled { Reason::Cancelled } else { Reason::Exited },
            ..Self::new(of.run, of.attempt, of.launcher.pid, now_ms)
        }
    }

    /// Writes the report in one piece; `durable`: so that its name, too, outlives a power cut from now on.
    pub(super) fn write(&self, dir: &AttemptDir, durable: bool) -> io::Result<()> {
        let (place, new) = (dir.exit(), dir.path().join("exit.json.new"));
        let json = serde_json::to_vec(self)?;
        let mut file: File = create_anew(&new, 0o600)?;
        file.write_all(&json)?;
        file.sync_data()?;
        if std::fs::rename(&new, &place).is_err() {
            // The program may have made a folder of that name.
            remove_any(&place)?;
            std::fs::rename(&new, &place)?;
        }
        if durable {
            File::open(dir.path())?.sync_all()?;
        }
        Ok(())
    }

    /// The report of this attempt by this launcher; `None` where there is none, or another's.
    pub(super) fn read(dir: &AttemptDir, of: &Claim<'_>) -> Option<Self> {
        let bytes = read_regular(&dir.exit(), REPORT_MAX).ok()??;
        let report: Self = serde_json::from_slice(&bytes).ok()?;
        of.wrote(&report).then_some(report)
    }
}

/// Whose report is believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub run: RunId,
    pub attempt: u32,
    pub epoch: Epoch,
    pub launcher: &'a Identity,
}

impl Claim<'_> {
    fn wrote(&self, report: &ExitReport) -> bool {
        // A launcher that was never released does not know its epoch.
        let claim = match report.epoch {
            Some(epoch) => epoch == self.epoch,
            None => !report.started && report.launcher_pid == self.launcher.pid,
        };
        claim && report.version == REPORT_VERSION && report.run == self.run && report.attempt == self.attempt
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{BootId, SeededEntropy};

    fn report() -> ExitReport {
        ExitReport {
            version: REPORT_VERSION,
            run: RunId::generate(0, &SeededEntropy::new(1)),
            attempt: 1,
            epoch: Some(Epoch(3)),
            launcher_pid: 42,
            started: true,
            launch_error: None,
            exit_code: Some(0),
            signal: None,
            reason: Reason::Exited,
            limit: None,
            started_at_ms: 1,
            ended_at_ms: 2,
            stdout_bytes: 0,
            stderr_bytes: 0,
            log_error: None,
            total: false,
            record_cut: false,
            hooks: Box::default(),
        }
    }

    #[test]
    fn the_report_of_the_version_before_is_read() {
        let before = r#"{"version":1,"run":"019cadc6-9a80-7873-b70d-977a3b8316c7","attempt":1,"epoch":3,"launcher_pid":42,"started":true,"launch_error":null,"exit_code":3,"signal":null,"reason":"exited","limit":null,"started_at_ms":1,"ended_at_ms":2,"stdout_bytes":6,"stderr_bytes":0,"log_error":null}"#;
        let report: ExitReport = serde_json::from_str(before).unwrap();
        assert_eq!((report.exit_code, report.total, *report.hooks), (Some(3), false, Hooks::default()));
    }

    #[test]
    fn only_the_claims_own_report_is_believed() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(tmp.path());
        let launcher = Identity { boot_id: BootId::new("b"), pid: 42, start_ticks: 1, pidfd_inode: 1 };
        let claim = Claim { run: report().run, attempt: 1, epoch: Epoch(3), launcher: &launcher };
        assert_eq!(ExitReport::read(&dir, &claim), None);
        report().write(&dir, true).unwrap();
        assert_eq!(ExitReport::read(&dir, &claim), Some(report()));
        let other = RunId::generate(0, &SeededEntropy::new(2));
        let stale = [
            ExitReport { epoch: Some(Epoch(2)), ..report() },
            ExitReport { epoch: None, ..report() },
            ExitReport { attempt: 2, ..report() },
            ExitReport { run: other, ..report() },
            ExitReport { version: 2, ..report() },
            ExitReport { epoch: None, started: false, launcher_pid: 43, ..report() },
        ];
        for report in stale {
            report.write(&dir, false).unwrap();
            assert_eq!(ExitReport::read(&dir, &claim), None, "{report:?}");
        }
        let never = ExitReport { epoch: None, started: false, exit_code: None, ..report() };
        never.write(&dir, false).unwrap();
        assert!(ExitReport::read(&dir, &claim).unwrap().never_started());
        std::fs::write(dir.exit(), "{\"version\":1").unwrap();
        assert_eq!(ExitReport::read(&dir, &claim), None, "half a report is none");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A program can write what it likes where the report belongs: another's is never believed, and none is a crash.
        #[test]
        fn a_damaged_report_is_the_claims_own_or_none(
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..30_usize, "[ -~]{0,8}"), 1..4),
        ) {
            let tmp = tempfile::tempdir().unwrap();
            let dir = AttemptDir::at(tmp.path());
            let mut text = serde_json::to_string(&report()).unwrap();
            for (at, length, with) in cuts {
                let from = at.index(text.len() + 1);
                let to = (from + length).min(text.len());
                text.replace_range(from..to, &with);
            }
            std::fs::write(dir.exit(), &text).unwrap();
            let launcher = Identity { boot_id: BootId::new("b"), pid: 42, start_ticks: 1, pidfd_inode: 1 };
            let claim = Claim { run: report().run, attempt: 1, epoch: Epoch(3), launcher: &launcher };
            if let Some(read) = ExitReport::read(&dir, &claim) {
                prop_assert_eq!((read.run, read.attempt, read.version), (claim.run, 1, REPORT_VERSION));
                read.write(&dir, false).unwrap();
                prop_assert_eq!(ExitReport::read(&dir, &claim), Some(read));
            }
        }
    }
}
