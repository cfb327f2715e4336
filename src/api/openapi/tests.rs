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
