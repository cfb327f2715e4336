//! Control groups (version 2): limits for a whole tree, and its end in one write.
//!
//! The daemon owns a subtree if the system has delegated one to it (systemd: `Delegate=yes`, a container with a
//! writable `/sys/fs/cgroup`). It lives in one child of it, since a group with processes cannot hand controllers to
//! its children, and each attempt gets another. Launchers stay beside the daemon: a limit that ends a program must not
//! end the one who reports it.
//!
//! A subtree that merely can be written is not taken: to root everything can, and what systemd has not delegated it
//! takes back.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Controllers that limits need.
pub const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The child in which the daemon and its launchers live.
const DAEMON: &str = "daemon";
/// How the group of an attempt begins its name.
const RUN: &str = "run-";
/// Period of `cpu.max`, microseconds.
const PERIOD_US: u64 = 100_000;
/// How long the processes of a killed group may take to leave it.
const EMPTY_PATIENCE: Duration = Duration::from_secs(2);
/// Deepest nesting of groups that a program may have made.
const DEPTH_MAX: u32 = 16;

/// A subtree that was delegated to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Its folder.
    pub root: PathBuf,
    /// The controllers of [`CONTROLLERS`] that its children can have.
    pub controllers: BTreeSet<String>,
}

/// Most that a group may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupLimits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Where to look; a test has a tree of its own.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The content of `/proc/self/mountinfo`.
    pub mounts: &'a str,
    /// The content of `/proc/self/cgroup`.
    pub own: &'a str,
    /// Whether this process is root's.
    pub root: bool,
}

impl Delegated {
    /// The subtree of this process; why there is none, in one sentence.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        Self::find_in(Places { mounts: &mounts, own: &own, root: super::is_root() })
    }

    /// As [`Self::find`], in these places.
    pub fn find_in(places: Places<'_>) -> Result<Self, String> {
        let group = own_group(places)?;
        let marked =
            |path: &Path| ["user.delegate", "trusted.delegate"].iter().any(|name| is_one(path, name));
        let parent = group.parent().filter(|parent| marked(parent));
        let root = match parent {
            _ if marked(&group) => group.clone(),
            // A service with DelegateSubgroup=, or the daemon's own child after it was replaced in place.
            Some(parent) => parent.to_owned(),
            None if group.file_name().is_some_and(|name| name == DAEMON) => {
                group.parent().unwrap_or(&group).to_owned()
            }
            None => unmanaged(&group, places.root)?,
        };
        writable(&root)?;
        let offered = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let offered: BTreeSet<&str> = offered.split_ascii_whitespace().collect();
        let controllers =
            CONTROLLERS.iter().filter(|c| offered.contains(**c)).map(|c| (*c).to_owned()).collect();
        Ok(Self { root, controllers })
    }

    /// Moves this process into its own child and hands the controllers on. Those that cannot be handed on are no longer
    /// in [`Self::controllers`].
    pub fn settle(&mut self) -> io::Result<()> {
        let own = self.root.join(DAEMON);
        make(&own)?;
        write(&own.join("cgroup.procs"), "0")?;
        let control = self.root.join("cgroup.subtree_control");
        // One by one: where one cannot be had, the others still can.
        self.controllers.retain(|controller| write(&control, &format!("+{controller}")).is_ok());
        // Left by a launcher that was killed; one with processes stays.
        for left in self.runs() {
            let _ = std::fs::remove_dir(left);
        }
        Ok(())
    }

    /// The folder of the group of an attempt.
    #[must_use]
    pub fn of_attempt(&self, run: &str, attempt: u32) -> PathBuf {
        self.root.join(format!("{RUN}{run}-{attempt}"))
    }

    /// Ends what is left in the groups of a run and removes them; whether there was a process.
    #[must_use]
    pub fn end_run(&self, run: &str) -> bool {
        let begins = format!("{RUN}{run}-");
        let mut found = false;
        for path in
            self.runs().filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&begins)))
        {
            let group = Group { path };
            found |= group.is_populated();
            group.kill();
            // One that stays is empty but for what no signal ends; the next start removes it.
            let _ = group.remove();
        }
        found
    }

    fn runs(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(RUN)).map(|e| e.path())
    }
}

/// The group of this process as a folder.
fn own_group(places: Places<'_>) -> Result<PathBuf, String> {
    let no_v2 = || "there is no cgroup v2 mounted".to_owned();
    // ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS .. - TYPE SOURCE ..
    let mount = places.mounts.lines().filter(|line| line.contains(" - cgroup2 ")).find_map(|line| {
        let f: Vec<&str> = line.split(' ').collect();
        Some((f.get(3)?.to_owned(), f.get(4)?.to_owned()))
    });
    let (mount_root, mount_point) = mount.ok_or_else(no_v2)?;
    let own = places.own.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(no_v2)?;
    // Without a namespace of its own a container sees its group from the top, but mounts only its part.
    let below = own.strip_prefix(mount_root.trim_end_matches('/')).unwrap_or(own);
    Ok(Path::new(mount_point).join(below.trim_start_matches('/')))
}

/// A group that systemd does not look after: this process's own, where it is not the system's root.
fn unmanaged(group: &Path, is_root: bool) -> Result<PathBuf, String> {
    let at = group.display();
    if ["user.invocation_id", "trusted.invocation_id"].iter().any(|name| xattr(group, name).is_some()) {
        return Err(format!("{at} is systemd's; add Delegate=yes to the unit"));
    }
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let others = members.lines().any(|pid| pid != super::own_pid().to_string());
    // Only the root of all groups has no type. A group that others live in cannot hand on controllers.
    if is_root && (!group.join("cgroup.type").exists() || others) {
        return Err(format!("{at} was not delegated to the daemon"));
    }
    Ok(group.to_owned())
}

fn is_one(path: &Path, name: &str) -> bool {
    xattr(path, name).is_some_and(|value| value == b"1")
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let n = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    Some(value.get(..n)?.to_vec())
}

fn writable(root: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    let needed = [root.to_owned(), root.join("cgroup.procs"), root.join("cgroup.subtree_control")];
    match needed.iter().find(|path| access(path.as_path(), Access::WRITE_OK).is_err()) {
        None => Ok(()),
        Some(path) => Err(format!("{} cannot be written; add Delegate=yes to the unit", path.display())),
    }
}

/// The group of one attempt.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes the group at this place and sets its limits; those that its controllers cannot keep are returned.
    pub fn make(path: &Path, limits: &GroupLimits) -> io::Result<(Self, GroupLimits)> {
        make(path)?;
        let group = Self { path: path.to_owned() };
        let set = |file: &str, value: Option<String>| {
            value.is_none_or(|value| write(&path.join(file), &value).is_ok())
        };
        let memory = set("memory.max", limits.memory.map(|bytes| bytes.to_string()));
        if memory && limits.memory.is_some() {
            // One process less of a tree is a tree that nobody understands: all or none. Kernels before 4.19 cannot.
            let _ = write(&path.join("memory.oom.group"), "1");
            // Else what does not fit is swapped out, and the limit only makes it slow. Not every kernel counts swap.
            let _ = write(&path.join("memory.swap.max"), "0");
        }
        let quota = |millis: u64| format!("{} {PERIOD_US}", (millis * PERIOD_US / 1000).max(1000));
        let cpu = set("cpu.max", limits.cpu_millis.map(quota));
        let processes = set("pids.max", limits.processes.map(|n| n.to_string()));
        let left = |kept: bool, limit: Option<u64>| if kept { None } else { limit };
        let unkept = GroupLimits {
            memory: left(memory, limits.memory),
            cpu_millis: left(cpu, limits.cpu_millis),
            processes: left(processes, limits.processes),
        };
        Ok((group, unkept))
    }

    /// Moves this process into the group at this place.
    pub fn join(path: &Path) -> io::Result<()> {
        write(&path.join("cgroup.procs"), "0")
    }

    /// Kills every process of the group at once, also one that is just being born. Before Linux 5.14 it does nothing:
    /// whoever ends a tree ends it by descent too.
    pub fn kill(&self) {
        let _ = write(&self.path.join("cgroup.kill"), "1");
    }

    /// Whether the kernel ended processes because the group had no more memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        events.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0")
    }

    fn is_populated(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Removes the group once it is empty; whether it is gone.
    #[must_use]
    pub fn remove(&self) -> bool {
        let begun = Instant::now();
        while self.is_populated() && begun.elapsed() < EMPTY_PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        remove_tree(&self.path, DEPTH_MAX)
    }
}

/// Only folders can be removed, and only from below.
fn remove_tree(path: &Path, depth: u32) -> bool {
    if depth > 0 {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path(), depth - 1);
            }
        }
    }
    std::fs::remove_dir(path).is_ok()
}

fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of plain files in the place of the kernel's: what is written there can be read.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn find(dir: &Path, mount_root: &str, own: &str) -> Result<Delegated, String> {
        let mounts = format!(
            "22 1 0:21 / /proc rw - proc proc rw\n30 24 0:26 {mount_root} {} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
            dir.display()
        );
        Delegated::find_in(Places { mounts: &mounts, own, root: true })
    }

    fn delegate(path: &Path) -> bool {
        rustix::fs::setxattr(path, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).is_ok()
    }

    const FILES: [(&str, &str); 5] = [
        ("unit/cgroup.procs", ""),
        ("unit/cgroup.type", "domain"),
        ("unit/cgroup.controllers", "cpuset cpu memory pids"),
        ("unit/cgroup.subtree_control", ""),
        ("unit/daemon/cgroup.procs", ""),
    ];

    #[test]
    fn a_delegated_unit_is_found_and_settled_in() {
        let dir = tree(&FILES);
        let unit = dir.path().join("unit");
        if !delegate(&unit) {
            eprintln!("skipped: the file system of {} has no extended attributes", unit.display());
            return;
        }
        let mut found = find(dir.path(), "/", "1:name=x:/\n0::/unit\n").unwrap();
        assert_eq!(found.root, unit);
        assert_eq!(found.controllers.len(), 3);
        found.settle().unwrap();
        assert_eq!(std::fs::read_to_string(unit.join("daemon/cgroup.procs")).unwrap(), "0");
        assert!(std::fs::read_to_string(unit.join("cgroup.subtree_control")).unwrap().starts_with("+pids"));
        // As a subgroup, and as a container that mounts its part only.
        assert_eq!(find(dir.path(), "/", "0::/unit/daemon\n").unwrap().root, unit);
        assert_eq!(find(dir.path(), "/outer", "0::/outer/unit\n").unwrap().root, unit);
    }

    #[test]
    fn what_was_not_delegated_is_not_taken() {
        let dir = tree(&FILES);
        assert!(
            find(dir.path(), "/", "0::/").unwrap_err().contains("not delegated"),
            "the root of all groups"
        );
        std::fs::write(dir.path().join("unit/cgroup.procs"), "1\n").unwrap();
        assert!(
            find(dir.path(), "/", "0::/unit").unwrap_err().contains("not delegated"),
            "others live there"
        );
        assert!(
            Delegated::find_in(Places { mounts: "", own: "0::/", root: true })
                .unwrap_err()
                .contains("no cgroup")
        );
        assert!(find(dir.path(), "/", "1:cpu:/\n").unwrap_err().contains("no cgroup"));
    }

    #[test]
    fn limits_are_written_and_those_that_cannot_be_kept_are_told() {
        let dir = tree(&[("g/memory.max", ""), ("g/memory.oom.group", ""), ("g/cpu.max", "")]);
        let path = dir.path().join("g");
        let limits = GroupLimits { memory: Some(512 << 20), cpu_millis: Some(1500), processes: Some(64) };
        let (group, unkept) = Group::make(&path, &limits).unwrap();
        assert_eq!(unkept, GroupLimits { processes: Some(64), ..GroupLimits::default() });
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.oom.group")), ("536870912".to_owned(), "1".to_owned()));
        assert_eq!(read("cpu.max"), "150000 100000");
        assert!(!group.ran_out_of_memory());
        std::fs::write(path.join("memory.events"), "oom 2\noom_kill 1\n").unwrap();
        assert!(group.ran_out_of_memory());
    }
}
