//! Another program in this process, and a question to one before.
//!
//! [`become_program`] keeps the pid, the children, and what of the open files is not closed on purpose;
//! everything else of this process is over. Children that ended while nobody could look are reaped by
//! [`reap_ended`], before the successor has a child of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Reaped, reap_any};

/// Most bytes of an answer that are read; a program that says more is not waited for.
const ANSWER_MAX: u64 = 64 << 10;
/// Variables by which a service manager means its own child only.
const NOT_FOR_OTHERS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// What a program answered.
#[derive(Debug)]
pub struct Asked {
    /// Whether its exit code was 0.
    pub success: bool,
    /// What it wrote on stdout.
    pub stdout: String,
    /// What it wrote on stderr.
    pub stderr: String,
}

/// Runs a program of the daemon's own with the daemon's environment, for at most `limit`.
///
/// # Errors
/// Where it cannot be started, says too much, or takes too long.
#[expect(clippy::disallowed_methods, reason = "the one place that asks programs")]
pub async fn ask(exe: &Path, args: &[OsString], limit: Duration) -> io::Result<Asked> {
    let mut command = tokio::process::Command::new(exe);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for name in NOT_FOR_OTHERS {
        command.env_remove(name);
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answered = async {
        let (stdout, stderr) = tokio::try_join!(whole(stdout), whole(stderr))?;
        Ok(Asked { success: child.wait().await?.success(), stdout, stderr })
    };
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {} s", limit.as_secs()));
    tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| Err(late()))
}

async fn whole(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(ANSWER_MAX + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > ANSWER_MAX {
        return Err(io::Error::other(format!("it says more than {ANSWER_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Replaces this program by another, with these variables beside the present ones. Comes back only
/// with the reason why not.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that replaces the program")]
pub fn become_program(exe: &Path, args: &[OsString], env: &[(&str, String)]) -> io::Error {
    std::process::Command::new(exe).args(args).envs(env.iter().map(|(n, v)| (n, v))).exec()
}

/// Reaps the children that ended while the program was replaced. ONLY before this process has a
/// runtime: later it would take exit codes away from it.
pub fn reap_ended() {
    while let Reaped::Child(..) = reap_any() {}
}
