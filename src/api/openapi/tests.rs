//! The document against itself: what a reader of it relies on.

use std::collections::BTreeSet;

use super::*;

fn document() -> Value {
    value()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &'_ Value)| {
        let item = item.as_object().unwrap().clone();
        item.into_iter().map(|(method, _)| (method, path.clone())).collect::<Vec<_>>()
    };
    let named: Vec<(String, String)> = paths.iter().flat_map(of).collect();
    named
        .into_iter()
        .map(|(method, path)| (format!("{method} {path}"), &document["paths"][&path][&method]))
        .collect()
}

/// Every `$ref` of a value.
fn refs(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                found.insert(to.clone());
            }
            fields.values().for_each(|v| refs(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| refs(v, found)),
        _ => {}
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_a_tag_and_a_summary() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{name}: {id} is there twice");
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: {id}");
        let tags: Vec<&str> =
            operation["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(tags.len() == 1 && TAGS.iter().any(|(tag, _)| *tag == tags[0]), "{name}: {tags:?}");
        assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{name} has no summary");
    }
    assert!(ids.len() > 30, "{}", ids.len());
}

#[test]
fn the_published_document_is_that_of_the_program() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == text(), "docs/openapi.json is not what `matins __openapi docs/openapi.json` writes");
}

/// What is wrong with an example by its schema.
fn unfit(document: &Value, schema: &Value, example: &Value) -> Vec<String> {
    let whole = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": document["components"],
    });
    let validator = jsonschema::validator_for(&whole).unwrap();
    validator.iter_errors(example).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn every_json_body_has_an_example_that_fits() {
    let document = document();
    let mut wrong = Vec::new();
    let mut check = |name: &str, content: &Value| match content.get("example") {
        None => wrong.push(format!("{name} has no example")),
        Some(example) => {
            let errors = unfit(&document, &content["schema"], example);
            wrong.extend(errors.into_iter().map(|e| format!("{name}: {e}")));
        }
    };
    for (name, operation) in operations(&document) {
        // The document itself, and bodies that take nothing.
        let request = operation.pointer("/requestBody/content/application~1json");
        let nothing = |c: &&Value| c["schema"]["$ref"] != "#/components/schemas/Nothing";
        if let Some(content) = request.filter(nothing) {
            check(&format!("{name}, request"), content);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = response.pointer("/content/application~1json");
            let own = name.split_whitespace().any(|word| word == "/openapi.json");
            if let Some(content) = content.filter(|_| status.starts_with('2') && !own) {
                check(&format!("{name}, {status}"), content);
            }
        }
    }
    for (kind, item) in document["webhooks"].as_object().unwrap() {
        check(kind, &item["post"]["requestBody"]["content"]["application/json"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_begins_and_ends_at_an_operation() {
    let document = document();
    let ids: BTreeSet<&str> =
        operations(&document).iter().map(|(_, o)| o["operationId"].as_str().unwrap()).collect();
    for (from, to) in links::ends() {
        assert!(ids.contains(from) && ids.contains(to), "{from} -> {to}");
    }
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let document = document();
    let mut found = BTreeSet::new();
    refs(&document, &mut found);
    for to in found {
        let pointer = to.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
    }
}

#[test]
fn every_error_has_its_shape() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.parse::<u16>().unwrap() >= 400 {
                let there = response.get("$ref").is_some() || response.get("content").is_some();
                assert!(there, "{name}: {status}");
            }
        }
    }
}
