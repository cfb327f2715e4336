//! Chat completions, as `OpenAI` has them and as others have taken them over, each with its own exceptions.
//!
//! | provider | exception |
//! |---|---|
//! | openai | `max_completion_tokens`; `prompt_cache_key` |
//! | deepseek | its reasoning is shown again beside its calls; a call cannot be forced while it reasons |
//! | mistral | no field that it does not know, ids of nine characters, no user after a tool, `any` forces a call |
//! | groq | a call that it could not read is an error 400, not a turn |
//! | any other | what a model says of its reasoning beside a call is shown again |

use serde_json::{Map, Value, json};

use super::{From, arguments, names, tokens};
use crate::agentloop::model::{Message, Said, Stop, ToolCall, ToolResult, ToolSpec, Turn};
use crate::model::Usage;

/// Most characters of an unreadable call that are told.
const GENERATION_MAX: usize = 500;
/// What stands between a tool's answer and a user, where a provider wants something there.
const BRIDGE: &str = "I have read the result.";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    DeepSeek,
    Groq,
    Mistral,
    Together,
    Other,
}

impl Dialect {
    pub fn of(wire: &str) -> Self {
        match wire {
            "openai" => Self::OpenAi,
            "deepseek" => Self::DeepSeek,
            "groq" => Self::Groq,
            "mistral" => Self::Mistral,
            "together" => Self::Together,
            _ => Self::Other,
        }
    }

    fn id(self, id: &str) -> String {
        match self {
            Self::Mistral => names::mistral(id).into_owned(),
            // Some models behind a server of one's own read meaning in the ids that they made.
            Self::Other => id.to_owned(),
            Self::OpenAi | Self::DeepSeek | Self::Groq | Self::Together => names::openai(id).into_owned(),
        }
    }

    fn wants_reasoning(self) -> bool {
        matches!(self, Self::DeepSeek | Self::Together | Self::Other)
    }
}

/// The request.
pub(super) fn ask(from: &From<'_>, dialect: Dialect, cache_key: &str) -> Value {
    let limit = if dialect == Dialect::OpenAi { "max_completion_tokens" } else { "max_tokens" };
    let mut body = json!({
        "model": from.model, "messages": messages(from, dialect), "stream": false, limit: from.request.max_output,
    });
    if let Some(tools) = from.tools(tool) {
        body["tools"] = tools;
        if from.request.must_call && dialect != Dialect::DeepSeek {
            body["tool_choice"] = json!(if dialect == Dialect::Mistral { "any" } else { "required" });
        }
    }
    if dialect == Dialect::OpenAi {
        body["prompt_cache_key"] = json!(cache_key);
    }
    body
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    })
}

fn messages(from: &From<'_>, dialect: Dialect) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    let system = from.request.system.join("\n\n");
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system}));
    }
    for message in &from.request.messages {
        match message {
            Message::User { text } => {
                let after_tool = messages.last().is_some_and(|last| last["role"] == "tool");
                if dialect == Dialect::Mistral && after_tool {
                    messages.push(json!({"role": "assistant", "content": BRIDGE}));
                }
                messages.push(json!({"role": "user", "content": text}));
            }
            Message::Assistant(said) => messages.extend(shown_again(from, dialect, said)),
            Message::Tools { results } => messages.extend(results.iter().map(|result| {
                json!({"role": "tool", "content": told(result), "tool_call_id": dialect.id(&result.call)})
            })),
        }
    }
    messages
}

/// What the model said; nothing where it said nothing: a message without content is refused.
fn shown_again(from: &From<'_>, dialect: Dialect, said: &Said) -> Option<Value> {
    let calls = said.calls.iter().map(|call| {
        let arguments = arguments::shown(&call.arguments).to_string();
        json!({
            "type": "function", "id": dialect.id(&call.id),
            "function": {"name": call.name, "arguments": arguments},
        })
    });
    let calls: Vec<Value> = calls.collect();
    if calls.is_empty() {
        return said.text.as_ref().map(|text| json!({"role": "assistant", "content": text}));
    }
    let text = said.text.as_deref().unwrap_or_default();
    let mut message = json!({"role": "assistant", "content": text, "tool_calls": calls});
    for field in ["reasoning_content", "reasoning_details"] {
        if let Some(echo) = from.echo(said).map(|echo| &echo[field]).filter(|echo| !echo.is_null()) {
            message[field] = echo.clone();
        }
    }
    Some(message)
}

/// What a tool gave, for providers that have no word for its failure.
pub(super) fn told(result: &ToolResult) -> String {
    let says_so = result.content.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("error"));
    if result.is_error && !says_so { format!("error: {}", result.content) } else { result.content.clone() }
}

/// The turn of an answer.
pub(super) fn turn(from: &From<'_>, dialect: Dialect, body: &Value) -> Result<Turn, String> {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    if !message.is_object() {
        return Err("it holds no message".to_owned());
    }
    let finish = choice["finish_reason"].as_str().unwrap_or_default();
    if matches!(finish, "error" | "insufficient_system_resource") {
        return Err(format!("it ended with {finish}"));
    }
    let refusal = message["refusal"].as_str().filter(|text| !text.trim().is_empty());
    let stop = match (finish, refusal) {
        (_, Some(why)) => Stop::Refused(why.to_owned()),
        ("content_filter", None) => Stop::Refused(format!("a filter of {} ended the answer", from.provider)),
        ("length" | "model_length", None) => Stop::Length,
        _ => Stop::End,
    };
    let said = Said {
        text: said_text(&message["content"]),
        calls: calls(from, &message["tool_calls"]),
        echo: echo(dialect, message).map(|echo| (from.provider.to_owned(), echo)),
    };
    let model = body["model"].as_str().unwrap_or(from.model).to_owned();
    Ok(Turn { said, stop, usage: usage(&body["usage"]), model, cost_usd: None })
}

/// A text, or the texts of a list of chunks, without its reasoning.
fn said_text(content: &Value) -> Option<String> {
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(chunks) => chunks
            .iter()
            .filter(|chunk| chunk["type"] == "text")
            .filter_map(|chunk| chunk["text"].as_str())
            .collect(),
        _ => String::new(),
    };
    (!text.trim().is_empty()).then_some(text)
}

fn calls(from: &From<'_>, calls: &Value) -> Vec<ToolCall> {
    let mut taken: Vec<String> = from.call_ids().map(ToOwned::to_owned).collect();
    let mut found = Vec::new();
    for call in calls.as_array().into_iter().flatten() {
        let id = names::fresh(call["id"].as_str(), &taken, |n| format!("call_{n}"));
        taken.push(id.clone());
        let function = &call["function"];
        let name = function["name"].as_str().unwrap_or_default().to_owned();
        found.push(ToolCall { id, name, arguments: arguments::read(&function["arguments"]) });
    }
    found
}

/// What the provider wants to see again.
fn echo(dialect: Dialect, message: &Value) -> Option<Value> {
    if !dialect.wants_reasoning() {
        return None;
    }
    let mut echo = Map::new();
    if let Some(reasoning) = message["reasoning_content"].as_str().filter(|text| !text.is_empty()) {
        echo.insert("reasoning_content".to_owned(), json!(reasoning));
    }
    if let Some(details) = message["reasoning_details"].as_array().filter(|list| !list.is_empty()) {
        echo.insert("reasoning_details".to_owned(), json!(details));
    }
    (!echo.is_empty()).then_some(Value::Object(echo))
}

fn usage(usage: &Value) -> Usage {
    let cached = [
        &usage["prompt_tokens_details"]["cached_tokens"],
        &usage["prompt_cache_hit_tokens"],
        &usage["cached_tokens"],
    ];
    Usage {
        input_tokens: tokens(&usage["prompt_tokens"]),
        cached_input_tokens: cached.into_iter().find_map(tokens),
        cache_write_tokens: tokens(&usage["prompt_tokens_details"]["cache_write_tokens"]),
        output_tokens: tokens(&usage["completion_tokens"]),
        reasoning_tokens: tokens(&usage["completion_tokens_details"]["reasoning_tokens"]),
        model_calls: Some(1),
    }
}

/// Groq's error for a call that it could not read: the model spoke, and may speak again.
pub(super) fn unreadable_call(from: &From<'_>, status: u16, body: &str) -> Option<Turn> {
    let body: Value = serde_json::from_str(body).ok().filter(|_| status == 400)?;
    let error = &body["error"];
    if error["code"] != "tool_use_failed" {
        return None;
    }
    let generation = error["failed_generation"].as_str().unwrap_or_default();
    let generation: String = generation.chars().take(GENERATION_MAX).collect();
    Some(Turn {
        said: Said::default(),
        stop: Stop::MalformedCall(generation),
        usage: Usage { model_calls: Some(1), ..Usage::default() },
        model: from.model.to_owned(),
        cost_usd: None,
    })
}
