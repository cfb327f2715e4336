//! A query parameter of /v1 that no call knows is refused: a mistyped filter that is ignored answers a question
//! that nobody asked. What a call knows is what the document says of it, so the two cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::{ApiError, openapi};

/// Names of the query parameters by method and route.
type Known = BTreeMap<String, BTreeSet<String>>;

static KNOWN: LazyLock<Known> = LazyLock::new(|| known(&openapi::text()));

fn known(document: &str) -> Known {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let mut known = Known::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names = parameters.filter(|p| p["in"] == "query").filter_map(|p| p["name"].as_str());
            known.insert(call(method, path), names.map(ToOwned::to_owned).collect());
        }
    }
    known
}

/// The name of a call; the document writes `{path}` where the router writes `{*path}`.
fn call(method: &str, route: &str) -> String {
    format!("{} {}", method.to_ascii_lowercase(), route.replace("{*", "{"))
}

/// Whether a route that the document has is served by this method; `None`: the document does not have it.
pub(super) fn is_served(method: &Method, route: &str) -> Option<bool> {
    let route = route.replace("{*", "{");
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let known = KNOWN.contains_key(&call(method.as_str(), &route));
    let other = || KNOWN.keys().any(|call| call.split_once(' ').is_some_and(|(_, path)| path == route));
    (known || other()).then_some(known)
}

/// Refuses requests with parameters that their call does not know.
pub async fn parameters(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let refusal = route.and_then(|route| {
        let query = request.uri().query().filter(|_| route.as_str().starts_with("/v1"))?;
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        refused(KNOWN.get(&call(method.as_str(), route.as_str()))?, query)
    });
    match refusal {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn refused(known: &BTreeSet<String>, query: &str) -> Option<ApiError> {
    let (name, _) =
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| !known.contains(&**name))?;
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let problem = match names.as_slice() {
        [] => "this call takes no parameters".to_owned(),
        names => format!("it is unknown; known are {}", names.join(", ")),
    };
    Some(ApiError::parameter(&name, &problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_document_names_is_known_and_nothing_else() {
        let of = |name: &str| KNOWN.get(name).unwrap_or_else(|| panic!("{name}"));
        assert!(of("get /v1/events").contains("startedAfter"));
        assert!(of("get /v1/status").is_empty());
        assert!(KNOWN.contains_key(&call("GET", "/v1/events/{id}/files/{*path}")), "whatever it is called");
        assert!(refused(of("get /v1/events"), "status=FAILED&limit=1&nextToken=").is_none());
        assert!(refused(of("get /v1/events"), "").is_none());
        for bad in ["Status=FAILED", "status=FAILED&x", "%73tatuss=1", "&&a=1"] {
            assert!(refused(of("get /v1/events"), bad).is_some(), "{bad}");
        }
    }
}
