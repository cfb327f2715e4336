//! Cron patterns (the one user of croner): placeholder.
//!
//! To be completed.

use serde::{Deserialize, Serialize};

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cron {
    text: String,
}

impl Cron {
    /// Text
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Error
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(pub String);
