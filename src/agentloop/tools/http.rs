//! `http_fetch`: a request to the internet, or to the hosts that the definition names.
//!
//! What a page says may steer a model, so the address is what counts, at every step: the text of the URL, what its
//! name resolves to, and again each place that a redirect leads to. Without a list only public addresses are reached.
//! A host that the operator named in full may be a private one; one that merely fits a pattern may not. Redirects are
//! followed here, for the client follows none.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use super::{Answer, Tool, text_of};
use crate::agentloop::model::ToolSpec;
use crate::net::{self, Hosts, Reach, Refused};

/// Most of a body that is read, bytes.
pub const BODY_MAX: usize = 1 << 20;
/// Most redirects that are followed.
pub const REDIRECTS_MAX: u32 = 5;
/// Time for name, connection and TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that say how the message is carried; the client writes them.
const CARRIAGE: [&str; 8] =
    ["host", "content-length", "connection", "transfer-encoding", "upgrade", "te", "trailer", "expect"];
/// Headers that are meant for one host only.
const PERSONAL: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

pub(super) struct Fetch {
    hosts: Hosts,
    // Built when they are needed: to read the CA certificates takes longer than all else at the start.
    public: OnceLock<reqwest::Client>,
    private: OnceLock<reqwest::Client>,
}

/// One request as the model asked for it.
struct Asked {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<String>,
}

impl Fetch {
    /// `hosts` are entries that the definition's check has read; none of them reaches every public host.
    pub(super) fn new(hosts: &[String]) -> Self {
        Self { hosts: Hosts::read(hosts), public: OnceLock::new(), private: OnceLock::new() }
    }

    /// The URL, and how far a request to it may reach.
    fn allowed(&self, text: &str) -> Result<(Url, Reach), Answer> {
        let url = net::check_url(text, Reach::PrivateToo).map_err(|e| refusal(&e))?;
        let host =
            url.host_str().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.').to_owned();
        let reach = self.hosts.reach(&host, url.port_or_known_default());
        let reach = reach.map_err(|e| Answer::denied(format!("{e}.")))?;
        net::check_url(text, reach).map(|url| (url, reach)).map_err(|e| refusal(&e))
    }

    fn client(&self, reach: Reach) -> Result<&reqwest::Client, Answer> {
        let place = match reach {
            Reach::PublicOnly => &self.public,
            Reach::PrivateToo => &self.private,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let built = net::client(reach, CONNECT_TIMEOUT).map_err(|e| Answer::failed(sentence(&e)))?;
        Ok(place.get_or_init(|| built))
    }

    async fn fetch(&self, mut asked: Asked) -> Result<Answer, Answer> {
        let mut redirects = 0;
        loop {
            let (url, reach) = self.allowed(&asked.url)?;
            let mut request =
                self.client(reach)?.request(asked.method.clone(), url.clone()).headers(asked.headers.clone());
            if let Some(body) = &asked.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|e| unreachable(&url, e))?;
            let Some(next) = redirect(&url, &response) else {
                return told(&url, response, redirects).await;
            };
            if redirects == REDIRECTS_MAX {
                return Err(Answer::failed(format!(
                    "{REDIRECTS_MAX} redirects are the most; the next is {next}"
                )));
            }
            redirects += 1;
            asked.follow(&url, response.status(), &next);
        }
    }
}

impl Asked {
    fn read(arguments: &Map<String, Value>) -> Result<Self, Answer> {
        let method = match text_of(arguments, "method") {
            "" => Method::GET,
            name => {
                Method::from_bytes(name.as_bytes()).map_err(|_| Answer::failed("There is no such method."))?
            }
        };
        let mut headers = HeaderMap::new();
        for (name, value) in arguments.get("headers").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
                return Err(Answer::failed(format!("{name:?} is no header, or its value cannot be sent.")));
            };
            if CARRIAGE.contains(&name.as_str()) {
                return Err(Answer::failed(format!("The header {name} cannot be set.")));
            }
            headers.insert(name, value);
        }
        let body = arguments.get("body").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { method, url: text_of(arguments, "url").to_owned(), headers, body })
    }

    /// Goes on to where the answer of `from` leads.
    fn follow(&mut self, from: &Url, status: StatusCode, next: &Url) {
        let repeated = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !repeated && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = None;
        }
        if from.origin() != next.origin() {
            for name in PERSONAL {
                self.headers.remove(name);
            }
        }
        next.as_str().clone_into(&mut self.url);
    }
}

/// Where an answer leads on to.
fn redirect(url: &Url, response: &reqwest::Response) -> Option<Url> {
    let leads = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get("location").filter(|_| leads)?;
    url.join(&String::from_utf8_lossy(location.as_bytes())).ok()
}

/// The answer as the model is told it.
async fn told(url: &Url, response: reqwest::Response, redirects: u32) -> Result<Answer, Answer> {
    let status = response.status();
    let kind = response
        .headers()
        .get("content-type")
        .map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    let (bytes, cut) = net::body(response, BODY_MAX).await.map_err(|e| unreachable(url, e))?;
    let mut text = format!("HTTP {}", status.as_u16());
    if let Some(reason) = status.canonical_reason() {
        let _ = write!(text, " {reason}");
    }
    if redirects > 0 {
        let _ = write!(text, "\nfrom: {url}");
    }
    if let Some(kind) = &kind {
        let _ = write!(text, "\ncontent-type: {kind}");
    }
    let _ = write!(text, "\n\n{}", readable(&bytes, kind.as_deref().unwrap_or_default()));
    if cut {
        let _ = write!(text, "\n[cut: {} MiB are the most of a body]", BODY_MAX >> 20);
    }
    let failed = status.is_client_error() || status.is_server_error();
    Ok(if failed { Answer::failed(text) } else { Answer::done(text) })
}

/// A body as text.
fn readable(bytes: &[u8], kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    if bytes.contains(&0) {
        return format!("[{} bytes that are not text]", bytes.len());
    }
    // In these a byte is a character; UTF-8 is everything else that is still in use.
    if kind.contains("charset=iso-8859-1")
        || kind.contains("charset=windows-1252")
        || kind.contains("charset=latin1")
    {
        return bytes.iter().map(|b| char::from(*b)).collect();
    }
    String::from_utf8_lossy(bytes).into_owned()
}

fn refusal(e: &Refused) -> Answer {
    match e {
        Refused::NotPublic { .. } | Refused::Metadata { .. } => Answer::denied(format!("{e}.")),
        Refused::UserInfo => Answer::failed("The URL holds a user name or a password; leave them out."),
        Refused::NotAUrl(_) | Refused::Scheme(_) | Refused::NoHost => Answer::failed(format!("{e}.")),
    }
}

/// Why no answer came; a name that resolves to a forbidden address is a refusal.
fn unreachable(url: &Url, e: reqwest::Error) -> Answer {
    let e = e.without_url();
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(&e);
    while let Some(cause) = at {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refusal(refused);
        }
        at = cause.source();
    }
    Answer::failed(format!("{} did not answer: {}", url.host_str().unwrap_or_default(), sentence(&e)))
}

/// An error with its causes.
pub(super) fn sentence(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut at = e.source();
    while let Some(cause) = at {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        at = cause.source();
    }
    text
}

impl Tool for Fetch {
    fn spec(&self) -> ToolSpec {
        let reached = if self.hosts.is_public() {
            "Every public address is reached.".to_owned()
        } else {
            format!("Only these hosts are reached: {}.", self.hosts)
        };
        ToolSpec {
            name: "http_fetch".to_owned(),
            description: format!(
                "Sends an HTTP request and gives the status and the body as text. {reached}"
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "url": {"type": "string", "description": "http:// or https://"},
                    "method": {"type": "string", "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                               "description": "Default GET"},
                    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                    "body": {"type": "string"}
                },
                "required": ["url"],
                "additionalProperties": false
            }),
        }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let answer = match Asked::read(arguments) {
                Ok(asked) => self.fetch(asked).await,
                Err(refused) => Err(refused),
            };
            answer.unwrap_or_else(|refused| refused)
        })
    }
}

#[cfg(test)]
mod tests;
