//! The messages that the daemon sends, for the `webhooks` of the document: one operation for each kind, which
//! the receiver answers.

use serde_json::{Map, Value, json};

use crate::api::wire::{
    BreakerMessage, DisabledMessage, LostMessage, OverdueMessage, PingMessage, RunLinks, RunMessage,
};
use crate::model::WebhookEvent;
use utoipa::openapi::ComponentsBuilder;

/// Adds the schemas of the messages' data.
pub(super) fn schemas(components: ComponentsBuilder) -> ComponentsBuilder {
    components
        .schema_from::<RunMessage>()
        .schema_from::<RunLinks>()
        .schema_from::<LostMessage>()
        .schema_from::<BreakerMessage>()
        .schema_from::<OverdueMessage>()
        .schema_from::<DisabledMessage>()
        .schema_from::<PingMessage>()
}

/// When a message of a kind is sent, and the schema of its data.
const fn about(kind: WebhookEvent) -> (&'static str, &'static str) {
    match kind {
        WebhookEvent::RunCompleted => ("A run ended COMPLETED", "RunMessage"),
        WebhookEvent::RunFailed => ("A run ended FAILED", "RunMessage"),
        WebhookEvent::RunMissed => ("Slots were lost and are not made up for", "LostMessage"),
        WebhookEvent::RunSkipped => ("Slots were left out", "LostMessage"),
        WebhookEvent::BreakerOpened => ("Failures in a row paused an agent", "BreakerMessage"),
        WebhookEvent::AgentOverdue => ("An agent had no success for as long as it should", "OverdueMessage"),
        WebhookEvent::EndpointDisabled => ("Another endpoint said that it is gone", "DisabledMessage"),
        WebhookEvent::Ping => ("Somebody tries the endpoint", "PingMessage"),
    }
}

/// Every message, with `examples` of their data by kind.
pub(super) fn webhooks(examples: &Value) -> Value {
    let all = WebhookEvent::ALL.iter().map(|kind| (kind.as_str().to_owned(), one(*kind, examples)));
    Value::Object(all.collect::<Map<_, _>>())
}

fn one(kind: WebhookEvent, examples: &Value) -> Value {
    let (when, schema) = about(kind);
    let body = json!({
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": { "const": kind.as_str() },
            "timestamp": { "type": "string", "format": "date-time", "description": "When it became true." },
            "data": { "$ref": format!("#/components/schemas/{schema}") },
        },
    });
    let mut content = json!({ "schema": body });
    if let Some(data) = examples.get(kind.as_str()) {
        content["example"] =
            json!({ "type": kind.as_str(), "timestamp": "2026-11-22T09:00:05.120Z", "data": data });
    }
    json!({ "post": {
        "operationId": format!("on_{}", kind.as_str().replace('.', "_")),
        "tags": ["webhooks"],
        "summary": when,
        "description": "A message is told at least once, each under one id: a receiver ignores what it has seen. The \
            shape is that of endpoints of the format `standard`.",
        "security": [],
        "parameters": headers(),
        "requestBody": { "required": true, "content": { "application/json": content } },
        "responses": {
            "2XX": { "description": "It is taken" },
            "410": { "description": "The endpoint is gone and gets no more messages" },
            "default": { "description": "It is sent again, up to eight times in all" },
        },
    } })
}

/// The headers of Standard Webhooks.
fn headers() -> Value {
    let header = |name: &str, required: bool, about: &str| {
        json!({
            "name": name, "in": "header", "required": required, "schema": { "type": "string" }, "description": about,
        })
    };
    json!([
        header("webhook-id", true, "The message's id, the same in every attempt."),
        header("webhook-timestamp", true, "Seconds since 1970, of this attempt."),
        header(
            "webhook-signature",
            false,
            "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, one for each secret, separated by blanks; \
             absent without a secret.",
        ),
    ])
}
