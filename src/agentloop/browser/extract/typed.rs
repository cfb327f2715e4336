//! Makes of what was read what a schema asks for: numbers and truth values of texts, null of nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::Schema;

use super::super::numbers::{self, Mark};

/// References of a schema that are followed after one another.
const REFERENCES_MAX: usize = 32;

/// What was read, before it is known what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A text.
    Text(String),
    /// Whether a box is ticked.
    Checked(bool),
    /// An item does not have it.
    Absent,
    /// Fields.
    Object(BTreeMap<String, Raw>),
    /// Rows or items.
    List(Vec<Raw>),
}

/// The value; an error says where what does not fit.
pub(super) fn fit(raw: Raw, schema: Option<&Value>) -> Result<Value, String> {
    let shape = Shape { root: schema, parts: schema.into_iter().collect() }.whole();
    let mut marks = Vec::new();
    marks_in(&raw, &shape, &mut marks);
    let mark = marks.first().copied().filter(|first| marks.iter().all(|mark| mark == first));
    let value = typed(raw, &shape, mark, "")?;
    if let Some(schema) = schema {
        let schema = Schema::compile(schema).map_err(|e| format!("the schema cannot be used: {e}"))?;
        schema
            .validate(&value)
            .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    }
    Ok(value)
}

/// The decimal marks that the numbers show.
fn marks_in(raw: &Raw, shape: &Shape<'_>, marks: &mut Vec<Mark>) {
    match raw {
        Raw::Text(text) if shape.is_number() => marks.extend(numbers::mark_in(text)),
        Raw::Object(fields) => {
            for (name, raw) in fields {
                marks_in(raw, &shape.property(name), marks);
            }
        }
        Raw::List(items) => {
            let shape = shape.items();
            for raw in items {
                marks_in(raw, &shape, marks);
            }
        }
        _ => {}
    }
}

fn typed(raw: Raw, shape: &Shape<'_>, mark: Option<Mark>, at: &str) -> Result<Value, String> {
    let inside = |why: String| if at.is_empty() { why } else { format!("{at}: {why}") };
    match raw {
        Raw::Text(text) => of_text(text, shape, mark).map_err(inside),
        Raw::Checked(checked) => Ok(Value::Bool(checked)),
        Raw::Absent if shape.allows("null") => Ok(Value::Null),
        Raw::Absent => Err(inside("it is not there".to_owned())),
        Raw::Object(fields) => {
            let mut object = Map::new();
            for (name, raw) in fields {
                let own = shape.property(&name);
                // What need not be there and is not is left out.
                if raw == Raw::Absent && !own.allows("null") && shape.is_optional(&name) {
                    continue;
                }
                let value = typed(raw, &own, mark, &format!("{at}/{name}"))?;
                object.insert(name, value);
            }
            Ok(Value::Object(object))
        }
        Raw::List(items) => {
            let own = shape.items();
            let item = |(number, raw)| typed(raw, &own, mark, &format!("{at}/{number}"));
            items.into_iter().enumerate().map(item).collect::<Result<_, _>>().map(Value::Array)
        }
    }
}

fn of_text(text: String, shape: &Shape<'_>, mark: Option<Mark>) -> Result<Value, String> {
    if shape.is_number() {
        if shape.allows("null") && matches!(text.trim(), "" | "-" | "–" | "—") {
            return Ok(Value::Null);
        }
        return numbers::read(&text, mark, !shape.allows("number")).map(Value::Number);
    }
    if shape.allows("boolean") && !shape.allows("string") {
        return match text.trim().to_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        };
    }
    Ok(Value::String(text))
}

/// What a schema says of one value: all of its parts that apply there.
struct Shape<'a> {
    root: Option<&'a Value>,
    parts: Vec<&'a Value>,
}

impl<'a> Shape<'a> {
    /// With the parts that these refer to or are made of.
    fn whole(mut self) -> Self {
        let mut at = 0;
        while at < self.parts.len() && at < REFERENCES_MAX {
            let part = self.parts[at];
            at += 1;
            let to = part.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
            self.parts.extend(to.and_then(|to| self.root.and_then(|root| root.pointer(to))));
            for word in ["allOf", "anyOf", "oneOf"] {
                self.parts.extend(part.get(word).and_then(Value::as_array).into_iter().flatten());
            }
        }
        self
    }

    fn inner(&self, part: impl Fn(&'a Value) -> Option<&'a Value>) -> Self {
        let parts = self.parts.iter().filter_map(|whole| part(whole)).collect();
        Self { root: self.root, parts }.whole()
    }

    fn property(&self, name: &str) -> Self {
        self.inner(|whole| whole.get("properties")?.get(name))
    }

    fn items(&self) -> Self {
        self.inner(|whole| whole.get("items"))
    }

    /// Whether it names this type.
    fn allows(&self, wanted: &str) -> bool {
        self.parts.iter().filter_map(|part| part.get("type")).any(|types| match types {
            Value::Array(types) => types.iter().any(|one| one == wanted),
            one => one == wanted,
        })
    }

    /// Whether a text that was read is to become a number.
    fn is_number(&self) -> bool {
        !self.allows("string") && (self.allows("number") || self.allows("integer"))
    }

    /// Whether it says what it has, and not that it must have this.
    fn is_optional(&self, name: &str) -> bool {
        let must = |part: &&Value| {
            part.get("required")
                .and_then(Value::as_array)
                .is_some_and(|names| names.iter().any(|n| n == name))
        };
        !self.parts.is_empty() && !self.parts.iter().any(must)
    }
}
