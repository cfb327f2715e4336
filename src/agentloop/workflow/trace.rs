//! Where a result comes from: every leaf of it from something that was extracted, from the input, or from its schema.
//!
//! A value may stand in several places by chance, and a workflow that took the wrong one would tell tomorrow what is
//! not so. So a place counts only where it is the only one, or the only one of the field's own name; and a value that
//! says little (a flag, a number of few digits) counts only under that name. Lists are taken whole, or as several whole
//! ones: their length is data too. What cannot be traced is the model's to say.

use serde_json::{Map, Value, json};

use crate::model::workflow::{CONCAT, CONST, EXTRACT, INPUT, Inputs};

/// Fewest characters of a value that is known by itself.
const TELLING: usize = 4;

/// What a result can be made of.
pub(super) struct Sources<'a> {
    /// What was extracted: the number of the step, from 1, and what it found.
    pub(super) found: &'a [(usize, Value)],
    pub(super) inputs: &'a Inputs,
}

/// The template of a result; `None`: something of it cannot be traced.
pub(super) fn trace(result: &Value, schema: Option<&Value>, of: &Sources<'_>) -> Option<Value> {
    let whole = of.found.iter().filter(|(_, found)| same(found, result)).collect::<Vec<_>>();
    if let [(step, _)] = whole.as_slice() {
        return Some(extract(*step, ""));
    }
    part(result, None, schema, of)
}

fn part(value: &Value, name: Option<&str>, schema: Option<&Value>, of: &Sources<'_>) -> Option<Value> {
    if let Some(constant) =
        schema.and_then(|schema| schema.get("const")).filter(|constant| same(constant, value))
    {
        return Some(json!({ CONST: constant }));
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            object(fields, schema, of).or_else(|| placed(value, name, of))
        }
        // A list that was empty may be a part of this one: nobody can tell which.
        Value::Array(items)
            if !items.is_empty() && of.found.iter().any(|(_, found)| has_empty_list(found)) =>
        {
            None
        }
        Value::Array(items) => placed(value, name, of).or_else(|| lists(items, of)),
        _ => placed(value, name, of),
    }
}

/// Field by field, where the schema knows the fields: other names may be data.
fn object(fields: &Map<String, Value>, schema: Option<&Value>, of: &Sources<'_>) -> Option<Value> {
    let known = schema?.get("properties")?.as_object()?;
    let each = fields.iter().map(|(name, value)| {
        let schema = known.get(name)?;
        Some((name.clone(), part(value, Some(name), Some(schema), of)?))
    });
    each.collect::<Option<Map<_, _>>>().map(Value::Object)
}

/// The one place of a value.
fn placed(value: &Value, name: Option<&str>, of: &Sources<'_>) -> Option<Value> {
    let mut places = Vec::new();
    for (step, found) in of.found {
        look(found, value, &mut String::new(), &mut |at| places.push((at.to_owned(), extract(*step, at))));
    }
    // What the page said too may be otherwise tomorrow: the input does not stand for it.
    let is_extracted = !places.is_empty();
    for (pointer, known) in of.inputs.leaves() {
        if !is_extracted && same(known, value) {
            places.push((pointer.clone(), json!({ INPUT: pointer })));
        }
    }
    let named: Vec<_> =
        places.iter().filter(|(at, _)| name.is_some_and(|name| is_called(at, name))).collect();
    match (named.as_slice(), places.as_slice()) {
        ([(_, one)], _) => Some(one.clone()),
        ([], [(_, one)]) if is_telling(value) => Some(one.clone()),
        _ => None,
    }
}

/// Whether a list that was extracted is empty.
pub(super) fn has_empty_list(found: &Value) -> bool {
    let mut empty = false;
    lists_in(found, &mut String::new(), &mut |_, list| empty |= list.is_empty());
    empty
}

/// The parts of a result, by their pointers, that nothing proves: neither what was read in this run, nor the input, nor
/// the schema. Where a part stood does not matter here, but a value that says little counts only under its field's name.
pub(super) fn unproven(
    result: &Value,
    schema: Option<&Value>,
    read: &[Value],
    inputs: &Inputs,
) -> Vec<String> {
    let mut parts = Vec::new();
    Proof { read, inputs, parts: &mut parts }.look(result, None, schema, &mut String::new());
    parts
}

struct Proof<'a> {
    read: &'a [Value],
    inputs: &'a Inputs,
    parts: &'a mut Vec<String>,
}

impl Proof<'_> {
    fn look(&mut self, value: &Value, name: Option<&str>, schema: Option<&Value>, at: &mut String) {
        let of = |key: &str| schema.and_then(|schema| schema.get(key));
        let known = of("const").is_some_and(|constant| same(constant, value))
            || self.inputs.leaves().iter().any(|(at, known)| {
                let named = || name.is_some_and(|name| is_called(at, name));
                same(known, value) && (is_telling(value) || named())
            })
            || self.read.iter().any(|read| same(read, value) || holds(read, None, value, name));
        match value {
            _ if known => {}
            Value::Object(fields) if !fields.is_empty() => {
                for (name, inner) in fields {
                    let schema = of("properties").and_then(|known| known.get(name));
                    within(at, name, |at| self.look(inner, Some(name), schema, at));
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (n, inner) in items.iter().enumerate() {
                    within(at, &n.to_string(), |at| self.look(inner, name, of("items"), at));
                }
            }
            _ => self.parts.push(at.clone()),
        }
    }
}

/// Whether this value stands in what was read, items of lists included.
fn holds(read: &Value, called: Option<&str>, value: &Value, name: Option<&str>) -> bool {
    let named = || called.zip(name).is_some_and(|(called, name)| is_called(called, name));
    if same(read, value) && (is_telling(value) || named()) {
        return true;
    }
    match read {
        Value::Object(fields) => fields.iter().any(|(called, inner)| holds(inner, Some(called), value, name)),
        Value::Array(items) => items.iter().any(|inner| holds(inner, called, value, name)),
        _ => false,
    }
}

/// A list that is several whole ones, one behind the other.
fn lists(items: &[Value], of: &Sources<'_>) -> Option<Value> {
    let (mut rest, mut parts) = (items, Vec::new());
    for (step, found) in of.found {
        let mut places = Vec::new();
        lists_in(found, &mut String::new(), &mut |at, list| places.push((at.to_owned(), list.to_vec())));
        for (at, list) in places {
            let begins = !list.is_empty()
                && rest.len() >= list.len()
                && rest.iter().zip(&list).all(|(a, b)| same(a, b));
            if begins {
                rest = rest.get(list.len()..).unwrap_or_default();
                parts.push(extract(*step, &at));
                break;
            }
        }
    }
    (rest.is_empty() && parts.len() > 1).then(|| json!({ CONCAT: parts }))
}

fn extract(step: usize, at: &str) -> Value {
    json!({ EXTRACT: {"step": step, "at": at} })
}

fn look(within: &Value, wanted: &Value, at: &mut String, tell: &mut dyn FnMut(&str)) {
    if same(within, wanted) {
        tell(at);
    }
    each(within, at, &mut |inner, at| look(inner, wanted, at, tell));
}

fn lists_in(within: &Value, at: &mut String, tell: &mut dyn FnMut(&str, &[Value])) {
    if let Value::Array(items) = within {
        tell(at, items);
    } else {
        each(within, at, &mut |inner, at| lists_in(inner, at, tell));
    }
}

fn each(of: &Value, at: &mut String, with: &mut dyn FnMut(&Value, &mut String)) {
    // An item of a list is where it is by chance.
    if let Value::Object(fields) = of {
        fields.iter().for_each(|(name, inner)| within(at, name, |at| with(inner, at)));
    }
}

fn within(at: &mut String, name: &str, with: impl FnOnce(&mut String)) {
    let length = at.len();
    at.push('/');
    at.push_str(&name.replace('~', "~0").replace('/', "~1"));
    with(at);
    at.truncate(length);
}

/// Whether the last name of a pointer is this one, however it is written.
fn is_called(pointer: &str, name: &str) -> bool {
    let plain = |name: &str| {
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>()
    };
    pointer.rsplit('/').next().is_some_and(|last| !last.is_empty() && plain(last) == plain(name))
}

fn is_telling(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().count() >= TELLING,
        Value::Number(number) => number.to_string().chars().count() >= TELLING,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

/// Whether two values are the same, 7 and 7.0 too.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The result of a template.
///
/// # Errors
/// A sentence: something that was there when it was recorded was not found now.
pub(super) fn make(template: &Value, found: &[(usize, Value)], input: &Value) -> Result<Value, String> {
    let fields = template.as_object().ok_or("the workflow's result is none")?;
    if let Some(place) = fields.get(EXTRACT) {
        let step = place["step"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let at = place["at"].as_str().unwrap_or_default();
        let of = found.iter().rev().find(|(n, _)| *n == step);
        let value = of.and_then(|(_, found)| found.pointer(at)).cloned();
        return value
            .ok_or_else(|| format!("step {step} found nothing at {at:?}, where a part of the result stood"));
    }
    if let Some(pointer) = fields.get(INPUT).and_then(Value::as_str) {
        return input.pointer(pointer).cloned().ok_or_else(|| format!("the input has no value {pointer:?}"));
    }
    if let Some(constant) = fields.get(CONST) {
        return Ok(constant.clone());
    }
    if let Some(parts) = fields.get(CONCAT).and_then(Value::as_array) {
        let mut all = Vec::new();
        for part in parts {
            match make(part, found, input)? {
                Value::Array(items) => all.extend(items),
                other => return Err(format!("{other} is no list, where a part of the result was one")),
            }
        }
        return Ok(all.into());
    }
    let each = fields.iter().map(|(name, inner)| Ok((name.clone(), make(inner, found, input)?)));
    each.collect::<Result<Map<_, _>, String>>().map(Value::Object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(result: &Value, schema: &Value, found: &[(usize, Value)], input: &Value) -> Option<Value> {
        let inputs = Inputs::of(input);
        let template = trace(result, Some(schema), &Sources { found, inputs: &inputs })?;
        assert_eq!(make(&template, found, input).unwrap(), *result, "{template}");
        Some(template)
    }

    fn fields(names: &[&str]) -> Value {
        let all: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({"properties": all})
    }

    #[test]
    fn a_result_is_traced_to_what_was_extracted() {
        let found =
            [(3, json!({"price": 7, "title": "Desk lamp", "stock": 3})), (5, json!([{"a": 1}, {"a": 2}]))];
        assert_eq!(traced(&found[0].1, &Value::Null, &found, &json!({})), Some(extract(3, "")));
        let result = json!({"Price": 7, "name": "Desk lamp", "query": "lamp", "kind": "x", "rows": [{"a": 1}, {"a": 2}]});
        let mut schema = fields(&["Price", "name", "query", "rows"]);
        schema["properties"]["kind"] = json!({"const": "x"});
        let template = traced(&result, &schema, &found, &json!({"query": "lamp"})).unwrap();
        assert_eq!(
            template,
            json!({"Price": extract(3, "/price"), "name": extract(3, "/title"), "query": {"$input": "/query"},
                   "kind": {"$const": "x"}, "rows": extract(5, "")})
        );
    }

    #[test]
    fn what_may_be_a_chance_is_not_traced() {
        let found = [(1, json!({"stock": 3, "a": "same text", "b": "same text", "on": true}))];
        let none = |result: Value, names: &[&str]| {
            assert_eq!(traced(&result, &fields(names), &found, &json!({})), None, "{result}");
        };
        none(json!({"count": 3}), &["count"]);
        none(json!({"text": "same text"}), &["text"]);
        none(json!({"open": true}), &["open"]);
        none(json!({"stock": 3, "made": "up by the model"}), &["stock", "made"]);
        none(json!({"stock": 3}), &[]);
        none(json!(3), &[]);
        assert!(
            traced(&json!({"stock": 3, "a": "same text"}), &fields(&["stock", "a"]), &found, &json!({}))
                .is_some()
        );
    }

    #[test]
    fn lists_are_whole_or_several_whole_ones() {
        let found = [(1, json!({"rows": [1, 2]})), (2, json!({"rows": [3]})), (4, json!([1, 2, 3, 4]))];
        let concat = traced(&json!([1, 2, 3]), &Value::Null, &found[..2], &json!({})).unwrap();
        assert_eq!(concat, json!({"$concat": [extract(1, "/rows"), extract(2, "/rows")]}));
        assert_eq!(
            traced(&json!([1, 2, 4]), &Value::Null, &found, &json!({})),
            None,
            "a part of a list is the model's choice"
        );
        let later = [(1, json!({"rows": [9]})), (2, json!({"rows": []}))];
        assert_eq!(make(&concat, &later, &json!({})).unwrap(), json!([9]));
        let gone = make(&concat, &[(1, json!({"rows": [9]}))], &json!({})).unwrap_err();
        assert!(gone.contains("step 2"), "{gone}");
        let empty = [(1, json!({"open": [1]})), (2, json!({"overdue": []}))];
        let orders = traced(&json!({"orders": [1]}), &fields(&["orders"]), &empty, &json!({}));
        assert_eq!(orders, None, "the empty one may have been meant, too");
    }

    #[test]
    fn a_result_is_proven_by_what_was_read_in_this_run_alone() {
        let read = [json!({"rows": [{"name": "Green tea", "price": 3.5, "stock": 3}]}), json!(7)];
        let inputs = Inputs::of(&json!({"query": "tea", "most": 8}));
        let schema = json!({"properties": {"kind": {"const": "x"}, "list": {"items": {}}}});
        let missing = |result: Value| unproven(&result, Some(&schema), &read, &inputs);
        let none: Vec<String> = Vec::new();
        assert_eq!(
            missing(json!({"kind": "x", "query": "tea", "best": "Green tea", "stock": 3, "n": 7})),
            none
        );
        assert_eq!(missing(json!({"list": [{"name": "Green tea", "price": 3.5}]})), none, "a part of a list");
        assert_eq!(missing(json!({"kind": "y", "list": [{"price": 2.5}]})), ["/kind", "/list/0/price"]);
        assert_eq!(
            missing(json!({"most": 8, "left": 8})),
            ["/left"],
            "what the input says of something else"
        );
        assert_eq!(missing(json!({"cups": 3, "ok": true, "list": []})), ["/cups", "/list", "/ok"]);
    }

    #[test]
    fn what_the_page_said_is_not_repeated_from_the_input() {
        let found = [(1, json!({"article": "Green tea", "cost": 3.5}))];
        let (result, known) = (json!({"name": "Green tea", "price": 3.5}), json!({"price": 3.5}));
        let of = |input: &Value| traced(&result, &fields(&["name", "price"]), &found, input);
        assert_eq!(of(&known), None);
        assert_eq!(of(&json!({})), None, "under another name it may be a chance");
        let same_name = [(1, json!({"name": "Green tea", "price": 3.5}))];
        let template = traced(&json!({"price": 3.5}), &fields(&["price"]), &same_name, &known).unwrap();
        assert_eq!(template, json!({"price": extract(1, "/price")}));
    }
}
