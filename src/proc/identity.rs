//! Which process it is, beyond doubt and across restarts of the daemon.
//!
//! A pid names a process only until it is reaped. An [`Identity`] adds the boot, the start time and,
//! from Linux 6.9, the inode of its pidfd, which no two processes of one boot share. Where `/proc` hides
//! the process (a non-dumpable one under `hidepid`), the inode alone decides.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::own::raw_pid;
use super::{Error, tree};
use crate::ids::BootId;

/// `f_type` of the file system of pidfds whose inode numbers are unique within one boot.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// One process, for ever. `0` in a number means that the kernel did not give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The boot in which it lives.
    pub boot_id: BootId,
    /// Its pid.
    pub pid: i32,
    /// When it started, clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_ticks: u64,
    /// Inode of its pidfd, unique within one boot.
    pub pidfd_inode: u64,
}

impl Identity {
    /// The identity of the process that has this pid now. Sound for one's own unreaped child, whose
    /// pid cannot have been reused.
    pub fn of(pid: i32) -> Result<Self, Error> {
        Self::open(pid).map(|(identity, _)| identity)
    }

    /// As [`Identity::of`], with the pidfd that was looked at.
    pub fn open(pid: i32) -> Result<(Self, OwnedFd), Error> {
        let pidfd = open_pidfd(pid)?;
        let identity = Self {
            boot_id: boot_id()?,
            pid,
            start_ticks: tree::member(pid).map_or(0, |m| m.start_ticks),
            pidfd_inode: inode(&pidfd),
        };
        if identity.start_ticks == 0 && identity.pidfd_inode == 0 {
            return Err(Error::Unidentified(pid));
        }
        Ok((identity, pidfd))
    }
}

/// A pidfd of the process if it still runs; `None` if it ended, also where its pid names another
/// process by now.
///
/// # Errors
/// [`Error::Unidentified`] where a process has this pid and nothing that can be read tells whether it is
/// the one: before Linux 6.9 under `hidepid`. Then nothing may be concluded, and nobody signalled.
pub fn alive(identity: &Identity) -> Result<Option<OwnedFd>, Error> {
    if boot_id()? != identity.boot_id {
        return Ok(None);
    }
    // The pidfd is opened first: what is verified afterwards is then true of the process it names.
    let pidfd = match open_pidfd(identity.pid) {
        Ok(pidfd) => pidfd,
        Err(Error::Gone(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let inode = inode(&pidfd);
    let start = tree::member(identity.pid).map_or(0, |m| m.start_ticks);
    let same = |known: u64, now: u64| (known != 0 && now != 0).then_some(known == now);
    let proofs = [same(identity.pidfd_inode, inode), same(identity.start_ticks, start)];
    if proofs.contains(&Some(false)) || has_ended(&pidfd) {
        return Ok(None);
    }
    if proofs.contains(&Some(true)) {
        return Ok(Some(pidfd));
    }
    Err(Error::Unidentified(identity.pid))
}

/// Sends `sig` to the process of a pidfd; `false` if it has ended.
pub fn signal(pidfd: impl AsFd, sig: Signal) -> Result<bool, Error> {
    match pidfd_send_signal(pidfd, sig) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(e) => Err(Error::system("signal a process")(e)),
    }
}

/// Waits until every one of these processes has ended, at most `patience`; whether they have.
#[must_use]
pub fn wait_gone(pidfds: &[OwnedFd], patience: Duration) -> bool {
    let started = std::time::Instant::now();
    pidfds.iter().all(|pidfd| {
        let left = patience.saturating_sub(started.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)), Ok(n) if n > 0)
    })
}

/// This boot of the machine; read once.
pub fn boot_id() -> Result<BootId, Error> {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    if let Some(known) = BOOT.get() {
        return Ok(known.clone());
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|source| Error::System { what: "read the boot id".to_owned(), source })?;
    Ok(BOOT.get_or_init(|| BootId::new(&text)).clone())
}

pub(super) fn open_pidfd(pid: i32) -> Result<OwnedFd, Error> {
    let raw = raw_pid(pid).ok_or(Error::Gone(pid))?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|e| match e {
        rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => Error::Gone(pid),
        e => Error::system(format!("open a pidfd of process {pid}"))(e),
    })
}

/// The pidfd's inode, or 0 where all pidfds share one (before Linux 6.9).
fn inode(pidfd: &OwnedFd) -> u64 {
    static UNIQUE: OnceLock<bool> = OnceLock::new();
    let unique = *UNIQUE.get_or_init(|| {
        rustix::fs::fstatfs(pidfd).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|t| t == PIDFS_MAGIC))
    });
    if unique { rustix::fs::fstat(pidfd).map_or(0, |s| s.st_ino) } else { 0 }
}

/// A pidfd is readable once its process has ended, reaped or not.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec::default();
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a real process to look at")]
    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn a_process_is_itself_and_nobody_else() {
        let mut child = sleeper();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = Identity::of(pid).unwrap();
        let lives = |identity: &Identity| alive(identity).unwrap().is_some();
        assert!(lives(&identity));
        let known = || identity.clone();
        let (next_start, next_inode) = (identity.start_ticks + 1, identity.pidfd_inode + 1);
        for forged in [
            Identity { start_ticks: next_start, ..known() },
            Identity { pidfd_inode: next_inode, ..known() },
            Identity { boot_id: BootId::new("another boot"), ..known() },
            Identity { pid: 0, ..known() },
            Identity { pid: -1, ..known() },
        ] {
            assert!(!lives(&forged), "{forged:?}");
        }
        // One proof is enough where the kernel gives only one; without any, nothing is concluded.
        assert!(lives(&Identity { pidfd_inode: 0, ..known() }));
        assert!(identity.pidfd_inode == 0 || lives(&Identity { start_ticks: 0, ..known() }));
        let nameless = Identity { start_ticks: 0, pidfd_inode: 0, ..known() };
        assert!(matches!(alive(&nameless), Err(Error::Unidentified(p)) if p == pid));
        let pidfd = alive(&identity).unwrap().unwrap();
        assert!(signal(&pidfd, Signal::KILL).unwrap());
        assert!(wait_gone(std::slice::from_ref(&pidfd), Duration::from_secs(10)));
        assert!(!lives(&identity), "a zombie has ended");
        child.wait().unwrap();
        assert!(!signal(&pidfd, Signal::KILL).unwrap(), "no signal after the end");
        assert!(!lives(&identity));
        assert!(matches!(Identity::of(pid), Err(Error::Gone(p)) if p == pid));
    }

    #[test]
    fn an_identity_survives_storage() {
        let me = Identity::of(super::super::own_pid()).unwrap();
        let json = serde_json::to_string(&me).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), me);
    }
}
