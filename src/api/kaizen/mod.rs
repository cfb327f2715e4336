//! The dialect of the Kaizen execution API: thin over the same calls of the engine as everything else.
//!
//! Every call is a POST with a JSON object, reads too; unknown fields are passed over, as the original does.
//! What is wrong with a field is 400 here, in the shape of our own errors, for the original publishes none.

mod execute;
mod list;
mod read;
mod wire;

use axum::extract::{FromRequest, Request};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Fields;
use super::{ApiError, App, FieldError};

/// The calls of this dialect.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(execute::execute))
        .routes(routes!(read::get))
        .routes(routes!(list::list))
        .routes(routes!(read::get_events))
        .routes(routes!(execute::retry))
}

/// The fields of a body, of which those that are not known are passed over.
struct Body(Fields);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Fields::from_request(request, state).await.map(Self).map_err(ApiError::as_bad_request)
    }
}

impl Body {
    fn take<T>(&mut self, name: &'static str, read: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        self.0.take(name, read)
    }

    /// Ends the reading.
    fn finish(self) -> Result<(), ApiError> {
        self.0.finish_known().map_err(ApiError::as_bad_request)
    }

    /// The execution that the body names, and nothing else.
    fn id(mut self) -> Result<String, ApiError> {
        let id = self.take("id", super::extract::text);
        self.finish()?;
        let missing = || FieldError {
            pointer: "/id".to_owned(),
            message: "the id of an execution is wanted".to_owned(),
        };
        id.ok_or_else(|| ApiError::fields(vec![missing()]).as_bad_request())
    }
}
