//! Answers that are not ours get our shape: what the framework refuses by itself (a path that is no UTF-8, a
//! header that does not fit) it says in plain text, and a client of /v1 reads JSON.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::ApiError;

/// Longest text of the framework that is passed on, bytes.
const TEXT_MAX: usize = 4 << 10;

/// Puts errors of /v1 that are not JSON into the shape of the others.
pub async fn shape(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/v1");
    let answer = next.run(request).await;
    let status = answer.status();
    let wrong = status.is_client_error() || status.is_server_error();
    let json = |answer: &Response| {
        answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
    };
    if !ours || !wrong || json(&answer) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let text = to_bytes(body, TEXT_MAX).await.unwrap_or_default();
    let shaped = ApiError::of_status(status, &String::from_utf8_lossy(&text)).into_response();
    let (new, body) = shaped.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, body)
}
