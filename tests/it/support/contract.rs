//! The published description of the API, held against what is really sent.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The document.
pub static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&matins::api::openapi_text()).unwrap());

/// What is wrong with `value` by a schema of the document; nothing that the schema does not name is taken.
pub fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let closed = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "unevaluatedProperties": false,
        "components": DOCUMENT["components"],
    });
    let validator = jsonschema::validator_for(&closed).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// Fails where a webhook message is not as the document says.
pub fn check_message(message: &Value) {
    let kind = message["type"].as_str().unwrap_or_default();
    let described =
        &DOCUMENT["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let mut schema = described.clone();
    assert!(schema.is_object(), "the document does not know messages of type {kind:?}");
    let data = schema["properties"]["data"].take();
    schema["properties"]["data"] = json!(true);
    let mut wrong = problems(&schema, message);
    wrong.extend(problems(&data, &message["data"]));
    assert!(wrong.is_empty(), "{kind} is not as the document says: {wrong:#?}\n{message:#}");
}
