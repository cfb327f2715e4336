//! From whom a process descends: a run's, the daemon's, or somebody else's.
//!
//! A program of a run shares the daemon's uid, so who connects to the control socket is judged by descent. It cannot
//! be shaken off: a launcher is a sub-reaper and so is the daemon, so an orphan of a run, of a new session or not,
//! stays below one of them. The peer is named by the pidfd of its socket, so that nobody is taken for the
//! process that has its pid by now; and a parent that is younger than its child is no parent but a reused pid.
//! What cannot be read is said to be unknown, never guessed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};

use super::identity::{has_ended, open_pidfd};
use super::{Member, member, own_pid};

/// Longest chain of parents that is followed.
const DEPTH_MAX: usize = 4096;
/// How often a chain is read anew whose members ended meanwhile.
const TRIES: usize = 5;

/// Where a process comes from. `T` is what is known about a launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descent<T> {
    /// It is this very process.
    Own,
    /// It descends from this launcher, or belongs to its session.
    Launcher(T),
    /// It descends from this process through no known launcher: an orphan of a run, or a helper.
    Daemon,
    /// Neither.
    Stranger,
    /// It cannot be told: the process is gone, hidden, or of another pid namespace.
    Unknown,
}

/// The process at the other end of a Unix socket, as it was when it connected. `None`: it has ended.
pub fn peer_pidfd(socket: &impl AsFd, pid: i32) -> Option<OwnedFd> {
    match getsockopt(socket, PeerPidfd) {
        Ok(pidfd) => Some(pidfd),
        // Before Linux 6.5 the pid must do.
        Err(Errno::ENOPROTOOPT) => open_pidfd(pid).ok(),
        Err(_) => None,
    }
}

/// From whom the process of `pidfd`, which has this pid, descends. `launcher` knows the launchers.
pub fn descent<T>(pidfd: &OwnedFd, pid: i32, launcher: impl Fn(&Member) -> Option<T>) -> Descent<T> {
    for _ in 0..TRIES {
        let found = follow(own_pid(), pid, member, &launcher);
        if has_ended(pidfd) {
            // What was read may be another process with its pid.
            return Descent::Unknown;
        }
        if let Some(found) = found {
            return found;
        }
    }
    Descent::Unknown
}

/// `None`: somebody of the chain ended meanwhile, or cannot be seen.
fn follow<T>(
    me: i32,
    pid: i32,
    member: impl Fn(i32) -> Option<Member>,
    launcher: &impl Fn(&Member) -> Option<T>,
) -> Option<Descent<T>> {
    if pid == me {
        return Some(Descent::Own);
    }
    let mut child: Option<Member> = None;
    let mut next = pid;
    for _ in 0..DEPTH_MAX {
        let found = member(next)?;
        if child.is_some_and(|child| child.start_ticks < found.start_ticks) {
            return None;
        }
        if let Some(known) = launcher(&found) {
            return Some(Descent::Launcher(known));
        }
        // Who was orphaned stays in the launcher's session, unless it left that too.
        if found.sid > 0
            && found.sid != found.pid
            && let Some(known) = member(found.sid).as_ref().and_then(launcher)
        {
            return Some(Descent::Launcher(known));
        }
        if found.ppid == me {
            return Some(Descent::Daemon);
        }
        if found.ppid <= 0 || found.pid == 1 {
            return Some(Descent::Stranger);
        }
        child = Some(found);
        next = found.ppid;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, ppid: i32, sid: i32, start_ticks: u64) -> Member {
        Member { pid, ppid, pgid: pid, sid, start_ticks, zombie: false }
    }

    const DAEMON: i32 = 100;
    const LAUNCHER: i32 = 200;

    fn of(table: &[Member], pid: i32) -> Option<Descent<&'static str>> {
        let member = |pid| table.iter().find(|m| m.pid == pid).copied();
        follow(DAEMON, pid, member, &|m: &Member| (m.pid == LAUNCHER).then_some("the run"))
    }

    #[test]
    fn descent_is_followed_to_whom_it_leads() {
        let table = [
            row(1, 0, 1, 0),
            row(50, 1, 50, 10),
            row(DAEMON, 50, DAEMON, 20),
            row(LAUNCHER, DAEMON, LAUNCHER, 30),
            row(201, LAUNCHER, LAUNCHER, 31),
            row(202, 201, 202, 32),
            row(203, DAEMON, 203, 33),
            row(204, 1, LAUNCHER, 34),
            row(60, 50, 60, 40),
            row(61, 999, 61, 40),
            row(62, 63, 62, 40),
            row(63, 50, 63, 41),
        ];
        assert_eq!(of(&table, DAEMON), Some(Descent::Own));
        for inside in [LAUNCHER, 201, 202, 204] {
            assert_eq!(of(&table, inside), Some(Descent::Launcher("the run")), "{inside}");
        }
        assert_eq!(of(&table, 203), Some(Descent::Daemon), "an orphan of its own session");
        assert_eq!(of(&table, 60), Some(Descent::Stranger));
        assert_eq!(of(&table, 1), Some(Descent::Stranger));
        assert_eq!(of(&table, 61), None, "its parent is gone");
        assert_eq!(of(&table, 62), None, "a parent younger than its child is a reused pid");
        assert_eq!(of(&table, 70), None);
    }

    #[test]
    fn a_circle_of_reused_pids_ends() {
        assert_eq!(of(&[row(70, 71, 70, 5), row(71, 70, 71, 5)], 70), None);
    }

    #[test]
    fn a_daemon_that_is_process_one_knows_its_orphans() {
        let table = [row(1, 0, 1, 0), row(7, 1, 7, 5), row(8, 0, 8, 5)];
        let of = |pid| {
            let member = |pid| table.iter().find(|m| m.pid == pid).copied();
            follow(1, pid, member, &|_: &Member| None::<()>)
        };
        assert_eq!(of(7), Some(Descent::Daemon));
        assert_eq!(of(8), Some(Descent::Stranger), "entered from outside");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real child to look at")]
    fn a_child_of_this_process_is_seen_and_a_dead_one_is_unknown() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = open_pidfd(pid).unwrap();
        assert_eq!(descent(&pidfd, pid, |_| None::<()>), Descent::Daemon);
        assert_eq!(descent(&pidfd, pid, |m| (m.pid == pid).then_some(7)), Descent::Launcher(7));
        let me = open_pidfd(own_pid()).unwrap();
        assert_eq!(descent(&me, own_pid(), |_| None::<()>), Descent::Own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(descent(&pidfd, pid, |_| None::<()>), Descent::Unknown);
    }
}
