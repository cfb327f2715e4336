//! Streaming what a run writes, byte for byte.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::failure::{FAILED, Failure, NO_DAEMON, TRY_AGAIN};
use super::output::unprinted;
use super::{Done, Session};
use crate::api::{LOG_ATTEMPT, LOG_OFFSET};
use crate::task;

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
    // Asked again after a break, `@last` would be another run.
    let found = session.client.get(&["v1", "events", run], &[]).await?;
    let id = found["data"]["id"].as_str().unwrap_or(run);
    let log = open(session, id, wanted).await?;
    match copy(session, log, Sink::Stdout, &Screen::default()).await? {
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

/// Longest time without a daemon after which following goes on: a restart, a replacement, an upgrade.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rest between two tries to reach it.
const REST: Duration = Duration::from_millis(100);

/// Where in a run's log a reader is: the attempt and the byte, as the daemon counts them.
#[derive(Debug, Clone, Copy)]
struct Position {
    attempt: u64,
    offset: u64,
}

impl Position {
    fn of(answer: &reqwest::Response) -> Option<Self> {
        let number = |name: &str| answer.headers().get(name)?.to_str().ok()?.parse().ok();
        Some(Self { attempt: number(LOG_ATTEMPT)?, offset: number(LOG_OFFSET)? })
    }
}

/// A log that is read, from where it was asked for.
pub struct Log<'r> {
    /// The run, as it was named.
    pub run: &'r str,
    /// Whether it is what the run wrote on stderr.
    pub stderr: bool,
    query: Vec<(&'static str, String)>,
    answer: reqwest::Response,
    /// Where it goes on; nothing where it is not followed.
    position: Option<Position>,
}

/// Asks for a log.
///
/// # Errors
/// What the daemon says is wrong.
pub async fn open<'r>(session: &Session, run: &'r str, wanted: &Wanted) -> Result<Log<'r>, Failure> {
    let mut query = vec![("stream", if wanted.stderr { "stderr" } else { "stdout" }.to_owned())];
    if wanted.follow {
        query.push(("follow", "true".to_owned()));
    }
    let tail = wanted.tail.map(|lines| ("tail", lines.to_string()));
    let first: Vec<_> = query.iter().cloned().chain(tail).collect();
    let answer = session.client.stream(&["v1", "events", run, "logs"], &first).await?;
    let position = Position::of(&answer).filter(|_| wanted.follow);
    Ok(Log { run, stderr: wanted.stderr, query, answer, position })
}

/// Where several logs are written to: one piece at a time, in the order in which they came.
#[derive(Debug, Default)]
pub struct Screen {
    /// Whether the last piece that a terminal got ended within a line.
    broken: tokio::sync::Mutex<bool>,
}

impl Screen {
    /// Whether a message would begin within a line of somebody else.
    pub async fn broken_line(&self) -> bool {
        *self.broken.lock().await
    }

    async fn write(&self, sink: Sink, chunk: Vec<u8>) -> io::Result<()> {
        let seen = match sink {
            Sink::Stdout => io::stdout().is_terminal(),
            Sink::Stderr => true,
            Sink::Nowhere => false,
        };
        let mut broken = self.broken.lock().await;
        if let Some(last) = chunk.last().filter(|_| seen) {
            *broken = *last != b'\n';
        }
        write(sink, chunk).await
    }
}

/// Copies a log to `sink` as it comes. Following goes on where it was when the daemon is back.
///
/// # Errors
/// What the daemon says is wrong, and a daemon that goes away.
pub async fn copy(session: &Session, log: Log<'_>, sink: Sink, screen: &Screen) -> Result<Ended, Failure> {
    let Log { run, query, mut answer, mut position, .. } = log;
    let path = ["v1", "events", run, "logs"];
    // Whether the run had ended before what is read now was asked for.
    let mut over = false;
    loop {
        match answer.chunk().await {
            // A daemon that stops ends a log too; the run may go on under the next one.
            Ok(None) => match position {
                Some(at) if !over => {
                    over = patiently(|| has_ended(session, run)).await?;
                    answer = patiently(|| resume(session, &path, &query, at)).await?;
                }
                _ => return Ok(Ended::Whole),
            },
            Ok(Some(chunk)) => {
                if let Some(position) = &mut position {
                    position.offset += chunk.len() as u64;
                }
                match screen.write(sink, chunk.to_vec()).await {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Ended::ReaderGone),
                    Err(e) => return Err(unprinted(&e)),
                }
            }
            Err(_) => {
                let Some(at) = position else { return Err(broke_off(run)) };
                let again = patiently(|| resume(session, &path, &query, at)).await;
                answer = again.map_err(|e| if e.code == NO_DAEMON { broke_off(run) } else { e })?;
            }
        }
    }
}

/// Whether a run will write no more.
async fn has_ended(session: &Session, run: &str) -> Result<bool, Failure> {
    let answer = session.client.get(&["v1", "events", run], &[]).await?;
    Ok(matches!(answer["data"]["status"].as_str(), Some("COMPLETED" | "FAILED")))
}

/// Asks for what follows a position.
async fn resume(
    session: &Session,
    path: &[&str],
    query: &[(&str, String)],
    at: Position,
) -> Result<reqwest::Response, Failure> {
    let place = [("attempt", at.attempt.to_string()), ("offset", at.offset.to_string())];
    let query: Vec<_> = query.iter().cloned().chain(place).collect();
    session.client.stream(path, &query).await
}

fn broke_off(run: &str) -> Failure {
    Failure::new(NO_DAEMON, format!("the log of run {run} broke off: the daemon went away"))
        .hint("the run goes on without the daemon; `matins status` shows when it is back")
}

/// Asks again while no daemon answers, for a while.
///
/// # Errors
/// Those of the question; that of the last one where nobody came back.
pub async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(e) if matches!(e.code, NO_DAEMON | TRY_AGAIN) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(REST).await;
            }
            answer => return answer,
        }
    }
}

/// Writes in a thread of its own: a reader that does not read must not keep Ctrl-C from being heard.
async fn write(sink: Sink, chunk: Vec<u8>) -> io::Result<()> {
    let written = task::blocking(move || match sink {
        Sink::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&chunk).and_then(|()| stdout.flush())
        }
        Sink::Stderr => io::stderr().lock().write_all(&chunk),
        Sink::Nowhere => Ok(()),
    });
    written.await?
}

/// A failure of something that cannot be waited for.
pub fn unwaited(error: &io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot wait for Ctrl-C: {error}"))
}
