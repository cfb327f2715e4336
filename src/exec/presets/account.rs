//! What a tool has told so far, as lines of the events file.
//!
//! Usage is told in parts as it comes to be, and what was told is remembered: a run that is ended in the middle has
//! the part that was known, and one that ends well has the tool's own sum, never both.

use serde_json::{Map, Value, json};

use super::Listen;
use crate::model::{FailureCode, Usage};

/// Longest text of one field of a step, bytes.
const TEXT_MAX: usize = 8 << 10;

/// One thing that the tool did.
#[derive(Debug, Default)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) params: Value,
    pub(super) content: Option<String>,
    pub(super) error: Option<String>,
}

/// The lines that are not written yet, and what must be known for the next ones.
#[derive(Debug)]
pub(super) struct Account {
    listen: Listen,
    lines: Vec<u8>,
    /// Milliseconds since the epoch, of what is told now.
    pub(super) now: String,
    steps: u64,
    told: Usage,
    told_usd: f64,
    denials: Vec<String>,
    handle: Option<String>,
    total: Usage,
    forget: bool,
    /// Whether how it ended is known.
    over: bool,
    hopeless: bool,
}

impl Account {
    pub(super) fn new(listen: Listen) -> Self {
        Self {
            listen,
            lines: Vec::new(),
            now: String::new(),
            steps: 0,
            told: Usage::default(),
            told_usd: 0.0,
            denials: Vec::new(),
            handle: None,
            total: Usage::default(),
            forget: false,
            over: false,
            hopeless: false,
        }
    }

    /// A step of the work.
    pub(super) fn step(&mut self, kind: &str, description: &str, actions: &[&Action], usage: Option<Usage>) {
        self.steps += 1;
        let actions: Vec<Value> = actions.iter().map(|action| shown(action)).collect();
        self.write(&json!({
            "type": "step", "at": self.now, "kind": kind, "description": cut(description), "actions": actions,
            "usage": usage,
        }));
        if let Some(max) = self.listen.max_steps
            && self.steps > max
        {
            self.give_up(FailureCode::StepLimit, &format!("it took more than its {max} steps"));
        }
    }

    /// Something between the steps: a wait, an error that is not the end.
    pub(super) fn note(&mut self, kind: &str, description: &str) {
        self.write(&json!({ "type": "step", "at": self.now, "kind": kind, "description": cut(description), "actions": [] }));
    }

    /// What was used up since the last time.
    pub(super) fn used(&mut self, more: Usage, model: Option<&str>) {
        self.told = Usage::sum(self.told, more);
        self.usage_line(more, None, model);
        let tokens = self.told.input_tokens.unwrap_or(0).saturating_add(self.told.output_tokens.unwrap_or(0));
        if let Some(max) = self.listen.max_tokens
            && tokens > max
        {
            self.give_up(FailureCode::BudgetExceeded, &format!("it used more than its {max} tokens"));
        }
    }

    /// What of all that was used up another model than the one that answered took.
    pub(super) fn used_by(&mut self, more: Usage, model: &str) {
        if more != Usage::default() {
            self.told = Usage::sum(self.told, more);
            self.usage_line(more, None, Some(model));
        }
    }

    /// What was used up in all: what was not told yet is told now.
    pub(super) fn used_in_all(&mut self, total: Usage, cost_usd: Option<f64>, model: Option<&str>) {
        let rest = minus(total, self.told);
        self.told = Usage::sum(self.told, rest);
        let rest_usd = cost_usd.map(|total| (total - self.told_usd).max(0.0));
        self.told_usd += rest_usd.unwrap_or_default();
        self.usage_line(rest, rest_usd, model);
    }

    fn usage_line(&mut self, usage: Usage, cost_usd: Option<f64>, model: Option<&str>) {
        let mut line = json!(usage);
        if let Value::Object(fields) = &mut line {
            fields.insert("type".to_owned(), json!("usage"));
            fields.extend(cost_usd.map(|usd| ("costUsd".to_owned(), json!(usd))));
            fields.extend(model.map(|model| ("finalModel".to_owned(), json!(model))));
        }
        self.write(&line);
    }

    /// A tool was not allowed to do something.
    pub(super) fn denied(&mut self, what: &str) {
        self.denials.push(what.to_owned());
    }

    /// It says that it is done, with these last words or this structured result.
    pub(super) fn done(&mut self, words: &str, structured: Option<Value>) {
        if self.over {
            return;
        }
        let result =
            structured.or_else(|| if self.listen.schema { find_json(words) } else { Some(json!(words)) });
        // Who was denied something and says that he is done may mean that there was nothing he could do.
        let blocked =
            !self.denials.is_empty() && (!self.listen.judged || (self.listen.schema && result.is_none()));
        if blocked {
            return self.failed(FailureCode::PermissionDenied, &self.denied_sentence(words));
        }
        self.over = true;
        let action = json!({ "name": "done", "params": {}, "is_done": true, "success": true, "extracted_content": cut(words) });
        self.write(&json!({ "type": "step", "at": self.now, "kind": "done", "description": cut(words), "actions": [action] }));
        if let Some(result) = result {
            self.write(&json!({ "type": "result", "result": result }));
        }
    }

    /// It failed; the first cause is the one that counts.
    pub(super) fn failed(&mut self, code: FailureCode, why: &str) {
        if self.over {
            return;
        }
        self.over = true;
        self.write(&json!({ "type": "error", "code": code.as_str(), "message": why }));
    }

    /// It failed, and goes on all the same: it is to be ended.
    pub(super) fn give_up(&mut self, code: FailureCode, why: &str) {
        self.failed(code, why);
        self.hopeless = true;
    }

    /// The conversation can be gone on with under this handle; `total`: what it has used up in all.
    pub(super) fn conversation(&mut self, handle: &str, total: Usage) {
        self.handle = Some(handle.to_owned());
        self.total = total;
    }

    /// The conversation that was to be gone on with does not exist any more.
    pub(super) fn forget_conversation(&mut self) {
        self.forget = true;
    }

    pub(super) fn listen(&self) -> &Listen {
        &self.listen
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.hopeless
    }

    pub(super) fn handle(&self) -> Option<(&str, Usage)> {
        Some((self.handle.as_deref()?, self.total))
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forget
    }

    /// The lines since the last time.
    pub(super) fn take_lines(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    fn denied_sentence(&self, words: &str) -> String {
        let mut what: Vec<&str> = self.denials.iter().map(String::as_str).collect();
        what.dedup();
        let shown = what.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        format!(
            "it was not allowed to use {shown}; allow that in `command`, or say by `success_when` or `result_schema` what is enough; it said: {words}"
        )
    }

    fn write(&mut self, line: &Value) {
        // A value that was made here is always JSON.
        if serde_json::to_writer(&mut self.lines, line).is_ok() {
            self.lines.push(b'\n');
        }
    }
}

fn shown(action: &Action) -> Value {
    let params = match &action.params {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), short(value))).collect(),
        Value::Null => Map::new(),
        other => Map::from_iter([("input".to_owned(), short(other))]),
    };
    json!({
        "name": action.name, "params": params, "is_done": false, "success": action.error.is_some().then_some(false),
        "extracted_content": action.content.as_deref().map(cut), "error": action.error.as_deref().map(cut),
    })
}

/// A value with its long texts cut; a large structure becomes its text.
fn short(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(cut(text)),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() > TEXT_MAX { json!(cut(&text)) } else { value.clone() }
        }
        plain => plain.clone(),
    }
}

/// A text cut to [`TEXT_MAX`].
pub(super) fn cut(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TEXT_MAX);
    format!("{}.. [{} bytes cut]", text.get(..end).unwrap_or_default(), text.len() - end)
}

/// What `total` has more than `part`, at least nothing.
pub(super) fn minus(total: Usage, part: Usage) -> Usage {
    let less =
        |total: Option<u64>, part: Option<u64>| total.map(|total| total.saturating_sub(part.unwrap_or(0)));
    Usage {
        input_tokens: less(total.input_tokens, part.input_tokens),
        cached_input_tokens: less(total.cached_input_tokens, part.cached_input_tokens),
        cache_write_tokens: less(total.cache_write_tokens, part.cache_write_tokens),
        output_tokens: less(total.output_tokens, part.output_tokens),
        reasoning_tokens: less(total.reasoning_tokens, part.reasoning_tokens),
        model_calls: less(total.model_calls, part.model_calls),
    }
}

/// The JSON that a text is, or that its last fenced block is.
fn find_json(text: &str) -> Option<Value> {
    let whole = serde_json::from_str(text.trim()).ok();
    whole.or_else(|| {
        let (before, _) = text.trim_end().rsplit_once("```")?;
        let (_, block) = before.rsplit_once("```")?;
        let block = block.strip_prefix("json").unwrap_or(block);
        serde_json::from_str(block.trim()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_whole_or_fenced() {
        for text in ["{\"a\":1}", " {\"a\":1}\n", "Here:\n```json\n{\"a\":1}\n```\n", "```\n{\"a\":1}\n```"] {
            assert_eq!(find_json(text), Some(json!({"a": 1})), "{text:?}");
        }
        for text in ["", "no", "a {\"a\":1} b", "```json\nno\n```"] {
            assert_eq!(find_json(text), None, "{text:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(TEXT_MAX);
        let short = cut(&text);
        assert!(
            short.starts_with("éé") && short.ends_with(&format!("[{TEXT_MAX} bytes cut]")),
            "{}",
            &short[short.len() - 30..]
        );
        assert_eq!(cut("a"), "a");
    }
}
