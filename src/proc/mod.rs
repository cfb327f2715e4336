//! Processes: the only user of `Command`, and the only place that names, signals or reaps one.
//!
//! A process is named by its [`Identity`] (boot, pid, start time, pidfd inode) and reached through a
//! pidfd, never by its pid alone: pids are reused, and supervisors that trusted them have killed
//! strangers. Every signal to a process that is not our own unreaped child goes through a pidfd that
//! was opened first and compared afterwards, so the process that was checked is the one that is hit.
//!
//! A tree is contained by descent, not by process groups: a `setsid` grandchild leaves its group, but
//! a launcher that is a sub-reaper stays its ancestor. [`descendants`] therefore reads `/proc`.
//!
//! What a program leaves behind is no more trusted than the program: files are made and read by pieces that follow
//! no link and wait for no FIFO ([`create_anew`], [`open_regular`]).
//!
//! Waiting for "any child" belongs to the single-threaded launcher alone ([`reap_any`]); in the daemon
//! it would take exit codes away from tokio. Everything here is safe code on top of rustix.

mod cgroup;
mod child;
mod descent;
mod ending;
mod files;
mod identity;
mod landlock;
mod lock;
mod own;
mod replace;
mod sockets;
mod spawn;
mod tree;
mod user;

use std::io;
use std::path::PathBuf;

pub use cgroup::{CONTROLLERS, Delegated, Group, GroupLimits, Places};
pub use child::{Child, Finished, Pipes, run_to_end, run_with_input};
pub use descent::{Descent, descent, peer_pidfd};
pub use ending::Ending;
pub use files::{
    append_anew, create_anew, is_cut, make_dir, make_dirs, open_regular, read_regular, remove_any,
    write_anew, write_whole,
};
pub use identity::{Identity, alive, boot_id, signal, wait_gone};
pub use landlock::{ENTRIES_MAX, Fence, Reach, confine, landlock_version};
pub use lock::{LockHolder, StateLock, lock_holder};
pub use own::{
    Reaped, Status, close_on_exec, host_name, is_subreaper, own_pid, own_session, reap_any, reap_one,
    set_core_limit_zero, set_data_limit, set_non_dumpable, set_session, set_subreaper, wait_for,
};
pub use replace::{Asked, ask, become_program, reap_ended};
pub use rustix::process::Signal;
pub use sockets::{Socket, holds_socket, tcp_socket};
pub use spawn::{LAUNCHER_MARKER, Program, exec, find_program, spawn_launcher, start, start_step};
pub use tree::{
    Member, all, descendants, environ_holds, kill_tree, launchers, member, signal_group, signal_member,
    signal_tree,
};

pub use user::{User, become_user, find_user, give, is_root};

/// What can go wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process any more.
    #[error("process {0} is gone")]
    Gone(i32),
    /// The kernel gives nothing that tells this process from a later one with the same pid.
    #[error("process {0} cannot be identified: neither its start time nor its pidfd inode can be read")]
    Unidentified(i32),
    /// Another process holds the state lock.
    #[error(
        "{path} is locked by {holder}; another daemon uses this state directory",
        path = path.display(),
        holder = holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's pid; `None` where it lives in another pid namespace.
        holder: Option<i32>,
    },
    /// The kernel cannot deny TCP.
    #[error(
        "`limits.network: deny` needs Landlock of version 4 (Linux 6.7) or newer, which this kernel does not have \
         or has turned off; `matins doctor` says more"
    )]
    NoTcpRules,
    /// More than [`ENTRIES_MAX`] entries beside what is hidden.
    #[error(
        "there are more than {ENTRIES_MAX} entries in the folders above what the sandbox hides, of late in {folder}; \
         move the state directory to a folder of its own, or set `sandbox: off`",
        folder = .0.display()
    )]
    TooManyEntries(PathBuf),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    fn system(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let what = what.into();
        move |e| Self::System { what, source: e.into() }
    }
}
