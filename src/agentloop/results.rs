//! The two tools that end a run, and what a result must be.
//!
//! A result comes by the tool `finish` and is judged here, never by a provider: what their structured outputs take
//! differs, and a tool that is answered with what is wrong is a natural turn of a conversation. A model that ends
//! with plain words is taken at them where they are the JSON that was wanted, or where nothing was promised.

use serde_json::{Map, Value, json};

use super::model::ToolSpec;
use crate::schema::Schema;

/// Ends a run with a result.
pub const FINISH: &str = "finish";
/// Ends a run without one.
pub const STOP: &str = "stop_execution";

/// What a result must be.
#[derive(Debug)]
pub struct Wanted {
    schema: Option<(Value, Schema)>,
}

impl Wanted {
    /// What fits this schema; anything where there is none.
    ///
    /// # Errors
    /// A sentence, where the schema is none.
    pub fn new(schema: Option<Value>) -> Result<Self, String> {
        let compile = |value: Value| match Schema::compile(&value) {
            Ok(schema) => Ok((value, schema)),
            Err(e) => Err(format!("result_schema cannot be used: {e}")),
        };
        Ok(Self { schema: schema.map(compile).transpose()? })
    }

    /// The tools that end a run, by name in ascending order.
    #[must_use]
    pub fn specs(&self) -> [ToolSpec; 2] {
        let result = match &self.schema {
            Some((schema, _)) => embedded(schema),
            None => json!({"description": "The result: any JSON value, mostly a text or an object."}),
        };
        let finish = ToolSpec {
            name: FINISH.to_owned(),
            description: "Ends the run with its result. Call it once, when the task is done.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "result": result,
                    "summary": {"type": "string", "description": "One sentence for people: what was done."},
                    "success": {"type": "boolean", "description": "false: the task could not be done. Default true."},
                },
                "required": ["result"],
            }),
        };
        let stop = ToolSpec {
            name: STOP.to_owned(),
            description:
                "Ends the run without a result, because the task cannot be done. It counts as failed."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {"reason": {"type": "string", "description": "Why, in one sentence."}},
                "required": ["reason"],
            }),
        };
        [finish, stop]
    }

    /// Judges a result.
    ///
    /// # Errors
    /// What is wrong, one sentence for each place.
    pub fn judge(&self, result: &Value) -> Result<(), Vec<String>> {
        let Some((_, schema)) = &self.schema else { return Ok(()) };
        schema.validate(result).map_err(|list| list.iter().map(ToString::to_string).collect())
    }

    /// The result that plain words are; `None`: they are none.
    #[must_use]
    pub fn of_text(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match &self.schema {
            None if text.is_empty() => None,
            None => Some(json_in(text).unwrap_or_else(|| Value::String(text.to_owned()))),
            Some((_, schema)) => json_in(text).or_else(|| {
                let plain = Value::String(text.to_owned());
                schema.validate(&plain).is_ok().then_some(plain)
            }),
        }
    }
}

/// The JSON that a text is: the whole of it, or what its only fence holds.
fn json_in(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let mut parts = text.split("```");
        let (_, fenced, _) = (parts.next()?, parts.next()?, parts.next()?);
        let (label, inner) = fenced.split_once('\n')?;
        let known = ["", "json", "jsonc", "json5"].contains(&label.trim().to_ascii_lowercase().as_str());
        (known && parts.next().is_none()).then(|| serde_json::from_str(inner).ok()).flatten()
    })
}

/// A schema as the schema of a property: what it refers to within itself lies deeper now.
fn embedded(schema: &Value) -> Value {
    let mut inner = schema.clone();
    if let Value::Object(fields) = &mut inner {
        fields.remove("$schema");
        if !fields.contains_key("$id") {
            move_refs(&mut inner);
        }
    }
    inner
}

fn move_refs(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields.iter_mut() {
                match inner {
                    Value::String(to) if name == "$ref" && (to == "#" || to.starts_with("#/")) => {
                        *to = format!("#/properties/result{}", to.trim_start_matches('#'));
                    }
                    inner => move_refs(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(move_refs),
        _ => {}
    }
}

/// What a call of [`FINISH`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The result.
    pub result: Value,
    /// One sentence for people.
    pub summary: Option<String>,
    /// Whether the model says that the task is done.
    pub success: bool,
}

impl Finish {
    /// Reads the arguments. Only who says that the task could not be done may leave `result` out.
    ///
    /// # Errors
    /// What the model is told.
    pub fn of(arguments: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
        let success = arguments.get("success").and_then(Value::as_bool).unwrap_or(true);
        match arguments.get("result") {
            Some(result) => Ok(Self { result: result.clone(), summary: text("summary"), success }),
            None if !success => Ok(Self { result: Value::Null, summary: text("summary"), success }),
            None => Err("the argument `result` is missing: call finish with {\"result\": ..}".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(schema: Value) -> Wanted {
        Wanted::new(Some(schema)).unwrap()
    }

    #[test]
    fn plain_words_are_a_result_where_they_are_what_was_wanted() {
        let object = wanted(json!({"type": "object"}));
        assert_eq!(object.of_text(" {\"a\": 1} "), Some(json!({"a": 1})));
        assert_eq!(object.of_text("Here:\n```json\n{\"a\": 1}\n```\nDone."), Some(json!({"a": 1})));
        assert_eq!(object.of_text("```\n{\"a\": 1}\n```"), Some(json!({"a": 1})));
        for none in ["", "I am done.", "```sh\nls\n```", "```json\n{\n```", "```json\n1\n``` ```json\n2\n```"]
        {
            assert_eq!(object.of_text(none), None, "{none:?}");
        }
        let text = wanted(json!({"type": "string"}));
        assert_eq!(text.of_text("done"), Some(json!("done")));
        let anything = Wanted::new(None).unwrap();
        assert_eq!(anything.of_text("done"), Some(json!("done")));
        assert_eq!(anything.of_text(" \n"), None);
    }

    #[test]
    fn a_schema_means_the_same_inside_of_the_tools() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"price": {"type": "number", "minimum": 0}},
            "type": "object",
            "properties": {"price": {"$ref": "#/$defs/price"}, "$ref": {"type": "string"}},
        });
        let wanted = wanted(schema);
        let parameters = Schema::compile(&wanted.specs()[0].parameters).unwrap();
        assert!(parameters.validate(&json!({"result": {"price": 1}})).is_ok());
        assert!(parameters.validate(&json!({"result": {"price": -1}})).is_err());
        assert!(wanted.judge(&json!({"price": 1})).is_ok());
        let said = wanted.judge(&json!({"price": "x"})).unwrap_err();
        assert_eq!(said, [r#"/price: "x" is not of type "number""#]);
        assert!(Wanted::new(Some(json!({"type": "nonsense"}))).unwrap_err().contains("result_schema"));
    }

    #[test]
    fn finish_is_read() {
        let read = |value: Value| Finish::of(value.as_object().unwrap());
        let done = Finish { result: json!(1), summary: Some("s".to_owned()), success: true };
        assert_eq!(read(json!({"result": 1, "summary": "s"})), Ok(done));
        assert!(!read(json!({"success": false})).unwrap().success);
        assert!(read(json!({"summary": "s"})).is_err());
    }
}
