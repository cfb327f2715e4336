//! `POST models/{model}:generateContent` as the Gemini API has it.

use serde_json::{Value, json};

use super::reply::{Ended, Failure, Spoken};
use super::{Asked, Complaint, KEY, Shared, header, is_tool_name, list, stranger, text};

fn wrong(message: impl Into<String>) -> Complaint {
    Complaint::new(400, "INVALID_ARGUMENT", message)
}

fn unknown(name: &str, place: &str) -> Complaint {
    wrong(format!("Invalid JSON payload received. Unknown name \"{name}\"{place}: Cannot find field."))
}

/// The model of the path.
fn model(asked: &Asked) -> Option<&str> {
    asked.path.strip_prefix("v1beta/models/")?.strip_suffix(":generateContent")
}

/// Whether it would be taken.
pub(super) fn check(asked: &Asked, shared: &Shared) -> Result<(), Complaint> {
    let body = &asked.body;
    let Some(model) = model(asked) else {
        return Err(Complaint::new(404, "NOT_FOUND", format!("Not Found: {}", asked.path)));
    };
    if header(asked, "x-goog-api-key") != KEY {
        return Err(Complaint::new(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
        ));
    }
    if model.starts_with("no-such") {
        let message = format!("models/{model} is not found for API version v1beta");
        return Err(Complaint::new(404, "NOT_FOUND", message));
    }
    let known =
        ["contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings"];
    if let Some(name) = stranger(body, &known) {
        return Err(unknown(name, ""));
    }
    let generation = [
        "maxOutputTokens",
        "temperature",
        "topP",
        "responseMimeType",
        "responseJsonSchema",
        "thinkingConfig",
    ];
    if let Some(name) = stranger(&body["generationConfig"], &generation) {
        return Err(unknown(name, " at 'generation_config'"));
    }
    for tool in list(body, "tools").iter().flat_map(|tools| list(tools, "functionDeclarations")) {
        if let Some(name) = stranger(tool, &["name", "description", "parametersJsonSchema"]) {
            return Err(unknown(name, " at 'tools[0].function_declarations[0]'"));
        }
        if !is_tool_name(text(tool, "name")) {
            return Err(wrong("[Invalid function name]"));
        }
    }
    contents(model, list(body, "contents"), shared)
}

fn contents(model: &str, contents: &[Value], shared: &Shared) -> Result<(), Complaint> {
    if contents.is_empty() {
        return Err(wrong("* GenerateContentRequest.contents: contents is not specified"));
    }
    let mut called: Vec<&Value> = Vec::new();
    let mut before = "";
    for content in contents {
        let (role, parts) = (text(content, "role"), list(content, "parts"));
        if !matches!(role, "user" | "model") {
            return Err(wrong("Please use a valid role: user, model."));
        }
        if parts.is_empty() {
            return Err(wrong(
                "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.",
            ));
        }
        for part in parts {
            if let Some(name) =
                stranger(part, &["text", "thoughtSignature", "functionCall", "functionResponse"])
            {
                return Err(unknown(name, " at 'contents[0].parts[0]'"));
            }
        }
        let answers: Vec<&Value> =
            parts.iter().map(|part| &part["functionResponse"]).filter(|r| r.is_object()).collect();
        answered(&called, &answers)?;
        let calls: Vec<&Value> = parts.iter().filter(|part| part["functionCall"].is_object()).collect();
        if !calls.is_empty() && (role != "model" || before != "user") {
            return Err(wrong(
                "Please ensure that function call turn comes immediately after a user turn or after a function response turn.",
            ));
        }
        signed(model, &calls, shared)?;
        called = calls;
        before = role;
    }
    if called.is_empty() { Ok(()) } else { answered(&called, &[]) }
}

fn answered(called: &[&Value], answers: &[&Value]) -> Result<(), Complaint> {
    if called.len() != answers.len() {
        return Err(wrong(
            "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
        ));
    }
    for (call, answer) in called.iter().zip(answers) {
        let call = &call["functionCall"];
        if call["name"] != answer["name"] || call["id"] != answer["id"] || !answer["response"].is_object() {
            return Err(wrong(format!("{answer} does not answer {call}")));
        }
    }
    Ok(())
}

/// A call that came with a signature is shown with it; Gemini 3 wants one on the first call of each turn.
fn signed(model: &str, calls: &[&Value], shared: &Shared) -> Result<(), Complaint> {
    let Some(first) = calls.first() else { return Ok(()) };
    let signature = text(first, "thoughtSignature");
    let missing = || wrong("Function call is missing a thought_signature in functionCall parts.");
    if model.contains("gemini-3") && signature.is_empty() {
        return Err(missing());
    }
    let ours = shared.owed.iter().any(|(who, _, known)| *who == "google" && known == signature);
    let place = "skip_thought_signature_validator";
    if signature.is_empty() || ours || signature == place { Ok(()) } else { Err(missing()) }
}

/// The answer in its words.
pub(super) fn says(asked: &Asked, spoken: &Spoken, shared: &mut Shared) -> Value {
    let name = model(asked).unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    if let Some(text) = &spoken.text {
        parts.push(json!({ "text": text }));
    }
    let mut malformed = matches!(spoken.stop, Some(Ended::MalformedCall));
    for (at, (function, arguments)) in spoken.calls.iter().enumerate() {
        shared.calls += 1;
        let arguments = serde_json::from_str(arguments).unwrap_or(Value::Null);
        malformed |= !arguments.is_object();
        let mut part = json!({"functionCall": {"name": function, "args": arguments}});
        if at == 0 && (spoken.reasoning.is_some() || name.contains("gemini-3")) {
            let signature = format!("sig-{}", shared.calls);
            part["thoughtSignature"] = json!(signature);
            shared.owed.push(("google", function.clone(), signature));
        }
        if name.contains("with-ids") {
            part["functionCall"]["id"] = json!(format!("fc-{}", shared.calls));
        }
        parts.push(part);
    }
    let tokens = spoken.tokens;
    let mut body = json!({
        "usageMetadata": {
            "promptTokenCount": tokens.input,
            "candidatesTokenCount": tokens.output - tokens.reasoning,
            "thoughtsTokenCount": tokens.reasoning,
            "cachedContentTokenCount": tokens.cached,
            "totalTokenCount": tokens.input + tokens.output,
        },
        "modelVersion": spoken.model.clone().unwrap_or(name),
        "responseId": format!("resp-{}", shared.asked.len()),
    });
    if let (Some(Ended::Filtered), true) = (&spoken.stop, parts.is_empty()) {
        body["promptFeedback"] = json!({"blockReason": "PROHIBITED_CONTENT"});
        return body;
    }
    let reason = match &spoken.stop {
        Some(Ended::Length) => "MAX_TOKENS",
        Some(Ended::Refused(_) | Ended::Filtered) => "SAFETY",
        _ if malformed => "MALFORMED_FUNCTION_CALL",
        _ => "STOP",
    };
    let mut candidate = json!({"finishReason": reason, "index": 0});
    if malformed {
        candidate["finishMessage"] = json!("Malformed function call: print(default_api.finish(");
    } else if !parts.is_empty() {
        candidate["content"] = json!({"role": "model", "parts": parts});
    }
    body["candidates"] = json!([candidate]);
    body
}

/// The error in its words.
pub(super) fn fails(failed: &Failure) -> Value {
    let status = match failed.status {
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => &failed.kind,
    };
    let mut error = json!({"code": failed.status, "message": failed.message, "status": status});
    let mut details = failed.details.clone();
    if failed.message.starts_with("API key not valid") {
        details
            .push(json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                            "domain": "googleapis.com"}));
    }
    if !details.is_empty() {
        error["details"] = Value::Array(details);
    }
    json!({ "error": error })
}
