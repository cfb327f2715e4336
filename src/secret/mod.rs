//! Secrets: where values come from, and redaction.
