//! `generateContent` of the Gemini API.
//!
//! Its calls mostly come without ids, and must then go back without: they get one of ours, in the form by which the
//! library knows that it is none of theirs. Signatures of thoughts go back on the parts that they came with. A turn
//! ends with `STOP` whether it calls or not, and a call that the API could not read is an ending of its own.

use genai::chat::{ChatMessage, ChatOptions, ChatRequest, ContentPart, MessageContent, ReasoningEffort};
use genai::chat::{ToolCall as Called, ToolChoice, ToolResponse};
use serde_json::{Value, json};

use super::{From, arguments, chat, names, openai, tokens};
use crate::agentloop::model::{Message, Said, Stop, ToolCall, Turn};
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

/// The request.
pub(super) fn ask(from: &From<'_>) -> (ChatRequest, ChatOptions) {
    let messages = from.request.messages.iter().filter_map(|message| match message {
        Message::User { text } => Some(ChatMessage::user(text.clone())),
        Message::Assistant(said) => {
            let parts = said_parts(from, said);
            (!parts.is_empty()).then(|| ChatMessage::assistant(MessageContent::from_parts(parts)))
        }
        Message::Tools { results } => {
            let parts = results.iter().map(|result| {
                let response = ToolResponse::new(result.call.clone(), openai::told(result));
                ContentPart::ToolResponse(response.with_fn_name(result.name.clone()))
            });
            Some(ChatMessage::tool(MessageContent::from_parts(parts.collect::<Vec<_>>())))
        }
    });
    let (mut chat, mut options) = chat(from, messages.collect());
    let system = from.request.system.join("\n\n");
    chat.system = (!system.is_empty()).then_some(system);
    // An effort that says nothing: without one the library reads it from the end of the model's name.
    options = options.with_reasoning_effort(ReasoningEffort::Zero);
    if from.request.must_call && chat.tools.is_some() {
        options = options.with_tool_choice(ToolChoice::Required);
    }
    options.extra_body = Some(json!({"generationConfig": {"maxOutputTokens": from.request.max_output}}));
    (chat, options)
}

fn said_parts(from: &From<'_>, said: &Said) -> Vec<ContentPart> {
    let called = |call: &ToolCall, signature: Option<String>| {
        ContentPart::ToolCall(Called {
            call_id: call.id.clone(),
            fn_name: call.name.clone(),
            fn_arguments: arguments::shown(&call.arguments),
            thought_signatures: signature.map(|signature| vec![signature]),
        })
    };
    let Some(Value::Array(echo)) = from.echo(said) else {
        let text = said.text.iter().map(|text| ContentPart::Text(text.clone()));
        return text.chain(said.calls.iter().map(|call| called(call, None))).collect();
    };
    let mut parts = Vec::new();
    for part in echo {
        let signature = part["signature"].as_str().map(ToOwned::to_owned);
        if let Some(text) = part["text"].as_str() {
            parts.extend(signature.map(ContentPart::ThoughtSignature));
            parts.push(ContentPart::Text(text.to_owned()));
        } else if let Some(call) = said.calls.iter().find(|call| part["call"] == call.id.as_str()) {
            parts.push(called(call, signature));
        }
    }
    parts
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
            let id = names::fresh(call["id"].as_str(), &taken, |n| format!("call#{name}#{n}"));
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
