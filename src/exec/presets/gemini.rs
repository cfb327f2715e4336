//! Gemini CLI: `gemini --output-format stream-json`.
//!
//! Seen of 0.61.0: the model's words come in pieces; a tool that nobody may use is not there at all, so a denial is a
//! tool that was not found; `output_tokens` leaves the thoughts out and the total has them; the exit code of a refused
//! request is the HTTP status cut to a byte, and 0 where the answer was blocked; there is no schema, no cost and no
//! limit of tokens.

use serde_json::{Map, Value};

use super::account::{Account, Action};
use super::{Tool, classify, number, object, text};
use crate::model::Usage;

/// Tools that change something or reach out: without approval they are not there.
const NEED_APPROVAL: [&str; 5] =
    ["run_shell_command", "write_file", "replace", "web_fetch", "google_web_search"];

/// One run.
#[derive(Debug, Default)]
pub(super) struct Gemini {
    session: String,
    model: String,
    /// What the model says, as far as it has come.
    words: String,
    /// What it said last as a whole.
    last: String,
    /// The last error that it told of; its last line may leave it out.
    error: String,
    calls: Vec<(String, Action)>,
}

impl Tool for Gemini {
    fn said(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let kind = text(line, "type");
        if kind != "message" && kind != "tool_use" {
            self.tell_words(account);
        }
        match kind {
            "init" => {
                text(line, "session_id").clone_into(&mut self.session);
                text(line, "model").clone_into(&mut self.model);
            }
            "message" if text(line, "role") == "assistant" => {
                let whole = !line.get("delta").and_then(Value::as_bool).unwrap_or(false);
                if whole || !self.calls.is_empty() {
                    self.tell_words(account);
                }
                self.words.push_str(text(line, "content"));
            }
            "tool_use" => {
                let params = line.get("parameters").cloned().unwrap_or_default();
                let action = Action { name: text(line, "tool_name").to_owned(), params, ..Action::default() };
                self.calls.push((text(line, "tool_id").to_owned(), action));
            }
            "tool_result" => self.tool_result(line, account),
            "error" => {
                text(line, "message").clone_into(&mut self.error);
                account.note("error", &self.error);
            }
            "result" => self.result(line, account),
            _ => {}
        }
    }

    fn ended(&mut self, account: &mut Account) {
        self.tell_words(account);
    }
}

impl Gemini {
    /// Tells what the model has said, with the calls that were not answered.
    fn tell_words(&mut self, account: &mut Account) {
        if !self.words.is_empty() {
            self.last = std::mem::take(&mut self.words);
            account.step("model", &self.last, &[], None);
        }
    }

    fn tool_result(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let id = text(line, "tool_id");
        let Some(at) = self.calls.iter().position(|(call, _)| call == id) else { return };
        let (_, mut action) = self.calls.remove(at);
        let error = object(line, "error");
        if text(line, "status") == "error" {
            let why = error.map_or_else(|| text(line, "output"), |error| text(error, "message"));
            action.error = Some(why.to_owned());
            let missing = error.is_some_and(|error| text(error, "type") == "tool_not_registered");
            if missing && NEED_APPROVAL.contains(&action.name.as_str()) {
                account.denied(&action.name);
            }
        } else {
            action.content = Some(text(line, "output").to_owned());
        }
        let name = action.name.clone();
        account.step("tool", &name, &[&action], None);
    }

    fn result(&mut self, line: &Map<String, Value>, account: &mut Account) {
        let stats = object(line, "stats");
        let models = stats.and_then(|stats| object(stats, "models"));
        // A small model may only have chosen the one that did the work.
        let took = |usage: &Value| usage["total_tokens"].as_u64().unwrap_or(0);
        let most = models.and_then(|models| models.iter().max_by_key(|(_, usage)| took(usage)));
        let model = most.map_or(self.model.as_str(), |(model, _)| model.as_str());
        // Each at its own price; the last line is that of the one that did the work.
        for (name, usage) in models.into_iter().flatten().filter(|(name, _)| *name != model) {
            account.used_by(usage.as_object().map(tokens).unwrap_or_default(), name);
        }
        account.used_in_all(
            stats.map(tokens).unwrap_or_default(),
            None,
            Some(model).filter(|m| !m.is_empty()),
        );
        if text(line, "status") == "success" {
            account.conversation(&self.session, Usage::default());
            return account.done(&self.last, None);
        }
        let why = object(line, "error").map_or(self.error.as_str(), |error| text(error, "message"));
        account.failed(classify::of_words(why), if why.is_empty() { "gemini reported failure" } else { why });
    }
}

fn tokens(stats: &Map<String, Value>) -> Usage {
    let (input, answer) = (number(stats, "input_tokens"), number(stats, "output_tokens"));
    let output = match (number(stats, "total_tokens"), input) {
        (Some(total), Some(input)) => Some(total.saturating_sub(input)),
        _ => answer,
    };
    let thoughts = output.zip(answer).map(|(output, answer)| output.saturating_sub(answer));
    Usage {
        input_tokens: input,
        cached_input_tokens: number(stats, "cached"),
        output_tokens: output,
        reasoning_tokens: thoughts,
        ..Usage::default()
    }
}
