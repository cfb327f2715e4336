//! A cached workflow: what a run did in its browser, so that a later run can do the same without a model.
//!
//! It is a list of calls of tools. Where a call named an element by a reference of its page, the member `ref` is the
//! member `target`, by which the element is found again; where a text came from the run's input, a parameter stands.
//! Behind each call stands how the page stood then. A workflow may come from a stranger, so it is read strictly and
//! every mistake is told with its place.

mod input;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub use input::{ENCODED, INPUT, Inputs, TEXT, fill};

use super::{PageState, Target};
use crate::ids::hex;

/// Version of [`Workflow`].
pub const WORKFLOW_VERSION: u32 = 1;
/// Most steps.
pub const WORKFLOW_STEPS_MAX: usize = 200;
/// Largest workflow as JSON, bytes.
pub const WORKFLOW_MAX: usize = 512 << 10;
/// In a result: what an extraction found, as `{"step": N, "at": POINTER}`.
pub const EXTRACT: &str = "$extract";
/// In a result: lists, one behind the other.
pub const CONCAT: &str = "$concat";
/// In a result: a value that its schema allows alone.
pub const CONST: &str = "$const";
/// The member that names an element by a reference of its page.
pub const REF: &str = "ref";
/// The member in its place.
pub const TARGET: &str = "target";
/// The tool whose answers a result is made of.
pub const EXTRACTS: &str = "browser_extract";
/// What the names of tools begin with that a workflow may call.
const TOOLS: &str = "browser_";

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// [`WORKFLOW_VERSION`].
    pub version: u32,
    /// Values of the input that it takes, by their JSON pointers.
    #[serde(default)]
    pub parameters: BTreeSet<String>,
    /// Values of the input that must be as they were, by their JSON pointers.
    #[serde(default)]
    pub fixed: BTreeMap<String, Value>,
    /// The calls, in order.
    pub steps: Vec<WorkflowStep>,
    /// How the result is made.
    pub result: WorkflowResult,
    /// What the run consumed that it was recorded from.
    #[serde(default)]
    pub recorded: WorkflowCost,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowStep {
    /// The tool.
    pub tool: String,
    /// Its arguments, as templates.
    pub arguments: Map<String, Value>,
    /// How the page stood then; `None`: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<PageState>,
    /// Whether lists that it reads may be empty: they were once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// Whether the page has stood otherwise once, and `then` says how.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewed: bool,
}

/// How a result is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkflowResult {
    /// By the model, from what the page shows then.
    Model,
    /// From what was extracted, and from the input.
    Template(Value),
}

/// What a run consumed of models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkflowCost {
    /// Calls.
    pub model_calls: u64,
    /// Tokens, sent and received.
    pub tokens: u64,
}

/// What became of the workflow that a run began with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Replay {
    /// Its version among the agent's; null: the caller gave it.
    pub version: Option<i64>,
    /// How many steps it has.
    pub steps: u64,
    /// How many of them were played.
    pub replayed_steps: u64,
    /// Whether the model has done a part of it otherwise.
    pub repaired: bool,
}

/// What a run has told of workflows, as the finishing transaction takes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cached {
    /// What became of the one that it began with.
    pub replay: Option<Replay>,
    /// Calls of a model that it did not make because of it.
    pub saved_model_calls: Option<u64>,
    /// Tokens that it did not spend because of it.
    pub saved_tokens: Option<u64>,
    /// What later runs may do, where it is something new.
    pub made: Option<Made>,
}

/// A workflow that a run has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// What it is for.
    pub purpose: String,
    /// It.
    pub workflow: Workflow,
}

/// What is wrong with a workflow, and where: names of fields and numbers of items, from the outside inward.
#[derive(Debug, Clone, PartialEq)]
pub struct Misplaced {
    /// The place.
    pub at: Vec<Value>,
    /// A sentence.
    pub why: String,
}

impl std::fmt::Display for Misplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |part: &Value| match part {
            Value::String(name) => format!(".{name}"),
            number => format!("[{number}]"),
        };
        let place: String = self.at.iter().map(shown).collect();
        write!(f, "{}: {}", place.trim_start_matches('.'), self.why)
    }
}

impl Workflow {
    /// Reads one that anybody may have written.
    ///
    /// # Errors
    /// Everything that is wrong, with its place.
    pub fn read(value: &Value) -> Result<Self, Vec<Misplaced>> {
        let mut reader = Reader::default();
        reader.whole(value);
        if !reader.wrong.is_empty() {
            return Err(reader.wrong);
        }
        Self::deserialize(value).map_err(|e| vec![Misplaced { at: Vec::new(), why: e.to_string() }])
    }

    /// Whether a run with this input may do the same.
    ///
    /// # Errors
    /// A sentence that names the value which is in the way.
    pub fn fits(&self, input: &Value) -> Result<(), String> {
        let inputs = Inputs::of(input);
        for (pointer, value) in inputs.leaves() {
            if self.parameters.contains(pointer) {
                continue;
            }
            match self.fixed.get(pointer) {
                None => {
                    return Err(format!("the input has {pointer:?}, which it had not when it was recorded"));
                }
                Some(before) if before != value => {
                    return Err(format!("the input's {pointer:?} is not what it was when it was recorded"));
                }
                Some(_) => {}
            }
        }
        match self.parameters.iter().chain(self.fixed.keys()).find(|p| !inputs.leaves().contains_key(*p)) {
            Some(pointer) => Err(format!("the input has no {pointer:?}")),
            None => Ok(()),
        }
    }
}

/// What a workflow is for: another prompt, schema or set of tools is another purpose. Values of the input are not part
/// of it where the prompt only repeats them.
#[must_use]
pub fn purpose(prompt: &str, input: &Value, schema: Option<&Value>, tools: &Value) -> String {
    let prompt = Inputs::of(input).marked(prompt);
    let all = json!([WORKFLOW_VERSION, prompt, schema, tools]).to_string();
    hex(&Sha256::digest(all.as_bytes()))
}

/// Every object of these arguments that has a member `name`, the outermost first.
pub fn holders(value: &mut Value, name: &str, with: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key(name) {
                with(fields);
            }
            fields.values_mut().for_each(|inner| holders(inner, name, with));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| holders(inner, name, with)),
        _ => {}
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Reader {
    at: Vec<Value>,
    wrong: Vec<Misplaced>,
    parameters: BTreeSet<String>,
    steps: usize,
}

impl Reader {
    fn wrong(&mut self, why: impl Into<String>) {
        self.wrong.push(Misplaced { at: self.at.clone(), why: why.into() });
    }

    fn within<T>(&mut self, part: impl Into<Value>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(part.into());
        let read = read(self);
        self.at.pop();
        read
    }

    /// An object with no other fields than these.
    fn object<'v>(&mut self, value: &'v Value, known: &[&str]) -> Option<&'v Map<String, Value>> {
        let Some(fields) = value.as_object() else {
            self.wrong("it should be an object");
            return None;
        };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            self.within(name.as_str(), |r| {
                r.wrong(format!("it is not known; known are {}", known.join(", ")));
            });
        }
        Some(fields)
    }

    fn whole(&mut self, value: &Value) {
        let known = ["version", "parameters", "fixed", "steps", "result", "recorded"];
        let Some(fields) = self.object(value, &known) else { return };
        if value.to_string().len() > WORKFLOW_MAX {
            return self.wrong(format!("it is larger than {WORKFLOW_MAX} bytes"));
        }
        let none = Value::Null;
        let field = |name: &str| fields.get(name).unwrap_or(&none);
        self.within("version", |r| {
            if field("version") != &json!(WORKFLOW_VERSION) {
                r.wrong(format!("it should be {WORKFLOW_VERSION}"));
            }
        });
        if let Some(list) = fields.get("parameters") {
            self.within("parameters", |r| r.parameters(list));
        }
        if let Some(fixed) = fields.get("fixed") {
            self.within("fixed", |r| {
                if !fixed.is_object() {
                    r.wrong("it should be an object: values of the input by their JSON pointers");
                }
            });
        }
        self.within("steps", |r| r.steps(field("steps")));
        self.within("result", |r| r.result(field("result")));
        if let Some(cost) = fields.get("recorded") {
            self.within("recorded", |r| r.cost(cost));
        }
    }

    fn parameters(&mut self, list: &Value) {
        let Some(list) = list.as_array() else { return self.wrong("it should be a list of JSON pointers") };
        for (n, pointer) in list.iter().enumerate() {
            match pointer.as_str().filter(|pointer| pointer.is_empty() || pointer.starts_with('/')) {
                Some(pointer) => drop(self.parameters.insert(pointer.to_owned())),
                None => self.within(n, |r| r.wrong("it should be a JSON pointer, as /query")),
            }
        }
    }

    fn cost(&mut self, cost: &Value) {
        let Some(fields) = self.object(cost, &["model_calls", "tokens"]) else { return };
        for (name, number) in fields {
            if number.as_u64().is_none() {
                self.within(name.as_str(), |r| r.wrong("it should be a whole number, 0 or more"));
            }
        }
    }

    fn steps(&mut self, steps: &Value) {
        let Some(steps) = steps.as_array() else { return self.wrong("it should be a list of calls") };
        if steps.is_empty() || steps.len() > WORKFLOW_STEPS_MAX {
            self.wrong(format!("it should have 1 to {WORKFLOW_STEPS_MAX} calls"));
        }
        self.steps = steps.len();
        for (n, step) in steps.iter().enumerate() {
            self.within(n, |r| r.step(step));
        }
    }

    fn step(&mut self, step: &Value) {
        let Some(fields) = self.object(step, &["tool", "arguments", "then", "empty", "renewed"]) else {
            return;
        };
        let tool = fields.get("tool").and_then(Value::as_str).unwrap_or_default();
        let word = tool.strip_prefix(TOOLS).unwrap_or_default();
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            self.within("tool", |r| r.wrong(format!("it should be a tool of the browser: {TOOLS}..")));
        }
        for flag in ["empty", "renewed"] {
            if fields.get(flag).is_some_and(|flag| !flag.is_boolean()) {
                self.within(flag, |r| r.wrong("it should be true or false"));
            }
        }
        let arguments = fields.get("arguments").unwrap_or(&Value::Null);
        self.within("arguments", |r| {
            if arguments.is_object() {
                r.template(arguments);
            } else {
                r.wrong("it should be an object");
            }
        });
        if let Some(then) = fields.get("then").filter(|then| !then.is_null()) {
            self.within("then", |r| {
                if let Err(e) = PageState::deserialize(then) {
                    r.wrong(e.to_string());
                }
            });
        }
    }

    /// Arguments, or a part of them.
    fn template(&mut self, value: &Value) {
        match value {
            Value::Object(fields) if input::is_template(fields) => self.parameter(fields),
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.within(name.as_str(), |r| r.member(name, inner));
                }
            }
            Value::Array(items) => {
                for (n, inner) in items.iter().enumerate() {
                    self.within(n, |r| r.template(inner));
                }
            }
            _ => {}
        }
    }

    fn member(&mut self, name: &str, inner: &Value) {
        if name == REF && inner.is_string() {
            return self
                .wrong(format!("a reference is of a page that is gone: write `{TARGET}` in its place"));
        }
        self.template(inner);
        if name == TARGET
            && let Err(e) = Target::deserialize(stand_in(inner))
        {
            self.wrong(e.to_string());
        }
    }

    fn parameter(&mut self, fields: &Map<String, Value>) {
        if let Some(parts) = fields.get(TEXT) {
            let Some(parts) = parts.as_array().filter(|_| fields.len() == 1) else {
                return self.wrong(format!("`{TEXT}` should be alone, a list of texts and parameters"));
            };
            for (n, part) in parts.iter().enumerate() {
                self.within(n, |r| match part {
                    Value::String(_) => {}
                    Value::Object(inner) if inner.contains_key(INPUT) => r.parameter(inner),
                    _ => r.wrong("it should be a text or a parameter"),
                });
            }
            return;
        }
        let pointer = fields.get(INPUT).and_then(Value::as_str).unwrap_or_default();
        if !self.parameters.contains(pointer) {
            self.within(INPUT, |r| r.wrong(format!("{pointer:?} is not among `parameters`")));
        }
        let encoded = fields.get(ENCODED).is_none_or(|form| form == "percent" || form == "plus");
        if !encoded || fields.keys().any(|name| name != INPUT && name != ENCODED) {
            self.wrong(format!("beside `{INPUT}` there may be `{ENCODED}`: percent or plus"));
        }
    }

    fn result(&mut self, result: &Value) {
        match result {
            Value::String(word) if word == "model" => {}
            Value::Object(fields) if fields.len() == 1 && fields.contains_key("template") => {
                self.within("template", |r| fields.values().for_each(|template| r.made(template)));
            }
            _ => self.wrong("it should be \"model\", or an object with the field `template` alone"),
        }
    }

    /// A part of a result: nothing in it is fixed but what the schema fixes.
    fn made(&mut self, template: &Value) {
        let Some(fields) = template.as_object() else {
            return self.wrong(format!(
                "it should be an object: fields, `{EXTRACT}`, `{INPUT}`, `{CONCAT}` or `{CONST}`"
            ));
        };
        let only = fields.iter().next().filter(|(name, _)| fields.len() == 1 && name.starts_with('$'));
        match only {
            Some((name, at)) if name == EXTRACT => self.within(EXTRACT, |r| r.extracted(at)),
            Some((name, _)) if name == INPUT => self.parameter(fields),
            Some((name, _)) if name == CONST => {}
            Some((name, Value::Array(parts))) if name == CONCAT => {
                for (n, part) in parts.iter().enumerate() {
                    self.within(CONCAT, |r| r.within(n, |r| r.made(part)));
                }
            }
            _ => {
                for (name, inner) in fields {
                    self.within(name.as_str(), |r| r.made(inner));
                }
            }
        }
    }

    fn extracted(&mut self, place: &Value) {
        let Some(fields) = self.object(place, &["step", "at"]) else { return };
        let steps = self.steps as u64;
        if fields.get("step").and_then(Value::as_u64).is_none_or(|n| n == 0 || n > steps) {
            self.within("step", |r| r.wrong("it should be the number of a step, from 1"));
        }
        if fields.get("at").and_then(Value::as_str).is_none_or(|at| !at.is_empty() && !at.starts_with('/')) {
            self.within("at", |r| r.wrong("it should be a JSON pointer, \"\": the whole"));
        }
    }
}

/// A template with some text in the place of every parameter.
fn stand_in(template: &Value) -> Value {
    match template {
        Value::Object(fields) if input::is_template(fields) => Value::from("x"),
        Value::Object(fields) => {
            fields.iter().map(|(name, inner)| (name.clone(), stand_in(inner))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(stand_in).collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        json!({
            "version": 1,
            "parameters": ["/query"],
            "fixed": {"/shop": "lamps"},
            "steps": [
                {"tool": "browser_navigate", "arguments": {"url": {"$text": ["http://shop/", {"$input": "/query", "encoded": "plus"}]}}},
                {"tool": "browser_click", "arguments": {"target": {"role": "link", "name": {"$input": "/query"}}}},
                {"tool": "browser_extract", "arguments": {
                    "schema": {"type": "number"}, "from": {"text": {"target": {"role": "cell", "name": "Price"}}}}},
            ],
            "result": {"template": {
                "price": {"$extract": {"step": 3, "at": ""}}, "query": {"$input": "/query"}, "kind": {"$const": "lamp"},
                "all": {"$concat": [{"$extract": {"step": 3, "at": "/rows"}}]}}},
            "recorded": {"model_calls": 4, "tokens": 1200},
        })
    }

    #[test]
    fn a_workflow_is_read_as_it_is_written() {
        let read = Workflow::read(&good()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), good());
        let mut short = good();
        for name in ["fixed", "recorded"] {
            short.as_object_mut().unwrap().remove(name);
        }
        short["result"] = json!("model");
        assert_eq!(Workflow::read(&short).unwrap().result, WorkflowResult::Model);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let mut bad = good();
        bad["version"] = json!(2);
        bad["more"] = json!(1);
        bad["parameters"] = json!(["query", "/query"]);
        bad["steps"][0]["tool"] = json!("shell");
        bad["steps"][0]["arguments"]["url"]["$text"][1]["$input"] = json!("/other");
        bad["steps"][1]["arguments"]["target"]["nonsense"] = json!(1);
        bad["steps"][2]["arguments"]["from"]["text"] = json!({"ref": "e12"});
        bad["steps"][2]["else"] = json!(1);
        bad["steps"][2]["empty"] = json!("no");
        bad["result"]["template"]["price"]["$extract"] = json!({"step": 4, "at": "x"});
        bad["result"]["template"]["kind"] = json!(7);
        bad["recorded"]["tokens"] = json!(-1);
        let told: Vec<String> = Workflow::read(&bad).unwrap_err().iter().map(ToString::to_string).collect();
        let places: BTreeSet<&str> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
        let wanted = BTreeSet::from([
            "more",
            "version",
            "parameters[0]",
            "steps[0].tool",
            "steps[0].arguments.url[1].$input",
            "steps[1].arguments.target",
            "steps[2].else",
            "steps[2].empty",
            "steps[2].arguments.from.text.ref",
            "result.template.kind",
            "result.template.price.$extract.step",
            "result.template.price.$extract.at",
            "recorded.tokens",
        ]);
        assert_eq!(places, wanted, "{told:#?}");
        for (whole, place) in
            [(json!([]), ""), (json!({}), "version"), (json!({"version": 1, "steps": []}), "steps")]
        {
            assert_eq!(Workflow::read(&whole).unwrap_err()[0].to_string().split(':').next(), Some(place));
        }
        let mut large = good();
        large["fixed"]["/text"] = json!("x".repeat(WORKFLOW_MAX));
        assert!(Workflow::read(&large).unwrap_err()[0].why.contains("larger than"));
    }

    #[test]
    fn what_is_no_parameter_must_be_as_it_was() {
        let workflow = Workflow::read(&good()).unwrap();
        let fits = |input: Value| workflow.fits(&input);
        assert_eq!(fits(json!({"query": "chair", "shop": "lamps"})), Ok(()));
        for (input, named) in [
            (json!({"query": "chair", "shop": "chairs"}), "/shop"),
            (json!({"query": "chair"}), "/shop"),
            (json!({"shop": "lamps"}), "/query"),
            (json!({"query": "chair", "shop": "lamps", "more": null}), "/more"),
        ] {
            assert!(fits(input).unwrap_err().contains(named));
        }
    }

    #[test]
    fn a_purpose_is_the_same_for_every_input() {
        let of = |prompt: &str, input: Value, schema: Option<Value>| {
            purpose(prompt, &input, schema.as_ref(), &json!(["browser"]))
        };
        let lamp = of("Find a lamp.", json!({"query": "lamp"}), None);
        assert_eq!(lamp, of("Find a chair.", json!({"query": "chair"}), None));
        assert_ne!(lamp, of("Look for a lamp.", json!({"query": "lamp"}), None));
        assert_ne!(lamp, of("Find a lamp.", json!({"query": "lamp"}), Some(json!({}))));
        assert_ne!(lamp, of("Find a lamp.", json!({"query": "chair"}), None));
    }
}
