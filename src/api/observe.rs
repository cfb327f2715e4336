//! What surrounds every request: its id, its line in the log, and the answer where it panicked.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Response};
use axum::middleware::Next;
use axum::response::IntoResponse as _;

use super::{ApiError, Caller};
use crate::ids::Entropy;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller, bytes.
const REQUEST_ID_MAX: usize = 128;

/// Gives the request an id, its own where it has a usable one, and logs how it was answered.
pub async fn observe(
    State(entropy): State<Arc<dyn Entropy>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let id = given(&request).unwrap_or_else(|| made(entropy.as_ref()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = request.extensions().get::<Caller>().map(|c| Arc::clone(&c.name));
    let begun = Instant::now();
    let mut answer = next.run(request).await;
    tracing::debug!(
        request.id = id.to_str().unwrap_or_default(),
        caller = caller.as_deref().unwrap_or_default(),
        http.status = answer.status().as_u16(),
        duration_ms = begun.elapsed().as_secs_f64() * 1e3,
        "{method} {path}: {}",
        answer.status()
    );
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
