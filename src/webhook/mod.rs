//! Webhook messages: their text, their signature, and one bounded attempt to deliver one.
//!
//! The wire is Standard Webhooks: a JSON body `{type, timestamp, data}` and the headers
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`, so receivers verify with a library
//! that exists. Two more shapes reach people without a receiver of one's own, `slack` and `ntfy`. An attempt is exactly one POST; when to try again and when to give up is the
//! deliverer's business, which keeps every attempt in a row. A receiver can cost an attempt its
//! time-out and 16 KiB, never more, and what it answered never becomes an order: redirects are
//! failures.

mod attempt;
mod explain;
mod format;
mod knock;
mod notice;
mod secret;

use serde::Serialize;
use serde_json::Value;

pub use attempt::{Attempt, Auth, Endpoint, RESPONSE_MAX, Sender, Timeouts};
pub use format::{body, plain_text};
pub use knock::{KNOCK_TEXT_MAX, knock_url};
pub use secret::{MIN_SECRET_BYTES, SECRETS_MAX, SecretError, Secrets, generate_secret};

/// Host and port of a URL; the rest may hold a token and is for nobody's eyes.
#[must_use]
pub fn place(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| explain::place(&url))
}

/// Longest path and query that are shown whole: what is so short is no token.
const SHOWN_MAX: usize = 8;
/// Characters at the end of a longer one that are shown, to tell one from another.
const SHOWN_END: usize = 4;

/// A URL as it is shown to people: scheme, host and the end of its path, which may be a token.
#[must_use]
pub fn shown(url: &str) -> String {
    let Ok(parsed) = url::Url::parse(url) else { return url.to_owned() };
    let rest = &parsed[url::Position::BeforePath..];
    let length = rest.chars().count();
    if parsed.cannot_be_a_base() || length <= SHOWN_MAX {
        return url.to_owned();
    }
    let end: String = rest.chars().skip(length - SHOWN_END).collect();
    format!("{}/..{end}", &parsed[..url::Position::BeforePath])
}

/// The body of a message: `type`, `timestamp` (RFC 3339, milliseconds, UTC) and `data`, in this
/// order. What is signed and sent is this text, byte for byte, on every attempt.
#[must_use]
pub fn payload(event_type: &str, timestamp_ms: i64, data: &Value) -> String {
    #[derive(Serialize)]
    struct Payload<'a> {
        r#type: &'a str,
        timestamp: String,
        data: &'a Value,
    }
    let payload = Payload { r#type: event_type, timestamp: crate::time::rfc3339_ms(timestamp_ms), data };
    // Text and JSON values always serialise.
    serde_json::to_string(&payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_token_is_not_shown() {
        for (url, expected) in [
            ("https://hooks.slack.com/services/T0/B0/secretXYZW", "https://hooks.slack.com/..XYZW"),
            ("https://h.example/?token=0123456789", "https://h.example/..6789"),
            ("http://127.0.0.1:80/hook", "http://127.0.0.1:80/hook"),
            ("https://h.example/", "https://h.example/"),
            ("https://h.example/geheimnis-ä-äöüß", "https://h.example/..3%9F"),
            ("on_failure:agent", "on_failure:agent"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn the_body_is_the_documented_one() {
        let data = serde_json::json!({"id": "x", "n": [1, null]});
        assert_eq!(
            payload("run.completed", 1_735_722_000_123, &data),
            r#"{"type":"run.completed","timestamp":"2025-01-01T09:00:00.123Z","data":{"id":"x","n":[1,null]}}"#
        );
    }
}
