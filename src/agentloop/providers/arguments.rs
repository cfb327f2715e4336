//! The arguments of a call as models write them, which is not always JSON and not always an object.
//!
//! Nothing is guessed: what is not an object, or an object in quotes, is kept as it was written, with the place of the
//! first mistake, for the model to read and mend. Only nothing at all means no arguments.

use serde_json::{Map, Value, json};

use crate::agentloop::model::Arguments;

/// Reads arguments as an answer holds them: as a text of JSON, or as JSON.
pub(super) fn read(value: &Value) -> Arguments {
    match value {
        Value::Null => Arguments::Object(Map::new()),
        Value::Object(fields) => Arguments::Object(fields.clone()),
        Value::String(text) => parse(text),
        other => Arguments::Malformed { raw: other.to_string(), why: not_an_object(other) },
    }
}

fn parse(text: &str) -> Arguments {
    if text.trim().is_empty() {
        return Arguments::Object(Map::new());
    }
    let malformed = |why| Arguments::Malformed { raw: text.to_owned(), why };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Arguments::Object(fields),
        Ok(Value::Null) => Arguments::Object(Map::new()),
        Ok(Value::String(inner)) => match serde_json::from_str(&inner) {
            Ok(Value::Object(fields)) => Arguments::Object(fields),
            _ => malformed("the arguments are a text, not an object".to_owned()),
        },
        Ok(other) => malformed(not_an_object(&other)),
        Err(error) => malformed(format!("the arguments are not valid JSON: {error}")),
    }
}

fn not_an_object(value: &Value) -> String {
    let what = match value {
        Value::Array(_) => "a list",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Null | Value::Object(_) => "something else",
    };
    format!("the arguments are {what}, not an object")
}

/// Arguments as a model is shown them again. Every provider wants an object there, some parse it in their templates.
pub(super) fn shown(arguments: &Arguments) -> Value {
    match arguments {
        Arguments::Object(fields) => Value::Object(fields.clone()),
        Arguments::Malformed { raw, .. } => json!({ "malformed_arguments": raw }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(value: &Value) -> String {
        match read(value) {
            Arguments::Malformed { why, .. } => why,
            Arguments::Object(fields) => panic!("{fields:?}"),
        }
    }

    #[test]
    fn arguments_are_read_as_models_write_them() {
        let good = json!({"a": 1});
        for value in [json!("{\"a\":1}"), json!({"a": 1}), json!(" {\"a\": 1}\n"), json!("\"{\\\"a\\\":1}\"")]
        {
            assert_eq!(shown(&read(&value)), good, "{value}");
        }
        for value in [json!(""), json!("  "), json!("null"), Value::Null, json!("{}")] {
            assert_eq!(shown(&read(&value)), json!({}), "{value}");
        }
    }

    #[test]
    fn what_is_malformed_is_kept_with_the_place_of_the_mistake() {
        assert_eq!(
            why(&json!("{\"a\": 1,\n \"b\": }")),
            "the arguments are not valid JSON: expected value at line 2 column 7"
        );
        assert!(why(&json!("{\"a\": \"x")).contains("at line 1 column"), "{}", why(&json!("{\"a\": \"x")));
        assert_eq!(why(&json!("[1]")), "the arguments are a list, not an object");
        assert_eq!(why(&json!(7)), "the arguments are a number, not an object");
        assert_eq!(why(&json!("\"x\"")), "the arguments are a text, not an object");
        let Arguments::Malformed { raw, .. } = read(&json!("{oops")) else { panic!() };
        assert_eq!(raw, "{oops");
        assert_eq!(shown(&read(&json!("{oops"))), json!({"malformed_arguments": "{oops"}));
    }
}
