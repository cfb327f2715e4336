//! A server of models on loopback that says what a script tells it to say, in each provider's own words.
//!
//! It is as strict as the real ones, by their documentation and by what people report of them: a field too many, an
//! id in the wrong form, a call without its result or a wrong key gets the error that the provider would give. So a
//! test that is green here has sent what each of them takes. It keeps every request. What it refuses or has no
//! script for is in [`ModelServer::complaints`], which a test may look at when a run failed and nobody knows why.

mod anthropic;
mod google;
mod openai;
mod reply;
mod sight;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use reply::{Failure, Kind, Spoken};
pub use reply::{Reply, Tokens};

/// The key that every provider here wants, but `local`, which wants none.
pub const KEY: &str = "sk-models-of-the-tests-0123456789";
/// Where the definitions of tests find it.
pub const KEY_ENV: &str = "MODEL_KEY";
/// The providers that it is, by their names in settings.
pub const PROVIDERS: [&str; 8] =
    ["openai", "deepseek", "groq", "mistral", "together", "local", "anthropic", "google"];

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The provider that was asked.
    pub provider: String,
    /// The path below the provider.
    pub path: String,
    /// Header names and values.
    pub headers: HeaderMap,
    /// The body.
    pub body: Value,
}

/// What is wrong with a request, as the provider would say it.
#[derive(Debug, Clone)]
struct Complaint {
    status: u16,
    kind: &'static str,
    message: String,
}

impl Shared {
    /// What of its reasoning a provider wants to see again beside a call.
    fn owed(&self, provider: &str, call: &str) -> Option<&str> {
        let owed = self.owed.iter().find(|(who, id, _)| *who == provider && id == call);
        owed.map(|(_, _, what)| what.as_str())
    }
}

impl Complaint {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }
}

/// Makes an answer of a request.
type Answerer = Box<dyn FnMut(&Asked) -> Reply + Send>;

#[derive(Default)]
struct Shared {
    asked: Vec<Asked>,
    complaints: Vec<String>,
    script: VecDeque<Reply>,
    of: BTreeMap<String, VecDeque<Reply>>,
    answerer: Option<Answerer>,
    /// Calls that were made so far: ids are made of it.
    calls: u64,
    /// Providers, calls of theirs that came with reasoning, and what of it must be shown again.
    owed: Vec<(&'static str, String, String)>,
    /// Bytes that were taken of answers without an end.
    poured: usize,
}

/// A server of models that lives as long as this value.
pub struct ModelServer {
    /// Its address, without a slash at its end.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl ModelServer {
    /// A server without a script, on a thread of its own.
    pub fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        // A runtime in a thread of its own, so that a test which is async itself may start and drop it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url, shared, _stop: stop }
    }

    /// The base URL of a provider of [`PROVIDERS`], with a slash at its end.
    pub fn base(&self, provider: &str) -> String {
        assert!(PROVIDERS.contains(&provider), "{provider} is none of {PROVIDERS:?}");
        let version = if provider == "google" { "v1beta" } else { "v1" };
        format!("{}/{provider}/{version}/", self.url)
    }

    /// `providers:` of a settings file that leads all of them here; the key is in [`KEY_ENV`].
    pub fn settings(&self) -> String {
        let mut text = "providers:\n".to_owned();
        for provider in PROVIDERS {
            let key =
                if provider == "local" { String::new() } else { format!(", key: {{ env: {KEY_ENV} }}") };
            let _ = writeln!(text, "  {provider}: {{ base_url: '{}'{key} }}", self.base(provider));
        }
        text
    }

    /// Queues what is said next, whoever is asked.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().unwrap().script.extend(replies);
    }

    /// Queues what one provider says next, before what [`Self::script`] says.
    pub fn script_of(&self, provider: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().unwrap().of.entry(provider.to_owned()).or_default().extend(replies);
    }

    /// Who answers where no script says anything, for tests in which many ask at once.
    pub fn answer_with(&self, answerer: impl FnMut(&Asked) -> Reply + Send + 'static) {
        self.shared.lock().unwrap().answerer = Some(Box::new(answerer));
    }

    /// What came in so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().unwrap().asked.clone()
    }

    /// Forgets what came in so far.
    pub fn forget(&self) {
        self.shared.lock().unwrap().asked.clear();
    }

    /// What it refused of its own accord, and what it had no script for.
    pub fn complaints(&self) -> Vec<String> {
        self.shared.lock().unwrap().complaints.clone()
    }

    /// How many bytes were taken of answers without an end.
    pub fn poured(&self) -> usize {
        self.shared.lock().unwrap().poured
    }

    /// How many replies nobody has asked for yet.
    pub fn left(&self) -> usize {
        let shared = self.shared.lock().unwrap();
        shared.script.len() + shared.of.values().map(VecDeque::len).sum::<usize>()
    }
}

async fn serve(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let path = uri.path().trim_start_matches('/');
    let (provider, rest) = path.split_once('/').unwrap_or((path, ""));
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let asked = Asked { provider: provider.to_owned(), path: rest.to_owned(), headers, body };
    let reply = {
        let mut shared = shared.lock().unwrap();
        shared.asked.push(asked.clone());
        match check(&method, &asked, &shared) {
            Err(complaint) => {
                shared.complaints.push(format!("{provider} {rest}: {}", complaint.message));
                return failure(&asked, &Failure::of(&complaint));
            }
            Ok(()) => match next(&mut shared, &asked).map(|reply| reply.resolved(&asked)).transpose() {
                Ok(reply) => reply,
                Err(unseen) => {
                    shared.complaints.push(unseen);
                    None
                }
            },
        }
    };
    let Some(reply) = reply else {
        return failure(&asked, &Failure::of(&Complaint::new(500, "server_error", "the script is over")));
    };
    if let Some(d) = reply.after {
        tokio::time::timeout(d, std::future::pending::<()>()).await.unwrap_err();
    }
    match reply.kind {
        Kind::Says(spoken) => said(&asked, &spoken, &mut shared.lock().unwrap()),
        Kind::Fails(broken) => failure(&asked, &broken),
        Kind::Raw { status, content_type, body } => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("content-type", content_type)], body).into_response()
        }
        Kind::Silent => std::future::pending().await,
        Kind::Endless => {
            let pour = move || {
                let piece = Bytes::from_static(&[b' '; 64 << 10]);
                shared.lock().unwrap().poured += piece.len();
                Ok::<_, std::io::Error>(piece)
            };
            let body = Body::from_stream(futures_util::stream::iter(std::iter::repeat_with(pour)));
            ([("content-type", "application/json")], body).into_response()
        }
        Kind::Cut => {
            let begun: Result<Bytes, std::io::Error> = Ok(Bytes::from_static(b"{\"id\":\"x\","));
            let cut = Err(std::io::Error::other("cut"));
            let body = Body::from_stream(futures_util::stream::iter([begun, cut]));
            ([("content-type", "application/json")], body).into_response()
        }
    }
}

fn next(shared: &mut Shared, asked: &Asked) -> Option<Reply> {
    let own = shared.of.get_mut(&asked.provider).and_then(VecDeque::pop_front);
    let reply = own.or_else(|| shared.script.pop_front());
    let reply = reply.or_else(|| shared.answerer.as_mut().map(|answer| answer(asked)));
    if reply.is_none() {
        shared.complaints.push(format!("{} was asked, and the script is over", asked.provider));
    }
    reply
}

/// Whether the provider would take the request.
fn check(method: &Method, asked: &Asked, shared: &Shared) -> Result<(), Complaint> {
    if method != Method::POST {
        return Err(Complaint::new(405, "invalid_request_error", "Method Not Allowed"));
    }
    match asked.provider.as_str() {
        "anthropic" => anthropic::check(asked, shared),
        "google" => google::check(asked, shared),
        other if PROVIDERS.contains(&other) => openai::check(asked, shared),
        other => Err(Complaint::new(404, "invalid_request_error", format!("there is no provider {other}"))),
    }
}

fn said(asked: &Asked, spoken: &Spoken, shared: &mut Shared) -> Response {
    let body = match asked.provider.as_str() {
        "anthropic" => anthropic::says(asked, spoken, shared),
        "google" => google::says(asked, spoken, shared),
        _ => openai::says(asked, spoken, shared),
    };
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn failure(asked: &Asked, failed: &Failure) -> Response {
    let body = failed.body.clone().unwrap_or_else(|| match asked.provider.as_str() {
        "anthropic" => anthropic::fails(failed),
        "google" => google::fails(failed),
        _ => openai::fails(&asked.provider, failed),
    });
    let mut response = (StatusCode::from_u16(failed.status).unwrap(), body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in &failed.headers {
        headers
            .insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    response
}

/// What a header says; empty where there is none.
fn header<'a>(asked: &'a Asked, name: &str) -> &'a str {
    asked.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The first field of an object that is not among `known`.
fn stranger<'a>(object: &'a Value, known: &[&str]) -> Option<&'a str> {
    object.as_object()?.keys().map(String::as_str).find(|name| !known.contains(name))
}

/// A list of a body; none where there is none.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A name that a tool may have everywhere.
fn is_tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A usage of figures that differ from one another, so that a mix-up shows.
impl Default for Tokens {
    fn default() -> Self {
        Self { input: 120, cached: 0, written: 0, output: 30, reasoning: 0 }
    }
}

/// An object of the provider's usage, without what is zero and rarely shown.
fn usage(fields: &[(&str, u64, bool)]) -> Value {
    let shown = fields.iter().filter(|(_, n, always)| *always || *n > 0);
    Value::Object(shown.map(|(name, n, _)| ((*name).to_owned(), json!(n))).collect())
}
