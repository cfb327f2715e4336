//! `generateContent` of the Gemini API.
//!
//! Its calls mostly come without ids, and must then go back without: they get one of ours, which begins as none of
//! theirs does. Signatures of thoughts go back on the parts that they came with. A turn
//! ends with `STOP` whether it calls or not, and a call that the API could not read is an ending of its own.

use serde_json::{Value, json};

use super::{From, arguments, names, openai, tokens};
use crate::agentloop::model::{Message, Said, Stop, ToolCall, ToolResult, ToolSpec, Turn};
use crate::model::Usage;

/// Endings by which the provider refuses.
const REFUSALS: [&str; 8] = [
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "LANGUAGE",
    "IMAGE_SAFETY",
    "MODEL_ARMOR",
];
/// Endings by a call that could not be read.
const MALFORMED: [&str; 3] = ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"];
/// How the ids begin that are ours.
const OURS: &str = "call#";
/// Models that want a signature on the first call of each turn, and what they take in its place where another model
/// made the call.
const SIGNED: &str = "gemini-3";
const UNSIGNED: &str = "skip_thought_signature_validator";

/// The request.
pub(super) fn ask(from: &From<'_>) -> Value {
    let contents = from.request.messages.iter().filter_map(|message| {
        let (role, parts) = match message {
            Message::User { text } => ("user", vec![json!({ "text": text })]),
            Message::Assistant(said) => ("model", shown_again(from, said)),
            Message::Tools { results } => ("user", results.iter().map(answer).collect()),
        };
        (!parts.is_empty()).then(|| json!({"role": role, "parts": parts}))
    });
    let mut body = json!({
        "contents": contents.collect::<Vec<_>>(),
        "generationConfig": {"maxOutputTokens": from.request.max_output},
    });
    let system = from.request.system.join("\n\n");
    if !system.is_empty() {
        body["systemInstruction"] = json!({"parts": [{"text": system}]});
    }
    if let Some(tools) = from.tools(tool) {
        body["tools"] = json!([{ "functionDeclarations": tools }]);
        if from.request.must_call {
            body["toolConfig"] = json!({"functionCallingConfig": {"mode": "ANY"}});
        }
    }
    body
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    json!({"name": name, "description": description, "parametersJsonSchema": parameters})
}

fn shown_again(from: &From<'_>, said: &Said) -> Vec<Value> {
    let mut parts: Vec<Value> = Vec::new();
    if let Some(Value::Array(echo)) = from.echo(said) {
        for kept in echo {
            let mut part = match said.calls.iter().find(|call| kept["call"] == call.id.as_str()) {
                Some(call) => called(call),
                None if kept["text"].is_string() => json!({"text": kept["text"]}),
                None => continue,
            };
            if kept["signature"].is_string() {
                part["thoughtSignature"] = kept["signature"].clone();
            }
            parts.push(part);
        }
    } else {
        parts.extend(said.text.iter().map(|text| json!({ "text": text })));
        parts.extend(said.calls.iter().map(called));
    }
    let first = parts.iter_mut().find(|part| part["functionCall"].is_object());
    if let Some(first) =
        first.filter(|part| from.model.contains(SIGNED) && part["thoughtSignature"].is_null())
    {
        first["thoughtSignature"] = json!(UNSIGNED);
    }
    parts
}

fn called(call: &ToolCall) -> Value {
    let call_of = json!({"name": call.name, "args": arguments::shown(&call.arguments)});
    json!({"functionCall": with_id(call_of, &call.id)})
}

fn answer(result: &ToolResult) -> Value {
    let response = json!({"name": result.name, "content": openai::told(result)});
    let answer = json!({"name": result.name, "response": response});
    json!({"functionResponse": with_id(answer, &result.call)})
}

fn with_id(mut value: Value, id: &str) -> Value {
    if !id.starts_with(OURS) {
        value["id"] = json!(id);
    }
    value
}

/// The turn of an answer.
pub(super) fn turn(from: &From<'_>, body: &Value) -> Result<Turn, String> {
    let model = body["modelVersion"].as_str().unwrap_or(from.model).to_owned();
    let usage = usage(&body["usageMetadata"]);
    let candidate = &body["candidates"][0];
    if let (Some(why), true) = (body["promptFeedback"]["blockReason"].as_str(), candidate.is_null()) {
        let stop = Stop::Refused(format!("{} refuses the prompt: {why}", from.provider));
        return Ok(Turn { said: Said::default(), stop, usage, model, cost_usd: None });
    }
    if !candidate.is_object() {
        return Err("it holds no candidate".to_owned());
    }
    let said = said(from, &candidate["content"]["parts"]);
    let finish = candidate["finishReason"].as_str().unwrap_or_default();
    let words = candidate["finishMessage"].as_str();
    let stop = match finish {
        "MAX_TOKENS" => Stop::Length,
        _ if MALFORMED.contains(&finish) => Stop::MalformedCall(words.unwrap_or(finish).to_owned()),
        _ if REFUSALS.contains(&finish) => Stop::Refused(words.unwrap_or(finish).to_owned()),
        _ => Stop::End,
    };
    Ok(Turn { said, stop, usage, model, cost_usd: None })
}

fn said(from: &From<'_>, parts: &Value) -> Said {
    let mut taken: Vec<String> = from.call_ids().map(ToOwned::to_owned).collect();
    let mut said = Said::default();
    let mut text = String::new();
    let mut echo = Vec::new();
    let mut signed = false;
    for part in parts.as_array().into_iter().flatten() {
        let mut kept = json!({});
        if let Some(signature) = part["thoughtSignature"].as_str() {
            kept["signature"] = json!(signature);
            signed = true;
        }
        let call = &part["functionCall"];
        if call.is_object() {
            let name = call["name"].as_str().unwrap_or_default();
            let id = names::fresh(call["id"].as_str(), &taken, |n| format!("{OURS}{name}#{n}"));
            taken.push(id.clone());
            kept["call"] = json!(id);
            said.calls.push(ToolCall {
                id,
                name: name.to_owned(),
                arguments: arguments::read(&call["args"]),
            });
        } else if let Some(words) = part["text"].as_str().filter(|_| part["thought"] != true) {
            text.push_str(words);
            kept["text"] = json!(words);
        } else {
            continue;
        }
        echo.push(kept);
    }
    said.text = (!text.trim().is_empty()).then_some(text);
    said.echo = signed.then(|| (from.provider.to_owned(), Value::Array(echo)));
    said
}

/// Its `candidatesTokenCount` does not hold its thoughts.
fn usage(usage: &Value) -> Usage {
    let sum = |a: &str, b: &str| match (tokens(&usage[a]), tokens(&usage[b])) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    };
    Usage {
        input_tokens: sum("promptTokenCount", "toolUsePromptTokenCount"),
        cached_input_tokens: tokens(&usage["cachedContentTokenCount"]),
        cache_write_tokens: None,
        output_tokens: sum("candidatesTokenCount", "thoughtsTokenCount"),
        reasoning_tokens: tokens(&usage["thoughtsTokenCount"]),
        model_calls: Some(1),
    }
}
