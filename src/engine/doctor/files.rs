//! The state directory and the file system below it.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Check;
use super::machine::some;
use crate::model::Agent;

/// Below this a full disk is near, bytes.
const FREE_WARN: u64 = 1 << 30;
/// Below this the database may not get its next megabytes.
pub const FREE_FAIL: u64 = 64 << 20;
/// Inodes that should be left.
const INODES_WARN: u64 = 10_000;
/// A write that takes longer to be on disk makes every trigger slow.
const FSYNC_SLOW: Duration = Duration::from_millis(100);

/// File systems by their magic number: what is wrong with them.
const REMOTE: [(u64, &str); 5] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
];
const TMPFS: u64 = 0x0102_1994;

pub(super) fn state_dir(dir: &Path) -> Vec<Check> {
    const NAME: &str = "state directory";
    let at = dir.display();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            return vec![Check::fail(
                NAME,
                format!("{at} is no directory"),
                "set `state_dir:` to another path",
            )];
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return vec![Check::ok(NAME, format!("{at} does not exist; the daemon makes it"))];
        }
        Err(e) => {
            let remedy = "ask as the daemon's user, or while the daemon runs";
            return vec![Check::warn(NAME, format!("{at} cannot be looked at: {e}"), remedy)];
        }
    };
    let mut checks = Vec::new();
    if meta.permissions().mode() & 0o022 != 0 {
        let found = format!("{at} can be written by others than its owner");
        checks.push(Check::fail(NAME, found, format!("chmod go-w {at}")));
    }
    checks.push(sync(dir));
    checks.extend(kind(dir));
    checks.extend(space(dir));
    checks
}

/// Writes a few bytes and waits until they are on disk.
fn sync(dir: &Path) -> Check {
    const NAME: &str = "durable writes";
    let path = dir.join(format!(".doctor-{}", crate::proc::own_pid()));
    let begun = Instant::now();
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let synced = written.and_then(|mut file| file.write_all(b"matins").and_then(|()| file.sync_all()));
    let took = begun.elapsed();
    // One that stays is a few bytes, and is replaced by nobody.
    let _ = std::fs::remove_file(&path);
    let ms = took.as_secs_f64() * 1e3;
    match synced {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Check::warn(
            NAME,
            format!("{} cannot be written by this user", dir.display()),
            "ask as the daemon's user, or while the daemon runs",
        ),
        Err(e) => Check::fail(
            NAME,
            format!("{} cannot be written: {e}", dir.display()),
            "make room, or move the state directory",
        ),
        Ok(()) if took > FSYNC_SLOW => Check::warn(
            NAME,
            format!("a write takes {ms:.0} ms to be on disk: each trigger waits for one"),
            "move the state directory to a faster disk",
        ),
        Ok(()) => Check::ok(NAME, format!("a write takes {ms:.1} ms to be on disk")),
    }
}

fn kind(dir: &Path) -> Option<Check> {
    const NAME: &str = "file system";
    let fs = rustix::fs::statfs(dir).ok()?;
    // A 32-bit number, whatever the width of the field.
    let magic = u64::try_from(fs.f_type).unwrap_or_default() & 0xffff_ffff;
    if let Some((_, name)) = REMOTE.iter().find(|(of, _)| *of == magic) {
        let found = format!(
            "{} is on {name}: SQLite's log needs memory that only a local disk shares",
            dir.display()
        );
        return Some(Check::fail(NAME, found, "move the state directory to a local disk"));
    }
    if magic == TMPFS {
        let found = format!("{} is in memory: it is lost when the machine restarts", dir.display());
        return Some(Check::warn(NAME, found, "move the state directory to a disk"));
    }
    Some(Check::ok(NAME, "local"))
}

fn space(dir: &Path) -> Option<Check> {
    const NAME: &str = "free space";
    let fs = rustix::fs::statvfs(dir).ok()?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    // Some file systems have no fixed number of inodes and say 0 of 0.
    let few = fs.f_files > 0 && fs.f_favail < INODES_WARN;
    let found = format!(
        "{} MiB and {} files",
        free >> 20,
        if fs.f_files > 0 { fs.f_favail.to_string() } else { "any number of".to_owned() }
    );
    let remedy = "make room, or set `retention:` to keep less";
    Some(if free < FREE_FAIL {
        Check::fail(NAME, found, remedy)
    } else if free < FREE_WARN || few {
        Check::warn(NAME, found, remedy)
    } else {
        Check::ok(NAME, found)
    })
}

/// Sandboxed agents whose working directory holds the state directory: they cannot list it, nor make files in it.
pub(super) fn agents_in_the_way(state: &Path, agents: &[Arc<Agent>]) -> Option<Check> {
    let state = std::fs::canonicalize(state).unwrap_or_else(|_| state.to_owned());
    let holds = |agent: &&Arc<Agent>| {
        let cwd = agent.cwd.as_ref().map(|cwd| std::fs::canonicalize(cwd).unwrap_or_else(|_| cwd.clone()));
        !agent.policies.unconfined && cwd.is_some_and(|cwd| state.starts_with(cwd))
    };
    let found: Vec<String> = agents.iter().filter(holds).map(|a| a.id.to_string()).collect();
    (!found.is_empty()).then(|| {
        Check::warn(
            "working directories",
            format!(
                "the `cwd:` of {} holds the state directory: in the sandbox it cannot be listed, and no file be made \
                 directly in it",
                some(found)
            ),
            "move the state directory out of it, or set `sandbox: off`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::doctor::Level;

    #[test]
    fn a_state_directory_is_looked_at_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let checks = state_dir(dir.path());
        assert!(checks.iter().any(|c| c.name == "durable writes" && c.level != Level::Fail), "{checks:?}");
        assert!(checks.iter().any(|c| c.name == "free space"), "{checks:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(state_dir(dir.path())[0].level, Level::Fail, "anybody may write");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(state_dir(&file)[0].level, Level::Fail);
        assert_eq!(state_dir(&dir.path().join("none"))[0].level, Level::Ok);
    }
}
