//! What the daemon does for itself: retention, a little every minute, and backups by their own pattern.
//!
//! When a backup is due follows from the newest one on disk, so a daemon that was down at three in the
//! morning makes up for it at its start, and one that starts ten times makes one. A failure is logged
//! and tried again after a while; it never stops anything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Core;
use crate::engine::retention::Retention;
use crate::model::{Cron, Timing};
use crate::plan::Calendar;
use crate::task::OnEnd;
use crate::time::from_ms;

/// Time between two passes of retention, and between two looks whether a backup is due.
const REST: Duration = Duration::from_mins(1);
/// Time after a backup that failed until the next try.
const RETRY_MS: i64 = 30 * 60_000;
/// What backups are called around their time.
const NAME: (&str, &str) = ("matins-", ".db");

/// Keeps house until the daemon stops.
pub fn start(core: &Arc<Core>) {
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn("housekeeping", OnEnd::Logged, async move {
        let stop = core.tasks.stop().clone();
        tokio::select! {
            () = stop.softened() => {}
            () = keep(&core) => {}
        }
    });
}

async fn keep(core: &Core) {
    let mut retention = Retention::default();
    let mut backups = Backups::new(core.clock.now_ms());
    loop {
        if let Err(e) = retention.pass(core).await {
            tracing::warn!(error = %e, "retention goes on later: {e}");
        }
        backups.look(core).await;
        core.clock.sleep_until(core.clock.now() + REST).await;
    }
}

/// When backups are due.
#[derive(Debug)]
pub struct Backups {
    /// Where there is no backup yet, the first is due after this.
    started_ms: i64,
    /// After a failure, nothing is tried before this.
    rest_ms: i64,
}

impl Backups {
    /// Backups of a daemon that starts now.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self { started_ms: now_ms, rest_ms: i64::MIN }
    }

    /// Makes a backup if one is due; where it is, if it was made.
    pub async fn look(&mut self, core: &Core) -> Option<PathBuf> {
        let settings = core.settings();
        let pattern = settings.housekeeping.backup.as_deref()?;
        let calendar = calendar(pattern, &settings.timezone)?;
        let dir = core.state_dir().join("backups");
        let now_ms = core.clock.now_ms();
        let due = calendar.next_after(newest(&dir).unwrap_or(self.started_ms));
        if now_ms < self.rest_ms || due.is_none_or(|due| due > now_ms) {
            return None;
        }
        let made = make(core, &dir, now_ms).await;
        match &made {
            Ok((path, bytes)) => {
                tracing::info!(bytes, "a backup was made: {}", path.display());
                prune(&dir, settings.housekeeping.keep_backups);
            }
            Err(e) => {
                self.rest_ms = now_ms.saturating_add(RETRY_MS);
                tracing::error!(error = %e, "the backup failed and is tried again: {e:#}");
            }
        }
        made.ok().map(|(path, _)| path)
    }
}

fn calendar(pattern: &str, timezone: &str) -> Option<Calendar> {
    // Both were checked when the settings were read.
    let cron = Cron::parse(pattern).ok()?;
    Calendar::compile(&Timing::Cron { cron, timezone: timezone.to_owned() }).ok()
}

async fn make(core: &Core, dir: &Path, now_ms: i64) -> anyhow::Result<(PathBuf, u64)> {
    make_dir(dir)?;
    let path = dir.join(name(now_ms));
    let bytes = core.store.backup(path.clone()).await?;
    Ok((path, bytes))
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// `matins-20261122T030000Z.db`: the order of names is that of time.
fn name(at_ms: i64) -> String {
    format!("{}{}{}", NAME.0, from_ms(at_ms).strftime("%Y%m%dT%H%M%SZ"), NAME.1)
}

/// When a backup of this name was made, Unix ms.
fn made_at(name: &str) -> Option<i64> {
    let time = name.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?;
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

fn backups(dir: &Path) -> Vec<(i64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(i64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((made_at(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_unstable();
    found
}

fn newest(dir: &Path) -> Option<i64> {
    backups(dir).last().map(|(at, _)| *at)
}

/// Removes all but the newest `keep`; files of other names are not ours.
fn prune(dir: &Path, keep: u32) {
    let mut found = backups(dir);
    found.truncate(found.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX)));
    for (_, path) in found {
        if let Err(e) = std::fs::remove_file(&path) {
            tracing::warn!(error = %e, "the old backup {} cannot be removed: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times() {
        let at = 1_772_442_000_000;
        assert_eq!(name(at), "matins-20260302T090000Z.db");
        assert_eq!(made_at(&name(at)), Some(at));
        for other in ["matins.db", "matins-x.db", "matins-20260302T090000Z.db.part", "mine.db"] {
            assert_eq!(made_at(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_stay_and_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let days = (0..5).map(|day| name(1_772_442_000_000 + day * 86_400_000)).collect::<Vec<_>>();
        for file in days.iter().map(String::as_str).chain(["mine.db"]) {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        prune(dir.path(), 2);
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [&days[3], &days[4], "mine.db"]);
    }
}
