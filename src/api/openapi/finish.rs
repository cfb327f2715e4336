//! What no handler has to say of itself: who publishes the document, how callers show who they are, and the
//! errors that every call of its kind can answer, in the shape of its dialect.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{TAGS, links, narrow, webhooks};

/// Examples: of requests and answers by operation, of messages by kind.
const EXAMPLES: &str = include_str!("examples.json");

/// Fields that answers of /v1 may leave out, by schema; all others are there, null where nothing is known. Without
/// names: any of that schema.
const SPARSE: &[(&str, &[&str])] = &[
    ("Event", &["skills", "input", "result", "files"]),
    ("Overrides", &[]),
    ("RunMessage", &[]),
    ("Mistake", &[]),
];

/// Calls whose paths begin like this answer errors of this schema; the first that fits counts.
const ERRORS: &[(&str, &str)] = &[
    ("/api/runs", "TaskError"),
    ("/api/tasks", "TaskError"),
    ("/api/", "ExecutionError"),
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
    document["components"]["schemas"]["ExecutionError"] = execution_error();
    document["components"]["schemas"]["TaskError"] = task_error();
    // The file is part of the program, and a test reads it.
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    let mut answered = BTreeSet::new();
    let mut asked = BTreeSet::new();
    rest_of_a_path(&mut document["paths"]);
    for (path, item) in inner(&mut document, "paths") {
        for (_, operation) in entries(item) {
            narrow::operation(path, operation);
            complete(path, operation);
            links::add(operation);
            illustrate(operation, &examples);
            if path.starts_with("/v1") {
                named(operation.get("responses").unwrap_or(&Value::Null), &mut answered);
                for (_, body) in
                    operation.get_mut("requestBody").into_iter().flat_map(|b| inner(b, "content"))
                {
                    named(body, &mut asked);
                }
            }
        }
    }
    for name in asked {
        // What a body of ours has and nobody knows is refused.
        document["components"]["schemas"][&name]["additionalProperties"] = json!(false);
    }
    narrow::plain(&mut document["components"]["schemas"]);
    narrow::plain(&mut document["paths"]);
    document["webhooks"] = webhooks::webhooks(&examples["webhooks"]);
    always_there(&mut document["components"]["schemas"], answered);
    document
}

/// The router's `{*path}`, the rest of a path, is a parameter as the others.
fn rest_of_a_path(paths: &mut Value) {
    let Some(all) = paths.as_object_mut() else { return };
    for path in all.keys().filter(|path| path.contains("{*")).cloned().collect::<Vec<_>>() {
        let Some(mut item) = all.remove(&path) else { continue };
        let name = path.split("{*").nth(1).and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        let rest = json!({
            "in": "path",
            "name": name,
            "required": true,
            "schema": { "type": "string" },
            "description": "The rest of the path, slashes included.",
        });
        for (_, operation) in entries(&mut item) {
            if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
                parameters.push(rest.clone());
            }
        }
        all.insert(path.replace("{*", "{"), item);
    }
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

/// The entries of an object within; none where it has none of that name.
pub(super) fn inner<'v>(
    value: &'v mut Value,
    name: &str,
) -> impl Iterator<Item = (&'v String, &'v mut Value)> {
    value.get_mut(name).and_then(Value::as_object_mut).into_iter().flatten()
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

/// `{"detail": ".."}`, or what is wrong by field.
fn execution_error() -> Value {
    let text = json!({ "type": "string" });
    let inside = json!({ "type": "object", "additionalProperties": text });
    json!({
        "type": "object",
        "description": "A sentence in `detail`, or what is wrong with each field.",
        "minProperties": 1,
        "additionalProperties": { "anyOf": [text, { "type": "array", "items": text }, inside] },
    })
}

/// `{"detail": ..}`: a sentence, or a list of what is wrong.
fn task_error() -> Value {
    let text = json!({ "type": "string" });
    let place = json!({ "type": "array", "items": { "type": ["string", "integer"] } });
    let wrong = json!({
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": { "loc": place, "msg": text, "type": text },
    });
    json!({
        "type": "object",
        "description": "A sentence, or each field that does not fit with its place.",
        "required": ["detail"],
        "properties": { "detail": { "anyOf": [text, { "type": "array", "items": wrong }] } },
    })
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

/// The schema of the errors of a path.
fn error_of(path: &str) -> &'static str {
    ERRORS.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or("ErrorEnvelope", |(_, schema)| schema)
}

/// Which of the errors in common a call can answer.
fn possible(path: &str, operation: &Value) -> Vec<u16> {
    let open = operation.get("security").is_some();
    let mut statuses = vec![421, 503];
    if !open {
        statuses.extend([401, 403, 429]);
    }
    // There the body names what is asked for.
    let named = path.starts_with("/executions/") || path.starts_with("/agents/");
    if named || path.contains('{') {
        statuses.extend([400, 404]);
    }
    if operation.get("parameters").is_some() {
        statuses.push(400);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend([400, 408, 413, 415]);
        // There a field that does not fit is 400.
        if error_of(path) != "ExecutionError" {
            statuses.push(422);
        }
    }
    statuses
}

fn complete(path: &str, operation: &mut Value) {
    let schema = error_of(path);
    let statuses = possible(path, operation);
    for (status, response) in inner(operation, "responses") {
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

/// Adds the examples of an operation.
fn illustrate(operation: &mut Value, examples: &Value) {
    let Some(own) = operation["operationId"].as_str().and_then(|id| examples.get(id)).cloned() else {
        return;
    };
    if let Some(request) = own.get("request") {
        for (kind, content) in
            operation.get_mut("requestBody").into_iter().flat_map(|body| inner(body, "content"))
        {
            if kind == "application/json" {
                content["example"] = request.clone();
            }
        }
    }
    let Some(answer) = own.get("response") else { return };
    for (status, response) in inner(operation, "responses") {
        if status.starts_with('2') {
            for (_, content) in inner(response, "content") {
                content["example"] = answer.clone();
            }
        }
    }
}

/// The schemas that a value names.
fn named(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let to = fields.get("$ref").and_then(Value::as_str);
            found.extend(to.and_then(|to| to.strip_prefix("#/components/schemas/")).map(str::to_owned));
            fields.values().for_each(|v| named(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| named(v, found)),
        _ => {}
    }
}

/// Says of the schemas of answers, and those that they name, that their fields are always there.
fn always_there(schemas: &mut Value, mut answered: BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    while let Some(name) = answered.pop_first() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let absent = SPARSE.iter().find(|(schema, _)| *schema == name).map(|(_, fields)| *fields);
        let schema = &mut schemas[&name];
        named(schema, &mut answered);
        narrow::times(schema);
        if absent != Some(&[]) {
            require(schema, absent.unwrap_or_default());
        }
    }
}

fn require(schema: &mut Value, absent: &[&str]) {
    if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
        let names: Vec<&String> = fields.keys().filter(|name| !absent.contains(&name.as_str())).collect();
        schema["required"] = json!(names);
    }
    // An empty list would be no difference, a composed schema has its fields in its parts.
    for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        require(part, absent);
    }
}
