//! The HTTP API: one router for every listener.
//!
//! A handler extracts, makes one call of the engine or the store, and answers a wire type; it decides
//! nothing. [`ApiError`] is the only place that knows HTTP statuses. Requests are read strictly: what
//! is unknown is refused, and a body, a page and a log chunk have a limit each.
//!
//! Every answer carries `x-request-id`, a panic costs the request that met it and no other, and an
//! unknown route is answered in the same shape as everything else. Who asks is known from the
//! listener, which puts a [`Caller`] among the request's extensions, or over TCP a [`Peer`] that a token
//! makes a [`Caller`] of. A handler that names an agent or a run, or lists some, takes the [`Caller`] as an
//! argument and asks it.

mod access;
mod agents;
mod alerting;
mod answer;
mod artefacts;
mod backfill;
mod backup;
mod caller;
mod content;
mod cursor;
mod deliveries;
mod dialect;
mod doctor;
mod enthusiast;
mod error;
mod events;
mod execute;
mod extract;
mod files;
mod guarded;
mod history;
mod kaizen;
mod logfile;
mod loglines;
mod logs;
mod metrics;
mod observe;
mod openapi;
mod pause;
mod plan;
mod reexec;
mod rejections;
mod reload;
mod runs;
mod schedules;
mod skills;
mod slots;
mod stats;
mod status;
mod stream;
mod strict;
mod tokens;
mod transcript;
pub mod wire;
mod workflows;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::engine::Core;

pub use access::{ANSWERS_MAX, FAILED_MAX, FAILED_WINDOW_MS, Peer};
pub use alerting::{AlertingView, EndpointView, PingFailureView};
pub use caller::{Because, Caller, Callers, Scope, Users};
pub use content::{ContentItem, ITEMS_MAX};
pub use cursor::Page;
pub use error::{ApiError, ErrorBody, ErrorEnvelope, FieldError};
pub use extract::BODY_DEADLINE;
pub use files::{PIECE_DEADLINE, UPLOAD_DEADLINE, media_url};
pub use guarded::Guarded;
pub use logfile::CHUNK_MAX;
pub use loglines::{LINE_MAX, LogLine, SEARCH_MAX};
pub use logs::{LOG_ATTEMPT, LOG_OFFSET};
pub use openapi::text as openapi_text;
pub use tokens::TokenView;
pub use wire::Data;
pub use workflows::{Forgotten, WorkflowDiff, WorkflowView};

/// Longest body of a request, bytes.
pub const BODY_MAX: usize = 20 << 20;
/// Longest time without a byte of a body that is not over. A little longer than [`BODY_DEADLINE`], so that
/// who has a deadline of its own answers by that.
pub const BODY_STALL: std::time::Duration = std::time::Duration::from_secs(35);
/// Rows of a page of agents where none are asked for.
pub const AGENTS_DEFAULT: usize = 100;
/// Rows of any other page where none are asked for.
pub const ROWS_DEFAULT: usize = 50;
/// Most rows of a page.
pub const ROWS_MAX: usize = 200;

/// What every handler shares.
#[derive(Debug, Clone)]
struct App {
    core: Arc<Core>,
    started_ms: i64,
}

/// The answer of a handler that answers one record.
type Answer<T> = Result<Json<Data<T>>, ApiError>;
/// The answer of a handler that answers a page.
type Listed<T> = Result<Json<Page<T>>, ApiError>;

fn data<T>(data: T) -> Json<Data<T>> {
    Json(Data { data })
}

/// The routes of /v1 and of the daemon itself.
fn native() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::docs))
        .routes(routes!(status::status))
        .routes(routes!(metrics::metrics))
        .routes(routes!(backup::backup))
        .routes(routes!(doctor::doctor))
        .routes(routes!(reload::reload))
        .routes(routes!(reexec::get, reexec::post))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get))
        .routes(routes!(execute::execute))
        .routes(routes!(backfill::backfill))
        .routes(routes!(pause::pause))
        .routes(routes!(pause::resume))
        .routes(routes!(workflows::list, workflows::forget_all))
        .routes(routes!(workflows::get, workflows::forget))
        .routes(routes!(workflows::diff))
        .routes(routes!(workflows::pin))
        .routes(routes!(workflows::unpin))
        .routes(routes!(events::of_agent))
        .routes(routes!(slots::of_agent))
        .routes(routes!(plan::of_agent))
        .routes(routes!(plan::why))
        .routes(routes!(events::list))
        .routes(routes!(events::get))
        .routes(routes!(events::cancel))
        .routes(routes!(events::diff))
        .routes(routes!(execute::retry))
        .routes(routes!(history::history))
        .routes(routes!(transcript::transcript))
        .routes(routes!(logs::logs))
        .routes(routes!(stream::stream))
        .routes(routes!(stats::stats))
        .routes(routes!(stats::problems))
        .routes(routes!(schedules::list))
        .routes(routes!(slots::list))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(plan::all))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(deliveries::enable))
        .routes(routes!(deliveries::test))
        .merge(files::router())
        .merge(artefacts::router())
        .routes(routes!(skills::list))
        .routes(routes!(skills::session))
        .merge(kaizen::router())
}

/// Every route over the engine.
pub fn router(core: Arc<Core>) -> Router {
    let started_ms = core.clock.now_ms();
    let entropy = Arc::clone(&core.entropy);
    let gate = access::Gate::new(Arc::clone(&core));
    let app = App { core, started_ms };
    let (routes, _) = openapi::routes().split_for_parts();
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(RequestBodyTimeoutLayer::new(BODY_STALL))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(strict::parameters))
        .layer(middleware::from_fn(rejections::shape))
        .layer(middleware::from_fn(caller::authorize))
        .layer(access::cross_site())
        .layer(middleware::from_fn_with_state(gate, access::admit))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(dialect::shape))
        .layer(middleware::from_fn_with_state(entropy, observe::observe))
        .with_state(app)
}

async fn no_route(request: Request) -> Response {
    if let Some(elsewhere) = dialect::with_slash(request.uri()) {
        return elsewhere.into_response();
    }
    ApiError::no_route(request.method().as_str(), request.uri().path()).into_response()
}

async fn no_method(request: Request) -> ApiError {
    ApiError::no_method(request.method().as_str(), request.uri().path())
}
