//! Codex: `codex exec --json`.
//!
//! Seen of 0.169.0: each doing is an item; usage is told at the end of the turn, and of a conversation that is gone on
//! with it counts what was used before as well; no cost, no limit of tokens, money or turns; the last message of the
//! model is the result, held to the schema by the provider alone; a request to leave the sandbox is refused with a word
//! on stderr only; a key that is refused is tried six times within ten seconds.

use serde_json::{Map, Value, json};

use super::account::{Account, Action, minus};
use super::{Tool, classify, list, number, object, text};
use crate::model::Usage;

/// What it says on stderr when the model asks for more than it may do.
const REFUSED: &str = "approval policy is Never";

/// One turn.
#[derive(Debug, Default)]
pub(super) struct Codex {
    thread: String,
    words: String,
    error: String,
}

impl Tool for Codex {
    fn said(&mut self, line: &Map<String, Value>, account: &mut Account) {
        match text(line, "type") {
            "thread.started" => text(line, "thread_id").clone_into(&mut self.thread),
            "item.completed" => {
                if let Some(item) = object(line, "item") {
                    self.item(item, account);
                }
            }
            "turn.completed" => self.completed(line, account),
            "turn.failed" => {
                let why = object(line, "error").map_or("", |error| text(error, "message"));
                self.failed(why, account);
            }
            "error" => {
                text(line, "message").clone_into(&mut self.error);
                if self.error.starts_with("Reconnecting") {
                    account.note("retry", &self.error);
                }
            }
            _ => {}
        }
    }

    fn complained(&mut self, line: &str, account: &mut Account) {
        if line.contains(REFUSED) {
            account.denied("a command outside of the sandbox");
        }
        if line.contains("no rollout found") {
            account.forget_conversation();
        }
    }

    fn ended(&mut self, account: &mut Account) {
        if !self.error.is_empty() {
            self.failed("", account);
        }
    }
}

impl Codex {
    fn item(&mut self, item: &Map<String, Value>, account: &mut Account) {
        let kind = text(item, "type");
        let action = match kind {
            "agent_message" => {
                text(item, "text").clone_into(&mut self.words);
                return account.step("model", text(item, "text"), &[], None);
            }
            "reasoning" => return account.note("reasoning", text(item, "text")),
            "error" => return account.note("error", text(item, "message")),
            "command_execution" => command(item, account),
            "file_change" => Action {
                name: "file_change".to_owned(),
                params: json!({ "changes": list(item, "changes") }),
                error: (text(item, "status") == "failed").then(|| "the change could not be made".to_owned()),
                ..Action::default()
            },
            "mcp_tool_call" => Action {
                name: format!("mcp__{}__{}", text(item, "server"), text(item, "tool")),
                params: item.get("arguments").cloned().unwrap_or_default(),
                content: item.get("result").filter(|result| !result.is_null()).map(Value::to_string),
                error: object(item, "error").map(|error| text(error, "message").to_owned()),
            },
            "web_search" => {
                let params = json!({ "query": text(item, "query") });
                Action { name: kind.to_owned(), params, ..Action::default() }
            }
            "todo_list" => return account.note("plan", &plan(item)),
            other => Action { name: other.to_owned(), ..Action::default() },
        };
        let description = match text(item, "command") {
            "" => action.name.clone(),
            command => command.to_owned(),
        };
        account.step(kind, &description, &[&action], None);
    }

    fn completed(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let total = object(line, "usage").map(tokens).unwrap_or_default();
        let before = account.listen().before;
        let model = account.listen().model.clone();
        account.used_in_all(minus(total, before), None, model.as_deref());
        account.conversation(&self.thread, total);
        account.done(&std::mem::take(&mut self.words), None);
        self.error.clear();
    }

    fn failed(&mut self, why: &str, account: &mut Account) {
        let why = if why.is_empty() { self.error.as_str() } else { why };
        account.failed(classify::of_words(why), if why.is_empty() { "the turn failed" } else { why });
    }
}

fn command(item: &Map<String, Value>, account: &mut Account) -> Action {
    let output = text(item, "aggregated_output").to_owned();
    let code = item.get("exit_code").and_then(Value::as_i64);
    let error = match (text(item, "status"), code) {
        ("declined", _) => {
            account.denied(text(item, "command"));
            Some("it was not allowed".to_owned())
        }
        (_, Some(0)) | ("completed", None) => None,
        (_, Some(code)) => Some(format!("exit code {code}")),
        (status, None) => Some(status.to_owned()),
    };
    let params = json!({ "command": text(item, "command") });
    Action { name: "shell".to_owned(), params, content: Some(output), error }
}

fn plan(item: &Map<String, Value>) -> String {
    let entries = list(item, "items").iter().filter_map(Value::as_object).map(|entry| {
        let done = entry.get("completed").and_then(Value::as_bool).unwrap_or(false);
        format!("[{}] {}", if done { "x" } else { " " }, text(entry, "text"))
    });
    entries.collect::<Vec<_>>().join("\n")
}

fn tokens(usage: &Map<String, Value>) -> Usage {
    Usage {
        input_tokens: number(usage, "input_tokens"),
        cached_input_tokens: number(usage, "cached_input_tokens"),
        cache_write_tokens: number(usage, "cache_write_input_tokens"),
        output_tokens: number(usage, "output_tokens"),
        reasoning_tokens: number(usage, "reasoning_output_tokens"),
        model_calls: None,
    }
}
