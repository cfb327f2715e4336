//! Every key of an agent file and of `matins.yaml`: what it takes, its default, its meaning, an example.
//!
//! One static table, and everything that must know the keys comes from it: the readers refuse what
//! is not in it (and a debug build stops where a reader and the table disagree), the JSON Schemas,
//! `matins explain`, the pages under `docs/definitions/`, and which settings an environment variable
//! may set. So a key cannot be read and undocumented, or documented and unread.
//!
//! A [`Shape`] is a map with fixed keys. A key's [`Kind`] may name a shape again, so the whole is a tree
//! with the roots [`AGENT`] and [`SETTINGS`].

mod agent;
mod daemon;
mod pages;
mod schedule;
mod schema;
mod shared;

pub use agent::{
    AGENT, BREAKER, BROWSER, EXECUTION, EXECUTOR, LIMITS, LLM_LIMITS, MCP, NOTIFY, RETRY, SHELL,
    SUCCESS_WHEN, VIEWPORT,
};
pub use daemon::{
    BROWSER_SETTINGS, FILES, HOUSEKEEPING, KEEP, KEEP_FAILED, LISTEN, PRICE, PROVIDER, RETENTION, SETTINGS,
    TLS,
};
pub use pages::{pages, takes};
pub use schedule::{CALENDAR, DST, SCHEDULE};
pub use schema::json_schema;
pub use shared::{BUDGET, HOOK, SECRET, WEBHOOK};

/// A map with fixed keys.
#[derive(Debug)]
pub struct Shape {
    /// What it is called in messages.
    pub name: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// One key of a [`Shape`].
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it, as it would be written; empty where nothing does.
    pub default: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What it means, a sentence.
    pub meaning: &'static str,
    /// A value, as YAML.
    pub example: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text.
    Text,
    /// Text, or a number or boolean as it is written.
    Scalar,
    /// A path.
    Path,
    /// A template that sees what a prompt sees.
    Template,
    /// A cron pattern.
    Cron,
    /// The IANA name of a time zone.
    Zone,
    /// A date, a time, or a time with its offset.
    Time,
    /// `true` or `false`.
    Flag,
    /// `on` or `off`.
    Switch,
    /// A duration.
    Duration,
    /// A duration, or `none`.
    DurationOrNone,
    /// A size in bytes.
    Size,
    /// A whole number from .. to.
    Whole(u64, u64),
    /// A whole number that may be negative.
    Integer,
    /// A number from .. to.
    Number(f64, f64),
    /// A part of a whole.
    Share,
    /// An http or https address.
    Url,
    /// An address and port to listen on.
    Listener,
    /// A regular expression.
    Regex,
    /// `[a-z0-9][a-z0-9-]*`.
    Name,
    /// The name of a signal that ends a program.
    Signal,
    /// One word of a vocabulary.
    OneOf(fn() -> Vec<&'static str>),
    /// A JSON Schema, inline or as the path of a file.
    Schema,
    /// A map with whatever keys.
    Json,
    /// A program and its arguments.
    Argv,
    /// A list.
    List(&'static Kind),
    /// A map whose keys are names that its writer chooses.
    Names(&'static Kind),
    /// A map with fixed keys.
    Map(&'static Shape),
    /// Either.
    Either(&'static Kind, &'static Kind),
    /// `null`, or this.
    OrNull(&'static Kind),
}

impl Shape {
    /// The key of a name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

/// A key that may be left out and then is nothing.
const fn optional(name: &'static str, kind: Kind, meaning: &'static str, example: &'static str) -> Key {
    Key { name, kind, default: "", required: false, meaning, example }
}

/// A key with a default.
const fn or(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
    example: &'static str,
) -> Key {
    Key { name, kind, default, required: false, meaning, example }
}

/// A key that must be there.
const fn required(name: &'static str, kind: Kind, meaning: &'static str, example: &'static str) -> Key {
    Key { name, kind, default: "", required: true, meaning, example }
}

/// The words of one of the model's enums.
macro_rules! words {
    ($type:ty) => {
        Kind::OneOf(|| <$type>::ALL.iter().map(|word| word.as_str()).collect())
    };
}
use words;

/// One key of the tree with the way to it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The way to it: `schedules.cron`, `listen.socket`.
    pub path: String,
    /// The key.
    pub key: &'static Key,
}

/// Every key below a shape, depth first. Lists and names chosen by the writer add nothing to the way.
#[must_use]
pub fn all(root: &'static Shape) -> Vec<Place> {
    let mut found = Vec::new();
    walk(root, "", &mut found);
    found
}

fn walk(shape: &'static Shape, prefix: &str, found: &mut Vec<Place>) {
    for key in shape.keys {
        let path = if prefix.is_empty() { key.name.to_owned() } else { format!("{prefix}.{}", key.name) };
        found.push(Place { path: path.clone(), key });
        if let Some(inner) = inner(&key.kind) {
            walk(inner, &path, found);
        }
    }
}

/// The shape that a kind holds, however deep.
#[must_use]
pub fn inner(kind: &Kind) -> Option<&'static Shape> {
    match kind {
        Kind::Map(shape) => Some(shape),
        Kind::List(kind) | Kind::Names(kind) | Kind::OrNull(kind) => inner(kind),
        Kind::Either(a, b) => inner(a).or_else(|| inner(b)),
        _ => None,
    }
}

/// The settings that have a value of their own, dotted, in the order of the table. A map with fixed
/// keys is none: its keys are.
#[must_use]
pub fn settings() -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    leaves(&SETTINGS, "", &mut found);
    found
}

fn leaves(shape: &'static Shape, prefix: &str, found: &mut Vec<(String, &'static Key)>) {
    for key in shape.keys {
        let path = if prefix.is_empty() { key.name.to_owned() } else { format!("{prefix}.{}", key.name) };
        match key.kind {
            Kind::Map(inner) => leaves(inner, &path, found),
            _ => found.push((path, key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_says_what_it_is() {
        for place in all(&AGENT).into_iter().chain(all(&SETTINGS)) {
            let (path, key) = (&place.path, place.key);
            assert!(!key.meaning.is_empty() && !key.meaning.ends_with('.'), "{path}: {}", key.meaning);
            assert!(!key.meaning.contains('\n') && !key.meaning.contains("  "), "{path}");
            assert!(!key.example.is_empty(), "{path} has no example");
            assert!(super::super::yaml::parse(key.example, 0).is_ok(), "{path}: {}", key.example);
            assert!(super::super::yaml::parse(key.default, 0).is_ok(), "{path}: {}", key.default);
            assert!(!key.required || key.default.is_empty(), "{path}");
        }
    }

    #[test]
    fn a_shape_has_a_key_once() {
        let mut shapes = vec![&AGENT, &SETTINGS];
        let mut at = 0;
        while at < shapes.len() {
            let names = shapes[at].names();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}", shapes[at].name);
            shapes.extend(shapes[at].keys.iter().filter_map(|key| inner(&key.kind)));
            at += 1;
        }
    }

    #[test]
    fn the_way_to_a_key_is_dotted() {
        let paths: Vec<String> = all(&AGENT).into_iter().map(|place| place.path).collect();
        for path in ["prompt", "schedules.exclude.ics", "executions.files", "executor.limits.max_steps"] {
            assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
        }
        let settings: Vec<String> = settings().into_iter().map(|(path, _)| path).collect();
        for path in ["listen.socket", "retention.completed.keep", "budget.usd_per_day", "webhook_secret"] {
            assert!(settings.iter().any(|p| p == path), "{path} in {settings:?}");
        }
        assert!(!settings.iter().any(|p| p == "listen" || p == "webhook_secret.env"));
    }
}
