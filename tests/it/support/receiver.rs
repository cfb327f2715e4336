//! A webhook receiver on loopback that answers as the test says and keeps what it got.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header names and values.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: String,
}

impl Received {
    /// A header as text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How the next request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// With this status and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Only after this long.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct Shared {
    received: Vec<Received>,
    answers: VecDeque<Answer>,
    /// How many of those received were compared with the document.
    checked: usize,
}

/// A receiver that lives as long as this value.
#[derive(Debug)]
pub struct TestReceiver {
    /// Its URL.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    _runtime: tokio::runtime::Runtime,
}

impl TestReceiver {
    /// A receiver that answers 204 unless told otherwise, on a thread of its own.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// A receiver at a given address.
    pub fn start_at(address: &str) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(receive).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, shared, _runtime: runtime }
    }

    /// Queues answers; after them it answers 204.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().unwrap().answers.extend(answers);
    }

    /// What came in so far. Every message that is JSON with a type is as the published document says.
    pub fn received(&self) -> Vec<Received> {
        let (received, checked) = {
            let mut shared = self.shared.lock().unwrap();
            let now = shared.received.len();
            let checked = std::mem::replace(&mut shared.checked, now);
            (shared.received.clone(), checked)
        };
        for one in received.iter().skip(checked).filter(|r| !r.header("webhook-id").is_empty()) {
            match serde_json::from_str::<serde_json::Value>(&one.body) {
                Ok(message) if message.get("type").is_some() => super::contract::check_message(&message),
                _ => {}
            }
        }
        received
    }
}

async fn receive(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: axum::http::Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: String,
) -> axum::response::Response {
    let answer = {
        let mut shared = shared.lock().unwrap();
        let (method, path) = (method.to_string(), uri.to_string());
        shared.received.push(Received { method, path, headers, body });
        shared.answers.pop_front().unwrap_or(Answer::Status(204))
    };
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::RetryAfter(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Slow(d) => {
            tokio::time::timeout(d, std::future::pending::<()>()).await.unwrap_err();
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
