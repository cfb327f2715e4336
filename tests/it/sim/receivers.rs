//! Receivers of messages on loopback, one for each endpoint, that answer as the simulation says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use tokio::sync::watch;

use super::launchers::{Launchers, Point};
use super::scenario::ENDPOINTS;

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Good,
    /// 500.
    Bad,
    /// 503 with `Retry-After`, seconds.
    Later(u64),
    /// 410.
    Gone,
    /// Not at all, until the mode is another.
    Hangs,
}

#[derive(Debug)]
struct Endpoint {
    mode: watch::Sender<Mode>,
    /// Requests by delivery id, and those that were answered 204.
    seen: Mutex<BTreeMap<String, (u32, u32)>>,
    /// Requests that are held.
    held: Mutex<usize>,
    launchers: Launchers,
}

/// All receivers.
#[derive(Debug)]
pub struct Receivers {
    pub urls: Vec<String>,
    endpoints: Vec<Arc<Endpoint>>,
    _runtime: tokio::runtime::Runtime,
}

impl Receivers {
    /// Receivers that take every message.
    pub fn start(launchers: &Launchers) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (mut urls, mut endpoints) = (Vec::new(), Vec::new());
        for n in 0..ENDPOINTS {
            let endpoint = Arc::new(Endpoint {
                mode: watch::channel(Mode::Good).0,
                seen: Mutex::default(),
                held: Mutex::default(),
                launchers: launchers.clone(),
            });
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
            urls.push(format!("http://{}/{n}", listener.local_addr().unwrap()));
            let app = axum::Router::new().fallback(receive).with_state(Arc::clone(&endpoint));
            runtime.spawn(async move { axum::serve(listener, app).await });
            endpoints.push(endpoint);
        }
        Self { urls, endpoints, _runtime: runtime }
    }

    /// Sets how an endpoint answers from now on; what it holds is answered too.
    pub fn set(&self, endpoint: usize, mode: Mode) {
        self.endpoints[endpoint].mode.send_replace(mode);
    }

    /// How an endpoint answers.
    pub fn mode(&self, endpoint: usize) -> Mode {
        *self.endpoints[endpoint].mode.borrow()
    }

    /// Requests that an endpoint holds.
    pub fn held(&self, endpoint: usize) -> usize {
        *self.endpoints[endpoint].held.lock().unwrap()
    }

    /// How often a delivery came in, and how often it was taken.
    pub fn seen(&self, url: &str, delivery: &str) -> (u32, u32) {
        let Some(index) = self.urls.iter().position(|u| u == url) else { return (0, 0) };
        self.endpoints[index].seen.lock().unwrap().get(delivery).copied().unwrap_or_default()
    }
}

struct Hold<'a>(&'a Endpoint);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *self.0.held.lock().unwrap() -= 1;
    }
}

async fn receive(State(own): State<Arc<Endpoint>>, headers: HeaderMap) -> axum::response::Response {
    let id = headers.get("webhook-id").map_or("", |v| v.to_str().unwrap()).to_owned();
    own.seen.lock().unwrap().entry(id.clone()).or_default().0 += 1;
    *own.held.lock().unwrap() += 1;
    let hold = Hold(&own);
    if own.launchers.reach(Point::Delivery) {
        std::future::pending::<()>().await;
    }
    let mut modes = own.mode.subscribe();
    let mut mode = *modes.borrow_and_update();
    while mode == Mode::Hangs {
        modes.changed().await.unwrap();
        mode = *modes.borrow_and_update();
    }
    drop(hold);
    match mode {
        Mode::Good => {
            own.seen.lock().unwrap().entry(id).or_default().1 += 1;
            StatusCode::NO_CONTENT.into_response()
        }
        Mode::Bad | Mode::Hangs => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mode::Later(s) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", s.to_string())]).into_response(),
        Mode::Gone => StatusCode::GONE.into_response(),
    }
}
