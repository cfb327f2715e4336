//! Reading requests strictly: a query or a body with something unknown in it is refused, because a
//! mistyped filter that is ignored answers a question that nobody asked.
//!
//! Bodies are read field by field rather than by a derive, so that every field that does not fit is
//! reported at once, each with its JSON pointer.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{ApiError, BODY_MAX, FieldError};
use crate::model::workflow::{Misplaced, Workflow};

/// Most mistakes of a workflow that are told.
const MISPLACED_MAX: usize = 50;

/// Longest time that a body may take to arrive.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The query of a request as a `T` that knows every parameter.
#[derive(Debug, Clone, Copy)]
pub struct Params<T>(pub T);

impl<T, S> FromRequestParts<S> for Params<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(e) => Err(ApiError::malformed(format!("the query cannot be read: {}", innermost(&e)))),
        }
    }
}

/// The last cause of an error: the others only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The JSON object of a body that may be absent, field by field.
#[derive(Debug, Default)]
pub struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let bytes = whole(request, state).await?;
        Self::of(&bytes, &headers)
    }
}

/// The body of a request as a whole, in time and within its bound.
pub(super) async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_DEADLINE, Bytes::from_request(request, state)).await {
        Err(_) => Err(ApiError::slow_body(BODY_DEADLINE.as_secs())),
        Ok(Err(e)) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(ApiError::too_large(BODY_MAX)),
        Ok(Err(e)) => Err(ApiError::malformed(format!("the body cannot be read: {}", innermost(&e)))),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

/// The fields of a body. One that is given twice is a mistake: two readers would not agree on it.
struct Body(Map<String, Value>);

impl<'de> serde::Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Body;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(serde::de::Error::custom(format_args!("field {name:?} is given twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Body(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

impl Fields {
    fn of(bytes: &[u8], headers: &HeaderMap) -> Result<Self, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        check_type(headers)?;
        match serde_json::from_slice(bytes) {
            Ok(Body(fields)) => Ok(Self { left: fields, ..Self::default() }),
            Err(e) if e.is_data() && !bytes.trim_ascii_start().starts_with(b"{") => {
                let message = "the body is a JSON object".to_owned();
                Err(ApiError::fields(vec![FieldError { pointer: String::new(), message }]))
            }
            Err(e) => Err(ApiError::malformed(format!("the body cannot be read: {e}"))),
        }
    }

    /// Takes a field and reads it with `read`, whose error is a sentence. Null is absent.
    pub fn take<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        let value = self.left.remove(name).filter(|v| !v.is_null())?;
        match read(value) {
            Ok(read) => Some(read),
            Err(message) => {
                self.errors.push(FieldError { pointer: pointer(name), message });
                None
            }
        }
    }

    /// Takes a field that holds a workflow; each mistake in it has its own place. Null and an empty one are none.
    pub fn take_workflow(&mut self, name: &'static str) -> Option<Box<Workflow>> {
        let workflow = self.take(name, Ok).filter(|value| value.as_object().is_none_or(|o| !o.is_empty()))?;
        match Workflow::read(&workflow) {
            Ok(workflow) => Some(Box::new(workflow)),
            Err(wrong) => {
                let wrong = wrong.into_iter().take(MISPLACED_MAX).map(|Misplaced { at, why: message }| {
                    let at = at.iter().map(|part| pointer(part.as_str().unwrap_or(&part.to_string())));
                    FieldError { pointer: pointer(name) + &at.collect::<String>(), message }
                });
                self.errors.extend(wrong);
                None
            }
        }
    }

    /// Ends the reading where what is unknown is passed over.
    ///
    /// # Errors
    /// 422 with everything that does not fit.
    pub fn finish_known(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }

    /// Ends the reading: what was not taken is unknown.
    ///
    /// # Errors
    /// 422 with everything that does not fit.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in self.left.keys() {
            let message = match self.known.as_slice() {
                [] => "this call takes no fields".to_owned(),
                known => format!("this field is unknown; known are {}", known.join(", ")),
            };
            self.errors.push(FieldError { pointer: pointer(name), message });
        }
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

/// The JSON pointer of a field of the body.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Refuses a body that says it is not JSON; one that says nothing is taken for JSON.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(said) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let said = String::from_utf8_lossy(said.as_bytes()).into_owned();
    let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json { Ok(()) } else { Err(ApiError::unsupported(&essence)) }
}

/// Reads text.
///
/// # Errors
/// A sentence.
pub fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("it is {}, a string is wanted", kind(&other))),
    }
}

/// Reads true or false.
///
/// # Errors
/// A sentence.
pub fn flag(value: Value) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(flag),
        other => Err(format!("it is {}, true or false is wanted", kind(&other))),
    }
}

/// Reads a list of texts.
///
/// # Errors
/// A sentence.
pub fn texts(value: Value) -> Result<Vec<String>, String> {
    let Value::Array(items) = value else {
        return Err(format!("it is {}, a list of strings is wanted", kind(&value)));
    };
    items.into_iter().map(text).collect()
}

/// Reads a word of a closed vocabulary.
///
/// # Errors
/// A sentence that lists the words.
pub fn word<T>(value: Value, all: &[T]) -> Result<T, String>
where
    T: std::str::FromStr + std::fmt::Display,
{
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = text(value)?;
    text.parse().map_err(|_| format!("{text:?} is none of {list}"))
}

/// Reads a duration, milliseconds: text such as `10m`, or a number of seconds.
///
/// # Errors
/// A sentence.
pub fn duration_ms(value: Value) -> Result<u64, String> {
    let duration = match value {
        Value::String(text) => crate::time::parse_duration(&text)?,
        Value::Number(n) => {
            let seconds = n.as_f64().unwrap_or(f64::NAN);
            Duration::try_from_secs_f64(seconds).map_err(|_| format!("{n} s is no duration"))?
        }
        other => return Err(format!("it is {}; write 90s, 1h 30m or a number of seconds", kind(&other))),
    };
    if duration > DURATION_MAX {
        return Err("it is longer than 1000000d".to_owned());
    }
    u64::try_from(duration.as_millis()).map_err(|_| "it is too long".to_owned())
}

/// Longest duration that is taken: a million days.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400_000_000);

/// A whole number, also one that was written as `10.0`: in JSON that is the same.
pub fn whole_number(value: &Value) -> Result<u64, String> {
    let written = || value.as_f64().filter(|n| n.fract() == 0.0)?.to_string().parse().ok();
    value.as_u64().or_else(written).ok_or_else(|| "a whole number is wanted".to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::Overlap;

    fn typed(content_type: Option<&'static str>) -> HeaderMap {
        content_type.map(|t| (CONTENT_TYPE, HeaderValue::from_static(t))).into_iter().collect()
    }

    fn status(bytes: &[u8], content_type: Option<&'static str>) -> u16 {
        Fields::of(bytes, &typed(content_type)).map_or_else(|e| e.status().as_u16(), |_| 200)
    }

    #[test]
    fn an_empty_body_is_fine_whatever_its_type() {
        for content_type in [None, Some("application/json"), Some("text/plain"), Some("x")] {
            assert_eq!(status(b"", content_type), 200);
            assert_eq!(status(b" \r\n", content_type), 200);
        }
    }

    #[test]
    fn a_body_is_a_json_object() {
        assert_eq!(status(b"{}", None), 200);
        assert_eq!(status(b"{}", Some("application/json; charset=utf-8")), 200);
        assert_eq!(status(b"{}", Some("application/merge-patch+json")), 200);
        assert_eq!(status(b"{}", Some("application/x-www-form-urlencoded")), 415);
        assert_eq!(status(b"{\"a\":", None), 400);
        assert_eq!(status(b"\xff", None), 400);
        assert_eq!(status(b"{\"a\": 1, \"a\": 2}", None), 400, "which of the two is meant?");
        assert_eq!(status(b"[]", None), 422);
        assert_eq!(status(b" 5", None), 422);
    }

    #[test]
    fn every_field_that_does_not_fit_is_named() {
        let body = json!({"prompt": 5, "overlap": "wait", "timeout": "soon", "a/b~c": 1, "input": null});
        let mut fields = Fields::of(body.to_string().as_bytes(), &HeaderMap::new()).unwrap();
        assert_eq!(fields.take("prompt", text), None);
        assert_eq!(fields.take("overlap", |v| word(v, Overlap::ALL)), None);
        assert_eq!(fields.take("timeout", duration_ms), None);
        assert_eq!(fields.take("input", Ok), None, "null is absent");
        let pointers: Vec<String> = fields.errors.iter().map(|e| e.pointer.clone()).collect();
        assert_eq!(pointers, ["/prompt", "/overlap", "/timeout"]);
        assert!(fields.errors[1].message.contains("skip, queue_one, queue, "));
        assert_eq!(fields.finish().unwrap_err().status(), 422);
        let unknown = Fields::of(b"{\"a/b~c\": 1}", &HeaderMap::new()).unwrap();
        let error = format!("{:?}", unknown.finish().unwrap_err());
        assert!(error.contains("/a~1b~0c"), "{error}");
    }

    #[test]
    fn durations_are_text_or_seconds() {
        assert_eq!(duration_ms(json!("1h 30m")), Ok(5_400_000));
        assert_eq!(duration_ms(json!(90)), Ok(90_000));
        assert_eq!(duration_ms(json!(0.25)), Ok(250));
        for bad in [json!(-1), json!(1e300), json!("x"), json!(true), json!([])] {
            assert!(duration_ms(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes over the socket is read or refused.
        #[test]
        fn any_body_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), fields in ".{0,40}") {
            let named = format!("{{\"prompt\": {fields}, \"from\": \"x\"}}");
            for body in [bytes.as_slice(), fields.as_bytes(), named.as_bytes()] {
                let Ok(mut read) = Fields::of(body, &HeaderMap::new()) else { continue };
                let _ = read.take("prompt", text);
                let _ = read.take("timeout", duration_ms);
                if let Err(refused) = read.finish() {
                    prop_assert_eq!(refused.status().as_u16(), 422);
                }
            }
        }
    }
}
