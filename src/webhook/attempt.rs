//! One attempt: one POST, bounded in time and memory, with an outcome that is data and never an
//! error.
//!
//! The status decides. A receiver that answered 2xx has the message, whatever becomes of the rest of
//! its answer, and everything else is a failure; the answer's body is kept for people only. The
//! total time-out covers everything from the name to the last byte that is read.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use super::format::{Ntfy, header};
use super::{Secrets, explain};
use crate::ids::DeliveryId;
use crate::model::Format;
use crate::net::{self, Reach, check_url};
use crate::secret::{ExposeSecret as _, SecretString};
use crate::time::{Clock, human_duration, millis};

/// Most bytes of an answer that are read and kept; then the connection is dropped.
pub const RESPONSE_MAX: usize = 16 << 10;

/// How long an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name, the connection and the TLS handshake.
    pub connect: Duration,
    /// For everything, the answer's body included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(20) }
    }
}

/// How a message shows where it is from.
#[derive(Debug, Clone, Copy)]
pub enum Auth<'a> {
    /// Not at all.
    None,
    /// By its signature.
    Signed(&'a Secrets),
    /// By an access token, as ntfy asks for.
    Token(&'a SecretString),
}

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    /// Its URL, http or https.
    pub url: &'a str,
    /// How the message shows where it is from.
    pub auth: Auth<'a>,
    /// The shape of its messages.
    pub format: Format,
    /// Which addresses it may have.
    pub reach: Reach,
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began, Unix milliseconds.
    pub started_ms: i64,
    /// How long it took, milliseconds, on the monotonic clock.
    pub duration_ms: i64,
    /// Status of the answer; `None` where none came.
    pub status: Option<u16>,
    /// Why it failed, in one sentence; `None` where it did not.
    pub error: Option<String>,
    /// The first [`RESPONSE_MAX`] bytes of the answer's body.
    pub response: Vec<u8>,
    /// How long the receiver asks to be left alone, from the end of this attempt.
    pub retry_after: Option<Duration>,
    /// Whether the receiver has the message: it answered 2xx.
    pub delivered: bool,
    /// Whether the receiver wants no more messages at all: it answered 410.
    pub gone: bool,
}

/// Sends messages. One for the whole daemon: it keeps connections.
#[derive(Debug)]
pub struct Sender {
    timeouts: Timeouts,
    public: OnceLock<Client>,
    private: OnceLock<Client>,
}

/// An answer's head, and as much of its body as was read.
pub(super) struct Answer {
    pub status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sender {
    /// A sender. Its clients are built by the first attempts that need them: a daemon without
    /// webhooks reads no CA certificates, and one without CA certificates still starts.
    #[must_use]
    pub fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, public: OnceLock::new(), private: OnceLock::new() }
    }

    /// Makes one attempt to deliver `body`. Cancelling it drops the connection; whether the
    /// receiver has the message is then unknown.
    pub async fn attempt(
        &self,
        clock: &dyn Clock,
        endpoint: &Endpoint<'_>,
        id: &DeliveryId,
        body: &str,
    ) -> Attempt {
        let (started_ms, started) = (clock.now_ms(), Instant::now());
        let outcome = self.post(endpoint, id, started_ms, body).await;
        let mut attempt = Attempt {
            started_ms,
            duration_ms: millis(started.elapsed()),
            status: None,
            error: None,
            response: Vec::new(),
            retry_after: None,
            delivered: false,
            gone: false,
        };
        match outcome {
            Ok(answer) => attempt.take(answer, clock.now_ms()),
            Err(sentence) => attempt.error = Some(sentence),
        }
        attempt
    }

    async fn post(
        &self,
        endpoint: &Endpoint<'_>,
        id: &DeliveryId,
        now_ms: i64,
        body: &str,
    ) -> Result<Answer, String> {
        let url = check_url(endpoint.url, endpoint.reach).map_err(|e| e.to_string())?;
        let timestamp_s = now_ms.div_euclid(1000);
        let request = self
            .client(endpoint.reach)?
            .post(url.clone())
            .header(standardwebhooks::HEADER_WEBHOOK_ID, id.as_str())
            .header(standardwebhooks::HEADER_WEBHOOK_TIMESTAMP, timestamp_s);
        let request = shaped(request, endpoint.format, body)?;
        let request = match endpoint.auth {
            Auth::None => request,
            Auth::Signed(secrets) => {
                let signature = secrets.sign(id, timestamp_s, body);
                request.header(standardwebhooks::HEADER_WEBHOOK_SIGNATURE, signature)
            }
            Auth::Token(token) => request.bearer_auth(token.expose_secret()),
        };
        self.send(request, &url).await
    }

    /// Sends a request and reads its answer, both within the total time-out.
    pub(super) async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Answer, String> {
        let deadline = tokio::time::Instant::now() + self.timeouts.total;
        match tokio::time::timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(Answer::read(response, deadline).await),
            Ok(Err(e)) => Err(explain::request(&e, url, self.timeouts.connect)),
            Err(_) => Err(self.timed_out(url)),
        }
    }

    fn timed_out(&self, url: &Url) -> String {
        let total = human_duration(self.timeouts.total);
        format!("timed out after {total} while waiting for an answer of {}", explain::place(url))
    }

    pub(super) fn client(&self, reach: Reach) -> Result<&Client, String> {
        let cell = match reach {
            Reach::PublicOnly => &self.public,
            Reach::PrivateToo => &self.private,
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = net::client(reach, self.timeouts.connect).map_err(|e| {
            let why = std::error::Error::source(&e).and_then(std::error::Error::source);
            why.map_or_else(|| e.to_string(), |why| format!("{e}: {why}"))
        })?;
        Ok(cell.get_or_init(|| client))
    }
}

/// Puts a stored body into the shape of its format.
fn shaped(request: RequestBuilder, format: Format, body: &str) -> Result<RequestBuilder, String> {
    match format {
        Format::Standard | Format::Slack => {
            Ok(request.header(CONTENT_TYPE, "application/json").body(body.to_owned()))
        }
        Format::Ntfy => {
            let Ntfy { title, priority, tags, message } =
                serde_json::from_str(body).map_err(|e| format!("the stored message cannot be read: {e}"))?;
            Ok(request
                .header(CONTENT_TYPE, "text/plain; charset=utf-8")
                .header("Title", header(&title))
                .header("Priority", priority.to_string())
                .header("Tags", header(&tags))
                .body(message))
        }
    }
}

impl Answer {
    /// Reads the body up to its limit. An answer that breaks off or dawdles is kept as far as it
    /// came: its status says what is to be known.
    async fn read(mut response: Response, deadline: tokio::time::Instant) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while body.len() < RESPONSE_MAX {
            let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(deadline, response.chunk()).await else {
                break;
            };
            let room = RESPONSE_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        Self { status, headers, body }
    }
}

impl Attempt {
    fn take(&mut self, answer: Answer, now_ms: i64) {
        let Answer { status, headers, body } = answer;
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        self.status = Some(status.as_u16());
        self.response = body;
        self.delivered = status.is_success();
        self.gone = status == StatusCode::GONE;
        if !self.delivered {
            self.error = Some(explain::status(status, header(LOCATION)));
            self.retry_after = header(RETRY_AFTER).and_then(|text| retry_after(text, now_ms));
        }
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date.
fn retry_after(text: &str, now_ms: i64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are as good as for ever; the caller caps the wait anyway.
        return Some(Duration::from_secs(text.parse().map_or(u64::from(u32::MAX), |s: u32| s.into())));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait_ms = at.as_millisecond().saturating_sub(now_ms).max(0);
    Some(Duration::from_millis(wait_ms.unsigned_abs()))
}

#[cfg(test)]
mod tests;
