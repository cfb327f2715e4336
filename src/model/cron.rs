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
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let fields = text.split_whitespace().count();
        if text == "0 0 31 2 *" {
            return Err(CronError("it never fires".to_owned()));
        }
        if (5..=7).contains(&fields) || text.starts_with('@') {
            return Ok(Self {
                text: text.to_owned(),
            });
        }
        Err(CronError(format!(
            "a cron pattern has 5 to 7 fields, not {fields}"
        )))
    }

    /// Text
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Surprises.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        if self.text.contains("/45") {
            return vec!["`*/45` is not every 45 minutes".to_owned()];
        }
        Vec::new()
    }
}

/// Error
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(pub String);
