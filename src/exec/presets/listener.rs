//! The ear of a preset: bytes of stdout and stderr in, lines of the events file out.
//!
//! It holds one line of each stream. A line that is longer than [`LINE_MAX`] is passed over: what is in it is in the
//! log, and a tool that puts a result there has no result. A line that is no JSON object is somebody else's.

use serde_json::Value;

use super::account::Account;
use super::claude::Claude;
use super::codex::Codex;
use super::gemini::Gemini;
use super::place::Conversation;
use super::{Listen, Tool};
use crate::model::{FailureCode, Protocol};

/// Longest line that is read, bytes: the result of a tool can be a whole file.
const LINE_MAX: usize = 16 << 20;

/// Listens to one attempt.
#[derive(Debug)]
pub struct Listener {
    tool: Box<dyn Tool>,
    account: Account,
    stdout: Line,
    stderr: Line,
}

impl Listener {
    /// One that has heard nothing yet; `None` where the tool is none that we know.
    #[must_use]
    pub fn new(listen: &Listen) -> Option<Self> {
        let tool: Box<dyn Tool> = match listen.tool {
            Protocol::Claude => Box::new(Claude::default()),
            Protocol::Codex => Box::new(Codex::default()),
            Protocol::Gemini => Box::new(Gemini::default()),
            Protocol::Plain | Protocol::Matins => return None,
        };
        let account = Account::new(listen.clone());
        Some(Self { tool, account, stdout: Line::default(), stderr: Line::default() })
    }

    /// Takes what came on stdout; `now` is the time as it is told. What is to be written.
    pub fn stdout(&mut self, bytes: &[u8], now: &str) -> Vec<u8> {
        now.clone_into(&mut self.account.now);
        let Self { tool, account, stdout, .. } = self;
        stdout.push(bytes, |line| heard(tool.as_mut(), account, line));
        self.account.take_lines()
    }

    /// Takes what came on stderr.
    pub fn stderr(&mut self, bytes: &[u8], now: &str) -> Vec<u8> {
        now.clone_into(&mut self.account.now);
        let Self { tool, account, stderr, .. } = self;
        stderr.push(bytes, |line| tool.complained(&String::from_utf8_lossy(line), account));
        self.account.take_lines()
    }

    /// Both have ended; `clean`: the tool exited with code 0.
    pub fn end(&mut self, clean: bool, now: &str) -> Vec<u8> {
        now.clone_into(&mut self.account.now);
        let Self { tool, account, stdout, stderr } = self;
        stdout.finish(|line| heard(tool.as_mut(), account, line));
        stderr.finish(|line| tool.complained(&String::from_utf8_lossy(line), account));
        tool.ended(account);
        // Of one that failed the exit code and its last words on stderr tell more.
        if clean && !account.is_over() {
            let name = account.listen().tool;
            account.failed(
                FailureCode::RuntimeError,
                &format!("{name} exited with code 0 and did not say how it ended"),
            );
        }
        self.account.take_lines()
    }

    /// Whether it will not succeed any more and is to be ended.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.account.is_hopeless()
    }

    /// What is to be kept of the conversation: `Some(None)`: nothing any more; `None`: what is kept already.
    #[must_use]
    pub fn conversation(&self) -> Option<Option<Conversation>> {
        if self.account.is_forgotten() {
            return Some(None);
        }
        let (handle, used) = self.account.handle()?;
        Some(Some(Conversation { handle: handle.to_owned(), used }))
    }
}

fn heard(tool: &mut dyn Tool, account: &mut Account, line: &[u8]) {
    if let Ok(Value::Object(fields)) = serde_json::from_slice(line) {
        tool.said(&fields, account);
    }
}

/// The line of a stream that is not whole yet.
#[derive(Debug, Default)]
struct Line {
    held: Vec<u8>,
    /// Whether the rest of it is passed over.
    skipped: bool,
}

impl Line {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.hold(rest.get(..end).unwrap_or_default());
            self.finish(&mut each);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        self.hold(rest);
    }

    fn hold(&mut self, part: &[u8]) {
        self.skipped |= self.held.len() + part.len() > LINE_MAX;
        if self.skipped {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.skipped && !self.held.is_empty() {
            each(&self.held);
        }
        self.held.clear();
        self.skipped = false;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Usage;

    fn listen(tool: Protocol) -> Listen {
        Listen {
            tool,
            model: None,
            max_steps: None,
            max_tokens: None,
            schema: false,
            judged: false,
            conversation: "/none".into(),
            before: Usage::default(),
        }
    }

    /// The lines that are written of what a tool prints, in chunks of `size`.
    fn told(listen: &Listen, printed: &str, size: usize, clean: bool) -> Vec<Value> {
        let mut listener = Listener::new(listen).unwrap();
        let mut out = Vec::new();
        for chunk in printed.as_bytes().chunks(size) {
            out.extend(listener.stdout(chunk, "now"));
        }
        out.extend(listener.end(clean, "now"));
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn last(tool: Protocol, printed: &str) -> (String, String) {
        let lines = told(&listen(tool), printed, 4096, true);
        let line = lines.last().unwrap();
        assert_eq!(line["type"], "error", "{lines:?}");
        (line["code"].as_str().unwrap().to_owned(), line["message"].as_str().unwrap().to_owned())
    }

    /// As claude 2.1.197 printed it without a key.
    const NOT_LOGGED_IN: &str = r#"{"type":"assistant","message":{"id":"27877f31","model":"<synthetic>","role":"assistant","stop_reason":"stop_sequence","type":"message","usage":{"input_tokens":0,"output_tokens":0},"content":[{"type":"text","text":"Not logged in · Please run /login"}]},"parent_tool_use_id":null,"session_id":"f7c7647b","error":"authentication_failed"}
{"type":"result","subtype":"success","is_error":true,"api_error_status":null,"num_turns":1,"result":"Not logged in · Please run /login","stop_reason":"stop_sequence","session_id":"f7c7647b","total_cost_usd":0,"usage":{"input_tokens":0,"output_tokens":0},"modelUsage":{},"permission_denials":[]}
"#;
    /// Two answers of codex 0.169.0, one of them to a command that it may not run.
    const CODEX: &str = r#"{"type":"thread.started","thread_id":"01a203f7-fc2e-71e1-a343-0a0339d57a2b"}
{"type":"turn.started"}
{"type":"item.started","item":{"id":"item_1","type":"command_execution","command":"touch /etc/x","aggregated_output":"","exit_code":null,"status":"in_progress"}}
{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"touch /etc/x","aggregated_output":"","exit_code":null,"status":"declined"}}
{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"I could not."}}
{"type":"turn.completed","usage":{"input_tokens":200,"cached_input_tokens":60,"cache_write_input_tokens":0,"output_tokens":40,"reasoning_output_tokens":10}}
"#;

    #[test]
    fn success_beside_an_error_is_none() {
        let (code, why) = last(Protocol::Claude, NOT_LOGGED_IN);
        assert_eq!((code.as_str(), why.as_str()), ("launch_error", "Not logged in · Please run /login"));
        let poor = NOT_LOGGED_IN
            .replace("authentication_failed", "billing_error")
            .replace("status\":null", "status\":400");
        assert_eq!(last(Protocol::Claude, &poor).0, "provider_error");
        assert_eq!(last(Protocol::Codex, CODEX).0, "permission_denied");
    }

    #[test]
    fn what_two_results_tell_in_all_is_counted_once() {
        let result = |usd: f64, tokens: u64| {
            let usage = json!({"m": {"inputTokens": tokens, "outputTokens": 1}});
            json!({"type": "result", "subtype": "success", "is_error": false, "result": "x", "session_id": "s",
                   "total_cost_usd": usd, "modelUsage": usage})
        };
        let printed = format!("{}\n{}\n", result(0.25, 100), result(0.75, 300));
        let lines = told(&listen(Protocol::Claude), &printed, 4096, true);
        let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_f64()).sum::<f64>();
        assert!(
            (sum("costUsd") - 0.75).abs() < 1e-9 && (sum("inputTokens") - 300.0).abs() < 1e-9,
            "{lines:?}"
        );
    }

    #[test]
    fn the_model_that_did_most_is_the_one_that_answered() {
        let models = json!({"a-router": {"total_tokens": 10}, "b-pro": {"total_tokens": 900}, "c": {}});
        let stats = json!({"input_tokens": 800, "output_tokens": 110, "total_tokens": 910, "models": models});
        let printed = json!({"type": "result", "status": "success", "stats": stats}).to_string();
        let lines = told(&listen(Protocol::Gemini), &printed, 4096, true);
        let usage = lines.iter().find(|line| line["type"] == "usage").unwrap();
        assert_eq!(usage["finalModel"], "b-pro", "{usage}");
    }

    #[test]
    fn what_each_model_took_is_told_of_it() {
        let took = |input: u64, output: u64| json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
        let models = json!({"a-flash": took(100, 10), "b-pro": took(700, 90)});
        let mut stats = took(800, 100);
        stats["models"] = models;
        let printed = json!({"type": "result", "status": "success", "stats": stats}).to_string();
        let lines = told(&listen(Protocol::Gemini), &printed, 4096, true);
        let usages = lines.iter().filter(|line| line["type"] == "usage");
        let told: Vec<(&str, u64, u64)> = usages
            .map(|line| {
                let number = |name: &str| line[name].as_u64().unwrap();
                (line["finalModel"].as_str().unwrap(), number("inputTokens"), number("outputTokens"))
            })
            .collect();
        assert_eq!(told, [("a-flash", 100, 10), ("b-pro", 700, 90)]);
    }

    #[test]
    fn where_the_chunks_end_is_no_matter() {
        let whole = told(&listen(Protocol::Codex), CODEX, CODEX.len(), true);
        assert_eq!(whole.iter().filter(|line| line["type"] == "step").count(), 2, "{whole:?}");
        for size in [1, 7, 100] {
            assert_eq!(told(&listen(Protocol::Codex), CODEX, size, true), whole);
        }
    }

    #[test]
    fn a_tool_that_says_nothing_has_not_succeeded() {
        for tool in [Protocol::Claude, Protocol::Codex, Protocol::Gemini] {
            for printed in ["", "no json\n[1]\n{}\n{\"type\":\"result\"}\n", "\n\n"] {
                let lines = told(&listen(tool), printed, 10, true);
                let last = lines.last().map(|line| line["type"].clone());
                assert_eq!(last, Some(json!("error")), "{tool}: {printed:?}: {lines:?}");
            }
            assert!(told(&listen(tool), "", 1, false).is_empty(), "the exit code tells more");
        }
    }

    #[test]
    fn limits_that_the_tool_does_not_keep_are_kept_here() {
        let limited = Listen { max_steps: Some(1), ..listen(Protocol::Codex) };
        let mut listener = Listener::new(&limited).unwrap();
        let said = listener.stdout(CODEX.as_bytes(), "now");
        assert!(listener.is_hopeless() && String::from_utf8(said).unwrap().contains("\"step_limit\""));
    }

    #[test]
    fn a_line_beyond_the_limit_is_passed_over() {
        let long = format!("{{\"type\":\"error\",\"message\":\"{}\"}}\n", "x".repeat(LINE_MAX));
        assert_eq!(told(&listen(Protocol::Codex), &format!("{long}{CODEX}"), 64 << 10, true).len(), 4);
    }
}
