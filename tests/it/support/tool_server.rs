//! The providers as agents' command line tools speak to them: streamed, on loopback, by a script.
//!
//! Three wires: Anthropic Messages, `OpenAI` Responses, Gemini. Each request takes the next answer of the script, and the
//! last one again and again. Every answer tells the same usage, so that what a run has used up can be foreseen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// What the next request is answered with.
#[derive(Debug, Clone)]
pub enum Says {
    /// The model's last words.
    Words(&'static str),
    /// Words and calls of tools, by name and arguments.
    Calls(&'static str, Vec<(&'static str, Value)>),
    /// An HTTP status with the provider's body of an error.
    Status(u16),
    /// Words with another reason of their end than usual.
    Ends(&'static str),
    /// Nothing, for this long.
    Hangs(Duration),
}

#[derive(Debug, Default)]
struct Shared {
    script: Vec<Says>,
    next: usize,
    requests: Vec<Value>,
}

/// A server that lives as long as this value.
#[derive(Debug)]
pub struct ToolServer {
    /// Its address, without a path.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    _runtime: tokio::runtime::Runtime,
}

impl ToolServer {
    /// A server with this script.
    pub fn start(script: Vec<Says>) -> Self {
        let shared = Arc::new(Mutex::new(Shared { script, ..Shared::default() }));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let app = app.layer(axum::extract::DefaultBodyLimit::max(64 << 20));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, shared, _runtime: runtime }
    }

    /// Begins another script.
    pub fn script(&self, script: Vec<Says>) {
        let mut shared = self.shared.lock().unwrap();
        (shared.script, shared.next) = (script, 0);
    }

    /// The bodies that models were asked with.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.lock().unwrap().requests.clone()
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let model =
        path.ends_with("/messages") || path.ends_with("/responses") || path.contains("enerateContent");
    if !model {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (says, n) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(serde_json::from_slice(&body).unwrap_or_default());
        let at = shared.next.min(shared.script.len() - 1);
        shared.next += 1;
        (shared.script[at].clone(), shared.requests.len())
    };
    if let Says::Hangs(d) = says {
        tokio::time::timeout(d, std::future::pending::<()>()).await.unwrap_err();
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if let Says::Status(status) = says {
        let error = json!({ "type": "error", "error": { "type": "an_error", "message": "not now", "code": status, "status": "NOT_NOW" } });
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [(header::RETRY_AFTER, "1")], axum::Json(error)).into_response();
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let events = if path.ends_with("/messages") {
        anthropic(&says, n, asked["model"].as_str().unwrap_or_default())
    } else if path.ends_with("/responses") {
        responses(&says, n)
    } else {
        gemini(&says)
    };
    let text = |event: &Value| {
        let name = event["type"].as_str().map_or_else(String::new, |name| format!("event: {name}\n"));
        format!("{name}data: {event}\n\n")
    };
    let stream: String = events.iter().map(text).collect();
    ([(header::CONTENT_TYPE, "text/event-stream")], stream).into_response()
}

fn parts(says: &Says) -> (&'static str, Vec<(&'static str, Value)>, Option<&'static str>) {
    match says {
        Says::Words(words) => (words, Vec::new(), None),
        Says::Calls(words, calls) => (words, calls.clone(), None),
        Says::Ends(how) => ("no", Vec::new(), Some(how)),
        Says::Status(_) | Says::Hangs(_) => unreachable!("answered before"),
    }
}

/// 137 tokens in (7 written to the cache, 30 read from it), 20 out.
fn anthropic(says: &Says, n: usize, model: &str) -> Vec<Value> {
    let (words, calls, ends) = parts(says);
    let stop = ends.unwrap_or(if calls.is_empty() { "end_turn" } else { "tool_use" });
    let usage = |output: u64| json!({ "input_tokens": 100, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 30, "output_tokens": output });
    let message = json!({ "id": format!("msg_{n}"), "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(1) });
    let mut blocks =
        vec![(json!({ "type": "text", "text": "" }), json!({ "type": "text_delta", "text": words }))];
    for (i, (name, input)) in calls.iter().enumerate() {
        blocks.push((
            json!({ "type": "tool_use", "id": format!("toolu_{n}_{i}"), "name": name, "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": input.to_string() }),
        ));
    }
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    for (index, (block, delta)) in blocks.into_iter().enumerate() {
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
        events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null }, "usage": usage(20) }));
    events.push(json!({ "type": "message_stop" }));
    events
}

/// 100 tokens in (30 of them from the cache), 20 out (5 of them thoughts).
fn responses(says: &Says, n: usize) -> Vec<Value> {
    let (words, calls, ends) = parts(says);
    let id = format!("resp_{n}");
    let mut items = vec![
        json!({ "type": "message", "id": format!("msg_{n}"), "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": words, "annotations": [] }] }),
    ];
    for (i, (name, input)) in calls.iter().enumerate() {
        items.push(
            json!({ "type": "function_call", "id": format!("fc_{n}_{i}"), "call_id": format!("call_{n}_{i}"),
            "name": name, "arguments": input.to_string(), "status": "completed" }),
        );
    }
    let usage = json!({ "input_tokens": 100, "input_tokens_details": { "cached_tokens": 30 }, "output_tokens": 20,
        "output_tokens_details": { "reasoning_tokens": 5 }, "total_tokens": 120 });
    let mut events =
        vec![json!({ "type": "response.created", "response": { "id": id, "status": "in_progress" } })];
    for (index, item) in items.iter().enumerate() {
        for kind in ["added", "done"] {
            events.push(json!({ "type": format!("response.output_item.{kind}"), "output_index": index, "item": item }));
        }
    }
    events.push(match ends {
        Some(code) => json!({ "type": "response.failed",
            "response": { "id": id, "status": "failed", "error": { "code": code, "message": "it says no" } } }),
        None => json!({ "type": "response.completed",
            "response": { "id": id, "status": "completed", "output": items, "usage": usage } }),
    });
    events
}

/// 100 tokens in (30 of them from the cache), 20 out and 5 thoughts.
fn gemini(says: &Says) -> Vec<Value> {
    let (words, calls, ends) = parts(says);
    let mut parts = vec![json!({ "text": words })];
    parts.extend(calls.iter().map(|(name, args)| json!({ "functionCall": { "name": name, "args": args } })));
    let parts = if ends.is_some() { Vec::new() } else { parts };
    vec![json!({
        "candidates": [{ "content": { "role": "model", "parts": parts }, "finishReason": ends.unwrap_or("STOP"), "index": 0 }],
        "usageMetadata": { "promptTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 5,
            "cachedContentTokenCount": 30, "totalTokenCount": 125 },
        "modelVersion": "gemini-answers",
    })]
}
