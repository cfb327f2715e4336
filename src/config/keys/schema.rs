//! The JSON Schema of a file, for editors: `matins schema agent|daemon`.
//!
//! It refuses unknown keys, values of a wrong kind and keys that demand or forbid each other, and shows
//! meanings, defaults and examples. What needs the machine (a zone's name, a program that exists) or a
//! reading of the text (a cron pattern) is left to `matins check`; whatever a reader takes, the schema
//! takes too.

use serde_json::{Map, Value, json};

use super::{AGENT, EXECUTOR, Key, Kind, MCP, SCHEDULE, SECRET, Shape};
use crate::config::yaml;

/// The schema of a file whose root is this shape.
#[must_use]
pub fn json_schema(root: &'static Shape, title: &str) -> Value {
    let mut schema = of_shape(root);
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".to_owned(), json!(title));
    }
    schema
}

fn of_shape(shape: &'static Shape) -> Value {
    let properties: Map<String, Value> =
        shape.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let required: Vec<&str> = shape.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if let (Value::Object(schema), Value::Object(more)) = (&mut schema, demands(shape)) {
        schema.extend(more);
    }
    schema
}

/// What the keys of a shape demand of each other, as the readers do.
fn demands(shape: &'static Shape) -> Value {
    let is = |other: &'static Shape| std::ptr::eq(shape, other);
    let one_of = |keys: &[&str]| keys.iter().map(|key| json!({ "required": [key] })).collect::<Vec<_>>();
    if is(&EXECUTOR) {
        let of_llm = crate::config::llm::KEYS.iter().filter(|key| !["model", "limits"].contains(key));
        let of_llm: Map<String, Value> = of_llm.map(|key| ((*key).to_owned(), json!(false))).collect();
        return json!({
            "if": { "properties": { "type": { "const": "llm" } }, "required": ["type"] },
            "then": { "properties": { "command": false, "protocol": false } },
            "else": {
                "required": ["command"],
                "properties": of_llm,
                "if": {
                    "properties": { "protocol": { "enum": ["claude", "codex", "gemini"] } },
                    "required": ["protocol"],
                },
                "else": { "properties": { "model": false, "limits": false } },
            },
        });
    }
    if is(&SCHEDULE) {
        return json!({
            "oneOf": one_of(&["cron", "every", "after", "at", "on"]),
            "dependentRequired": { "phase": ["every"], "dst": ["cron"] },
        });
    }
    if is(&SECRET) {
        return json!({ "minProperties": 1, "maxProperties": 1 });
    }
    if is(&MCP) {
        return json!({ "oneOf": one_of(&["command", "url"]), "dependentRequired": { "token": ["url"] } });
    }
    if is(&AGENT) {
        let retries =
            json!({ "properties": { "on_interrupt": { "const": "retry" } }, "required": ["on_interrupt"] });
        let harmless =
            json!({ "properties": { "idempotent": { "const": true } }, "required": ["idempotent"] });
        return json!({ "if": retries, "then": harmless });
    }
    json!({})
}

fn of_key(key: &'static Key) -> Value {
    let mut schema = of_kind(&key.kind);
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), json!(key.meaning));
        if let Some(default) = value(key.default) {
            fields.insert("default".to_owned(), default);
        }
        if let Some(example) = value(key.example) {
            fields.insert("examples".to_owned(), json!([example]));
        }
    }
    schema
}

/// YAML of the table as JSON; nothing where there is none.
pub(super) fn value(text: &str) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    yaml::parse(text, 0).ok().map(|root| yaml::to_json(&root.value))
}

fn of_kind(kind: &'static Kind) -> Value {
    match kind {
        Kind::Text | Kind::Path | Kind::Template | Kind::Cron | Kind::Zone | Kind::Time | Kind::Listener => {
            json!({ "type": "string", "minLength": u8::from(!matches!(kind, Kind::Text | Kind::Template)) })
        }
        Kind::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Switch => json!({ "enum": ["on", "off"] }),
        // A sign of minus is never one of a duration; its words are many.
        Kind::Duration => json!({ "type": "string", "pattern": "^[^-]*[0-9][^-]*$" }),
        Kind::DurationOrNone => json!({ "type": "string", "pattern": "^[^-]*[0-9][^-]*$|^none$" }),
        Kind::Size => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^ *[0-9]+ *([kKmMgGtT][iI]?)?[bB]? *$" }
        ] }),
        Kind::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Share => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": "^ *[0-9.]+ *% *$" }
        ] }),
        Kind::Url => json!({ "type": "string", "pattern": "^ *[hH][tT][tT][pP][sS]?:" }),
        Kind::Regex => json!({ "type": "string", "minLength": 1, "format": "regex" }),
        Kind::Name => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
        Kind::Signal => json!({ "type": "string", "pattern": "^(SIG)?(TERM|INT|HUP|QUIT|USR1|USR2|KILL)$" }),
        Kind::OneOf(words) => json!({ "enum": words() }),
        Kind::Schema => json!({ "type": ["object", "boolean", "string"] }),
        Kind::Json => json!({ "type": "object" }),
        Kind::Argv => json!({ "type": "array", "minItems": 1, "items": of_kind(&Kind::Scalar) }),
        Kind::List(kind) => json!({ "type": "array", "items": of_kind(kind) }),
        Kind::Names(kind) => json!({ "type": "object", "additionalProperties": of_kind(kind) }),
        Kind::Map(shape) => of_shape(shape),
        Kind::Either(a, b) => json!({ "anyOf": [of_kind(a), of_kind(b)] }),
        Kind::OrNull(kind) => json!({ "anyOf": [{ "type": "null" }, of_kind(kind)] }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AGENT, SETTINGS, all, inner};
    use super::*;

    #[test]
    fn every_default_and_example_fits_its_key() {
        for place in all(&AGENT).into_iter().chain(all(&SETTINGS)) {
            let schema = jsonschema::validator_for(&of_kind(&place.key.kind)).unwrap();
            for text in [place.key.example, place.key.default] {
                if let Some(value) = value(text) {
                    assert!(schema.is_valid(&value), "{}: {value}", place.path);
                }
            }
        }
    }

    /// Values that break one rule: an unknown key in every map there is.
    #[test]
    fn an_unknown_key_is_refused_in_every_map() {
        let mut shapes = vec![&AGENT, &SETTINGS];
        let mut at = 0;
        while at < shapes.len() {
            let shape = shapes[at];
            shapes.extend(shape.keys.iter().filter_map(|key| inner(&key.kind)));
            at += 1;
            let schema = jsonschema::validator_for(&of_shape(shape)).unwrap();
            let mut good: Map<String, Value> = shape
                .keys
                .iter()
                .filter(|key| key.required)
                .map(|key| (key.name.to_owned(), value(key.example).unwrap()))
                .collect();
            // One of several keys, which none of them says by itself.
            let one = [("executor", "command", json!(["cat"])), ("schedule", "on", json!("startup"))];
            let one = one.into_iter().chain([("secret", "env", json!("NAME"))]);
            let one = one.chain([("server of tools", "command", json!(["cat"]))]);
            good.extend(
                one.filter(|(of, ..)| *of == shape.name).map(|(_, key, value)| (key.to_owned(), value)),
            );
            assert!(schema.is_valid(&Value::Object(good.clone())), "{}: {good:?}", shape.name);
            good.insert("nonsense".to_owned(), json!(1));
            assert!(!schema.is_valid(&Value::Object(good)), "{}", shape.name);
        }
    }

    #[test]
    fn kinds_are_held_apart() {
        let agent = json_schema(&AGENT, "x");
        let schema = jsonschema::validator_for(&agent).unwrap();
        let with = |more: &str| {
            let text = format!("executor: {{ type: command, command: [sh] }}\n{more}\n");
            schema.is_valid(&value(&text).unwrap())
        };
        for good in [
            "timeout: none",
            "timeout: 1h 30m",
            "retry: { max: 3, jitter: 20% }",
            "limits: { output: 512, memory: 2 GiB }",
            "exclude: [2026-12-24, { ics: a.ics }]",
            "env: { PORT: 8080 }",
        ] {
            assert!(with(good), "{good}");
        }
        for bad in [
            "timeout: 30",
            "retry: 3",
            "retry: { initial: 1s }",
            "overlap: wait",
            "limits: { memory: lots }",
            "exclude: [{ file: a.ics }]",
            "schedules: [{ every: 1m, overlap: wait }]",
            "sandbox: true",
        ] {
            assert!(!with(bad), "{bad}");
        }
        assert!(!schema.is_valid(&json!({})), "an executor is required");
    }

    const RUNS: &str = "executor: { type: command, command: [/bin/true] }";

    /// Documents that the readers refuse and the schema too, and the same mended.
    #[test]
    fn keys_that_demand_or_forbid_each_other_are_held_by_the_schema_and_by_the_readers() {
        let schema = jsonschema::validator_for(&json_schema(&AGENT, "x")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        let both = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let now = crate::time::from_ms(0);
            let checked = crate::config::check_path(&file, &crate::config::Env::default(), now);
            let read = value(text).is_some_and(|document| schema.is_valid(&document));
            (read, !checked.problems.has_errors(), checked.problems.render(false))
        };
        for (wrong, right) in [
            ("name: x", RUNS),
            ("executor: { type: command }", RUNS),
            ("executor: { type: command, command: [] }", RUNS),
            ("executor: { command: [/bin/true] }", RUNS),
            ("executor: { type: command, command: [/bin/true], model: full }", RUNS),
            ("executor: { type: llm, command: [/bin/true] }", "executor: { type: llm }"),
            ("executor: { type: shell, command: [/bin/true] }", RUNS),
            (
                "$RUNS\nschedules: [{ timezone: UTC }]",
                "$RUNS\nschedules: [{ cron: '@daily', timezone: UTC }]",
            ),
            (
                "$RUNS\nschedules: [{ every: 1h, cron: '@daily' }]",
                "$RUNS\nschedules: [{ every: 1h }, { cron: '@daily' }]",
            ),
            (
                "$RUNS\nschedules: [{ cron: '@daily', phase: 1m }]",
                "$RUNS\nschedules: [{ every: 1h, phase: 1m }]",
            ),
            (
                "$RUNS\nschedules: [{ every: 1h, dst: { gap: skip } }]",
                "$RUNS\nschedules: [{ cron: '@daily', dst: { gap: skip } }]",
            ),
            (
                "$RUNS\nschedules: [{ every: 1h, timeout: 0 }]",
                "$RUNS\nschedules: [{ every: 1h, timeout: none }]",
            ),
            ("$RUNS\nsecrets: { A: {} }", "$RUNS\nsecrets: { A: { env: B } }"),
            ("$RUNS\nsecrets: { A: { env: B, file: /c } }", "$RUNS\nsecrets: { A: { file: /c } }"),
            ("$RUNS\ngate: { timeout: 1m }", "$RUNS\ngate: { command: [/bin/true], timeout: 1m }"),
            ("$RUNS\non_interrupt: retry", "$RUNS\non_interrupt: retry\nidempotent: true"),
            ("$RUNS\nretry: { initial: 1s }", "$RUNS\nretry: { max: 2, initial: 1s }"),
            ("$RUNS\ntimeout: -5s", "$RUNS\ntimeout: 5s"),
            (
                "$RUNS\nwebhooks: [{ events: [run.failed] }]",
                "$RUNS\nwebhooks: [{ url: 'https://a.example' }]",
            ),
        ] {
            let (by_schema, by_reader, said) = both(&wrong.replace("$RUNS", RUNS));
            assert_eq!((by_schema, by_reader), (false, false), "{wrong}\n{said}");
            let (by_schema, by_reader, said) = both(&right.replace("$RUNS", RUNS));
            assert_eq!((by_schema, by_reader), (true, true), "{right}\n{said}");
        }
    }
}
