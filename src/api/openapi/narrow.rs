//! What a derive cannot say of a parameter, a body or a field: that a name has a form, that an absent body is none
//! instead of null, that a text is a time.

use serde_json::{Value, json};

use super::finish::inner;

/// The form of an agent's id.
const AGENT: &str = "^[a-z0-9][a-z0-9-]{0,62}$";
/// The form of a name of an event.
const EVENT: &str = "^([0-9a-f]{4}[0-9a-f-]{0,32}|@last|[a-z0-9][a-z0-9-]{0,62}@last)$";
/// What is said of the parameters of paths that begin like this: their form, an example, and what they are.
const NAMES: &[(&str, &str, &str, &str)] = &[
    ("/v1/agents/", AGENT, "price-watch", "Id of the agent."),
    (
        "/v1/events/",
        EVENT,
        "01a2035a-efe1-7fab-95db-6acfe54b4577",
        "Id of the event or of its request, a unique beginning of one, `@last` or `AGENT@last`.",
    ),
    ("/v1/deliveries/", "^[A-Za-z0-9_-]+$", "msg_01a2035aefe17fab95db6acfe54b4577", "Id of the delivery."),
];
/// Fields beside `..At` that are times.
const TIMES: &[&str] =
    &["at", "since", "nominal", "until", "from", "to", "first", "last", "scheduledFor", "notBefore"];

/// Narrows the parameters and the body of an operation.
pub(super) fn operation(path: &str, operation: &mut Value) {
    if path.starts_with("/v1/agents/{id}/")
        && let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut)
    {
        // The path names the agent already.
        parameters.retain(|parameter| parameter["name"] != "agentId");
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        present(&mut parameter["schema"]);
        unsigned(&mut parameter["schema"]);
        let (place, name) = (parameter["in"].clone(), parameter["name"].clone());
        let known = NAMES.iter().find(|(prefix, ..)| place == "path" && path.starts_with(prefix));
        if let Some((_, form, example, about)) = known {
            let bare = json!({ "type": "string" });
            if parameter["schema"] == bare && (name == "id" || name == "other") {
                parameter["schema"]["pattern"] = json!(form);
                parameter["example"] = json!(example);
                parameter["description"] = json!(about);
            }
        }
        if name == "agentId" && parameter["schema"]["type"] == "string" {
            parameter["schema"]["pattern"] = json!(AGENT);
        }
    }
    if operation["operationId"] == "upload_file" {
        // Without a body it is an empty file.
        operation["requestBody"]["required"] = json!(false);
    }
    for (_, content) in operation.get_mut("requestBody").into_iter().flat_map(|body| inner(body, "content")) {
        optional(&mut content["schema"]);
    }
    for (_, response) in inner(operation, "responses") {
        for (media, content) in inner(response, "content") {
            if content["schema"]["items"]["format"] == "int32" && !media.ends_with("json") {
                content["schema"] = json!({ "type": "string", "format": "binary" });
            }
            // Many values after each other are one text; the schema is that of each.
            if media.ends_with("x-ndjson") || media.ends_with("event-stream") {
                content["schema"] = json!({ "type": "string", "contentSchema": content["schema"].take() });
            }
        }
    }
}

/// A parameter is there or not; it is never null.
fn present(schema: &mut Value) {
    let types = schema["type"].as_array().cloned().unwrap_or_default();
    let mut others = types.iter().filter(|t| *t != "null");
    if let (Some(only), None) = (others.next(), others.next()) {
        schema["type"] = only.clone();
    }
}

/// The formats of integers are signed; a number that is not goes further.
fn unsigned(schema: &mut Value) {
    let most = match schema["format"].as_str() {
        Some("int32") => json!(u32::MAX),
        Some("int64") => json!(u64::MAX),
        _ => return,
    };
    if schema["minimum"] == 0
        && let Some(fields) = schema.as_object_mut()
    {
        fields.remove("format");
        fields.entry("maximum").or_insert(most);
    }
}

/// A body that may be left out is still never null.
fn optional(schema: &mut Value) {
    let choices = schema["oneOf"].as_array().cloned().unwrap_or_default();
    let mut others = choices.iter().filter(|choice| choice["type"] != "null");
    if let (Some(only), None) = (others.next(), others.next()) {
        *schema = only.clone();
    }
}

/// Takes away defaults of null, which say nothing, and says of choices that more than one may fit: an empty page
/// is one of either kind.
pub(super) fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(choices) = fields.remove("oneOf") {
                fields.insert("anyOf".to_owned(), choices);
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// Says which fields of a schema are times.
pub(super) fn times(schema: &mut Value) {
    for (name, field) in inner(schema, "properties") {
        let text = field["type"] == "string" || field["type"] == json!(["string", "null"]);
        if text && (TIMES.contains(&name.as_str()) || name.ends_with("At")) && field.get("enum").is_none() {
            field["format"] = json!("date-time");
        }
    }
    for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        times(part);
    }
}
