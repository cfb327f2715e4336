//! The HTTP API: one router for every listener.
//!
//! A handler extracts, makes one call of the engine or the store, and answers a wire type; it decides
//! nothing. [`ApiError`] is the only place that knows HTTP statuses. Requests are read strictly: what
//! is unknown is refused, and a body, a page and a log chunk have a limit each.
//!
//! Every answer carries `x-request-id`, a panic costs the request that met it and no other, and an
//! unknown route is answered in the same shape as everything else. Who asks is known from the
//! listener, which puts a [`Caller`] among the request's extensions.

mod agents;
mod alerting;
mod answer;
mod backfill;
mod backup;
mod caller;
mod cursor;
mod deliveries;
mod dialect;
mod doctor;
mod enthusiast;
mod error;
mod events;
mod execute;
mod extract;
mod logfile;
mod logs;
mod metrics;
mod observe;
mod pause;
mod plan;
mod reexec;
mod reload;
mod runs;
mod schedules;
mod slots;
mod status;
pub mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use crate::engine::Core;

pub use alerting::{AlertingView, EndpointView, PingFailureView};
pub use caller::{Because, Caller, Callers, Scope, Users};
pub use cursor::Page;
pub use error::{ApiError, ErrorBody, ErrorEnvelope, FieldError};
pub use extract::BODY_DEADLINE;
pub use logfile::CHUNK_MAX;
pub use logs::{LOG_ATTEMPT, LOG_OFFSET};
pub use wire::Data;

/// Longest body of a request, bytes.
pub const BODY_MAX: usize = 20 << 20;
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

/// Every route over the engine.
pub fn router(core: Arc<Core>) -> Router {
    let started_ms = core.clock.now_ms();
    let entropy = Arc::clone(&core.entropy);
    let app = App { core, started_ms };
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/v1/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/doctor", get(doctor::doctor))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/agents", get(agents::list))
        .route("/v1/agents/{id}", get(agents::get))
        .route("/v1/agents/{id}/execute", post(execute::execute))
        .route("/v1/agents/{id}/backfill", post(backfill::backfill))
        .route("/v1/agents/{id}/pause", post(pause::pause))
        .route("/v1/agents/{id}/resume", post(pause::resume))
        .route("/v1/agents/{id}/events", get(events::of_agent))
        .route("/v1/agents/{id}/slots", get(slots::of_agent))
        .route("/v1/agents/{id}/plan", get(plan::of_agent))
        .route("/v1/agents/{id}/why", get(plan::why))
        .route("/v1/events", get(events::list))
        .route("/v1/events/{id}", get(events::get))
        .route("/v1/events/{id}/cancel", post(events::cancel))
        .route("/v1/events/{id}/diff/{other}", get(events::diff))
        .route("/v1/events/{id}/retry", post(execute::retry))
        .route("/v1/events/{id}/logs", get(logs::logs))
        .route("/v1/reexec", get(reexec::get).post(reexec::post))
        .route("/v1/schedules", get(schedules::list))
        .route("/v1/slots", get(slots::list))
        .route("/v1/plan", get(plan::all))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::get))
        .route("/v1/deliveries/{id}/redeliver", post(deliveries::redeliver))
        .route("/v1/webhooks/enable", post(deliveries::enable))
        .route("/v1/webhooks/test", post(deliveries::test))
        .merge(enthusiast::router())
        .merge(runs::router())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(caller::authorize))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(dialect::shape))
        .layer(middleware::from_fn_with_state(entropy, observe::observe))
        .with_state(app)
}

async fn no_route(request: Request) -> ApiError {
    ApiError::no_route(request.method().as_str(), request.uri().path())
}

async fn no_method(request: Request) -> ApiError {
    ApiError::no_method(request.method().as_str(), request.uri().path())
}
