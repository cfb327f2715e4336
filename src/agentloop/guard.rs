//! Sees that a model goes round in a circle: the same call with the same answer, again and again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value};

/// How many calls are remembered.
const WINDOW: usize = 20;
/// Which repetition is pointed out to the model.
const NUDGE: usize = 3;
/// Which repetition ends the run.
const END: usize = 5;

/// The last calls of a run.
#[derive(Debug, Default)]
pub struct Guard {
    seen: VecDeque<u64>,
}

/// What a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing to speak of.
    New,
    /// The same as several before.
    Again(usize),
    /// The same as so many before that there is no end of it.
    Circle(usize),
}

impl Guard {
    /// Takes note of a call and what it gave.
    pub fn see(&mut self, name: &str, arguments: &Map<String, Value>, content: &str) -> Seen {
        let mut hasher = DefaultHasher::new();
        (name, Value::Object(arguments.clone()).to_string(), content).hash(&mut hasher);
        let call = hasher.finish();
        self.seen.push_back(call);
        if self.seen.len() > WINDOW {
            self.seen.pop_front();
        }
        match self.seen.iter().filter(|seen| **seen == call).count() {
            n if n >= END => Seen::Circle(n),
            n if n >= NUDGE => Seen::Again(n),
            _ => Seen::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_with_the_same_answer_is_a_circle() {
        let (mut guard, none) = (Guard::default(), Map::new());
        let mut see = |content: &str| guard.see("fetch", &none, content);
        assert_eq!([see("a"), see("a")], [Seen::New; 2]);
        assert_eq!([see("a"), see("b"), see("a")], [Seen::Again(3), Seen::New, Seen::Again(4)]);
        assert_eq!(see("a"), Seen::Circle(5));
        for n in 0..WINDOW {
            see(&n.to_string());
        }
        assert_eq!(see("a"), Seen::New, "what lies long back is forgotten");
    }
}
