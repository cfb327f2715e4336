//! The input of an execution, held to its definition by the letter.
//!
//! What is wrong is told field by field with dotted names, in the words of the original where it has some.

use serde_json::{Map, Value, json};

use super::Refusal;
use super::wire::input_schema;
use crate::model::{Agent, Variant};
use crate::schema::{Fault, Schema, Violation, fill};

/// The input as it is stored: what was sent, with the defaults of the schema.
///
/// # Errors
/// 400 with everything that does not fit.
pub(super) fn input(sent: Option<Value>, variant: &Variant, agent: &Agent) -> Result<Value, Refusal> {
    let mut input = object(sent)?;
    let schema = input_schema(variant, agent);
    fill(&schema, &mut input);
    // The file of the agent was refused if this were no schema.
    let compiled = Schema::compile(&schema).map_err(|e| wrong(e.to_string()))?;
    match compiled.validate_properties(&input) {
        Ok(()) => Ok(input),
        Err(faults) => Err(Refusal::bad(json!({ "input": by_field(faults) }))),
    }
}

fn wrong(what: impl Into<Value>) -> Refusal {
    Refusal::bad(json!({ "input": what.into() }))
}

/// An object, or JSON text of one, as it comes in a form.
fn object(sent: Option<Value>) -> Result<Value, Refusal> {
    let sent = match sent {
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map_err(|e| wrong(format!("Invalid JSON: {e}")))?
        }
        sent => sent.unwrap_or_else(|| json!({})),
    };
    let kind = match &sent {
        Value::Object(_) => return Ok(sent),
        Value::Null => return Err(wrong(vec!["This field may not be null."])),
        Value::Array(_) => "list",
        Value::String(_) => "str",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
    };
    Err(wrong(vec![format!("Expected a dictionary of items but got type \"{kind}\".")]))
}

/// The first violation of each field.
fn by_field(faults: Vec<(Fault, Violation)>) -> Map<String, Value> {
    let mut fields = Map::new();
    for (fault, violation) in faults {
        let message = match fault {
            Fault::Missing => "Field required".to_owned(),
            Fault::Unknown => "Extra inputs are not permitted".to_owned(),
            Fault::Other => violation.message,
        };
        fields.entry(dotted(&violation.pointer)).or_insert(Value::String(message));
    }
    fields
}

/// A JSON pointer as a dotted name.
fn dotted(pointer: &str) -> String {
    if pointer.is_empty() {
        return "non_field_errors".to_owned();
    }
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sent: Value) -> Value {
        match object(Some(sent)) {
            Ok(value) => value,
            Err(Refusal::Body(_, body)) => body,
            Err(Refusal::Error(e)) => panic!("{e:?}"),
        }
    }

    #[test]
    fn an_input_is_an_object_or_its_text() {
        assert_eq!(object(None).unwrap(), json!({}));
        assert_eq!(told(json!("{\"a\": 1}")), json!({"a": 1}));
        assert!(told(json!("{\"a\": "))["input"].as_str().unwrap().starts_with("Invalid JSON: "));
        assert_eq!(told(json!("null")), json!({"input": ["This field may not be null."]}));
        for (sent, kind) in
            [(json!([1]), "list"), (json!(true), "bool"), (json!(1), "int"), (json!(1.5), "float")]
        {
            let message = format!("Expected a dictionary of items but got type \"{kind}\".");
            assert_eq!(told(sent), json!({"input": [message]}));
        }
    }

    #[test]
    fn a_place_is_a_dotted_name() {
        assert_eq!(dotted("/skus/0"), "skus.0");
        assert_eq!(dotted("/a~1b/c~0d"), "a/b.c~d");
        assert_eq!(dotted(""), "non_field_errors");
    }
}
