//! Messages of Anthropic.
//!
//! Its own turns are shown to it again block for block as they came, because thoughts are signed and must stand before
//! the calls that they led to. The cache is marked in two places, at the end of what never changes and at the end of
//! what was said so far: the next request finds both. A call is never forced: a model that thinks refuses that, and
//! whether a model thinks cannot be told from its name.

use serde_json::{Value, json};

use super::{From, arguments, names, tokens};
use crate::agentloop::model::{Message, Said, Stop, ToolCall, ToolResult, ToolSpec, Turn};
use crate::model::Usage;

/// The request.
pub(super) fn ask(from: &From<'_>) -> Value {
    let system = from.request.system.iter().filter(|text| !text.is_empty());
    let mut system: Vec<Value> = system.map(|text| text_block(text)).collect();
    mark(&mut system);
    let mut messages = Vec::new();
    // A pause is resumed with the model's own words last, which may end in a thought, and those take no mark.
    let last = from.request.messages.iter().rposition(|message| !matches!(message, Message::Assistant(_)));
    for (at, message) in from.request.messages.iter().enumerate() {
        let (role, mut blocks) = match message {
            Message::User { text } => ("user", vec![text_block(text)]),
            Message::Assistant(said) => ("assistant", shown_again(from, said)),
            Message::Tools { results } => ("user", results.iter().map(answer).collect()),
        };
        if Some(at) == last {
            mark(&mut blocks);
        }
        if !blocks.is_empty() {
            messages.push(json!({"role": role, "content": blocks}));
        }
    }
    let mut body = json!({"model": from.model, "max_tokens": from.request.max_output, "messages": messages});
    if !system.is_empty() {
        body["system"] = Value::Array(system);
    }
    if let Some(tools) = from.tools(tool) {
        body["tools"] = tools;
    }
    body
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    json!({"name": name, "description": description, "input_schema": parameters})
}

fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// Marks the end of what is to be kept in the cache.
fn mark(blocks: &mut [Value]) {
    if let Some(last) = blocks.last_mut() {
        last["cache_control"] = json!({"type": "ephemeral"});
    }
}

/// What the model said; nothing where it said nothing.
fn shown_again(from: &From<'_>, said: &Said) -> Vec<Value> {
    if let Some(Value::Array(blocks)) = from.echo(said) {
        // A call that was not taken has no result, so it is not shown.
        let kept = |block: &&Value| {
            block["type"] != "tool_use" || said.calls.iter().any(|call| block["id"] == call.id.as_str())
        };
        return blocks.iter().filter(kept).cloned().collect();
    }
    let text = said.text.iter().filter(|text| !text.trim().is_empty());
    let text = text.map(|text| text_block(text.trim_end()));
    let calls = said.calls.iter().map(|call| {
        let (id, input) = (names::anthropic(&call.id), arguments::shown(&call.arguments));
        json!({"type": "tool_use", "id": id, "name": call.name, "input": input})
    });
    text.chain(calls).collect()
}

fn answer(result: &ToolResult) -> Value {
    let mut block = json!({
        "type": "tool_result",
        "tool_use_id": names::anthropic(&result.call),
        "content": result.content,
    });
    if result.is_error {
        block["is_error"] = json!(true);
    }
    block
}

/// The turn of an answer.
pub(super) fn turn(from: &From<'_>, body: &Value) -> Result<Turn, String> {
    let blocks = body["content"].as_array().ok_or("it holds no content")?;
    let mut taken: Vec<String> = from.call_ids().map(ToOwned::to_owned).collect();
    let mut said = Said::default();
    let mut texts = Vec::new();
    let mut echo = Vec::new();
    for block in blocks {
        let mut block = block.clone();
        match block["type"].as_str() {
            // An empty one may be said, but not be shown again.
            Some("text") => match block["text"].as_str().filter(|text| !text.trim().is_empty()) {
                Some(text) => texts.push(text.to_owned()),
                None => continue,
            },
            Some("tool_use") => {
                let id = names::fresh(block["id"].as_str(), &taken, |n| format!("toolu_{n}"));
                taken.push(id.clone());
                block["id"] = json!(id);
                let name = block["name"].as_str().unwrap_or_default().to_owned();
                let arguments = arguments::read(&block["input"]);
                block["input"] = arguments::shown(&arguments);
                said.calls.push(ToolCall { id, name, arguments });
            }
            _ => {}
        }
        echo.push(block);
    }
    said.text = (!texts.is_empty()).then(|| texts.join("\n\n"));
    said.echo = (!echo.is_empty()).then(|| (from.provider.to_owned(), Value::Array(echo)));
    let stop = match body["stop_reason"].as_str() {
        Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
        Some("pause_turn") => Stop::Paused,
        Some("refusal") => {
            let why = body["stop_details"]["explanation"].as_str().map(ToOwned::to_owned);
            Stop::Refused(why.or_else(|| said.text.clone()).unwrap_or_else(|| "the model refused".to_owned()))
        }
        _ => Stop::End,
    };
    let model = body["model"].as_str().unwrap_or(from.model).to_owned();
    Ok(Turn { said, stop, usage: usage(&body["usage"]), model, cost_usd: None })
}

/// Its `input_tokens` are only those that the cache had nothing to do with.
fn usage(usage: &Value) -> Usage {
    let (read, written) =
        (tokens(&usage["cache_read_input_tokens"]), tokens(&usage["cache_creation_input_tokens"]));
    let input = tokens(&usage["input_tokens"]);
    Usage {
        input_tokens: input.map(|n| n.saturating_add(read.unwrap_or(0)).saturating_add(written.unwrap_or(0))),
        cached_input_tokens: read,
        cache_write_tokens: written,
        output_tokens: tokens(&usage["output_tokens"]),
        reasoning_tokens: tokens(&usage["output_tokens_details"]["thinking_tokens"]),
        model_calls: Some(1),
    }
}
