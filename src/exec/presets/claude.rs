//! Claude Code: `claude -p --output-format stream-json --verbose`.
//!
//! Seen of 2.1.197, and why this reads as it does: an answer is told block by block, each a line with the message's id;
//! its usage is that of the answer's beginning, so only the last line has the whole; `subtype: success` stands beside
//! `is_error: true` where the provider refused, and `usage` is all zero where the budget was reached (the sum per
//! model is not); a schema that the model ignores ends as success without `structured_output`; a key that is refused
//! (401) is tried ten times over three minutes, so it is given up here at the third time.

use serde_json::{Map, Value};

use super::account::{Account, Action};
use super::{Tool, classify, list, number, object, text};
use crate::model::{FailureCode, Usage};

/// Refusals of the credentials in a row after which more would not help. The first may come before a token is renewed.
const HOPELESS_TRIES: u64 = 3;

/// The messages of one run.
#[derive(Debug, Default)]
pub(super) struct Claude {
    open: Vec<Message>,
    model: Option<String>,
    /// Kind of the last error that it tells as a message of its own.
    error: String,
    calls: u64,
}

/// An answer of the model that is not told as a step yet.
#[derive(Debug)]
struct Message {
    id: String,
    /// The call of a subagent's tool below which it was said; empty: the main conversation.
    parent: String,
    text: String,
    calls: Vec<(String, Action)>,
    answered: usize,
    usage: Usage,
}

impl Tool for Claude {
    fn said(&mut self, line: &Map<String, Value>, account: &mut Account) {
        match text(line, "type") {
            "assistant" => self.assistant(line, account),
            "user" => self.user(line, account),
            "system" => Self::system(line, account),
            "result" => self.result(line, account),
            _ => {}
        }
    }

    fn ended(&mut self, account: &mut Account) {
        self.tell_all(account);
    }
}

impl Claude {
    fn assistant(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let Some(message) = object(line, "message") else { return };
        if text(message, "model") == "<synthetic>" {
            text(line, "error").clone_into(&mut self.error);
            return;
        }
        let (id, parent) = (text(message, "id"), text(line, "parent_tool_use_id"));
        if !self.open.iter().any(|open| open.id == id) {
            self.tell(parent, account);
            self.begin(id, parent, message, account);
        }
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else { return };
        for block in list(message, "content").iter().filter_map(Value::as_object) {
            match text(block, "type") {
                "text" => {
                    if !open.text.is_empty() {
                        open.text.push('\n');
                    }
                    open.text.push_str(text(block, "text"));
                }
                "tool_use" => {
                    let params = block.get("input").cloned().unwrap_or_default();
                    let name = text(block, "name").to_owned();
                    open.calls
                        .push((text(block, "id").to_owned(), Action { name, params, ..Action::default() }));
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, id: &str, parent: &str, message: &Map<String, Value>, account: &mut Account) {
        let usage = object(message, "usage").map(|usage| tokens(usage, &API_NAMES)).unwrap_or_default();
        let usage = Usage { model_calls: Some(1), ..usage };
        self.calls += 1;
        let model = text(message, "model");
        if parent.is_empty() && !model.is_empty() {
            self.model = Some(model.to_owned());
        }
        account.used(usage, self.model.as_deref());
        self.open.push(Message {
            id: id.to_owned(),
            parent: parent.to_owned(),
            text: String::new(),
            calls: Vec::new(),
            answered: 0,
            usage,
        });
    }

    fn user(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let Some(message) = object(line, "message") else { return };
        for block in list(message, "content").iter().filter_map(Value::as_object) {
            let call = text(block, "tool_use_id");
            let mut found = self.open.iter_mut().filter(|open| open.calls.iter().any(|(id, _)| id == call));
            let Some(open) = found.next() else { continue };
            open.answered += 1;
            let said = answer(block);
            let failed = block.get("is_error").and_then(Value::as_bool).unwrap_or(false);
            for (_, action) in open.calls.iter_mut().filter(|(id, _)| id == call) {
                *(if failed { &mut action.error } else { &mut action.content }) = Some(said.clone());
            }
        }
        while let Some(at) =
            self.open.iter().position(|open| !open.calls.is_empty() && open.answered >= open.calls.len())
        {
            tell(&self.open.remove(at), account);
        }
    }

    fn system(line: &Map<String, Value>, account: &mut Account) {
        if text(line, "subtype") != "api_retry" {
            return;
        }
        let (attempt, kind) = (number(line, "attempt").unwrap_or(0), text(line, "error"));
        let status = number(line, "error_status");
        let answer = status.map_or_else(|| "no answer".to_owned(), |status| format!("HTTP {status}"));
        let wait = line.get("retry_delay_ms").and_then(Value::as_f64).unwrap_or_default() / 1000.0;
        account.note(
            "retry",
            &format!("the provider: {answer}, {kind}; try {attempt} failed, the next one in {wait:.1} s"),
        );
        if kind == "authentication_failed" && attempt >= HOPELESS_TRIES {
            let why = format!(
                "the provider refused the credentials {attempt} times ({answer}); claude would try on for minutes"
            );
            account.give_up(FailureCode::ProviderError, &why);
        }
    }

    fn result(&mut self, line: &Map<String, Value>, account: &mut Account) {
        self.tell_all(account);
        let models = object(line, "modelUsage").filter(|models| !models.is_empty());
        let total = models.map_or_else(
            || object(line, "usage").map(|usage| tokens(usage, &API_NAMES)).unwrap_or_default(),
            |models| {
                let each =
                    models.values().filter_map(Value::as_object).map(|usage| tokens(usage, &SUM_NAMES));
                each.reduce(Usage::sum).unwrap_or_default()
            },
        );
        let total = Usage { model_calls: Some(self.calls), ..total };
        let cost = line.get("total_cost_usd").and_then(Value::as_f64);
        account.used_in_all(total, cost, self.model.as_deref());
        for denial in list(line, "permission_denials").iter().filter_map(Value::as_object) {
            account.denied(&denied(denial));
        }
        let failed = line.get("is_error").and_then(Value::as_bool).unwrap_or(true);
        if text(line, "subtype") == "success" && !failed {
            account.conversation(text(line, "session_id"), Usage::default());
            let structured = line.get("structured_output").filter(|value| !value.is_null()).cloned();
            return account.done(text(line, "result"), structured);
        }
        let (code, why) = self.failure(line);
        if why.starts_with("No conversation found") {
            account.forget_conversation();
        }
        account.failed(code, &why);
    }

    fn failure(&self, line: &Map<String, Value>) -> (FailureCode, String) {
        let errors: Vec<&str> = list(line, "errors").iter().filter_map(Value::as_str).collect();
        let words = text(line, "result");
        let why = if errors.is_empty() { words.to_owned() } else { errors.join("; ") };
        let status = number(line, "api_error_status");
        let code = match text(line, "subtype") {
            "error_max_budget_usd" => FailureCode::BudgetExceeded,
            "error_max_turns" => FailureCode::StepLimit,
            "error_max_structured_output_retries" => FailureCode::MaxRetriesExceeded,
            _ if text(line, "stop_reason") == "refusal" => FailureCode::Refused,
            _ => match (self.error.as_str(), status) {
                // Nobody was asked: there is no key.
                ("authentication_failed", None) => FailureCode::LaunchError,
                (_, Some(status)) => classify::of_status(status),
                ("rate_limit", None) => FailureCode::RateLimited,
                (
                    "server_error" | "overloaded" | "billing_error" | "model_not_found" | "max_output_tokens",
                    None,
                ) => FailureCode::ProviderError,
                _ => classify::of_words(&why),
            },
        };
        let why = if why.is_empty() { format!("claude ended with {:?}", text(line, "subtype")) } else { why };
        (code, why)
    }

    /// Tells the open messages of one conversation.
    fn tell(&mut self, parent: &str, account: &mut Account) {
        let all = std::mem::take(&mut self.open).into_iter();
        let (told, open): (Vec<Message>, _) = all.partition(|open| open.parent == parent);
        self.open = open;
        for message in &told {
            tell(message, account);
        }
    }

    fn tell_all(&mut self, account: &mut Account) {
        for message in std::mem::take(&mut self.open) {
            tell(&message, account);
        }
    }
}

fn tell(message: &Message, account: &mut Account) {
    let Message { parent, text, usage, calls, .. } = message;
    let names: Vec<&str> = calls.iter().map(|(_, action)| action.name.as_str()).collect();
    let description = if text.is_empty() { names.join(", ") } else { text.clone() };
    let kind = if parent.is_empty() { "model" } else { "subagent" };
    let actions: Vec<&Action> = calls.iter().map(|(_, action)| action).collect();
    account.step(kind, &description, &actions, Some(*usage));
}

/// What a tool answered: a text, or blocks of which some are texts.
fn answer(block: &Map<String, Value>) -> String {
    match block.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => {
            let texts = blocks.iter().filter_map(|block| block.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// A denied tool, with the command where it is one.
fn denied(denial: &Map<String, Value>) -> String {
    let name = text(denial, "tool_name");
    let what = object(denial, "tool_input").map(|input| {
        ["command", "file_path", "url"]
            .into_iter()
            .map(|field| text(input, field))
            .find(|text| !text.is_empty())
    });
    match what.flatten() {
        Some(what) => format!("{name}({what})"),
        None => name.to_owned(),
    }
}

/// Names of the fields: input without cache, written to the cache, read from it, output.
const API_NAMES: [&str; 4] =
    ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"];
const SUM_NAMES: [&str; 4] =
    ["inputTokens", "cacheCreationInputTokens", "cacheReadInputTokens", "outputTokens"];

/// Input is all that was sent: the three that the provider tells apart.
fn tokens(usage: &Map<String, Value>, names: &[&str; 4]) -> Usage {
    let [plain, written, read, output] = names.map(|name| number(usage, name));
    let input = [plain, written, read].into_iter().flatten().reduce(u64::saturating_add);
    Usage {
        input_tokens: input,
        cached_input_tokens: read,
        cache_write_tokens: written,
        output_tokens: output,
        ..Usage::default()
    }
}
