//! What can be wrong with a request, and the only place that knows HTTP statuses.
//!
//! Every answer that is not 2xx has one shape, `{"error":{"code","message","details"}}`. The code is
//! for programs and never changes its meaning; the message is a sentence for people; the details name
//! what it is about. What the caller cannot act on is logged here and answered without its cause.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::{FileError, NotReplaced, PauseError, PingError, Refused};
use crate::ids::RunId;
use crate::store;
use crate::task::Panicked;

/// Seconds after which a caller that was turned away may come again.
const RETRY_AFTER_S: u32 = 5;

/// A request that is not carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after_s: Option<u32>,
}

/// The error as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// What it is about: fields with their JSON pointers, candidates, the run in the way.
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<Value>,
}

/// The envelope of an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// A field of a body that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer of the field.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body = ErrorBody { code: code.to_owned(), message: message.into(), details: Vec::new() };
        Self { status, body, retry_after_s: None }
    }

    pub(super) fn detail(mut self, detail: Value) -> Self {
        self.body.details.push(detail);
        self
    }

    fn retry(mut self) -> Self {
        self.retry_after_s = Some(RETRY_AFTER_S);
        self
    }

    /// Says when the caller may come again, if ever.
    fn retry_in(mut self, ms: Option<i64>) -> Self {
        let seconds = |ms: i64| u32::try_from(ms / 1000 + 1).unwrap_or(u32::MAX);
        self.retry_after_s = ms.map(seconds);
        self
    }

    /// 400: the request cannot be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 400: a query parameter does not fit.
    #[must_use]
    pub fn parameter(name: &str, problem: &str) -> Self {
        let message = format!("`{name}` cannot be used: {problem}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
            .detail(json!({ "parameter": name, "message": problem }))
    }

    /// 403: the caller may not do this.
    #[must_use]
    pub fn forbidden(why: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", why)
    }

    /// 401: nobody says who asks.
    #[must_use]
    pub fn no_token() -> Self {
        let message = "a token is needed: send Authorization: Bearer TOKEN; `matins token create` makes one";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 401: what is sent is no token, or none any more.
    #[must_use]
    pub fn bad_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "this token is unknown, revoked or expired")
    }

    /// 429: too many bad tokens from one address.
    #[must_use]
    pub fn too_many_logins(in_ms: i64) -> Self {
        let message = "too many bad tokens came from this address; come back later, or with a good one";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_logins", message).retry_in(Some(in_ms))
    }

    /// 421: the request is meant for another host.
    #[must_use]
    pub fn foreign_host(host: &str) -> Self {
        let message =
            format!("this daemon is not {host:?}; if it should be, add that name to `listen.allowed_hosts`");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message)
    }

    /// 403: a page of another site sent this.
    #[must_use]
    pub fn cross_site() -> Self {
        let message = "a page of another site may not change anything here";
        Self::new(StatusCode::FORBIDDEN, "cross_site", message)
    }

    /// 404: no token of this name or id.
    #[must_use]
    pub fn unknown_token(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_token", format!("token {name:?} does not exist"))
    }

    /// 409: the name is in use.
    #[must_use]
    pub fn token_exists(name: &str) -> Self {
        let message = format!("there is a token {name:?} already; revoke it, or choose another name");
        Self::new(StatusCode::CONFLICT, "token_exists", message)
    }

    /// 409: no more tokens.
    #[must_use]
    pub fn tokens_full(max: usize) -> Self {
        let message = format!("there are {max} tokens already, the most there may be; revoke some");
        Self::new(StatusCode::CONFLICT, "tokens_full", message)
    }

    /// 404: there is no such route.
    #[must_use]
    pub fn no_route(method: &str, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_route", format!("there is no {method} {path}"))
    }

    /// 405: the route exists for other methods; the router adds `Allow`.
    #[must_use]
    pub fn no_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}; the header Allow says what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// 404: no agent of this id.
    #[must_use]
    pub fn no_agent(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_agent", format!("agent {id:?} does not exist"))
    }

    /// 404: no run of this name.
    #[must_use]
    pub fn no_event(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_event", format!("run {name:?} does not exist"))
    }

    /// 404: `@last` where nothing has run, of an agent or at all.
    #[must_use]
    pub fn no_run_yet(agent: Option<&str>) -> Self {
        let message = agent.map_or_else(
            || "there is no run yet".to_owned(),
            |agent| format!("agent {agent:?} has no run yet, or none that is still kept"),
        );
        Self::new(StatusCode::NOT_FOUND, "no_run_yet", message)
    }

    /// 400: too little of a run's id to find it by.
    #[must_use]
    pub fn short_prefix(name: &str, least: usize) -> Self {
        let message = format!("{name:?} is too little of a run's id: give at least {least} characters");
        Self::new(StatusCode::BAD_REQUEST, "prefix_too_short", message)
    }

    /// 409: a log that cannot be shown, because it is none any more.
    #[must_use]
    pub fn log_replaced(id: RunId) -> Self {
        let message = format!(
            "the log of run {id} cannot be shown: its program has put something else in the place of the file"
        );
        Self::new(StatusCode::CONFLICT, "log_replaced", message).detail(json!({ "eventId": id.to_string() }))
    }

    /// 404: no file of this id or name, or none that the caller may see.
    #[must_use]
    pub fn no_file(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_file", format!("file {name:?} does not exist"))
    }

    /// 404: a run that the built-in agent did not carry out, or not to its first exchange.
    #[must_use]
    pub fn no_transcript(id: RunId) -> Self {
        let message =
            format!("run {id} has no transcript: the built-in agent did not carry it out, or was not begun");
        Self::new(StatusCode::NOT_FOUND, "unknown_file", message)
    }

    /// 409: a file that a run has.
    #[must_use]
    pub fn file_in_use(name: &str) -> Self {
        let message = format!("file {name:?} is in use by a run; it goes with the last run that has it");
        Self::new(StatusCode::CONFLICT, "file_in_use", message)
    }

    /// 409: steps that cannot be shown, because their file is none any more.
    #[must_use]
    pub fn history_replaced(id: RunId) -> Self {
        let message = format!(
            "the steps of run {id} cannot be shown: its program has put something else in the place of the events file"
        );
        Self::new(StatusCode::CONFLICT, "history_replaced", message)
            .detail(json!({ "eventId": id.to_string() }))
    }

    /// 404: no session of this name, or none that the caller may see.
    #[must_use]
    pub fn no_session(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_session", format!("session {name:?} does not exist"))
    }

    /// 503: as much of this goes on as may; it can be asked for again soon.
    #[must_use]
    pub fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry()
    }

    /// The same error of a dialect that knows no 422.
    #[must_use]
    pub fn as_bad_request(mut self) -> Self {
        if self.status == StatusCode::UNPROCESSABLE_ENTITY {
            self.status = StatusCode::BAD_REQUEST;
        }
        self
    }

    /// 404: no delivery of this id.
    #[must_use]
    pub fn no_delivery(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_delivery", format!("delivery {id:?} does not exist"))
    }

    /// 404: no endpoint of this URL is disabled.
    #[must_use]
    pub fn not_disabled(url: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_disabled", format!("no endpoint {url:?} is disabled"))
    }

    /// 409: a prefix names several runs.
    #[must_use]
    pub fn ambiguous(name: &str, candidates: &[RunId]) -> Self {
        let ids: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        let message = format!("{name:?} names several runs: {}; write more of the id", ids.join(", "));
        let error = Self::new(StatusCode::CONFLICT, "ambiguous", message);
        ids.into_iter().fold(error, |e, id| e.detail(json!({ "eventId": id })))
    }

    /// 404: no task of this number.
    #[must_use]
    pub fn no_task(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_task", format!("task {id:?} does not exist"))
    }

    /// 404: the agent has no such version of a workflow.
    #[must_use]
    pub fn no_workflow(version: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_workflow", format!("workflow {version:?} does not exist"))
    }

    /// 409: the run has ended already.
    #[must_use]
    pub fn ended(id: RunId, state: crate::model::RunState) -> Self {
        Self::new(StatusCode::CONFLICT, "already_ended", format!("run {id} has ended already: it is {state}"))
            .detail(json!({ "eventId": id.to_string(), "status": state.as_str() }))
    }

    /// 422: the files that were to be put in force have errors.
    #[must_use]
    pub fn invalid_configuration(message: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration", message)
    }

    /// 410: the logs of the run went, for all logs together take up no more than they may.
    #[must_use]
    pub fn logs_removed(id: RunId) -> Self {
        let message = format!(
            "the logs of run {id} were removed to spare the disk; `retention.logs` says how much is kept"
        );
        Self::new(StatusCode::GONE, "logs_removed", message)
    }

    /// 408: the body did not come in time.
    #[must_use]
    pub fn slow_body(seconds: u64) -> Self {
        let message = format!("the body did not arrive within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    }

    /// 413: the body is too long.
    #[must_use]
    pub fn too_large(max: usize) -> Self {
        let message = format!("the body is longer than {max} bytes, the most that is taken");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 415: a body that is packed.
    #[must_use]
    pub fn coded(coding: &str) -> Self {
        let message = format!("a body with Content-Encoding: {coding} is not taken; send it as it is");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 415: the body is not what can be read.
    #[must_use]
    pub fn unsupported(content_type: &str) -> Self {
        let message =
            format!("a body of type {content_type:?} is not taken; send Content-Type: application/json");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 422: fields of the body do not fit.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let message = match errors.as_slice() {
            [] => "the body does not fit".to_owned(),
            [one] => said(one),
            [first, rest @ ..] => format!("{} (and {} more)", said(first), rest.len()),
        };
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message);
        errors.into_iter().fold(error, |e, f| e.detail(json!({ "pointer": f.pointer, "message": f.message })))
    }

    /// What the framework refused by itself, in its words.
    #[must_use]
    pub(super) fn of_status(status: StatusCode, text: &str) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::REQUEST_TIMEOUT => "body_timeout",
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            status if status.is_server_error() => "internal",
            _ => "malformed",
        };
        let reason = status.canonical_reason().unwrap_or("the request was refused");
        Self::new(status, code, if text.trim().is_empty() { reason } else { text.trim() })
    }

    /// 500: something inside broke; the log says what.
    #[must_use]
    pub fn internal() -> Self {
        let message = "something inside matins broke; the daemon's log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The word for programs.
    pub(super) fn code(&self) -> &str {
        &self.body.code
    }

    /// The sentence for people.
    pub(super) fn message(&self) -> &str {
        &self.body.message
    }

    /// What it is about.
    pub(super) fn details(&self) -> &[Value] {
        &self.body.details
    }

    /// The status that is answered.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

fn said(error: &FieldError) -> String {
    if error.pointer.is_empty() {
        error.message.clone()
    } else {
        format!("{}: {}", error.pointer, error.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // A dialect tells it again, in its own shape.
        let told = Extension(self.clone());
        let mut answer = (self.status, told, Json(ErrorEnvelope { error: self.body })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer realm=\"matins\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        if let Some(seconds) = self.retry_after_s {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

impl From<NotReplaced> for ApiError {
    fn from(why: NotReplaced) -> Self {
        let message = why.to_string();
        match why {
            NotReplaced::Refused(_) | NotReplaced::Impossible => {
                Self::new(StatusCode::CONFLICT, "not_replaced", message)
            }
            NotReplaced::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).retry(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::UnknownAgent(id) => Self::no_agent(&id),
            Refused::InvalidAgent(_) | Refused::RefusedFile(..) => {
                Self::new(StatusCode::CONFLICT, "invalid_agent", message)
            }
            Refused::Overlap { run, .. } => Self::new(StatusCode::CONFLICT, "overlap", message)
                .detail(json!({ "eventId": run.to_string() })),
            Refused::QueueFull { .. } | Refused::BackfillFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).retry()
            }
            // What a run that goes on reserves may be free any time.
            Refused::Budget {
                in_ms: None,
                used: store::Used::Tokens(_) | store::Used::Microdollars(_),
                ..
            } => Self::new(StatusCode::TOO_MANY_REQUESTS, "budget", message).retry(),
            Refused::Budget { in_ms, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "budget", message).retry_in(in_ms)
            }
            Refused::KeyReused { run } => Self::new(StatusCode::CONFLICT, "idempotency_key_reused", message)
                .detail(json!({ "eventId": run.to_string() })),
            Refused::BadKey => Self::malformed(message),
            Refused::NotEnded { run, state } => Self::new(StatusCode::CONFLICT, "not_ended", message)
                .detail(json!({ "eventId": run, "status": state.as_str() })),
            Refused::Field { pointer, message } => Self::fields(vec![FieldError { pointer, message }]),
            Refused::Draining => Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).retry(),
            Refused::Store(e) => e.into(),
        }
    }
}

impl From<PauseError> for ApiError {
    fn from(error: PauseError) -> Self {
        let message = error.to_string();
        match error {
            PauseError::UnknownAgent(id) => Self::no_agent(id.as_str()),
            PauseError::LongReason(_) => {
                Self::fields(vec![FieldError { pointer: "/reason".to_owned(), message }])
            }
            PauseError::Moving(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry()
            }
            PauseError::Store(e) => e.into(),
        }
    }
}

impl From<PingError> for ApiError {
    fn from(error: PingError) -> Self {
        let message = error.to_string();
        match error {
            PingError::UnknownAgent(id) => Self::no_agent(&id),
            PingError::UnknownUrl => Self::new(StatusCode::NOT_FOUND, "no_endpoint", message),
            PingError::NoEndpoint => Self::new(StatusCode::CONFLICT, "no_endpoint", message),
            PingError::Store(e) => e.into(),
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        let message = error.to_string();
        match error {
            FileError::Name(_) => Self::parameter("name", &message),
            FileError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message),
            FileError::NoPlace(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message),
            FileError::NoRoom => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry(),
            FileError::Draining => Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).retry(),
            FileError::Panicked(e) => e.into(),
            FileError::Io(e) => {
                tracing::error!(error = %e, "a file cannot be taken in: {e}");
                Self::internal()
            }
            FileError::Store(e) => e.into(),
        }
    }
}

impl From<Panicked> for ApiError {
    fn from(_: Panicked) -> Self {
        // It was logged where it happened.
        Self::internal()
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        if let store::Error::Panicked(panicked) = error {
            return panicked.into();
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(error = %error, cause, "a request failed in the store: {error}");
        match &error {
            // The caller may come again: nothing of it was taken.
            store::Error::Full
            | store::Error::ReadOnly
            | store::Error::Closed
            | store::Error::Damaged(_)
            | store::Error::Storage(_)
            | store::Error::Gone { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()).retry()
            }
            _ => Self::internal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededEntropy;

    async fn sent(error: ApiError) -> (u16, Option<String>, Value) {
        let answer = error.into_response();
        let retry = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        (status, retry, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_refusal_has_its_status_and_code() {
        let run = RunId::generate(0, &SeededEntropy::new(1));
        let agent: crate::ids::AgentId = "a".parse().unwrap();
        let budget = Refused::Budget {
            whose: "x".into(),
            used: store::Used::Runs(3),
            free_at_ms: Some(9_000),
            in_ms: Some(5_000),
        };
        let field = Refused::Field { pointer: "/prompt".into(), message: "too long".into() };
        for (refused, status, code, retry) in [
            (Refused::UnknownAgent("x".into()), 404, "unknown_agent", false),
            (Refused::InvalidAgent(agent.clone()), 409, "invalid_agent", false),
            (Refused::Overlap { agent: agent.clone(), run }, 409, "overlap", false),
            (Refused::QueueFull { agent }, 429, "queue_full", true),
            (budget, 429, "budget", true),
            (Refused::KeyReused { run }, 409, "idempotency_key_reused", false),
            (Refused::BadKey, 400, "malformed", false),
            (field, 422, "invalid_field", false),
            (Refused::Draining, 503, "draining", true),
            (Refused::Store(store::Error::Full), 503, "unavailable", true),
        ] {
            let (got, after, body) = sent(refused.into()).await;
            assert_eq!(
                (got, body["error"]["code"].as_str(), after.is_some()),
                (status, Some(code), retry),
                "{body}"
            );
            assert!(!body["error"]["message"].as_str().unwrap().is_empty());
            assert!(body["error"]["details"].is_array());
        }
    }

    #[tokio::test]
    async fn details_name_what_it_is_about() {
        let two = [RunId::generate(0, &SeededEntropy::new(1)), RunId::generate(0, &SeededEntropy::new(2))];
        let (status, _, body) = sent(ApiError::ambiguous("0000", &two)).await;
        assert_eq!(status, 409);
        assert_eq!(body["error"]["details"][1]["eventId"], two[1].to_string());
        let fields = ["/a", "/b"].map(|p| FieldError { pointer: p.into(), message: "no".into() }).to_vec();
        let (_, _, body) = sent(ApiError::fields(fields)).await;
        assert_eq!(body["error"]["details"][1], json!({"pointer": "/b", "message": "no"}));
        assert_eq!(body["error"]["message"], "/a: no (and 1 more)");
    }

    #[tokio::test]
    async fn causes_stay_inside() {
        let broken = store::inconsistent("runs", 1, "secret detail");
        let (status, _, body) = sent(broken.into()).await;
        assert_eq!(status, 500);
        assert!(!body.to_string().contains("secret detail"));
    }
}
