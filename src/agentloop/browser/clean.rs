//! What may leave the browser of what pages say: no secret that was typed into one, and no text without an end.
//!
//! A text is cleaned before it is cut, never after: half a secret is none to a search.

use crate::secret::{ExposeSecret as _, Redactor, read_env};

/// Longest name, value, attribute or message of a page, characters.
pub const TEXT_MAX: usize = 10_000;

/// Takes out the secrets of a run.
#[derive(Debug)]
pub(super) struct Cleaner(Redactor);

impl Cleaner {
    /// One that knows these secrets, as far as they are there.
    pub(super) fn of(secrets: &[String]) -> Self {
        let values: Vec<_> =
            secrets.iter().filter_map(|name| Some((name.as_str(), read_env(name).ok()?))).collect();
        Self(Redactor::new(values.iter().map(|(name, value)| (*name, value.expose_secret()))))
    }

    /// A text of a page, not longer than [`TEXT_MAX`].
    pub(super) fn text(&self, text: &str) -> String {
        match text.char_indices().nth(TEXT_MAX).and_then(|(end, _)| text.get(..end)) {
            Some(beginning) => self.with(beginning, Redactor::redact_beginning),
            None => self.with(text, Redactor::redact),
        }
    }

    /// All of a text of ours that speaks of a page.
    pub(super) fn whole(&self, text: String) -> String {
        if self.0.is_idle() { text } else { self.with(&text, Redactor::redact) }
    }

    fn with(&self, text: &str, redact: impl Fn(&Redactor, &[u8]) -> Vec<u8>) -> String {
        if self.0.is_idle() {
            return text.to_owned();
        }
        String::from_utf8_lossy(&redact(&self.0, text.as_bytes())).into_owned()
    }
}
