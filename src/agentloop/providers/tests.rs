//! Answers that no provider should give: whatever one holds, it is read or refused, and a call is one that can be
//! answered.

use serde_json::json;

use super::*;

fn answers() -> [(Family, Value); 3] {
    let call =
        |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let openai = json!({
        "model": "m",
        "choices": [{"finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "x", "reasoning_content": "y", "refusal": null,
            "reasoning_details": [{"type": "reasoning.text", "text": "z"}],
            "tool_calls": [call("call_1"), call("call_2")],
        }}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1},
                  "completion_tokens_details": {"reasoning_tokens": 1}},
    });
    let anthropic = json!({
        "model": "m", "stop_reason": "tool_use", "stop_details": {"explanation": "x"},
        "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "text", "text": "x"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
        ],
        "usage": {"input_tokens": 1, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1,
                  "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}},
    });
    let google = json!({
        "modelVersion": "m", "promptFeedback": {"blockReason": "OTHER"},
        "candidates": [{"finishReason": "STOP", "finishMessage": "x", "content": {"role": "model", "parts": [
            {"text": "x", "thoughtSignature": "s"},
            {"text": "t", "thought": true},
            {"functionCall": {"name": "f", "args": {"a": 1}, "id": "1"}, "thoughtSignature": "s"},
            {"functionCall": {"name": "f", "args": {}}},
        ]}}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "thoughtsTokenCount": 1,
                          "cachedContentTokenCount": 1, "toolUsePromptTokenCount": 1},
    });
    [
        (Family::OpenAi(openai::Dialect::Other), openai),
        (Family::Anthropic, anthropic),
        (Family::Google, google),
    ]
}

/// Every place of a value, as a pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

fn read(family: Family, from: &From<'_>, body: &Value) -> Result<Turn, String> {
    match family {
        Family::OpenAi(dialect) => openai::turn(from, dialect, body),
        Family::Anthropic => anthropic::turn(from, body),
        Family::Google => google::turn(from, body),
    }
}

#[test]
fn an_answer_of_any_shape_is_read_or_refused() {
    let mut request = Request::default();
    let said = super::super::model::Said::default();
    request.messages.push(Message::Assistant(said));
    let from = From { provider: "p", model: "m", request: &request };
    let odd = [
        json!(null),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x"),
        json!([]),
        json!([7]),
        json!({}),
    ];
    for (family, answer) in answers() {
        let turn = read(family, &from, &answer).unwrap();
        assert_eq!((turn.said.calls.len(), turn.said.text.as_deref()), (2, Some("x")), "{family:?}");
        let mut all = Vec::new();
        places(&answer, "", &mut all);
        assert!(all.len() > 20);
        for place in all {
            for odd in &odd {
                let mut answer = answer.clone();
                *answer.pointer_mut(&place).unwrap() = odd.clone();
                let Ok(turn) = read(family, &from, &answer) else { continue };
                let mut ids: Vec<&str> = turn.said.calls.iter().map(|call| call.id.as_str()).collect();
                let count = ids.len();
                ids.sort_unstable();
                ids.dedup();
                let answerable = ids.len() == count && ids.iter().all(|id| !id.is_empty());
                assert!(answerable, "{family:?} {place} = {odd}: {ids:?}");
                // What it said can be shown to it again.
                let mut next = Request::default();
                next.messages.push(Message::Assistant(turn.said));
                let from = From { provider: "p", model: "m", request: &next };
                let _ = match family {
                    Family::OpenAi(dialect) => openai::ask(&from, dialect, "a"),
                    Family::Anthropic => anthropic::ask(&from),
                    Family::Google => google::ask(&from),
                };
            }
        }
    }
}
