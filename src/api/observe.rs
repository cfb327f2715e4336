//! What surrounds every request: its id, its line in the log, and the answer where it panicked.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Response};
use axum::middleware::Next;
use axum::response::IntoResponse as _;

use super::access::AskedBy;
use super::{ApiError, Peer};
use crate::ids::Entropy;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller, bytes.
const REQUEST_ID_MAX: usize = 128;
/// Characters of a path that are logged.
const PATH_SHOWN: usize = 200;

/// Routes that monitors ask all the time.
const QUIET: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// Gives the request an id, its own where it has a usable one, and logs how it was answered: one line each,
/// without its query, which is the caller's, and without a token.
pub async fn observe(
    State(entropy): State<Arc<dyn Entropy>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let id = given(&request).unwrap_or_else(|| made(entropy.as_ref()));
    let method = request.method().clone();
    // What matches no route is somebody's text: it is cut, and shown without control characters.
    let path: String = request.uri().path().escape_debug().take(PATH_SHOWN).collect();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let begun = Instant::now();
    let mut answer = next.run(request).await;
    let caller = answer.extensions().get::<AskedBy>().map(|by| Arc::clone(&by.0));
    let (id_text, caller) = (id.to_str().unwrap_or_default(), caller.as_deref().unwrap_or_default());
    let (status, duration_ms) = (answer.status().as_u16(), begun.elapsed().as_secs_f64() * 1e3);
    macro_rules! line {
        ($level:expr, $peer:expr) => {
            tracing::event!(
                target: "matins::access",
                $level,
                request.id = id_text,
                caller,
                peer = $peer,
                http.method = method.as_str(),
                http.route = route,
                http.status = status,
                duration_ms,
                "{method} {path}: {status}"
            )
        };
    }
    match peer {
        // Those on the socket are the daemon's own people and programs, who ask all the time.
        Some(peer) if !QUIET.contains(&route) => line!(tracing::Level::INFO, tracing::field::display(peer)),
        _ => line!(tracing::Level::DEBUG, tracing::field::Empty),
    }
    answer.headers_mut().insert(REQUEST_ID, id);
    answer
}

fn given(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain =
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic);
    plain.then(|| id.clone())
}

fn made(entropy: &dyn Entropy) -> HeaderValue {
    let mut bytes = [0_u8; 8];
    entropy.fill(&mut bytes);
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// The answer to a request that panicked. The panic's own text is for the log only.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a request panicked: {text}");
    ApiError::internal().into_response()
}
