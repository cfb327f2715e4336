//! JSON Schema (stand-in).

use serde_json::Value;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(jsonschema::Validator);

/// A bad schema.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// One violation.
#[derive(Debug)]
pub struct Violation(String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Schema {
    /// Compiles.
    pub fn compile(schema: &Value) -> Result<Self, Error> {
        jsonschema::validator_for(schema)
            .map(Self)
            .map_err(|e| Error(e.to_string()))
    }

    /// Validates.
    pub fn validate(&self, value: &Value) -> Result<(), Vec<Violation>> {
        let all: Vec<Violation> = self
            .0
            .iter_errors(value)
            .map(|e| Violation(e.to_string()))
            .collect();
        if all.is_empty() { Ok(()) } else { Err(all) }
    }
}
