//! What a provider's failure means: whether another try is worth it, and when.
//!
//! The kinds are told by status first and by the provider's words where one status means two things (a 429 may be a
//! limit of a minute or an empty account). A hint of when to come back is taken from wherever it stands: header in
//! milliseconds, header in seconds or as a date, Google's `RetryInfo`. The sentence holds the provider's own words as
//! far as they repeat nothing of the request and not the key.

use std::error::Error as _;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::agentloop::model::{ErrorKind, Message, ModelError, Request};
use crate::net::Refused;

/// Longest part of a provider's sentence that is told, characters.
const WORDS_MAX: usize = 1_000;
/// So many characters in a row that also stand in the request are a quotation of it.
const QUOTED: usize = 24;

/// Words of providers for an account that is used up.
const QUOTA: [&str; 8] = [
    "insufficient_quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "billing_error",
    "insufficient balance",
    "credit balance is too low",
    "credit_limit",
    "insufficient_credits",
];
/// Words of providers for a conversation that is too long.
const TOO_LONG: [&str; 9] = [
    "context_length_exceeded",
    "prompt is too long",
    "maximum context length",
    "exceed context limit",
    "exceeds the maximum number of tokens",
    "input token count",
    "context window",
    "request_too_large",
    "reduce the length of the messages",
];

/// Who failed, for what; all that a sentence needs.
pub(super) struct Errors<'a> {
    pub provider: &'a str,
    pub key_env: Option<&'a str>,
    pub key: Option<&'a str>,
    pub request: &'a Request,
    pub now: Timestamp,
}

impl Errors<'_> {
    /// An answer with a status that is no success.
    pub fn status(&self, status: u16, headers: &HeaderMap, body: &str) -> ModelError {
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        let told = Told::of(&body);
        let retry_after = hint(headers, self.now).or_else(|| told.delay());
        self.of(status, &told, retry_after)
    }

    /// An error in an answer that calls itself a success.
    pub fn in_body(&self, body: &Value) -> ModelError {
        let told = Told::of(body);
        let status = body["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        self.of(status.filter(|code| (400..600).contains(code)).unwrap_or(500), &told, told.delay())
    }

    /// No answer at all.
    pub fn transport(&self, error: &reqwest::Error) -> ModelError {
        let mut root: &dyn std::error::Error = error;
        let mut refused = false;
        while let Some(source) = root.source() {
            root = source;
            refused |= root.is::<Refused>();
        }
        // The outermost sentence holds the URL, the innermost only what went wrong.
        let why = if error.source().is_some() { root.to_string() } else { "no answer".to_owned() };
        let (kind, what) = match error {
            // Nothing else of a request is other people's than the key.
            _ if error.is_builder() => {
                (ErrorKind::Auth, "cannot be asked with this API key, is there a line break in it?")
            }
            _ if refused => (ErrorKind::Invalid, "may not be reached"),
            _ if error.is_connect() => (ErrorKind::Transient, "cannot be reached"),
            _ => (ErrorKind::Lost, "broke off"),
        };
        let message = format!("{} {what}: {why}", self.provider);
        ModelError { kind, status: None, retry_after: None, message }
    }

    fn of(&self, status: u16, told: &Told<'_>, retry_after: Option<Duration>) -> ModelError {
        let kind = kind(status, told);
        let provider = self.provider;
        let said = self.words(status, told);
        let message = match (kind, self.key_env) {
            (ErrorKind::Auth, Some(_)) => {
                format!(
                    "{provider} does not accept the API key: {said}; check the key under `providers: {provider}:`, or \
                     the daemon's own variable for it"
                )
            }
            (ErrorKind::Auth, None) => {
                format!("{provider} wants an API key: {said}; write `key:` for it under `providers:`")
            }
            (ErrorKind::Quota, _) => format!("the account at {provider} is used up: {said}"),
            (ErrorKind::RateLimited, _) => format!("{provider} limits the rate: {said}"),
            (ErrorKind::TooLong, _) => format!("the conversation is too long for {provider}: {said}"),
            (ErrorKind::Transient | ErrorKind::Lost, _) => format!("{provider} failed: {said}"),
            (ErrorKind::Invalid, _) => format!("{provider} refused the request: {said}"),
        };
        ModelError { kind, status: Some(status), retry_after, message }
    }

    /// `HTTP 429 rate_limit_exceeded: Rate limit reached`.
    fn words(&self, status: u16, told: &Told<'_>) -> String {
        let mut text = format!("HTTP {status}");
        if let Some(word) = told.word() {
            text.push(' ');
            text.push_str(word);
        }
        let line: String = told.message.split_whitespace().collect::<Vec<_>>().join(" ");
        let told: String = line.chars().take(WORDS_MAX).collect();
        // The whole is searched for the key: half of one at the cut would not be found.
        let holds_key = self.key.is_some_and(|key| line.contains(key));
        if !told.is_empty() && !holds_key && !self.quotes(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        text
    }

    /// Whether a sentence quotes the request.
    fn quotes(&self, line: &str) -> bool {
        let chars: Vec<char> = line.chars().collect();
        let windows: Vec<String> =
            chars.windows(QUOTED).step_by(QUOTED / 3).map(|window| window.iter().collect()).collect();
        texts(self.request).any(|text| {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            windows.iter().any(|window| text.contains(window.as_str()))
        })
    }
}

/// Every text of a conversation.
fn texts(request: &Request) -> impl Iterator<Item = String> + '_ {
    let messages = request.messages.iter().flat_map(|message| match message {
        Message::User { text } => vec![text.clone()],
        Message::Assistant(said) => {
            let calls = said.calls.iter().map(|call| super::arguments::shown(&call.arguments).to_string());
            said.text.iter().cloned().chain(calls).collect()
        }
        Message::Tools { results } => results.iter().map(|result| result.content.clone()).collect(),
    });
    request.system.iter().cloned().chain(messages)
}

/// The status of an answer that is a success.
const SUCCESS: Option<u16> = Some(200);

/// An answer that is a success and makes no sense.
pub(super) fn broken(provider: &str, why: &str) -> ModelError {
    let message = format!("{provider} gave no usable answer: {why}");
    ModelError { kind: ErrorKind::Transient, status: SUCCESS, retry_after: None, message }
}

/// An answer that does not come to an end: to ask for it again would cost the same again.
pub(super) fn too_large(provider: &str) -> ModelError {
    let message = format!("the answer of {provider} is larger than {} MiB", super::ANSWER_MAX >> 20);
    ModelError { kind: ErrorKind::Invalid, status: SUCCESS, retry_after: None, message }
}

/// What an error's body says, wherever it says it.
struct Told<'a> {
    code: &'a str,
    kind: &'a str,
    status: &'a str,
    message: &'a str,
    details: &'a [Value],
}

impl<'a> Told<'a> {
    fn of(body: &'a Value) -> Self {
        // Mistral has it at the top; Google's batch form is a list of one.
        let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
        let error = if body["error"].is_object() { &body["error"] } else { body };
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        let message = error["message"].as_str().or_else(|| {
            let detail = &error["message"]["detail"][0];
            detail["msg"].as_str()
        });
        let message = message.or_else(|| body["error"].as_str()).unwrap_or_default();
        let details = error["details"].as_array().map_or(&[][..], Vec::as_slice);
        Self { code: text("code"), kind: text("type"), status: text("status"), message, details }
    }

    fn word(&self) -> Option<&'a str> {
        let plain = |word: &&str| {
            !word.is_empty()
                && word.len() <= 64
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        [self.code, self.kind, self.status].into_iter().find(plain)
    }

    fn says(&self, words: &[&str]) -> bool {
        let all = [self.code, self.kind, self.status, self.message].join("\n").to_ascii_lowercase();
        words.iter().any(|word| all.contains(word))
    }

    /// Google's `RetryInfo`.
    fn delay(&self) -> Option<Duration> {
        let text = self.details.iter().find_map(|detail| detail["retryDelay"].as_str())?;
        seconds(text.strip_suffix('s')?)
    }

    /// Google names the quota: one of a day, or one of nothing, does not come back in time.
    fn quota_is_final(&self) -> bool {
        let violations = self.details.iter().filter_map(|detail| detail["violations"].as_array()).flatten();
        violations.into_iter().any(|violation| {
            let id = violation["quotaId"].as_str().unwrap_or_default();
            id.contains("PerDay") || violation["quotaValue"] == "0"
        })
    }

    fn key_is_bad(&self) -> bool {
        self.details.iter().any(|detail| {
            matches!(
                detail["reason"].as_str(),
                Some("API_KEY_INVALID" | "API_KEY_EXPIRED" | "API_KEY_SERVICE_BLOCKED")
            )
        })
    }
}

fn kind(status: u16, told: &Told<'_>) -> ErrorKind {
    match status {
        402 => ErrorKind::Quota,
        _ if (400..=429).contains(&status) && told.says(&QUOTA) => ErrorKind::Quota,
        429 if told.quota_is_final() => ErrorKind::Quota,
        429 => ErrorKind::RateLimited,
        401 | 403 => ErrorKind::Auth,
        400 if told.key_is_bad() => ErrorKind::Auth,
        413 => ErrorKind::TooLong,
        400 | 422 if told.says(&TOO_LONG) => ErrorKind::TooLong,
        501 | 505 => ErrorKind::Invalid,
        408 | 409 | 425 | 498 | 499 | 500..=599 => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    }
}

/// When the headers say to come back.
fn hint(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = text("retry-after-ms").and_then(seconds).map(|d| d / 1000);
    milliseconds.or_else(|| text("retry-after").and_then(|text| seconds(text).or_else(|| until(text, now))))
}

/// A number of seconds, with or without a fraction; longer ones than a year are no hint.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    (0.0..=31_536_000_000.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// How long until an HTTP date; one that has passed is now.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_not_told_even_where_the_sentence_is_cut_in_its_middle() {
        let request = Request {
            system: Vec::new(),
            messages: Vec::new(),
            tools: Vec::new(),
            must_call: false,
            max_output: 1,
            calls_max: None,
        };
        let errors = Errors {
            provider: "p",
            key_env: None,
            key: Some("sk-0123456789abcdef"),
            request: &request,
            now: Timestamp::UNIX_EPOCH,
        };
        let said = |message: &str| {
            let body = json!({"error": {"message": message}}).to_string();
            errors.status(500, &HeaderMap::new(), &body).message
        };
        let before = "x".repeat(WORDS_MAX - 10);
        assert!(said(&before).ends_with(&before), "a long sentence is told");
        assert_eq!(said(&format!("{before}sk-0123456789abcdef")), "p failed: HTTP 500");
    }
}
