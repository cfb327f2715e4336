//! Replacing the program in place: `matins reexec`, or SIGUSR2.
//!
//! The process stays, the program in it changes: same pid, the control socket open all the time, the
//! state lock held, the launchers still its children. So systemd sees no restart, a client at most
//! waits, and no run notices. First the successor is asked (`examine`) to show that it runs, reads
//! the settings and knows this database; then the engine hands over (`Core::hand_over`), the store
//! closes, and the program is executed. Should that fail after all, the daemon starts again in the
//! same process, with the same socket and lock: also then no run notices.
//!
//! What is executed is the file that the daemon was started as, by the name it was started with: an
//! upgrade may put a new file there, or turn a link. `/proc/self/exe` would be the old one for ever.

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::activation::{GIVEN, HTTP, OWN};
use super::listen::Kept;
use super::notify;
use crate::config::Env;
use crate::engine::{Core, NotReplaced, Successor};
use crate::proc;
use crate::task::OnEnd;

/// Tells the successor whom it replaces.
pub const REPLACES: &str = "MATINS_REPLACES";
/// Tells the successor when the daemon was started, Unix ms: a replacement is no start.
const STARTED: &str = "MATINS_STARTED";
/// Longest time for the successor to show that it runs.
const EXAMINE_MAX: Duration = Duration::from_secs(30);
/// Lowest number of a descriptor that is handed over.
const FIRST_FD: i32 = 100;
/// Tries to find numbers in a row that nobody uses.
const PLACES: i32 = 16;

/// When the daemon was started that this program goes on with, Unix ms; `None` where it is a start.
/// One before that does not tell it has decided its start long ago.
#[must_use]
pub fn start_before(env: &Env) -> Option<i64> {
    env.get(REPLACES)?;
    let told = env.get(STARTED).and_then(|v| v.to_str()).and_then(|v| v.parse().ok());
    Some(told.unwrap_or(i64::MIN))
}

/// What a program says of itself (`matins __successor`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfReport {
    /// Its version.
    pub version: String,
    /// The newest database schema that it knows.
    pub schema: i64,
}

impl SelfReport {
    /// This program's.
    #[must_use]
    pub fn own() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), schema: crate::store::newest_schema() }
    }
}

/// How this process was started, so that it can be done again.
#[derive(Debug, Clone)]
pub struct Invocation {
    exe: PathBuf,
    args: Vec<OsString>,
    config: Option<PathBuf>,
}

impl Invocation {
    /// This process's; `config` is the settings file that it was given, if it was.
    ///
    /// # Errors
    /// Where its own file cannot be found.
    pub fn of_process(config: Option<&Path>) -> io::Result<Self> {
        let mut args = std::env::args_os();
        let name = args.next().map(PathBuf::from).unwrap_or_default();
        let file = std::env::current_exe()?;
        let named = name.components().count() > 1 && same(&name, &file);
        let exe = if named { std::path::absolute(&name)? } else { file };
        Ok(Self { exe, args: args.collect(), config: config.map(Path::to_owned) })
    }

    /// Asks the file that is now where this program was started from whether it can take over.
    ///
    /// # Errors
    /// In words why it cannot.
    pub async fn examine(&self) -> Result<Successor, String> {
        let exe = self.exe.display();
        let mut args = vec![OsString::from("__successor")];
        args.extend(self.config.iter().flat_map(|file| [OsString::from("--config"), file.into()]));
        let asked = proc::ask(&self.exe, &args, EXAMINE_MAX).await;
        let asked = asked.map_err(|e| format!("{exe} cannot be run: {e}"))?;
        if !asked.success {
            let said = asked.stderr.trim();
            let said = if said.is_empty() { "it ended without a word" } else { said };
            return Err(format!("{exe} cannot take over: {said}"));
        }
        let report: SelfReport = serde_json::from_str(&asked.stdout)
            .map_err(|_| format!("{exe} is no matins that can take over"))?;
        let own = SelfReport::own();
        if report.schema < own.schema {
            return Err(format!(
                "{exe} is matins {}, which knows databases up to version {}; this one has version {}",
                report.version, report.schema, own.schema
            ));
        }
        Ok(Successor { version: report.version, exe: exe.to_string() })
    }

    /// Becomes the successor. Comes back only with the reason why not.
    #[must_use]
    pub fn replace(&self, socket: &Kept, tcp: Option<&TcpListener>, started_ms: i64) -> io::Error {
        let control = socket.listener();
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(control.as_fd()).chain(tcp.map(AsFd::as_fd)).collect();
        let placed = match place(&fds) {
            Ok(placed) => placed,
            Err(e) => return e,
        };
        let first = placed.first().map_or(0, AsRawFd::as_raw_fd);
        let names: Vec<&str> = [if socket.own { OWN } else { GIVEN }, HTTP][..placed.len()].to_vec();
        let env = [
            (REPLACES, env!("CARGO_PKG_VERSION").to_owned()),
            (STARTED, started_ms.to_string()),
            ("LISTEN_FDS", placed.len().to_string()),
            ("LISTEN_FDS_FIRST_FD", first.to_string()),
            ("LISTEN_PID", proc::own_pid().to_string()),
            ("LISTEN_FDNAMES", names.join(":")),
        ];
        proc::become_program(&self.exe, &self.args, &env)
    }
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Copies of the sockets on numbers in a row, open for the successor.
fn place(sockets: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    let count = i32::try_from(sockets.len()).map_err(io::Error::other)?;
    for base in (0..PLACES).map(|n| FIRST_FD + n * count.max(1)) {
        let copies = sockets.iter().zip(base..).map(|(s, number)| fcntl_dupfd_cloexec(s, number));
        let copies = copies.collect::<Result<Vec<_>, _>>()?;
        if copies.iter().zip(base..).all(|(fd, number)| fd.as_raw_fd() == number) {
            for fd in &copies {
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            return Ok(copies);
        }
    }
    Err(io::Error::other("no numbers in a row are free for the sockets"))
}

/// Carries requests out: examines, answers, and hands over where the answer was yes.
pub fn watch(core: &Arc<Core>, invocation: Invocation) {
    let Some(mut asks) = core.handover.requests() else {
        return;
    };
    let acting = Arc::clone(core);
    core.tasks.spawn("replacement", OnEnd::Logged, async move {
        loop {
            let ask = tokio::select! {
                () = acting.tasks.stop().softened() => return,
                ask = asks.recv() => ask,
            };
            let Some(ask) = ask else { return };
            match invocation.examine().await {
                Ok(_) if acting.tasks.stop().is_soft() => return,
                Ok(successor) => {
                    tracing::info!(
                        "replacing this program by {}, matins {}: runs go on",
                        successor.exe,
                        successor.version
                    );
                    notify::reloading("replacing the program");
                    // Who asked may have gone.
                    let _ = ask.send(Ok(successor));
                    return acting.begin_handover().await;
                }
                Err(why) => {
                    tracing::error!("not replaced: {why}");
                    let _ = ask.send(Err(NotReplaced::Refused(why)));
                }
            }
        }
    });
}
