//! The processes below a process, read from `/proc`, and signals to them.
//!
//! A scan is a snapshot: processes appear and vanish during it. Nothing here claims completeness; whoever
//! ends a tree repeats the pass until the kernel says that nothing is left. Before each signal the process
//! is opened by pidfd and its start time compared with the scan, so a reused pid is never hit.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::process::{Signal, kill_process, kill_process_group};

use super::identity::open_pidfd;
use super::own::raw_pid;
use super::{identity, own_pid};

/// Most bytes of an environment that are searched; the kernel's own limit for a new program is 6 MiB.
const ENVIRON_MAX: u64 = 8 << 20;

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its pid.
    pub pid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// When it started, clock ticks since boot.
    pub start_ticks: u64,
    /// Whether it has ended and waits to be reaped.
    pub zombie: bool,
}

/// The process with this pid, if `/proc` shows it.
#[must_use]
pub fn member(pid: i32) -> Option<Member> {
    let mut buffer = [0_u8; 1024];
    let n = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    parse_stat(buffer.get(..n)?)
}

/// The name of a program may hold blanks and parentheses, so the fields count from the last one.
fn parse_stat(line: &[u8]) -> Option<Member> {
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<i32>().ok();
    Some(Member {
        pid,
        ppid: number(1)?,
        pgid: number(2)?,
        sid: number(3)?,
        start_ticks: fields.get(19)?.parse().ok()?,
        zombie: matches!(fields.first(), Some(&("Z" | "X" | "x"))),
    })
}

/// Every process that `/proc` shows.
#[must_use]
pub fn all() -> Vec<Member> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| member(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Every process below `root`, zombies included, `root` itself left out.
#[must_use]
pub fn descendants(root: i32) -> Vec<Member> {
    let mut members = below(root, &all());
    if root == own_pid() {
        // Where `/proc` hides a process (hidepid), its parent's own list still names it.
        let known: HashSet<i32> = members.iter().map(|m| m.pid).collect();
        members.extend(hidden_children(root, &known));
    }
    members
}

/// Those of `table` that descend from `root`.
fn below(root: i32, table: &[Member]) -> Vec<Member> {
    let mut children: HashMap<i32, Vec<Member>> = HashMap::new();
    for member in table {
        children.entry(member.ppid).or_default().push(*member);
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        // Removing a parent's list makes the walk end even if reused pids closed a circle.
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// Direct children of this single-threaded process that the scan did not show. Their start time is
/// unknown (0); as unreaped children of ours their pids cannot have been reused.
fn hidden_children(me: i32, known: &HashSet<i32>) -> Vec<Member> {
    let list = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| !known.contains(pid))
        .map(|pid| Member { pid, ppid: me, pgid: 0, sid: 0, start_ticks: 0, zombie: false })
        .collect()
}

/// Whether the environment of a process holds this variable with this value. `None` where it may not be
/// read: the process is gone, another user's, or non-dumpable.
#[must_use]
pub fn environ_holds(pid: i32, name: &str, value: &str) -> Option<bool> {
    let mut environ = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRON_MAX).read_to_end(&mut environ).ok()?;
    let wanted = format!("{name}={value}");
    Some(environ.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()))
}

/// Every launcher that `/proc` shows, of whichever daemon: its pid, its pidfd, its attempt folder.
#[must_use]
pub fn launchers() -> Vec<(i32, OwnedFd, PathBuf)> {
    let look = |m: Member| {
        // Opened first: what its command line says is then true of the process that the pidfd names.
        let pidfd = open_pidfd(m.pid).ok()?;
        let line = std::fs::read(format!("/proc/{}/cmdline", m.pid)).ok()?;
        let mut words = line.split(|b| *b == 0).skip(1);
        let dir = (words.next()? == b"__exec").then(|| words.next())??;
        Some((m.pid, pidfd, PathBuf::from(OsStr::from_bytes(dir))))
    };
    all().into_iter().filter(|m| !m.zombie).filter_map(look).collect()
}

/// Sends `sig` to the process that was scanned; its pidfd if it was still that process and was reached.
#[must_use]
pub fn signal_member(found: &Member, sig: Signal) -> Option<OwnedFd> {
    let pidfd = open_pidfd(found.pid).ok()?;
    let same = member(found.pid).is_some_and(|now| now.start_ticks == found.start_ticks && !now.zombie);
    (same && identity::signal(&pidfd, sig).ok()?).then_some(pidfd)
}

/// Sends `sig` to the process group of this process's own unreaped child `leader`, whose number can
/// therefore not have been reused; to the child alone where it has left that group.
pub fn signal_group(leader: i32, sig: Signal) {
    let Some(pid) = raw_pid(leader) else {
        return;
    };
    if kill_process_group(pid, sig).is_err() {
        let _ = kill_process(pid, sig);
    }
}

/// Sends `sig` once to every process below this one, which must be its own only reaper, but not to those
/// of the process group `spared`, which have heard it.
pub fn signal_tree(sig: Signal, spared: Option<i32>) {
    let me = own_pid();
    for found in descendants(me).iter().filter(|found| spared != Some(found.pgid)) {
        signal_descendant(me, found, sig);
    }
}

/// One pass of SIGKILL over everything below this process, which must be its own only reaper and reap
/// nothing meanwhile. Groups of direct children are hit as groups, which no fork can outrun; the group
/// of an unreaped child cannot have been reused.
pub fn kill_tree() {
    let me = own_pid();
    let mut groups = HashSet::new();
    for found in descendants(me) {
        if found.ppid == me && found.pgid > 1 && found.pgid != me && groups.insert(found.pgid) {
            signal_group_only(found.pgid);
        }
        signal_descendant(me, &found, Signal::KILL);
    }
}

/// An own child is hit by its pid, which stays its own until we reap it (and `/proc` may hide it);
/// a deeper one through a pidfd.
fn signal_descendant(me: i32, found: &Member, sig: Signal) {
    if found.zombie {
        return;
    }
    if found.ppid != me {
        let _ = signal_member(found, sig);
    } else if let Some(pid) = raw_pid(found.pid) {
        let _ = kill_process(pid, sig);
    }
}

fn signal_group_only(pgid: i32) {
    if let Some(pgid) = raw_pid(pgid) {
        let _ = kill_process_group(pgid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_program_name_is_read() {
        let line =
            b"42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 1 18446744073709551615";
        let m = parse_stat(line).unwrap();
        assert_eq!((m.pid, m.ppid, m.pgid, m.sid, m.start_ticks, m.zombie), (42, 7, 8, 9, 123_456, false));
        let zombie = b"42 (x) Z 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5 0 0";
        assert!(parse_stat(zombie).unwrap().zombie);
        for bad in [&b""[..], b"42", b"42 (x", b"42 (x) S 7", b"x (x) S 7 8 9"] {
            assert_eq!(parse_stat(bad), None);
        }
    }

    fn row(pid: i32, ppid: i32) -> Member {
        Member { pid, ppid, pgid: pid, sid: 1, start_ticks: 1, zombie: false }
    }

    #[test]
    fn descent_is_transitive_and_ends() {
        let table = [row(2, 1), row(3, 2), row(4, 3), row(5, 1), row(7, 8), row(8, 7)];
        let mut pids: Vec<i32> = below(2, &table).iter().map(|m| m.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [3, 4]);
        assert!(below(7, &table).len() <= 2, "a circle ends");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real process to look at")]
    fn a_marker_is_found_whole_only() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("MARK", "abc")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(environ_holds(pid, "MARK", "abc"), Some(true));
        assert_eq!(environ_holds(pid, "MARK", "ab"), Some(false));
        assert_eq!(environ_holds(pid, "ARK", "abc"), Some(false));
        let me = member(pid).unwrap();
        assert!(descendants(own_pid()).iter().any(|m| m.pid == pid));
        assert!(signal_member(&Member { start_ticks: me.start_ticks + 1, ..me }, Signal::KILL).is_none());
        assert!(child.try_wait().unwrap().is_none(), "a forged start time hits nobody");
        let pidfd = signal_member(&me, Signal::KILL).unwrap();
        assert!(identity::wait_gone(&[pidfd], std::time::Duration::from_secs(10)));
        child.wait().unwrap();
        assert_eq!(member(pid), None);
    }
}
