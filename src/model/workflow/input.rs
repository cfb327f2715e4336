//! Values of a run's input as parameters of what it did: lifted out when it is recorded, filled in when it is played.
//!
//! A value is a parameter only where it can be told apart: a text that stands twice in the input is none, and within a
//! longer text only a value of some length that stands there as a word. What is missed so is no mistake but costs a
//! model's call: a leaf that no parameter stands for must be the same in every later run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Stands for a value of the input, by its JSON pointer.
pub const INPUT: &str = "$input";
/// Stands for a text of several parts.
pub const TEXT: &str = "$text";
/// Beside [`INPUT`]: how the value is written, `percent` or `plus`, as in an address.
pub const ENCODED: &str = "encoded";

/// Shortest value that is looked for within a longer text, characters.
const WITHIN_MIN: usize = 3;

/// The ways in which a value stands in a text.
const FORMS: [Option<&str>; 3] = [None, Some("percent"), Some("plus")];

/// The leaves of an input.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    leaves: BTreeMap<String, Value>,
    /// Texts that name one leaf, longest first: the text as it stands, the pointer, and its form.
    known: Vec<(String, String, Option<&'static str>)>,
}

impl Inputs {
    /// Those of this input.
    #[must_use]
    pub fn of(input: &Value) -> Self {
        let mut leaves = BTreeMap::new();
        collect(input, String::new(), &mut leaves);
        let mut by_text: BTreeMap<String, BTreeSet<(String, Option<&'static str>)>> = BTreeMap::new();
        for (pointer, value) in &leaves {
            let Some(text) = text_of(value).filter(|text| !text.is_empty()) else { continue };
            for form in FORMS {
                let entry = by_text.entry(encoded(&text, form)).or_default();
                if entry.iter().all(|(known, _)| known != pointer) {
                    entry.insert((pointer.clone(), form));
                }
            }
        }
        let alone = by_text.into_iter().filter(|(_, of)| of.len() == 1);
        let mut known: Vec<_> = alone
            .flat_map(|(text, of)| of.into_iter().map(move |(p, form)| (text.clone(), p, form)))
            .collect();
        known.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { leaves, known }
    }

    /// Every leaf, by its pointer.
    #[must_use]
    pub fn leaves(&self) -> &BTreeMap<String, Value> {
        &self.leaves
    }

    /// The parameter that stands for the whole of a text.
    #[must_use]
    pub fn whole(&self, text: &str) -> Option<&str> {
        let found = self.known.iter().find(|(known, _, form)| known == text && form.is_none());
        found.map(|(_, pointer, _)| pointer.as_str())
    }

    /// A text as a template: values of the input are parameters; the text itself where it holds none.
    #[must_use]
    pub fn lift(&self, text: &str) -> Value {
        if let Some(pointer) = self.whole(text) {
            let parameter = json!({ INPUT: pointer });
            let is_text = self.leaves.get(pointer).is_some_and(Value::is_string);
            return if is_text { parameter } else { json!({ TEXT: [parameter] }) };
        }
        let parts: Vec<Value> = self.parts(text).into_iter().map(Part::into_json).collect();
        if parts.iter().all(Value::is_string) { Value::from(text) } else { json!({ TEXT: parts }) }
    }

    /// A text with a mark in the place of every value of the input: the same for every input.
    #[must_use]
    pub fn marked(&self, text: &str) -> String {
        if let Some(pointer) = self.whole(text) {
            return mark(pointer);
        }
        let shown = |part| match part {
            Part::Plain(text) => text.to_owned(),
            Part::Value(pointer, _) => mark(pointer),
        };
        self.parts(text).into_iter().map(shown).collect()
    }

    fn parts<'a>(&'a self, text: &'a str) -> Vec<Part<'a>> {
        let (mut parts, mut plain, mut at) = (Vec::new(), 0, 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let found = self.known.iter().find(|(known, _, _)| {
                known.chars().count() >= WITHIN_MIN
                    && rest.starts_with(known.as_str())
                    && is_word(text, at, at + known.len())
            });
            if let Some((known, pointer, form)) = found {
                parts.extend(text.get(plain..at).filter(|t| !t.is_empty()).map(Part::Plain));
                parts.push(Part::Value(pointer, *form));
                at += known.len();
                plain = at;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        parts.extend(text.get(plain..).filter(|t| !t.is_empty()).map(Part::Plain));
        parts
    }
}

/// A piece of a text.
enum Part<'a> {
    Plain(&'a str),
    Value(&'a str, Option<&'static str>),
}

impl Part<'_> {
    fn into_json(self) -> Value {
        match self {
            Self::Plain(text) => Value::from(text),
            Self::Value(pointer, None) => json!({ INPUT: pointer }),
            Self::Value(pointer, Some(form)) => json!({ INPUT: pointer, ENCODED: form }),
        }
    }
}

fn mark(pointer: &str) -> String {
    format!("\u{27e8}{pointer}\u{27e9}")
}

fn collect(value: &Value, at: String, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(inner, format!("{at}/{name}"), into);
            }
        }
        Value::Array(items) => {
            for (n, inner) in items.iter().enumerate() {
                collect(inner, format!("{at}/{n}"), into);
            }
        }
        leaf => {
            into.insert(at, leaf.clone());
        }
    }
}

/// A leaf as it is typed into a page; `None`: nobody would.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn encoded(text: &str, form: Option<&str>) -> String {
    let plus: String = match form {
        None => return text.to_owned(),
        Some(_) => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
    };
    if form == Some("percent") { plus.replace('+', "%20") } else { plus }
}

/// Whether no letter or digit stands right before or behind.
fn is_word(text: &str, from: usize, to: usize) -> bool {
    let before = text.get(..from).and_then(|before| before.chars().next_back());
    let behind = text.get(to..).and_then(|behind| behind.chars().next());
    [before, behind].into_iter().flatten().all(|c| !c.is_alphanumeric())
}

/// Whether a value stands for something else.
#[must_use]
pub(super) fn is_template(fields: &Map<String, Value>) -> bool {
    fields.contains_key(INPUT) || fields.contains_key(TEXT)
}

/// A template with the values of this input.
///
/// # Errors
/// A sentence, where the input has no such value.
pub fn fill(template: &Value, input: &Value) -> Result<Value, String> {
    match template {
        Value::Object(fields) if is_template(fields) => filled(fields, input),
        Value::Object(fields) => {
            let each = fields.iter().map(|(name, inner)| Ok((name.clone(), fill(inner, input)?)));
            each.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Array(items) => items.iter().map(|inner| fill(inner, input)).collect(),
        plain => Ok(plain.clone()),
    }
}

fn filled(fields: &Map<String, Value>, input: &Value) -> Result<Value, String> {
    if let Some(pointer) = fields.get(INPUT).and_then(Value::as_str) {
        let value = input.pointer(pointer).ok_or_else(|| format!("the input has no value {pointer:?}"))?;
        return match fields.get(ENCODED).and_then(Value::as_str) {
            None => Ok(value.clone()),
            form => Ok(encoded(&text_of(value).unwrap_or_default(), form).into()),
        };
    }
    let mut text = String::new();
    for part in fields.get(TEXT).and_then(Value::as_array).into_iter().flatten() {
        let part = fill(part, input)?;
        text.push_str(&text_of(&part).ok_or_else(|| format!("{part} is no text"))?);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_lifted_where_they_can_be_told_apart() {
        let input =
            json!({"query": "desk lamp", "size": 40, "a": "same", "b": "same", "on": true, "x": "ab"});
        let inputs = Inputs::of(&input);
        assert_eq!(inputs.lift("desk lamp"), json!({"$input": "/query"}));
        assert_eq!(inputs.lift("40"), json!({"$text": [{"$input": "/size"}]}));
        assert_eq!(inputs.lift("ab"), json!({"$input": "/x"}), "the whole of a text may be short");
        for plain in ["same", "true", "desk lamps", "drab ab", "1400", "", "lamp"] {
            assert_eq!(inputs.lift(plain), json!(plain));
        }
        let address = "http://shop/find?q=desk+lamp&p=desk%20lamp#desk lamp";
        let lifted = inputs.lift(address);
        assert_eq!(
            lifted,
            json!({"$text": [
                "http://shop/find?q=", {"$input": "/query", "encoded": "plus"}, "&p=",
                {"$input": "/query", "encoded": "percent"}, "#", {"$input": "/query"}
            ]})
        );
        assert_eq!(fill(&lifted, &input).unwrap(), json!(address));
        let other = json!({"query": "a&b c"});
        assert_eq!(fill(&lifted, &other).unwrap(), json!("http://shop/find?q=a%26b+c&p=a%26b%20c#a&b c"));
        assert_eq!(inputs.marked("Find a desk lamp."), "Find a \u{27e8}/query\u{27e9}.");
        assert!(fill(&lifted, &json!({})).unwrap_err().contains("/query"));
    }

    #[test]
    fn what_is_filled_keeps_its_shape() {
        let input = json!({"size": 40, "deep": [{"a/b": "v"}]});
        let template = json!({"n": {"$input": "/size"}, "list": [{"$input": "/deep/0/a~1b"}, 1], "t": {"$text": ["<", {"$input": "/size"}, ">"]}});
        assert_eq!(fill(&template, &input).unwrap(), json!({"n": 40, "list": ["v", 1], "t": "<40>"}));
        assert_eq!(Inputs::of(&input).leaves().keys().collect::<Vec<_>>(), ["/deep/0/a~1b", "/size"]);
    }
}
