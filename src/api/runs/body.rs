//! Bodies of the dialect of tasks, and what is said of those that do not fit: every field at once, each with its
//! place, a sentence and a word for programs.
//!
//! Null is absent, and what it does not know is ignored, as in the original.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::extract::{check_type, whole};
use crate::api::{ApiError, App};
use crate::model::workflow::{Misplaced, Workflow};
use crate::model::{ResponseFormat, TaskRequest, Wire};
use crate::schema::Schema;

/// Shortest prompt, characters.
const PROMPT_MIN: usize = 3;

/// Most mistakes of one workflow that are told.
const MISFITS_MAX: usize = 50;
/// Longest name of a model, bytes.
const MODEL_MAX: usize = 200;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The request.
    pub(super) request: TaskRequest,
    /// Whether to wait for the end.
    pub(super) wait: bool,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Misfit {
    /// Where: `body`, and the field or the byte.
    pub loc: Vec<Value>,
    /// What is wrong, for people.
    pub msg: String,
    /// What is wrong, for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// A request that is not carried out.
#[derive(Debug)]
pub enum Unfit {
    /// 422: these do not fit.
    Fields(Vec<Misfit>),
    /// An error of the daemon.
    Error(ApiError),
}

impl<E: Into<ApiError>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl IntoResponse for Unfit {
    fn into_response(self) -> Response {
        match self {
            Self::Fields(misfits) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": misfits }))).into_response()
            }
            Self::Error(error) => error.into_response(),
        }
    }
}

/// Reads a body; `new`: that of a new task, which has a prompt.
pub(super) async fn read(
    app: &App,
    headers: &HeaderMap,
    request: Request,
    new: bool,
) -> Result<Asked, Unfit> {
    let bytes = whole(request, app).await?;
    check_type(headers)?;
    let mut reader = Reader::of(&bytes, new)?;
    let asked = reader.asked(new);
    if reader.misfits.is_empty() { Ok(asked) } else { Err(Unfit::Fields(reader.misfits)) }
}

fn misfit(place: Value, msg: impl Into<String>, kind: &'static str) -> Misfit {
    let loc = [Value::from("body"), place].into_iter().filter(|part| !part.is_null()).collect();
    Misfit { loc, msg: msg.into(), kind }
}

struct Reader {
    fields: Map<String, Value>,
    misfits: Vec<Misfit>,
}

impl Reader {
    fn of(bytes: &[u8], new: bool) -> Result<Self, Unfit> {
        let body = if bytes.trim_ascii().is_empty() {
            if new {
                return Err(Unfit::Fields(vec![misfit(Value::Null, "Field required", "missing")]));
            }
            json!({})
        } else {
            serde_json::from_slice(bytes).map_err(|e| {
                let msg = format!("JSON decode error: {e}");
                Unfit::Fields(vec![misfit(e.column().into(), msg, "json_invalid")])
            })?
        };
        let Value::Object(fields) = body else {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            return Err(Unfit::Fields(vec![misfit(Value::Null, msg, "model_attributes_type")]));
        };
        Ok(Self { fields, misfits: Vec::new() })
    }

    fn asked(&mut self, new: bool) -> Asked {
        let request = TaskRequest {
            prompt: self.prompt(new),
            model: self.model(),
            provider: self.provider(),
            webhook_url: self.text("webhook_url"),
            response_format: self.format(),
            json_schema: self.schema(),
            use_cached_workflow: self.flag("use_cached_workflow"),
            cached_workflow: self.workflow(),
        };
        let wait = self.flag("wait_for_completion").unwrap_or(true);
        Asked { request, wait }
    }

    /// A field that is there.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, name: &str, msg: impl Into<String>, kind: &'static str) {
        self.misfits.push(misfit(name.into(), msg, kind));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        if let Value::String(text) = self.take(name)? {
            return Some(text);
        }
        self.wrong(name, "Input should be a valid string", "string_type");
        None
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        if let Value::Bool(flag) = self.take(name)? {
            return Some(flag);
        }
        self.wrong(name, "Input should be a valid boolean", "bool_type");
        None
    }

    fn prompt(&mut self, new: bool) -> Option<String> {
        if new && self.fields.get("prompt").is_none_or(Value::is_null) {
            self.wrong("prompt", "Field required", "missing");
            return None;
        }
        let prompt = self.text("prompt")?;
        if prompt.chars().count() < PROMPT_MIN {
            let msg = format!("String should have at least {PROMPT_MIN} characters");
            self.wrong("prompt", msg, "string_too_short");
        }
        Some(prompt)
    }

    fn model(&mut self) -> Option<String> {
        let model = self.text("model")?;
        if model.is_empty() || model.len() > MODEL_MAX || !model.chars().all(|c| c.is_ascii_graphic()) {
            let msg = format!("A model's name has 1 to {MODEL_MAX} printable characters, no spaces");
            self.wrong("model", msg, "value_error");
        }
        Some(model)
    }

    fn provider(&mut self) -> Option<String> {
        let provider = self.text("provider")?;
        if provider.parse::<Wire>().is_err() {
            let words: Vec<&str> = Wire::ALL.iter().map(|word| word.as_str()).collect();
            self.wrong("provider", format!("Input should be {}", alternatives(&words)), "enum");
        }
        Some(provider)
    }

    fn format(&mut self) -> Option<ResponseFormat> {
        let text = self.text("response_format")?;
        let format = text.parse().ok();
        if format.is_none() {
            let words: Vec<&str> = ResponseFormat::ALL.iter().map(|word| word.as_str()).collect();
            self.wrong(
                "response_format",
                format!("Input should be {}", alternatives(&words)),
                "literal_error",
            );
        }
        format
    }

    /// An object, or JSON text of one.
    fn schema(&mut self) -> Option<Value> {
        const NAME: &str = "json_schema";
        let schema = match self.take(NAME)? {
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(schema) => schema,
                Err(e) => {
                    self.wrong(NAME, format!("Invalid JSON: {e}"), "json_invalid");
                    return None;
                }
            },
            schema => schema,
        };
        if !schema.is_object() {
            self.wrong(NAME, "Input should be a JSON Schema: an object, or its text", "json_type");
            return None;
        }
        if let Err(e) = Schema::compile(&schema) {
            self.wrong(NAME, format!("This is no valid JSON Schema: {e}"), "value_error");
        }
        Some(schema)
    }

    /// A workflow; each mistake in it has its own place. An empty one is none.
    fn workflow(&mut self) -> Option<Box<Workflow>> {
        const NAME: &str = "cached_workflow";
        let workflow = self.take(NAME)?;
        match workflow.as_object() {
            None => {
                self.wrong(NAME, "Input should be a valid dictionary", "dict_type");
                return None;
            }
            Some(fields) if fields.is_empty() => return None,
            Some(_) => {}
        }
        match Workflow::read(&workflow) {
            Ok(workflow) => Some(Box::new(workflow)),
            Err(wrong) => {
                for Misplaced { at, why } in wrong.into_iter().take(MISFITS_MAX) {
                    let mut misfit = misfit(NAME.into(), why, "value_error");
                    misfit.loc.extend(at);
                    self.misfits.push(misfit);
                }
                None
            }
        }
    }
}

/// `'a', 'b' or 'c'`.
fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, new: bool) -> Result<Asked, Vec<Misfit>> {
        let misfits = |unfit| match unfit {
            Unfit::Fields(misfits) => misfits,
            Unfit::Error(e) => panic!("{e:?}"),
        };
        let mut reader = Reader::of(body.as_bytes(), new).map_err(misfits)?;
        let asked = reader.asked(new);
        if reader.misfits.is_empty() { Ok(asked) } else { Err(reader.misfits) }
    }

    fn kinds(body: &Value) -> Vec<(String, &'static str)> {
        let misfits = read(&body.to_string(), true).unwrap_err();
        misfits
            .into_iter()
            .map(|m| (m.loc.last().unwrap().as_str().unwrap_or("?").to_owned(), m.kind))
            .collect()
    }

    #[test]
    fn every_field_that_does_not_fit_is_told_at_once() {
        let body = json!({"prompt": "ab", "model": 3, "provider": "x", "wait_for_completion": "soon",
                          "webhook_url": {}, "response_format": "xml", "json_schema": "{", "use_cached_workflow": 1,
                          "cached_workflow": []});
        let told = kinds(&body);
        let told: Vec<_> = told.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let wanted = [
            ("prompt", "string_too_short"),
            ("model", "string_type"),
            ("provider", "enum"),
            ("webhook_url", "string_type"),
            ("response_format", "literal_error"),
            ("json_schema", "json_invalid"),
            ("use_cached_workflow", "bool_type"),
            ("cached_workflow", "dict_type"),
            ("wait_for_completion", "bool_type"),
        ];
        assert_eq!(told, wanted);
        assert_eq!(kinds(&json!({})), [("prompt".to_owned(), "missing")]);
        assert_eq!(kinds(&json!({"prompt": null})), [("prompt".to_owned(), "missing")]);
        assert_eq!(kinds(&json!({"prompt": 5})), [("prompt".to_owned(), "string_type")]);
    }

    #[test]
    fn a_workflow_is_taken_and_a_mistake_in_it_has_its_place() {
        let step =
            |tool: &str| json!({"version": 1, "steps": [{"tool": tool, "arguments": {}}], "result": "model"});
        let body = |workflow: Value| json!({"prompt": "abc", "cached_workflow": workflow}).to_string();
        let asked = read(&body(step("browser_back")), true).unwrap().request;
        assert_eq!(asked.overrides().workflow.unwrap().steps[0].tool, "browser_back");
        assert!(
            read(&body(json!({})), true).unwrap().request.overrides().workflow.is_none(),
            "an empty one is none"
        );
        let misfits = read(&body(step("shell")), true).unwrap_err();
        let place = json!(["body", "cached_workflow", "steps", 0, "tool"]);
        assert_eq!((json!(misfits[0].loc), misfits.len(), misfits[0].kind), (place, 1, "value_error"));
    }

    #[test]
    fn a_schema_is_an_object_or_its_text() {
        let of = |schema: Value| {
            read(&json!({"prompt": "abc", "json_schema": schema}).to_string(), true)
                .map(|a| a.request.json_schema)
        };
        let object = json!({"type": "object"});
        assert_eq!(of(object.clone()).unwrap(), Some(object.clone()));
        assert_eq!(of(json!(object.to_string())).unwrap(), Some(object));
        assert_eq!(of(json!("")).unwrap(), None);
        assert_eq!(of(Value::Null).unwrap(), None);
        for bad in [json!(5), json!("5"), json!([]), json!({"type": "thing"})] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_known_task_needs_no_body() {
        assert!(read("", false).is_ok_and(|asked| asked.wait && asked.request == TaskRequest::default()));
        assert_eq!(read("", true).unwrap_err()[0].loc, [json!("body")]);
        assert_eq!(read("[]", false).unwrap_err()[0].kind, "model_attributes_type");
        assert_eq!(read("{\"a\"", false).unwrap_err()[0].kind, "json_invalid");
        let asked = read("{\"wait_for_completion\": false, \"whatever\": 1}", false).unwrap();
        assert!(!asked.wait, "what is not known is ignored");
    }

    #[test]
    fn words_are_listed() {
        assert_eq!(alternatives(&["a", "b", "c"]), "'a', 'b' or 'c'");
        assert_eq!(alternatives(&["a"]), "'a'");
    }
}
