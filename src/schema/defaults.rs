//! Objects that are held to their schema by the letter: what it does not know is refused, what it has a
//! default for is filled in.
//!
//! JSON Schema itself does neither. A default is filled in where a property is absent and never looked at again: the
//! author of the schema vouches for it. Where a schema leaves a choice (`anyOf`, `oneOf`) the value is filled by the first
//! choice that it fits once it is.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{MAX_DEPTH, Schema};

/// Words of a schema that may allow properties which it does not name itself.
const OPEN: [&str; 12] = [
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "not",
    "propertyNames",
    "dependentSchemas",
];

/// The schema as a caller meets it: one that names its properties, and says nothing of others, allows no others.
#[must_use]
pub fn strict(schema: &Value) -> Value {
    let mut strict = schema.clone();
    if let Value::Object(words) = &mut strict
        && words.contains_key("properties")
        && !OPEN.iter().any(|word| words.contains_key(*word))
    {
        words.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    strict
}

/// Fills in the defaults of a schema where a property is absent.
pub fn fill(schema: &Value, value: &mut Value) {
    Filler { root: schema, choices: HashMap::new() }.fill(schema, value, MAX_DEPTH);
}

struct Filler<'a> {
    root: &'a Value,
    /// The choices of the schema, compiled once however many values are held against them.
    choices: HashMap<*const Value, Option<Schema>>,
}

impl<'a> Filler<'a> {
    fn fill(&mut self, schema: &'a Value, value: &mut Value, left: usize) {
        let (Value::Object(words), Some(left)) = (schema, left.checked_sub(1)) else { return };
        let target = words.get("$ref").and_then(Value::as_str).and_then(|to| inside(self.root, to));
        for part in target.into_iter().chain(list(words, "allOf")) {
            self.fill(part, value, left);
        }
        if value.is_object() || value.is_array() {
            for word in ["anyOf", "oneOf"] {
                self.fill_choice(list(words, word), value, left);
            }
        }
        match value {
            Value::Object(fields) => self.fill_object(words, fields, left),
            Value::Array(items) => {
                let first = list(words, "prefixItems");
                for (at, item) in items.iter_mut().enumerate() {
                    if let Some(schema) = first.get(at).or_else(|| words.get("items")) {
                        self.fill(schema, item, left);
                    }
                }
            }
            _ => {}
        }
    }

    fn fill_object(&mut self, words: &'a Map<String, Value>, fields: &mut Map<String, Value>, left: usize) {
        let Some(Value::Object(properties)) = words.get("properties") else { return };
        for (name, schema) in properties {
            match fields.get_mut(name) {
                Some(value) => self.fill(schema, value, left),
                None => {
                    if let Some(default) = schema.get("default") {
                        fields.insert(name.clone(), default.clone());
                    }
                }
            }
        }
    }

    fn fill_choice(&mut self, choices: &'a [Value], value: &mut Value, left: usize) {
        for choice in choices {
            let mut filled = value.clone();
            self.fill(choice, &mut filled, left);
            if self.fits(choice, &filled) {
                *value = filled;
                return;
            }
        }
    }

    /// Whether a value fits a choice, which may refer to what is elsewhere in the schema.
    fn fits(&mut self, choice: &'a Value, value: &Value) -> bool {
        let root = self.root;
        let compiled = self.choices.entry(std::ptr::from_ref(choice)).or_insert_with(|| {
            let mut whole = json!({ "allOf": [choice] });
            for word in ["$schema", "$defs", "definitions"] {
                if let Some(found) = root.get(word) {
                    whole[word] = found.clone();
                }
            }
            Schema::compile(&whole).ok()
        });
        compiled.as_ref().is_some_and(|schema| schema.validate(value).is_ok())
    }
}

fn list<'a>(words: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    words.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What a reference points at, inside the schema.
fn inside<'a>(root: &'a Value, to: &str) -> Option<&'a Value> {
    root.pointer(to.strip_prefix('#')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(schema: &Value, mut value: Value) -> Value {
        fill(schema, &mut value);
        value
    }

    #[test]
    fn what_is_absent_gets_its_default_and_what_is_there_stays() {
        let schema = json!({"properties": {
            "skus": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": null},
            "n": {"type": "integer", "default": 10},
            "must": {"type": "string"}}});
        assert_eq!(filled(&schema, json!({"must": "x"})), json!({"must": "x", "skus": null, "n": 10}));
        assert_eq!(filled(&schema, json!({"n": null, "skus": []})), json!({"n": null, "skus": []}));
        assert_eq!(filled(&schema, json!("no object")), json!("no object"));
    }

    #[test]
    fn defaults_are_found_in_every_part() {
        let schema = json!({
            "$defs": {"item": {"type": "object", "properties": {"unit": {"default": "kg"}}}},
            "allOf": [{"properties": {"a": {"default": 1}}}],
            "properties": {
                "one": {"$ref": "#/$defs/item"},
                "some": {"type": "array", "items": {"$ref": "#/$defs/item"}},
                "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/item"}]},
                "pair": {"prefixItems": [{"properties": {"x": {"default": 0}}}]}}});
        assert_eq!(
            filled(&schema, json!({"one": {}, "some": [{}, {"unit": "g"}], "maybe": {}, "pair": [{}, {}]})),
            json!({"one": {"unit": "kg"}, "some": [{"unit": "kg"}, {"unit": "g"}], "maybe": {"unit": "kg"},
                   "pair": [{"x": 0}, {}], "a": 1})
        );
    }

    #[test]
    fn the_first_choice_that_fits_fills() {
        let kind = |name: &str| {
            json!({"type": "object", "required": ["kind"],
                   "properties": {"kind": {"const": name}, name: {"default": true}}})
        };
        let schema = json!({"oneOf": [kind("a"), kind("b")]});
        assert_eq!(filled(&schema, json!({"kind": "b"})), json!({"kind": "b", "b": true}));
        assert_eq!(filled(&schema, json!({"kind": "c"})), json!({"kind": "c"}));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = json!({"$ref": "#", "properties": {"next": {"$ref": "#"}, "n": {"default": 1}}});
        assert_eq!(filled(&schema, json!({"next": {}})), json!({"next": {"n": 1}, "n": 1}));
    }

    #[test]
    fn only_a_schema_that_names_its_properties_is_closed() {
        let closed = strict(&json!({"properties": {"a": {}}}));
        assert_eq!(closed["additionalProperties"], false);
        for open in [
            json!({"type": "object"}),
            json!({"properties": {}, "additionalProperties": true}),
            json!({"properties": {}, "allOf": [{"properties": {"b": {}}}]}),
            json!(true),
        ] {
            assert_eq!(strict(&open), open);
        }
    }
}
