//! Streaming what a run writes, byte for byte.

use std::io::{self, Write as _};

use super::failure::{FAILED, Failure, NO_DAEMON};
use super::output::unprinted;
use super::{Done, Session};

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Our stdout.
    Stdout,
    /// Our stderr.
    Stderr,
    /// Nowhere: only the end is waited for.
    Nowhere,
}

/// Which part of which log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Go on until the run has ended.
    pub follow: bool,
    /// What it wrote on stderr.
    pub stderr: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
}

/// `matins logs`.
pub async fn logs(session: &Session, run: &str, wanted: &Wanted) -> Done {
    match copy(session, run, wanted, Sink::Stdout).await? {
        Ended::Whole => Ok(0),
        Ended::ReaderGone => Err(Failure::quiet(0)),
    }
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was written.
    Whole,
    /// Nobody reads our output any more.
    ReaderGone,
}

/// Copies a log to `sink` as it comes.
///
/// # Errors
/// What the daemon says is wrong, and a daemon that goes away.
pub async fn copy(session: &Session, run: &str, wanted: &Wanted, sink: Sink) -> Result<Ended, Failure> {
    let mut query = vec![("stream", if wanted.stderr { "stderr" } else { "stdout" }.to_owned())];
    if wanted.follow {
        query.push(("follow", "true".to_owned()));
    }
    query.extend(wanted.tail.map(|lines| ("tail", lines.to_string())));
    let mut answer = session.client.stream(&["v1", "events", run, "logs"], &query).await?;
    loop {
        match answer.chunk().await {
            Ok(None) => return Ok(Ended::Whole),
            Ok(Some(chunk)) => match write(sink, chunk.to_vec()).await {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Ended::ReaderGone),
                Err(e) => return Err(unprinted(&e)),
            },
            Err(_) => {
                let message = format!("the log of run {run} broke off: the daemon went away");
                return Err(Failure::new(NO_DAEMON, message)
                    .hint("the run goes on without the daemon; `matins status` shows when it is back"));
            }
        }
    }
}

/// Writes in a thread of its own: a reader that does not read must not keep Ctrl-C from being heard.
async fn write(sink: Sink, chunk: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || match sink {
        Sink::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&chunk).and_then(|()| stdout.flush())
        }
        Sink::Stderr => io::stderr().lock().write_all(&chunk),
        Sink::Nowhere => Ok(()),
    });
    written.await.map_err(io::Error::other)?
}

/// A failure of something that cannot be waited for.
pub fn unwaited(error: &io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot wait for Ctrl-C: {error}"))
}
