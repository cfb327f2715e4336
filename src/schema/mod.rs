//! JSON Schema: the one user of `jsonschema`.
//!
//! A schema is compiled once and checks values without I/O: nothing remote and no file is ever
//! fetched, an external `$ref` is an error of the schema. Draft 2020-12 where `$schema` names no
//! other draft. `format` is checked (a `format: uri` that lets anything pass helps nobody), unknown
//! formats are ignored as the specification demands.
//!
//! What does not fit is told as at most [`MAX_VIOLATIONS`] short sentences, each with the place in
//! the value: the whole value is never printed, it may be megabytes.

mod defaults;

use std::fmt;

use jsonschema::ReferencingError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

pub use defaults::{fill, strict};

/// Most violations that one validation reports.
pub const MAX_VIOLATIONS: usize = 10;
/// Longest message of one violation, characters.
pub const MAX_MESSAGE_CHARS: usize = 300;
/// Deepest nesting of a schema or of a value that is checked; deeper ones are refused, because
/// validation recurses.
pub const MAX_DEPTH: usize = 128;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not a JSON Schema.
    #[error("{}", at(.pointer, .message))]
    Invalid {
        /// JSON pointer into the schema, empty for the whole.
        pointer: String,
        /// What is wrong there.
        message: String,
    },
    /// It refers to something outside itself, or to a part that does not exist.
    #[error("it refers to something that is not inside it: {0}")]
    Reference(String),
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// What a violation is, where programs tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A property is missing; the place is its own.
    Missing,
    /// A property is unknown; the place is its own.
    Unknown,
    /// Anything else.
    Other,
}

/// One place where a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the value, empty for the whole.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&at(&self.pointer, &self.message))
    }
}

fn at(pointer: &str, message: &str) -> String {
    if pointer.is_empty() { message.to_owned() } else { format!("{pointer}: {message}") }
}

/// A compiled schema.
#[derive(Debug, Clone)]
pub struct Schema(jsonschema::Validator);

/// Refuses every fetch, so that no feature of the library can turn one on.
struct NoFetch;

impl jsonschema::Retrieve for NoFetch {
    fn retrieve(
        &self,
        uri: &jsonschema::Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is outside the schema").into())
    }
}

impl Schema {
    /// Compiles a schema.
    pub fn compile(schema: &Value) -> Result<Self, Error> {
        if deeper_than(schema, MAX_DEPTH) {
            return Err(Error::TooDeep);
        }
        jsonschema::options()
            .with_retriever(NoFetch)
            .should_validate_formats(true)
            .build(schema)
            .map(Self)
            .map_err(|e| match e.kind() {
                ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => {
                    Error::Reference(shorten(uri))
                }
                ValidationErrorKind::Referencing(e) => Error::Reference(shorten(&e.to_string())),
                _ => Error::Invalid {
                    pointer: e.instance_path().to_string(),
                    message: shorten(&e.to_string()),
                },
            })
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The first [`MAX_VIOLATIONS`] places that do not fit.
    pub fn validate(&self, value: &Value) -> Result<(), Vec<Violation>> {
        if deeper_than(value, MAX_DEPTH) {
            let message = format!("it is nested deeper than {MAX_DEPTH} levels");
            return Err(vec![Violation { pointer: String::new(), message }]);
        }
        let violations: Vec<_> = self
            .0
            .iter_errors(value)
            .take(MAX_VIOLATIONS)
            .map(|e| Violation { pointer: e.instance_path().to_string(), message: shorten(&e.to_string()) })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// As [`Self::validate`], property by property: what is missing or unknown is named itself, not the object that
    /// it should or should not be in.
    ///
    /// # Errors
    /// The first [`MAX_VIOLATIONS`] places that do not fit.
    pub fn validate_properties(&self, value: &Value) -> Result<(), Vec<(Fault, Violation)>> {
        if deeper_than(value, MAX_DEPTH) {
            let message = format!("it is nested deeper than {MAX_DEPTH} levels");
            return Err(vec![(Fault::Other, Violation { pointer: String::new(), message })]);
        }
        let faults: Vec<_> =
            self.0.iter_errors(value).flat_map(|e| faults(&e)).take(MAX_VIOLATIONS).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// An error as one violation for each property that it is about.
fn faults(e: &jsonschema::ValidationError<'_>) -> Vec<(Fault, Violation)> {
    let (place, message) = (e.instance_path().to_string(), shorten(&e.to_string()));
    let of = |fault: Fault, name: &str| {
        let pointer = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
        (fault, Violation { pointer, message: message.clone() })
    };
    match e.kind() {
        ValidationErrorKind::Required { property } => {
            vec![of(Fault::Missing, property.as_str().unwrap_or_default())]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| of(Fault::Unknown, name)).collect()
        }
        _ => vec![(Fault::Other, Violation { pointer: place, message })],
    }
}

fn shorten(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => message.to_owned(),
        Some((cut, _)) => {
            // The end says what is wrong (`.. is not of type "string"`), the start is the value.
            let tail = message.char_indices().rev().nth(MAX_MESSAGE_CHARS / 2).map_or(0, |(i, _)| i);
            let head = message[..cut].char_indices().nth(MAX_MESSAGE_CHARS / 2 - 3).map_or(cut, |(i, _)| i);
            format!("{}...{}", &message[..head], &message[tail..])
        }
    }
}

/// Whether a value is nested deeper than `limit`; walks at most `limit` levels down.
fn deeper_than(value: &Value, limit: usize) -> bool {
    let Some(left) = limit.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(items) => items.iter().any(|v| deeper_than(v, left)),
        Value::Object(map) => map.values().any(|v| deeper_than(v, left)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(schema: &Value, value: &Value) -> Vec<String> {
        let schema = Schema::compile(schema).unwrap();
        match schema.validate(value) {
            Ok(()) => Vec::new(),
            Err(v) => v.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_value_is_checked_at_its_place() {
        let schema = json!({"type": "object", "properties": {"prices": {"type": "array", "items": {"type": "number"}}},
                            "required": ["prices"], "additionalProperties": false});
        assert_eq!(violations(&schema, &json!({"prices": [1, 2.5]})), Vec::<String>::new());
        assert_eq!(
            violations(&schema, &json!({"prices": ["x"]})),
            [r#"/prices/0: "x" is not of type "number""#]
        );
        assert_eq!(violations(&schema, &json!({})), [r#""prices" is a required property"#]);
    }

    #[test]
    fn a_property_that_is_missing_or_unknown_is_named_itself() {
        let schema = json!({"properties": {"a": {"properties": {"b": {}}, "required": ["b"],
                            "additionalProperties": false}, "n": {"type": "integer"}}});
        let faults = Schema::compile(&schema)
            .unwrap()
            .validate_properties(&json!({"a": {"x/y": 1, "z": 2}, "n": "1"}));
        let mut told: Vec<_> = faults.unwrap_err().into_iter().map(|(f, v)| (v.pointer, f)).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let told: Vec<_> = told.iter().map(|(p, f)| (p.as_str(), *f)).collect();
        assert_eq!(
            told,
            [
                ("/a/b", Fault::Missing),
                ("/a/x~1y", Fault::Unknown),
                ("/a/z", Fault::Unknown),
                ("/n", Fault::Other)
            ]
        );
    }

    #[test]
    fn formats_are_checked_and_unknown_ones_ignored() {
        assert_eq!(violations(&json!({"format": "uri"}), &json!("no uri")).len(), 1);
        assert_eq!(violations(&json!({"format": "uri"}), &json!("https://a.example")).len(), 0);
        assert_eq!(violations(&json!({"format": "of-the-moon"}), &json!("x")).len(), 0);
    }

    #[test]
    fn the_default_draft_is_2020_12_and_schema_selects_another() {
        let tuple = json!({"prefixItems": [{"type": "string"}]});
        assert_eq!(violations(&tuple, &json!([1])).len(), 1);
        let old = json!({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"type": "string"}]});
        assert_eq!(violations(&old, &json!([1])).len(), 0, "draft 7 does not know prefixItems");
    }

    #[test]
    fn violations_are_few_and_short() {
        let many: Vec<Value> = (0..50).map(|_| json!("x")).collect();
        assert_eq!(violations(&json!({"items": {"type": "number"}}), &json!(many)).len(), MAX_VIOLATIONS);
        let long = violations(&json!({"type": "number"}), &json!("ä".repeat(1_000_000)));
        assert!(long[0].chars().count() <= MAX_MESSAGE_CHARS + 3, "{}", long[0].len());
        assert!(long[0].ends_with(r#"is not of type "number""#), "{}", long[0]);
    }

    #[test]
    fn a_schema_is_checked_with_its_place() {
        let Err(Error::Invalid { pointer, .. }) =
            Schema::compile(&json!({"properties": {"a": {"type": "strin"}}}))
        else {
            panic!("accepted");
        };
        assert_eq!(pointer, "/properties/a/type");
        assert!(matches!(Schema::compile(&json!({"pattern": "("})), Err(Error::Invalid { .. })));
        assert!(matches!(Schema::compile(&json!(5)), Err(Error::Invalid { .. })));
    }

    #[test]
    fn nothing_is_ever_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("other.json");
        std::fs::write(&file, "{}").unwrap();
        let local = format!("file://{}", file.display());
        for uri in ["https://example.com/s.json", "other.json", "#/$defs/none", local.as_str()] {
            let got = Schema::compile(&json!({"$ref": uri}));
            assert!(matches!(got, Err(Error::Reference(_))), "{uri}: {got:?}");
        }
        let unknown_draft = Schema::compile(&json!({"$schema": "https://example.com/draft"}));
        assert!(unknown_draft.is_err(), "{unknown_draft:?}");
        let inside = json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}});
        assert_eq!(violations(&inside, &json!(1)).len(), 1);
    }

    #[test]
    fn recursion_ends() {
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        let mut value = json!({});
        for _ in 0..100 {
            value = json!({"next": value});
        }
        assert_eq!(violations(&tree, &value).len(), 0);
        for _ in 0..100 {
            value = json!({"next": value});
        }
        assert_eq!(violations(&tree, &value), ["it is nested deeper than 128 levels"]);
        let mut schema = json!(true);
        for _ in 0..200 {
            schema = json!({"not": schema});
        }
        assert_eq!(Schema::compile(&schema).err(), Some(Error::TooDeep));
        // A schema that is only itself says nothing; it must neither loop nor overflow the stack.
        for loop_ in [json!({"$ref": "#"}), json!({"allOf": [{"$ref": "#"}]})] {
            let _ = Schema::compile(&loop_).map(|s| s.validate(&json!(1)));
        }
    }
}
