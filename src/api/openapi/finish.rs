//! What no handler has to say of itself: who publishes the document, how callers show who they are, and the
//! errors that every call of its kind can answer, in the shape of its dialect.

use serde_json::{Map, Value, json};

use super::TAGS;

/// Calls whose paths begin like this answer errors of this schema; the first that fits counts.
const ERRORS: &[(&str, &str)] = &[
    ("/api/agents", "FormError"),
    ("/api/agentic-executions", "FormError"),
    ("/api/runs", "TaskError"),
    ("/api/tasks", "TaskError"),
    ("/", "ErrorEnvelope"),
];

/// Errors that calls have in common, by status: a word for the component, and what it means.
const COMMON: &[(u16, &str, &str)] = &[
    (400, "Malformed", "The request cannot be read, or a parameter does not fit"),
    (401, "Unauthorized", "There is no token, or it is not known, expired or revoked"),
    (403, "Forbidden", "The caller may not do this"),
    (404, "NotFound", "There is none of this name, or none that the caller may see"),
    (408, "SlowBody", "The body did not arrive in time"),
    (413, "TooLarge", "The body is too long"),
    (415, "UnsupportedMediaType", "The body is of a type that is not taken"),
    (421, "Misdirected", "The header Host names a host that is not served"),
    (422, "Invalid", "A field of the body does not fit; `details` name each"),
    (429, "TooManyRequests", "Too much was asked; Retry-After says when to come again"),
    (503, "Unavailable", "The daemon stops, or cannot write now; Retry-After says when to come again"),
];

/// Completes the document that the routes have made.
pub(super) fn finish(mut document: Value) -> Value {
    document["openapi"] = json!("3.1.0");
    document["info"] = info();
    document["servers"] = json!([{ "url": "/", "description": "The daemon that answers" }]);
    document["tags"] =
        TAGS.iter().map(|(name, about)| json!({ "name": name, "description": about })).collect();
    document["security"] = json!([{ "bearer": [] }, { "token": [] }, { "apiKey": [] }]);
    document["components"]["securitySchemes"] = schemes();
    document["components"]["responses"] = shared();
    for (path, item) in entries(&mut document["paths"]) {
        for (_, operation) in entries(item) {
            complete(path, operation);
        }
    }
    document
}

fn info() -> Value {
    json!({
        "title": "matins",
        "summary": "Scheduled runs of agents",
        "description": "One engine behind the native calls (/v1) and three dialects whose clients work unchanged. \
            Times are RFC 3339 with milliseconds and `Z`. A field that is not known is null.",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
    })
}

fn schemes() -> Value {
    json!({
        "bearer": {
            "type": "http", "scheme": "bearer", "description": "A token of `matins token create`."
        },
        "token": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "The same token as `Authorization: Token T`.",
        },
        "apiKey": {
            "type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same token as a header.",
        },
    })
}

/// The entries of an object; none of anything else.
fn entries(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

/// The errors in common, once for every shape that errors have.
fn shared() -> Value {
    let mut all = Map::new();
    for (_, schema) in ERRORS {
        for (status, word, meaning) in COMMON {
            all.insert(component(schema, word), error(*status, schema, json!({ "description": meaning })));
        }
    }
    Value::Object(all)
}

fn component(schema: &str, word: &str) -> String {
    if schema == "ErrorEnvelope" { word.to_owned() } else { format!("{schema}{word}") }
}

/// A response with the body and the headers that an error of this status has.
fn error(status: u16, schema: &str, mut response: Value) -> Value {
    let shape = json!({ "$ref": format!("#/components/schemas/{schema}") });
    response["content"] = json!({ "application/json": { "schema": shape } });
    if matches!(status, 429 | 503) {
        let seconds = json!({ "type": "integer", "minimum": 0 });
        response["headers"] = json!({ "Retry-After": { "schema": seconds, "description": "Seconds" } });
    }
    response
}

/// Which of the errors in common a call can answer.
fn possible(path: &str, operation: &Value) -> Vec<u16> {
    let open = operation.get("security").is_some();
    let mut statuses = vec![421, 503];
    if !open {
        statuses.extend([401, 403, 429]);
    }
    if path.contains('{') {
        statuses.extend([400, 404]);
    }
    if operation.get("parameters").is_some() {
        statuses.push(400);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend([400, 408, 413, 415, 422]);
    }
    statuses
}

fn complete(path: &str, operation: &mut Value) {
    let schema =
        ERRORS.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or("ErrorEnvelope", |(_, s)| s);
    let statuses = possible(path, operation);
    for (status, response) in entries(&mut operation["responses"]) {
        if let Ok(status @ 400..) = status.parse()
            && response.get("content").is_none()
        {
            *response = error(status, schema, response.take());
        }
    }
    for (status, word, _) in COMMON.iter().filter(|(status, ..)| statuses.contains(status)) {
        let named = &mut operation["responses"][status.to_string()];
        if named.is_null() {
            *named = json!({ "$ref": format!("#/components/responses/{}", component(schema, word)) });
        }
    }
}
