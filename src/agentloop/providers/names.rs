//! Ids of calls. A conversation goes on with another provider in the middle of it, and each has its own idea of what
//! an id may be: what does not fit is replaced by a hash of it, so that a call and its result keep finding each other,
//! and the same id gives the same bytes in every request of a run.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::ids::hex;

/// Longest id that `OpenAI` takes.
const OPENAI_MAX: usize = 40;
/// Length of Mistral's ids, all of letters and digits.
const MISTRAL: usize = 9;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn plain(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn hashed(prefix: &str, id: &str) -> String {
    format!("{prefix}{}", hex(&Sha256::digest(id.as_bytes())[..12]))
}

/// An id of chat completions.
pub(super) fn openai(id: &str) -> Cow<'_, str> {
    if plain(id) && id.len() <= OPENAI_MAX { Cow::Borrowed(id) } else { Cow::Owned(hashed("call_", id)) }
}

/// An id of Anthropic.
pub(super) fn anthropic(id: &str) -> Cow<'_, str> {
    if plain(id) { Cow::Borrowed(id) } else { Cow::Owned(hashed("toolu_", id)) }
}

/// An id of Mistral.
pub(super) fn mistral(id: &str) -> Cow<'_, str> {
    if id.len() == MISTRAL && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    let hash = Sha256::digest(id.as_bytes());
    Cow::Owned(
        hash[..MISTRAL].iter().map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect(),
    )
}

/// The id of a call: the provider's where it gave one that is new, else ours. `taken` are those of the conversation.
pub(super) fn fresh(given: Option<&str>, taken: &[String], ours: impl Fn(usize) -> String) -> String {
    let free = |id: &str| !taken.iter().any(|other| other == id);
    if let Some(given) = given.filter(|id| !id.is_empty() && free(id)) {
        return given.to_owned();
    }
    // Of one more than are taken, one is free.
    (taken.len()..=2 * taken.len()).map(ours).find(|id| free(id)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_fit_stay_and_others_are_hashed() {
        assert_eq!(openai("call_0a"), "call_0a");
        assert_eq!(anthropic("toolu_0a"), "toolu_0a");
        assert_eq!(mistral("abc123XYZ"), "abc123XYZ");
        let odd = "call#read_file#3";
        assert_eq!(openai(odd).len(), 5 + 24);
        assert_eq!(openai(odd), openai(odd));
        assert_ne!(openai(odd), openai("call#read_file#4"));
        assert!(plain(&anthropic(odd)) && anthropic(odd).starts_with("toolu_"));
        for id in ["", odd, "call_000000000000000000000001", "abc-12345"] {
            let short = mistral(id);
            assert!(short.len() == 9 && short.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}: {short}");
        }
    }

    #[test]
    fn an_id_is_unique_in_its_conversation() {
        let ours = |n: usize| format!("call_{n}");
        let taken = vec!["a".to_owned(), "call_2".to_owned()];
        assert_eq!(fresh(Some("b"), &taken, ours), "b");
        assert_eq!(fresh(Some("a"), &taken, ours), "call_3");
        assert_eq!(fresh(Some(""), &taken, ours), "call_3");
        assert_eq!(fresh(None, &[], ours), "call_0");
    }
}
