//! A pattern over agents' ids: which agents somebody may see. `*` is any text, `?` any character, and
//! everything else stands for itself, so that a pattern means here what `GLOB` means to the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AgentId;

/// A pattern over agents' ids, such as `shop-*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct AgentGlob(String);

/// A text that is no pattern over agents' ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of agents: write an id, with `*` for any text and `?` for any character, such as shop-*"
)]
pub struct InvalidGlob(String);

impl AgentGlob {
    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes in this agent.
    #[must_use]
    pub fn matches(&self, agent: &str) -> bool {
        matches(self.0.as_bytes(), agent.as_bytes())
    }

    /// The one agent that it can mean, where it has no wildcard.
    #[must_use]
    pub fn only(&self) -> Option<AgentId> {
        self.0.parse().ok()
    }
}

/// Goes back to the last `*` where the text does not fit: linear in practice, quadratic at worst, over at
/// most 63 characters.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl fmt::Display for AgentGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AgentGlob {
    type Err = InvalidGlob;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*' | b'?');
        if s.is_empty() || s.len() > AgentId::MAX_LEN || !s.bytes().all(fits) {
            return Err(InvalidGlob(s.to_owned()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl<'de> Deserialize<'de> for AgentGlob {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_in_what_it_says() {
        for (glob, yes, no) in [
            ("shop", &["shop"][..], &["shops", "sho", "", "a-shop"][..]),
            ("shop-*", &["shop-", "shop-a", "shop-a-b"], &["shop", "ashop-a"]),
            ("*", &["a", "shop-a"], &[]),
            ("*-eu", &["a-eu", "-eu", "eu-eu"], &["eu", "a-eu-b"]),
            ("a?c", &["abc", "a-c"], &["ac", "abbc"]),
            ("a*b*c", &["abc", "a-b-b-c", "axbxxc"], &["acb", "ab", "abcd"]),
            ("**a", &["a", "ba"], &["b"]),
        ] {
            let glob: AgentGlob = glob.parse().unwrap();
            assert!(yes.iter().all(|id| glob.matches(id)), "{glob}");
            assert!(!no.iter().any(|id| glob.matches(id)), "{glob}");
        }
        assert_eq!("shop".parse::<AgentGlob>().unwrap().only().unwrap().as_str(), "shop");
        assert_eq!("shop*".parse::<AgentGlob>().unwrap().only(), None);
    }

    #[test]
    fn what_would_mean_something_else_to_the_store_is_refused() {
        for text in ["", "[a-z]", "a%", "Shop", "a b", "a,b", "a/b", &"a".repeat(64)] {
            assert!(text.parse::<AgentGlob>().is_err(), "{text}");
        }
    }
}
