//! What a process does to itself and to its own children: session, sub-reaping, dumpability, limits,
//! reaping.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, WaitId, WaitIdOptions, WaitOptions, WaitStatus, child_subreaper,
    getpid, set_child_subreaper, set_dumpable_behavior, setrlimit, setsid, wait, waitid, waitpid,
};

use super::{Error, member};

/// The name of this machine, without its domain.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Status {
    fn of(status: WaitStatus) -> Option<Self> {
        let code = status.exit_status().map(Self::Code);
        code.or_else(|| status.terminating_signal().map(Self::Signal))
    }
}

/// The answer of one look at the children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child ended and is reaped now.
    Child(i32, Status),
    /// Children exist, none has ended.
    Nothing,
    /// There is no child at all.
    NoChildren,
}

/// A pid as rustix has it; 0 and negative numbers name groups or nothing, never a process.
pub(super) fn raw_pid(pid: i32) -> Option<Pid> {
    (pid > 0).then(|| Pid::from_raw(pid)).flatten()
}

/// This process's pid.
#[must_use]
pub fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// This process's session id; 0 where the session's leader is outside of this pid namespace, as in a
/// container. (Read from `/proc`, for the system call's wrapper knows no session 0.)
#[must_use]
pub fn own_session() -> i32 {
    member(own_pid()).map_or(0, |own| own.sid)
}

/// Makes this process the leader of a session of its own. Fails in a process group leader.
pub fn set_session() -> Result<(), Error> {
    setsid().map(drop).map_err(Error::system("start a session"))
}

/// Makes this process the parent of every orphan below it.
pub fn set_subreaper() -> Result<(), Error> {
    set_child_subreaper(Some(getpid())).map_err(Error::system("become a sub-reaper"))
}

/// Whether this process is a sub-reaper.
#[must_use]
pub fn is_subreaper() -> bool {
    matches!(child_subreaper(), Ok(Some(_)))
}

/// Hides this process's memory, environment and descriptors from others of the same user.
pub fn set_non_dumpable() -> Result<(), Error> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Error::system("become non-dumpable"))
}

/// Forbids core files here and in every later child: a core would put secrets on disk.
pub fn set_core_limit_zero() -> Result<(), Error> {
    let zero = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, zero).map_err(Error::system("forbid core files"))
}

/// Limits the data of this process and of each that it will start, for good.
pub fn set_data_limit(bytes: u64) -> Result<(), Error> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit).map_err(Error::system("limit the memory of the program"))
}

/// Reaps one ended child, whichever. ONLY for the single-threaded launcher: in the daemon it would
/// take the exit code that tokio waits for.
#[must_use]
pub fn reap_any() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(status) = Status::of(status) {
                    return Reaped::Child(pid.as_raw_nonzero().get(), status);
                }
            }
            Ok(None) => return Reaped::Nothing,
            Err(Errno::INTR) => {}
            Err(_) => return Reaped::NoChildren,
        }
    }
}

/// Reaps the child of this pidfd, which has ended, and tells how; `None` where it is another's child, or
/// was reaped already.
pub(super) fn reap_known(pidfd: impl AsFd) -> Option<Status> {
    let known = WaitId::PidFd(pidfd.as_fd());
    let status = waitid(known, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
    let code = status.exit_status().map(Status::Code);
    code.or_else(|| status.terminating_signal().map(Status::Signal))
}

/// Reaps this child if it has ended. For orphans that came to a daemon that is a sub-reaper; never
/// for a child that tokio waits for.
pub fn reap_one(pid: i32) {
    if let Some(pid) = raw_pid(pid) {
        // ECHILD: it is not ours, so another process reaps it.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Waits until this child has ended, and reaps it. As [`reap_any`], for the launcher alone.
pub fn wait_for(pid: i32) {
    if let Some(pid) = raw_pid(pid) {
        while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}

/// Makes every descriptor but stdin, stdout and stderr close when a program starts: also those that whoever started
/// the daemon left open, and that no code of ours knows.
pub fn close_on_exec() {
    close_fds::set_fds_cloexec(3, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_from_outside_too() {
        assert_eq!(own_session(), member(own_pid()).unwrap().sid);
        // As in a container: process 1 of a new pid namespace still belongs to a session outside of it.
        let asked = std::env::args().any(|arg| arg == "--nocapture");
        if own_pid() == 1 {
            assert_eq!((asked, own_session()), (true, 0));
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "this test again, in another pid namespace")]
        let inside = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "proc::own::tests::a_session_is_told_from_outside_too", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inside.stderr);
        // A kernel that allows no namespaces has no such process either.
        let allowed = !said.contains("unshare:");
        assert!(!allowed || inside.status.success(), "{said}");
    }
}
