//! `POST messages` as Anthropic has it.

use serde_json::{Value, json};

use super::reply::{Ended, Failure, Spoken};
use super::{Asked, Complaint, KEY, Shared, header, is_tool_name, list, stranger, text};

/// Most marks of the cache in one request.
const MARKS: usize = 4;

fn wrong(message: impl Into<String>) -> Complaint {
    Complaint::new(400, "invalid_request_error", message)
}

/// Whether it would be taken.
pub(super) fn check(asked: &Asked, shared: &Shared) -> Result<(), Complaint> {
    let body = &asked.body;
    if asked.path != "v1/messages" {
        return Err(Complaint::new(404, "not_found_error", format!("Not Found: {}", asked.path)));
    }
    if header(asked, "x-api-key") != KEY {
        return Err(Complaint::new(401, "authentication_error", "invalid x-api-key"));
    }
    if header(asked, "anthropic-version") != "2023-06-01" {
        return Err(wrong("anthropic-version: header is required"));
    }
    let known = [
        "model",
        "max_tokens",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "stream",
        "thinking",
        "output_config",
        "metadata",
        "stop_sequences",
    ];
    if let Some(name) = stranger(body, &known) {
        return Err(wrong(format!("{name}: Extra inputs are not permitted")));
    }
    let model = text(body, "model");
    if model.is_empty() || model.starts_with("no-such") {
        return Err(Complaint::new(404, "not_found_error", format!("model: {model}")));
    }
    if body["max_tokens"].as_u64().is_none_or(|n| n == 0) {
        return Err(wrong("max_tokens: Field required"));
    }
    if body["stream"] == true {
        return Err(wrong("this server does not stream"));
    }
    let marks = body.to_string().matches("\"cache_control\"").count();
    if marks > MARKS {
        return Err(wrong(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        )));
    }
    let forced = matches!(body["tool_choice"]["type"].as_str(), Some("any" | "tool"));
    if forced && body["thinking"]["type"] != "disabled" && model.contains("thinks") {
        return Err(wrong("Thinking may not be enabled when tool_choice forces tool use."));
    }
    for block in list(body, "system") {
        if block["type"] != "text" || text(block, "text").is_empty() {
            return Err(wrong("system: text content blocks must be non-empty"));
        }
    }
    tools(body)?;
    messages(list(body, "messages"), shared)
}

fn tools(body: &Value) -> Result<(), Complaint> {
    if body["tools"].is_null() && !body["tool_choice"].is_null() {
        return Err(wrong("tool_choice: may only be specified while providing tools"));
    }
    for (at, tool) in list(body, "tools").iter().enumerate() {
        if let Some(name) = stranger(tool, &["name", "description", "input_schema", "cache_control"]) {
            return Err(wrong(format!("tools.{at}.{name}: Extra inputs are not permitted")));
        }
        if !is_tool_name(text(tool, "name")) || tool["input_schema"]["type"] != "object" {
            return Err(wrong(format!("tools.{at}.custom.input_schema.type: Field required")));
        }
    }
    Ok(())
}

/// The blocks of a message: a text is one.
fn blocks(message: &Value) -> Vec<Value> {
    match &message["content"] {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks.clone(),
        _ => Vec::new(),
    }
}

fn messages(messages: &[Value], shared: &Shared) -> Result<(), Complaint> {
    if messages.first().is_none_or(|first| first["role"] != "user") {
        return Err(wrong("messages: first message must use the \"user\" role"));
    }
    let mut open: Vec<String> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let blocks = blocks(message);
        if blocks.is_empty() {
            return Err(wrong(format!("messages.{at}: all messages must have non-empty content")));
        }
        let results: Vec<&Value> = blocks.iter().filter(|block| block["type"] == "tool_result").collect();
        for id in &open {
            if !results.iter().any(|result| text(result, "tool_use_id") == *id) {
                return Err(wrong(format!(
                    "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}"
                )));
            }
        }
        for result in &results {
            let id = text(result, "tool_use_id");
            if !open.iter().any(|open| open == id) {
                return Err(wrong(format!("unexpected `tool_use_id` found in `tool_result` blocks: {id}")));
            }
        }
        if !results.is_empty() && blocks[0]["type"] != "tool_result" {
            return Err(wrong(format!("messages.{at}: tool_result blocks must come first")));
        }
        for block in &blocks {
            check_block(at, block)?;
        }
        open = blocks.iter().filter(|b| b["type"] == "tool_use").map(|b| text(b, "id").to_owned()).collect();
        signed(at, &blocks, shared)?;
        if !open.is_empty() && message["role"] != "assistant" {
            return Err(wrong(format!(
                "messages.{at}: `tool_use` blocks can only be in `assistant` messages"
            )));
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(wrong("`tool_use` ids were found without `tool_result` blocks"))
    }
}

fn check_block(at: usize, block: &Value) -> Result<(), Complaint> {
    match text(block, "type") {
        "text" if text(block, "text").trim().is_empty() => {
            Err(wrong(format!("messages.{at}: text content blocks must be non-empty")))
        }
        "tool_use" => {
            let id = text(block, "id");
            let good =
                !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if !good {
                return Err(wrong(format!(
                    "messages.{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                )));
            }
            if block["input"].is_object() {
                Ok(())
            } else {
                Err(wrong(format!("messages.{at}.tool_use.input: Input should be a valid dictionary")))
            }
        }
        "tool_result" => {
            match stranger(block, &["type", "tool_use_id", "content", "is_error", "cache_control"]) {
                Some(name) => Err(wrong(format!("messages.{at}.{name}: Extra inputs are not permitted"))),
                None => Ok(()),
            }
        }
        "thinking" if !block["cache_control"].is_null() => {
            Err(wrong(format!("messages.{at}.thinking.cache_control: Extra inputs are not permitted")))
        }
        "thinking" if block["signature"].is_string() => Ok(()),
        "text" | "server_tool_use" | "redacted_thinking" => Ok(()),
        other => Err(wrong(format!("messages.{at}: Input tag {other:?} found using 'type' is not expected"))),
    }
}

/// Calls that came with reasoning are shown with it, signed.
fn signed(at: usize, blocks: &[Value], shared: &Shared) -> Result<(), Complaint> {
    for block in blocks.iter().filter(|block| block["type"] == "tool_use") {
        let id = text(block, "id");
        let Some(signature) = shared.owed("anthropic", id) else { continue };
        if blocks[0]["type"] != "thinking" || text(&blocks[0], "signature") != signature {
            return Err(wrong(format!("messages.{at}: Expected `thinking`, but found `tool_use` ({id})")));
        }
    }
    Ok(())
}

/// The answer in its words.
pub(super) fn says(asked: &Asked, spoken: &Spoken, shared: &mut Shared) -> Value {
    let mut content = Vec::new();
    let signature = format!("sig-{}", shared.asked.len());
    if let Some(reasoning) = &spoken.reasoning {
        content.push(json!({"type": "thinking", "thinking": reasoning, "signature": signature}));
    }
    if let Some(text) = &spoken.text {
        content.push(json!({"type": "text", "text": text}));
    }
    for (name, arguments) in &spoken.calls {
        shared.calls += 1;
        let id = format!("toolu_{:024x}", shared.calls);
        if spoken.reasoning.is_some() {
            shared.owed.push(("anthropic", id.clone(), signature.clone()));
        }
        let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
        content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
    }
    let (stop, details) = match &spoken.stop {
        Some(Ended::Length) => ("max_tokens", Value::Null),
        Some(Ended::Paused) => ("pause_turn", Value::Null),
        Some(Ended::Refused(why)) => ("refusal", json!({"type": "refusal", "explanation": why})),
        Some(Ended::Filtered) => ("refusal", Value::Null),
        _ if spoken.calls.is_empty() => ("end_turn", Value::Null),
        _ => ("tool_use", Value::Null),
    };
    let tokens = spoken.tokens;
    json!({
        "id": format!("msg_{}", shared.asked.len()),
        "type": "message",
        "role": "assistant",
        "model": spoken.model.clone().unwrap_or_else(|| text(&asked.body, "model").to_owned()),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": null,
        "stop_details": details,
        "usage": {
            "input_tokens": tokens.input - tokens.cached - tokens.written,
            "cache_creation_input_tokens": tokens.written,
            "cache_read_input_tokens": tokens.cached,
            "output_tokens": tokens.output,
            "output_tokens_details": {"thinking_tokens": tokens.reasoning},
        },
    })
}

/// The error in its words.
pub(super) fn fails(failed: &Failure) -> Value {
    let kind = match failed.status {
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => &failed.kind,
    };
    json!({"type": "error", "error": {"type": kind, "message": failed.message}, "request_id": "req_1"})
}
