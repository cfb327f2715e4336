//! Errors as the callers of a dialect know them.
//!
//! Handlers and everything around them say [`ApiError`], whoever asks. Behind them all, this tells it again in the
//! shape of the dialect that the path belongs to: `{"detail": ".."}`, or the form's own shape where a field is wrong.
//! So an error that no handler has made (a body that is too long, a route that is not there) has the shape too.

use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};

use super::ApiError;

/// Where the dialect of agentic executions lies.
const ENTHUSIAST: [&str; 2] = ["/api/agents", "/api/agentic-executions"];
/// Where the dialect of tasks lies.
const TASKS: [&str; 2] = ["/api/runs", "/api/tasks"];

/// A dialect that has a shape of its own for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Enthusiast,
    Tasks,
}

impl Shape {
    fn of(path: &str) -> Option<Self> {
        let below = |roots: [&str; 2]| {
            roots.iter().any(|root| {
                path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        if below(ENTHUSIAST) {
            return Some(Self::Enthusiast);
        }
        below(TASKS).then_some(Self::Tasks)
    }

    fn tell(self, error: &ApiError) -> (StatusCode, Value) {
        match self {
            Self::Enthusiast => enthusiast(error),
            Self::Tasks => tasks(error),
        }
    }
}

/// Tells the errors of a request again, in the shape of its dialect.
pub(super) async fn shape(request: Request, next: Next) -> Response {
    let Some(shape) = Shape::of(request.uri().path()) else { return next.run(request).await };
    let mut answer = next.run(request).await;
    let Some(error) = answer.extensions_mut().remove::<ApiError>() else { return answer };
    let (status, body) = shape.tell(&error);
    let mut told = (status, Json(body)).into_response();
    for (name, value) in answer.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            told.headers_mut().append(name, value.clone());
        }
    }
    // Who asked stands there too.
    told.extensions_mut().extend(std::mem::take(answer.extensions_mut()));
    told
}

/// Where a path of the dialect of agentic executions leads that lacks its last slash: the original redirects too.
pub(super) fn with_slash(uri: &Uri) -> Option<Redirect> {
    let path = uri.path();
    if Shape::of(path) != Some(Shape::Enthusiast) || path.ends_with('/') {
        return None;
    }
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    Some(Redirect::permanent(&format!("{path}/{query}")))
}

/// The fields of an error: JSON pointer and sentence.
fn fields(error: &ApiError) -> Vec<(&str, &str)> {
    let of = error.details().iter();
    of.filter_map(|detail| Some((detail["pointer"].as_str()?, detail["message"].as_str()?))).collect()
}

/// A form's errors by field, anything else as a sentence. What is wrong with a field is 400 here.
fn enthusiast(error: &ApiError) -> (StatusCode, Value) {
    let status = match error.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let detail = match error.code() {
        "unknown_agent" => "Agent not found.".to_owned(),
        "unknown_event" => "No AgenticExecution matches the given query.".to_owned(),
        "unknown_route" => "Not found.".to_owned(),
        "unauthorized" if *error == ApiError::no_token() => {
            "Authentication credentials were not provided.".to_owned()
        }
        "unauthorized" => "Invalid token.".to_owned(),
        _ => error.message().to_owned(),
    };
    let mut body = json!({});
    for (pointer, message) in fields(error) {
        let name = match pointer.trim_start_matches('/') {
            "executionKey" => "execution_key",
            "" => "non_field_errors",
            name => name,
        };
        body[name] = match name {
            "input" => json!(message),
            _ => json!([message]),
        };
    }
    if body.as_object().is_some_and(serde_json::Map::is_empty) {
        body = json!({ "detail": detail });
    }
    (status, body)
}

/// A list of fields, each with its place in the request; anything else as a sentence.
fn tasks(error: &ApiError) -> (StatusCode, Value) {
    let detail = match error.code() {
        "unknown_route" => json!("Not Found"),
        "method_not_allowed" => json!("Method Not Allowed"),
        "unknown_event" => json!("Run not found"),
        "unknown_task" => json!("Task not found"),
        "invalid_field" => {
            let fields = fields(error);
            let told = fields.iter().map(|(pointer, message)| {
                let name = match pointer.trim_start_matches('/') {
                    "resultSchema" => "json_schema",
                    "webhookUrl" => "webhook_url",
                    name => name,
                };
                let place: Vec<&str> = ["body", name].into_iter().filter(|word| !word.is_empty()).collect();
                json!({ "loc": place, "msg": message, "type": "value_error" })
            });
            told.collect()
        }
        _ => json!(error.message()),
    };
    (error.status(), json!({ "detail": detail }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FieldError;

    fn field(pointer: &str) -> ApiError {
        ApiError::fields(vec![FieldError { pointer: pointer.into(), message: "no".into() }])
    }

    #[test]
    fn a_path_belongs_to_one_dialect_at_most() {
        assert_eq!(Shape::of("/api/agents/1/x"), Some(Shape::Enthusiast));
        assert_eq!(Shape::of("/api/agentic-executions"), Some(Shape::Enthusiast));
        assert_eq!(Shape::of("/api/runs"), Some(Shape::Tasks));
        assert_eq!(Shape::of("/api/tasks/1/runs"), Some(Shape::Tasks));
        for other in ["/v1/agents", "/api/runsx", "/api", "/agents/execute"] {
            assert_eq!(Shape::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_wrong_field_is_told_as_the_dialect_does() {
        let (status, body) = Shape::Enthusiast.tell(&field("/input"));
        assert_eq!((status.as_u16(), body), (400, json!({ "input": "no" })));
        let (_, body) = Shape::Enthusiast.tell(&field("/prompt"));
        assert_eq!(body, json!({ "prompt": ["no"] }));
        let (status, body) = Shape::Tasks.tell(&field("/webhookUrl"));
        let told = json!({"detail": [{"loc": ["body", "webhook_url"], "msg": "no", "type": "value_error"}]});
        assert_eq!((status.as_u16(), body), (422, told));
        let (_, body) = Shape::Tasks.tell(&field(""));
        assert_eq!(body["detail"][0]["loc"], json!(["body"]));
    }

    #[test]
    fn any_other_error_is_a_sentence() {
        let error = ApiError::too_large(5);
        for shape in [Shape::Enthusiast, Shape::Tasks] {
            let (status, body) = shape.tell(&error);
            assert_eq!((status.as_u16(), body["detail"].as_str()), (413, Some(error.message())));
        }
    }
}
