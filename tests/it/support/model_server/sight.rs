//! What a scripted model sees of a page: it names elements as people do, and here they become references.
//!
//! A script says `"ref": "button \"Search\""`, and the call that goes out holds the reference of the last such line in
//! the conversation. So a script holds for every page that has the button, as a real model would do with it.

use serde_json::Value;

use super::Asked;

/// Puts the references of what is seen into a call's arguments; an error names what is not to be seen.
pub fn resolved(arguments: &str, asked: &Asked) -> Result<String, String> {
    let Ok(mut value) = serde_json::from_str::<Value>(arguments) else { return Ok(arguments.to_owned()) };
    let mut lines = Vec::new();
    texts(&asked.body, &mut lines);
    resolve(&mut value, &lines)?;
    Ok(value.to_string())
}

fn texts<'a>(value: &'a Value, lines: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => lines.extend(text.lines()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, lines)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, lines)),
        _ => {}
    }
}

fn resolve(value: &mut Value, lines: &[&str]) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(what) if name == "ref" && !is_reference(what) => {
                        *what = reference(lines, what).ok_or_else(|| format!("the model sees no {what}"))?;
                    }
                    other => resolve(other, lines)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| resolve(item, lines)),
        _ => Ok(()),
    }
}

fn is_reference(text: &str) -> bool {
    text.strip_prefix('e').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The reference in the last line that shows this.
fn reference(lines: &[&str], what: &str) -> Option<String> {
    let begin = format!("- {what} [ref=");
    let rest = lines.iter().rev().find_map(|line| line.trim_start().strip_prefix(&begin))?;
    rest.split_once(']').map(|(reference, _)| reference.to_owned())
}
