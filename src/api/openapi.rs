//! The description of the API, `OpenAPI` 3.1, at `/openapi.json`: made of the same routes that answer, so that
//! neither can have what the other lacks.
//!
//! A handler is annotated where it stands and added with `routes!`; `.route(..)` would leave it out of the document.
//!
//! ```text
//! /// What it does, a sentence: becomes the summary.
//! #[utoipa::path(
//!     post,
//!     path = "/v1/agents/{id}/execute",
//!     operation_id = "execute_agent",          // unique, snake_case: names the method of generated clients
//!     tag = "runs",                            // one of TAGS
//!     params(Query),                           // derive(IntoParams), #[into_params(parameter_in = Query)]
//!     request_body = Option<ExecuteRequest>,   // a type of `wire` that derives ToSchema
//!     responses(
//!         (status = 202, description = "The run is admitted", body = Data<Executed>),
//!         (status = 409, description = "It runs already"),  // an error of its own: no body, it is filled in
//!     )
//! )]
//! ```
//!
//! Path parameters are read from the handler's `Path<..>`. What every call of its kind can answer (400, 401, 403, 404, 408,
//! 413, 415, 421, 422, 429, 503) and the shape of every error are added by [`finish`]; `security(())` marks a call
//! that needs no token. A schema is as narrow as what is taken: what it allows must not be refused. Names of
//! schemas are one space for all dialects: `#[schema(as = KaizenExecution)]` where a short one is taken. A type
//! whose serialisation is its own (`flatten` of an option or of a value, a hand-written `Serialize`) gets a
//! hand-written schema. After a change: `matins __openapi docs/openapi.json`; examples are in `openapi/examples.json`,
//! links in `openapi/links.rs`. Write `#[derive(utoipa::ToSchema)]` in full: with the trait imported, the lint for unnecessary
//! qualifications meets the derived code.

mod finish;
mod links;
mod narrow;
mod page;
mod webhooks;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::openapi::{ComponentsBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::{App, ErrorBody, ErrorEnvelope, enthusiast, native, runs};

/// The tags with what they are about: the dialects, and the parts of our own.
const TAGS: &[(&str, &str)] = &[
    ("agents", "Agents: what their files say and how they do."),
    ("runs", "Runs and their records, which are called events."),
    ("schedules", "When agents are due, what became of every due instant, what comes next."),
    ("deliveries", "Webhook messages on their way out."),
    ("files", "Uploaded files, and what runs leave behind."),
    ("tokens", "Who may come in over TCP."),
    ("daemon", "The daemon itself."),
    ("kaizen", "The dialect of the Kaizen execution API."),
    ("enthusiast", "The dialect of the Enthusiast agentic execution API."),
    ("tasks", "The dialect of the task and run API."),
];

/// The document as it is sent.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| text().into());
/// The page made of it.
static PAGE: LazyLock<Bytes> = LazyLock::new(|| page::page(&value()).into());

/// Every route with its description. A dialect is merged here.
pub(super) fn routes() -> OpenApiRouter<App> {
    let errors = ComponentsBuilder::new().schema_from::<ErrorEnvelope>().schema_from::<ErrorBody>();
    let components = webhooks::schemas(errors).build();
    let base: OpenApi = OpenApiBuilder::new().components(Some(components)).build();
    OpenApiRouter::with_openapi(base).merge(native()).merge(enthusiast::router()).merge(runs::router())
}

/// The document as text, indented, with a newline at its end.
#[must_use]
pub fn text() -> String {
    let mut document = value();
    // By name: whether a map remembers its order is a feature that any dependency may turn on.
    document.sort_all_objects();
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn value() -> Value {
    let (_, document) = routes().split_for_parts();
    // Text, numbers and lists always serialise.
    finish::finish(serde_json::to_value(document).unwrap_or_default())
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "daemon",
    security(()),
    responses((status = 200, description = "The description of every call, OpenAPI 3.1", body = Object))
)]
pub async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT.clone())
}

/// The same as a page to read.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_docs",
    tag = "daemon",
    security(()),
    responses((status = 200, description = "A page without scripts", body = String, content_type = "text/html"))
)]
pub async fn docs() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    (headers, PAGE.clone())
}

#[cfg(test)]
mod tests;
