//! `POST chat/completions` as `OpenAI`, `DeepSeek`, Groq, Mistral, Together and a local server have it.

use serde_json::{Value, json};

use super::reply::{Ended, Failure, Spoken};
use super::{Asked, Complaint, KEY, Shared, header, is_tool_name, list, stranger, text, usage};

/// Parameters that all of them take.
const COMMON: [&str; 12] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "stop",
    "response_format",
    "parallel_tool_calls",
    "n",
];
const OF_OPENAI: [&str; 8] = [
    "max_completion_tokens",
    "prompt_cache_key",
    "reasoning_effort",
    "verbosity",
    "seed",
    "service_tier",
    "store",
    "metadata",
];
const OF_MISTRAL: [&str; 3] = ["random_seed", "safe_prompt", "prompt_mode"];

fn wrong(message: impl Into<String>) -> Complaint {
    Complaint::new(400, "invalid_request_error", message)
}

/// Whether it would be taken.
pub(super) fn check(asked: &Asked, shared: &Shared) -> Result<(), Complaint> {
    let provider = asked.provider.as_str();
    if asked.path != "v1/chat/completions" {
        return Err(Complaint::new(
            404,
            "invalid_request_error",
            format!("Unknown request URL: {}", asked.path),
        ));
    }
    let key = header(asked, "authorization");
    match provider {
        "local" if !key.is_empty() => return Err(Complaint::new(401, "invalid_api_key", "I take no key")),
        "local" => {}
        _ if key != format!("Bearer {KEY}") => {
            return Err(Complaint::new(401, "invalid_api_key", format!("Incorrect API key provided: {key}")));
        }
        _ => {}
    }
    let body = &asked.body;
    if !body.is_object() || !header(asked, "content-type").starts_with("application/json") {
        return Err(wrong("We could not parse the JSON body of your request."));
    }
    parameters(provider, body)?;
    tools(provider, body)?;
    messages(provider, list(body, "messages"), shared)
}

fn parameters(provider: &str, body: &Value) -> Result<(), Complaint> {
    let own: &[&str] = match provider {
        "openai" => &OF_OPENAI,
        "mistral" => &OF_MISTRAL,
        "deepseek" => &["thinking"],
        _ => &["seed"],
    };
    let known: Vec<&str> = COMMON.iter().chain(own).copied().collect();
    if let Some(name) = stranger(body, &known) {
        return Err(match provider {
            "mistral" => Complaint::new(422, "extra_forbidden", name),
            "groq" => wrong(format!("property '{name}' is unsupported")),
            _ => wrong(format!("Unrecognized request argument supplied: {name}")),
        });
    }
    let model = text(body, "model");
    if model.is_empty() {
        return Err(wrong("you must provide a model parameter"));
    }
    if model.starts_with("no-such") {
        return Err(Complaint::new(404, "model_not_found", format!("The model `{model}` does not exist")));
    }
    if body["stream"] == true {
        return Err(wrong("this server does not stream"));
    }
    let modern = provider == "openai" && (model.starts_with("gpt-5") || model.starts_with('o'));
    if modern && !body["max_tokens"].is_null() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        return Err(Complaint::new(400, "unsupported_parameter", message));
    }
    if modern && (!body["temperature"].is_null() || !body["top_p"].is_null()) {
        return Err(Complaint::new(
            400,
            "unsupported_value",
            "Only the default value of 'temperature' is supported",
        ));
    }
    if provider == "deepseek" && body["response_format"]["type"] == "json_schema" {
        return Err(wrong("This response_format type is unavailable now"));
    }
    let forced = !matches!(body["tool_choice"].as_str(), None | Some("auto" | "none"));
    if provider == "deepseek" && forced && body["thinking"]["type"] != "disabled" {
        return Err(wrong("Thinking mode does not support this tool_choice"));
    }
    Ok(())
}

fn tools(provider: &str, body: &Value) -> Result<(), Complaint> {
    if body["tools"].is_null() {
        let choice = !body["tool_choice"].is_null();
        return if choice {
            Err(wrong("'tool_choice' is only allowed when 'tools' are specified."))
        } else {
            Ok(())
        };
    }
    if list(body, "tools").is_empty() {
        return Err(wrong("Invalid 'tools': empty array."));
    }
    for tool in list(body, "tools") {
        let function = &tool["function"];
        let named = is_tool_name(text(function, "name"));
        if tool["type"] != "function" || !named || function["parameters"]["type"] != "object" {
            return Err(wrong(format!("Invalid tool: {tool}")));
        }
        if stranger(tool, &["type", "function"]).is_some()
            || stranger(function, &["name", "description", "parameters", "strict"]).is_some()
        {
            let status = if provider == "mistral" { 422 } else { 400 };
            return Err(Complaint::new(status, "invalid_request_error", format!("extra fields in {tool}")));
        }
    }
    Ok(())
}

fn messages(provider: &str, messages: &[Value], shared: &Shared) -> Result<(), Complaint> {
    if messages.is_empty() {
        return Err(wrong("Invalid 'messages': empty array."));
    }
    let mut open: Vec<&str> = Vec::new();
    let mut before = "";
    for (at, message) in messages.iter().enumerate() {
        let role = text(message, "role");
        if role != "tool" && !open.is_empty() {
            let missing = open.join(", ");
            return Err(wrong(format!(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. Missing: {missing}"
            )));
        }
        order(provider, before, role, at)?;
        match role {
            "system" if at == 0 => only(provider, at, message, &["role", "content"])?,
            "user" => only(provider, at, message, &["role", "content"])?,
            "assistant" => {
                assistant(provider, at, message, shared)?;
                open = list(message, "tool_calls").iter().map(|call| text(call, "id")).collect();
            }
            "tool" => {
                only(provider, at, message, &["role", "content", "tool_call_id", "name"])?;
                let id = text(message, "tool_call_id");
                let known = open.len();
                open.retain(|other| *other != id);
                if open.len() == known {
                    return Err(wrong(format!(
                        "'tool_call_id' {id} is not found in 'tool_calls' of previous message"
                    )));
                }
            }
            other => return Err(wrong(format!("messages[{at}]: role {other:?} is not possible here"))),
        }
        let content = &message["content"];
        if !(content.is_string() || role == "assistant" && content.is_null()) {
            return Err(wrong(format!("Invalid type for 'messages[{at}].content'")));
        }
        before = role;
    }
    if provider == "mistral" && !matches!(before, "user" | "tool") {
        return Err(wrong(format!(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got {before}"
        )));
    }
    if open.is_empty() { Ok(()) } else { Err(wrong("a call has no result")) }
}

fn order(provider: &str, before: &str, role: &str, at: usize) -> Result<(), Complaint> {
    if provider == "mistral" && before == "tool" && role == "user" {
        let message = "Unexpected role 'user' after role 'tool'";
        return Err(Complaint::new(400, "invalid_request_message_order", message));
    }
    if role == "system" && at > 0 {
        return Err(wrong("System message must be at the beginning."));
    }
    Ok(())
}

fn only(provider: &str, at: usize, message: &Value, known: &[&str]) -> Result<(), Complaint> {
    match (stranger(message, known), provider) {
        (None, _) => Ok(()),
        (Some(name), "mistral") => {
            Err(Complaint::new(422, "extra_forbidden", format!("messages.{at}.{name}")))
        }
        (Some(name), _) => Err(wrong(format!("'messages.{at}': property '{name}' is unsupported"))),
    }
}

fn assistant(provider: &str, at: usize, message: &Value, shared: &Shared) -> Result<(), Complaint> {
    let known: &[&str] = match provider {
        "deepseek" | "local" | "together" => &["role", "content", "tool_calls", "reasoning_content"],
        _ => &["role", "content", "tool_calls"],
    };
    only(provider, at, message, known)?;
    let calls = list(message, "tool_calls");
    if calls.is_empty() && text(message, "content").is_empty() {
        return Err(wrong("Assistant message must have either content or tool_calls, but not none."));
    }
    if !message["tool_calls"].is_null() && calls.is_empty() {
        return Err(wrong(format!("Invalid 'messages[{at}].tool_calls': empty array.")));
    }
    for call in calls {
        let (id, function) = (text(call, "id"), &call["function"]);
        if call["type"] != "function" || !is_tool_name(text(function, "name")) {
            return Err(wrong(format!("messages[{at}]: {call} is no call")));
        }
        let arguments = serde_json::from_str::<Value>(text(function, "arguments"));
        if !arguments.is_ok_and(|arguments| arguments.is_object()) {
            return Err(wrong(format!("messages[{at}]: the arguments of {id} are not an object in JSON")));
        }
        match provider {
            "mistral" if id.len() != 9 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(wrong(format!(
                    "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
                )));
            }
            "openai" if id.is_empty() || id.len() > 40 => {
                return Err(wrong(format!("Invalid 'messages[{at}].tool_calls[0].id': string too long.")));
            }
            _ => {}
        }
        if let Some(reasoning) = shared.owed(provider, id)
            && message["reasoning_content"] != reasoning
        {
            return Err(wrong(format!(
                "Missing `reasoning_content` field in the assistant message at message index {at}."
            )));
        }
    }
    Ok(())
}

/// The answer in the provider's words.
pub(super) fn says(asked: &Asked, spoken: &Spoken, shared: &mut Shared) -> Value {
    let provider = asked.provider.as_str();
    let mut message = json!({ "role": "assistant", "content": spoken.text });
    let mut calls = Vec::new();
    for (name, arguments) in &spoken.calls {
        shared.calls += 1;
        let id = match provider {
            "mistral" => format!("{:09}", shared.calls),
            "groq" => format!("call_{:04}", shared.calls),
            _ => format!("call_{:024x}", shared.calls),
        };
        if let (Some(reasoning), "deepseek") = (&spoken.reasoning, provider) {
            shared.owed.push(("deepseek", id.clone(), reasoning.clone()));
        }
        calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}));
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    match (&spoken.reasoning, provider) {
        (Some(reasoning), "groq" | "together") => message["reasoning"] = json!(reasoning),
        (Some(reasoning), "mistral") => {
            let thinking = json!({"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]});
            let said = spoken.text.iter().map(|text| json!({"type": "text", "text": text}));
            message["content"] = std::iter::once(thinking).chain(said).collect();
        }
        (Some(reasoning), _) => message["reasoning_content"] = json!(reasoning),
        (None, _) => {}
    }
    if let Some(Ended::Refused(why)) = &spoken.stop {
        message["refusal"] = json!(why);
    }
    let finish = match &spoken.stop {
        Some(Ended::Length) => "length",
        Some(Ended::Filtered) => "content_filter",
        _ if spoken.calls.is_empty() => "stop",
        _ => "tool_calls",
    };
    json!({
        "id": format!("chatcmpl-{}", shared.asked.len()),
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": spoken.model.clone().unwrap_or_else(|| text(&asked.body, "model").to_owned()),
        "choices": [{"index": 0, "finish_reason": finish, "message": message, "logprobs": null}],
        "usage": consumed(provider, spoken),
    })
}

fn consumed(provider: &str, spoken: &Spoken) -> Value {
    let tokens = spoken.tokens;
    let mut body = json!({
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    });
    match provider {
        "deepseek" => {
            body["prompt_cache_hit_tokens"] = json!(tokens.cached);
            body["prompt_cache_miss_tokens"] = json!(tokens.input - tokens.cached);
        }
        "mistral" | "local" => {}
        _ => body["prompt_tokens_details"] = usage(&[("cached_tokens", tokens.cached, true)]),
    }
    if tokens.reasoning > 0 {
        body["completion_tokens_details"] = usage(&[("reasoning_tokens", tokens.reasoning, true)]);
    }
    if provider == "groq" {
        body["queue_time"] = json!(0.01);
    }
    body
}

/// The error in the provider's words.
pub(super) fn fails(provider: &str, failed: &Failure) -> Value {
    if provider == "mistral" {
        let message = if failed.kind == "extra_forbidden" {
            let detail = json!({"type": "extra_forbidden", "loc": ["body", failed.message],
                                "msg": "Extra inputs are not permitted"});
            json!({ "detail": [detail] })
        } else {
            json!(failed.message)
        };
        let code = if failed.kind == "invalid_request_message_order" { json!("3230") } else { Value::Null };
        return json!({"object": "error", "message": message, "type": failed.kind, "param": null, "code": code});
    }
    let mut error = json!({"message": failed.message, "type": "invalid_request_error", "param": null,
                           "code": failed.kind});
    if failed.status >= 429 {
        error["type"] = json!(failed.kind);
    }
    if let Some(generation) = &failed.generation {
        error["failed_generation"] = json!(generation);
    }
    json!({ "error": error })
}
