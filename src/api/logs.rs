//! The logs of a run: what its program wrote, byte for byte, in one read or followed to the end.
//!
//! A follower polls the file and is woken early when some run changes; it never holds more than a
//! chunk. An answer says where in the log it begins; with that and the bytes it got, a follower that was
//! broken off comes back to the very byte. That the run has ended is learnt before the last read, so nothing that was written before
//! the end is missed. A log that is not there yet is empty.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::extract::Params;
use super::logfile::{LogFile, NOT_REGULAR};
use super::loglines::{Lines, LogLine, Place, SEARCH_MAX, Wanted};
use super::stream::KEEP_ALIVE;
use super::{ApiError, App, Caller, events};
use crate::engine::Core;
use crate::exec::{AttemptDir, RunDirs};
use crate::task::blocking;

/// Header that says in which attempt an answer begins.
pub const LOG_ATTEMPT: &str = "x-log-attempt";
/// Header that says at which byte of that attempt's log an answer begins.
pub const LOG_OFFSET: &str = "x-log-offset";
/// How often a follower looks for more where nothing wakes it.
const RECHECK: Duration = Duration::from_millis(100);
/// Re-checks after which a follower looks at the rows although nothing woke it: a wake-up is a hint.
const RECHECKS_MAX: u32 = 20;
/// Rest of a follower that was woken, so that a busy daemon does not keep it spinning.
const WOKEN_REST: Duration = Duration::from_millis(20);

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Which of the two.
    #[param(inline)]
    stream: Stream,
    /// The attempt in which `offset` and `line` count; by default the latest.
    attempt: Option<u32>,
    /// First byte that is answered.
    offset: Option<u64>,
    /// Most bytes that are read.
    limit: Option<u64>,
    /// Only the last lines, this many.
    tail: Option<u64>,
    /// First line that is answered, from 1.
    #[param(minimum = 1)]
    line: Option<u64>,
    /// Lines that are looked at, this many.
    #[param(minimum = 1)]
    lines: Option<u64>,
    /// Only lines that hold this text, in any case.
    #[param(min_length = 1, max_length = 1000)]
    q: Option<String>,
    /// Goes on until the run has ended.
    follow: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Stream {
    #[default]
    Stdout,
    Stderr,
}

/// The log of the latest attempt of a run.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/logs",
    operation_id = "get_event_logs",
    tag = "runs",
    params(Query, ("Last-Event-ID" = Option<String>, Header, pattern = "^([0-9]{1,9}:[0-9]{1,18}(:[0-9]{1,18})?)?$", description = "Of events only: id of the last one that was seen; the log goes on after it")),
    responses(
        (status = 200, description = "The bytes as they were written; lines (LogLine) as JSON with `Accept: application/x-ndjson`, \
            and as events `line` and `end` with `Accept: text/event-stream`", content(
                (String = "text/plain"), (LogLine = "application/x-ndjson"), (LogLine = "text/event-stream")
            ), headers(
                    ("x-log-attempt" = u32, description = "The attempt in which the answer begins"),
                    ("x-log-offset" = u64, description = "The byte of that attempt's log at which it begins"),
                )),
        (status = 409, description = "The id is a prefix of several, or something else lies where the log was"),
        (status = 410, description = "The logs were removed to spare the disk")
    )
)]
pub async fn logs(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Params(mut query): Params<Query>,
) -> Result<Response, ApiError> {
    let form = Form::of(&headers);
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let place = last.filter(|id| !id.is_empty()).map(Place::read).transpose()?;
    let place = place.filter(|_| form == Form::Events);
    query.check()?;
    if let Some(place) = place {
        query = query.from(place);
    }
    let (number, id) = events::find(&app, &caller, &name).await?;
    let event = app.core.store.event(number).await?.map(|detail| detail.event);
    if event.as_ref().is_some_and(|event| event.logs_removed) {
        return Err(ApiError::logs_removed(id));
    }
    let dirs = RunDirs::new(app.core.state_dir(), id);
    let mut reader = Reader::new(&app.core, caller, number, dirs, &query);
    reader.look().await?;
    let begun = reader.begin(&query).await;
    begun.map_err(|e| {
        if is_replaced(&e) {
            return ApiError::log_replaced(id);
        }
        let agent = event.as_ref().map(|event| event.agent_id.as_str());
        tracing::error!(run.id = %id, agent, error = %e, "a log of run {id} cannot be read: {e}");
        ApiError::internal()
    })?;
    let (attempt, offset) = (reader.attempt.to_string(), reader.position.to_string());
    let answer = form.answer(reader, query.wanted(place));
    Ok(([(LOG_ATTEMPT, attempt), (LOG_OFFSET, offset)], answer).into_response())
}

impl Query {
    fn check(&self) -> Result<(), ApiError> {
        let counted = self.line.is_some() || self.lines.is_some();
        if self.offset.is_some() && self.tail.is_some() {
            return Err(ApiError::parameter("tail", "it cannot be combined with offset"));
        }
        if self.line.is_some() && (self.offset.is_some() || self.tail.is_some()) {
            return Err(ApiError::parameter("line", "it cannot be combined with offset or tail"));
        }
        if counted && (self.line == Some(0) || self.lines == Some(0)) {
            return Err(ApiError::parameter(
                if self.line == Some(0) { "line" } else { "lines" },
                "it counts from 1",
            ));
        }
        match self.q.as_deref() {
            Some("") => Err(ApiError::parameter("q", "there is nothing to search for")),
            Some(q) if q.chars().count() > SEARCH_MAX => {
                Err(ApiError::parameter("q", &format!("it is longer than {SEARCH_MAX} characters")))
            }
            _ => Ok(()),
        }
    }

    /// The same from where a reader was cut off.
    fn from(self, place: Place) -> Self {
        let (attempt, offset) = (Some(place.attempt), Some(place.offset));
        Self { attempt, offset, tail: None, ..self }
    }

    fn wanted(&self, place: Option<Place>) -> Option<Wanted> {
        let plain = self.line.is_none() && self.lines.is_none() && self.q.is_none();
        let number = place.and_then(|place| place.line);
        let search = self.q.as_deref().unwrap_or_default().to_lowercase();
        // Of the lines that were asked for some have been seen.
        let seen = number.zip(self.line.or(Some(1))).map_or(0, |(next, first)| next.saturating_sub(first));
        let lines = self.lines.map(|lines| lines.saturating_sub(seen));
        (!plain || place.is_some()).then(|| Wanted { first: self.line.unwrap_or(1), lines, search, number })
    }
}

/// In which form a log is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Events,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        let mut words = accepted
            .flat_map(|accept| accept.split(','))
            .map(|word| word.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        words
            .find_map(|word| match word.as_str() {
                "text/event-stream" => Some(Self::Events),
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Json),
                "text/plain" => Some(Self::Text),
                _ => None,
            })
            .unwrap_or(Self::Text)
    }

    fn answer(self, reader: Reader, wanted: Option<Wanted>) -> Response {
        let wanted = match (self, wanted) {
            (Self::Text, None) => return bytes(reader),
            (_, wanted) => wanted.unwrap_or_default(),
        };
        let lines = Lines::new(reader, wanted);
        match self {
            Self::Events => sent(lines),
            Self::Json => cut(lines, "application/x-ndjson", LogLine::json),
            Self::Text => cut(lines, TEXT, LogLine::text),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn body(kind: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response()
}

/// The bytes as they are.
fn bytes(reader: Reader) -> Response {
    let chunks = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
    body(TEXT, Body::from_stream(chunks))
}

/// Lines, each in a form.
fn cut(lines: Lines, kind: &'static str, form: fn(&LogLine) -> Bytes) -> Response {
    let lines = stream::unfold(lines, move |mut lines| async move {
        let line = lines.next().await?;
        Some((line.map(|line| form(&line)), lines))
    });
    body(kind, Body::from_stream(lines))
}

/// Lines as events, and one more where there will be no other.
fn sent(lines: Lines) -> Response {
    let events = stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await {
            Some(Ok(line)) => Some((Ok::<_, io::Error>(line.event()), Some(lines))),
            Some(Err(e)) => Some((Err(e), None)),
            None if lines.is_whole() => Some((Ok(Sent::default().event("end").data("{}")), None)),
            None => None,
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// A log on its way to a reader.
pub(super) struct Reader {
    core: Arc<Core>,
    caller: Caller,
    number: i64,
    dirs: RunDirs,
    runs: PathBuf,
    stream: Stream,
    feed: watch::Receiver<u64>,
    follow: bool,
    /// Whether nothing will be written any more, as far as was known before the last read.
    settled: bool,
    /// The attempt that is read; 0 before the first.
    pub(super) attempt: u32,
    /// The run's attempt now.
    latest: u32,
    file: Option<LogFile>,
    /// The byte of that attempt's log that is read next.
    pub(super) position: u64,
    /// Bytes that may still be sent.
    left: u64,
    /// Re-checks since the last look at the rows.
    rechecks: u32,
}

impl Reader {
    fn new(core: &Arc<Core>, caller: Caller, number: i64, dirs: RunDirs, query: &Query) -> Self {
        Self {
            feed: core.feed(),
            runs: core.state_dir().join("runs"),
            core: Arc::clone(core),
            caller,
            number,
            dirs,
            stream: query.stream,
            follow: query.follow,
            settled: false,
            attempt: 0,
            latest: 0,
            file: None,
            position: 0,
            left: query.limit.unwrap_or(u64::MAX),
            rechecks: 0,
        }
    }

    /// Learns from the rows which attempt is the latest and whether the run has ended.
    async fn look(&mut self) -> Result<(), crate::store::Error> {
        let ended = self.core.drained().is_cancelled();
        self.feed.mark_unchanged();
        self.rechecks = 0;
        let event = self.core.store.event(self.number).await?.map(|detail| detail.event);
        self.settled = ended || event.as_ref().is_none_or(|e| e.status.is_terminal());
        self.latest = event.map_or(self.latest, |e| u32::try_from(e.attempt).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Opens the latest log and goes to where the reader wants to begin. Without `follow` what is
    /// written later is left out, so that a program that writes faster than it is read ends the read.
    async fn begin(&mut self, query: &Query) -> io::Result<()> {
        self.attempt = query.attempt.map_or(self.latest, |attempt| attempt.min(self.latest));
        self.open().await?;
        self.position = query.offset.unwrap_or(0);
        self.count_on(query).await?;
        let Some(file) = self.file.clone() else { return Ok(()) };
        if let Some(lines) = query.tail {
            let file = file.clone();
            self.position = blocking(move || file.tail(lines)).await??;
        }
        if !self.follow {
            let len = blocking(move || file.len()).await??;
            self.left = self.left.min(len.saturating_sub(self.position));
        }
        Ok(())
    }

    /// A follower knows in which attempt it began and counts on where the next one's log follows; what
    /// lies beyond the end of an attempt that is over is counted in the next.
    async fn count_on(&mut self, query: &Query) -> io::Result<()> {
        while query.attempt.is_some() && self.attempt < self.latest {
            let len = match self.file.clone() {
                Some(file) => blocking(move || file.len()).await??,
                None => 0,
            };
            if self.position <= len {
                return Ok(());
            }
            (self.position, self.attempt, self.file) = (self.position - len, self.attempt + 1, None);
            self.open().await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> io::Result<()> {
        if self.attempt == 0 {
            return Ok(());
        }
        let path = log_path(&self.dirs.attempt(self.attempt), self.stream);
        let runs = self.runs.clone();
        self.file = blocking(move || {
            let below: &FilePath = path.strip_prefix(&runs).unwrap_or(&path);
            LogFile::open(&runs, below)
        })
        .await??;
        Ok(())
    }

    /// Whether nothing will be written any more.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            // Who was shut out meanwhile hears of nothing more.
            if self.left == 0 || (self.follow && !self.caller.is_still_in(&self.core)) {
                return None;
            }
            match self.read().await {
                Ok(chunk) if !chunk.is_empty() => return Some(Ok(chunk)),
                Ok(_) => {}
                // Nobody can come back to it, so it ends here and is not broken off.
                Err(e) if is_replaced(&e) => {
                    self.left = 0;
                    return None;
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a log broke off while it was read: {e}");
                    self.left = 0;
                    return Some(Err(e));
                }
            }
            if self.attempt < self.latest {
                self.next_attempt().await;
            } else if self.settled || !self.follow {
                return None;
            } else if self.core.handover.begun().is_cancelled() {
                // Broken off, not ended: who follows comes back to the next program.
                self.left = 0;
                return Some(Err(io::Error::other("the daemon is being replaced")));
            } else {
                self.wait().await;
            }
        }
    }

    /// Goes on in the log of the next attempt. A reader who comes back counts on from where it began,
    /// over the logs of all attempts since.
    async fn next_attempt(&mut self) {
        let len = match self.file.take() {
            Some(file) => blocking(move || file.len()).await.map_or(0, |len| len.unwrap_or(0)),
            None => 0,
        };
        self.attempt += 1;
        self.position = self.position.saturating_sub(len);
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        if self.file.is_none() {
            self.open().await?;
        }
        let Some(file) = self.file.clone() else { return Ok(Bytes::new()) };
        let (position, left) = (self.position, self.left);
        let chunk = blocking(move || file.read_at(position, left)).await??;
        self.position += chunk.len() as u64;
        self.left -= chunk.len() as u64;
        Ok(chunk.into())
    }

    /// Waits until there may be more, then looks at the rows if one of them has changed.
    async fn wait(&mut self) {
        let drained = self.core.drained();
        let woken = tokio::select! {
            changed = self.feed.changed() => changed.is_ok(),
            () = drained.cancelled() => true,
            () = self.core.handover.begun().cancelled() => return,
            () = tokio::time::sleep(RECHECK) => false,
        };
        self.rechecks += 1;
        if woken {
            tokio::time::sleep(WOKEN_REST).await;
        }
        if (woken || self.rechecks >= RECHECKS_MAX)
            && let Err(e) = self.look().await
        {
            tracing::warn!(error = %e, "a follower of a log cannot see its run any more: {e}");
            self.settled = true;
        }
    }
}

/// Whether something else lies where a log should: a link, a folder, a FIFO.
fn is_replaced(e: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, NotADirectory};
    let linked = rustix::io::Errno::from_io_error(e) == Some(rustix::io::Errno::LOOP);
    linked || matches!(e.kind(), CrossesDevices | NotADirectory) || e.to_string() == NOT_REGULAR
}

fn log_path(attempt: &AttemptDir, stream: Stream) -> PathBuf {
    match stream {
        Stream::Stdout => attempt.stdout(),
        Stream::Stderr => attempt.stderr(),
    }
}
