//! Schemas of values in bodies that no type of ours stands for: a time span (text with units, or a number of seconds), and
//! any JSON object.

use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};

use crate::api::extract::DURATION_MAX;

/// A time span: `90s`, `1h 30m`, or a number of seconds.
#[derive(Debug, Clone, Copy)]
pub struct Duration;

impl utoipa::PartialSchema for Duration {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^([1-9][0-9]{0,5}(ms|s|m|h|d)|[1-9][0-9]{0,2}h [0-9]{1,4}m)$"));
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Number)
            .minimum(Some(0.001))
            .maximum(Some(DURATION_MAX.as_secs_f64()));
        OneOfBuilder::new().item(text).item(seconds).into()
    }
}

impl utoipa::ToSchema for Duration {}

/// Any JSON object.
#[derive(Debug, Clone, Copy)]
pub struct JsonObject;

impl utoipa::PartialSchema for JsonObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Object).description(Some("Any JSON object.")).into()
    }
}

impl utoipa::ToSchema for JsonObject {}
