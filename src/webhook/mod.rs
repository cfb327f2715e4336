//! One bounded HTTP attempt.
