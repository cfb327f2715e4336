//! Lays environment variables and flags over the tree of the settings file.
//!
//! `MATINS_CONFIG_LISTEN__SOCKET` is the key `listen.socket`: upper case, `__` between levels. Values
//! of paths, zones and durations are taken as they are, other values are read as YAML.

use super::Env;
use super::keys::{self, Kind};
use super::problem::{Problem, Severity};
use super::reader::Reader;
use super::source::{Origin, Source, Span, Spanned};
use super::suggest;
use super::yaml::Node;

/// Prefix of the variables that set settings.
pub const ENV_PREFIX: &str = "MATINS_CONFIG_";

/// How the value of a setting is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As text, whatever it looks like.
    Text,
    /// As YAML.
    Yaml,
}

/// Every setting that a variable or a flag may give, from the table of keys: the settings themselves,
/// and the parts of a secret.
fn known() -> Vec<(String, Form)> {
    let mut known = Vec::new();
    for (path, key) in keys::settings() {
        if let Kind::OrNull(Kind::Map(shape)) = key.kind
            && std::ptr::eq(*shape, &raw const keys::SECRET)
        {
            known.extend(shape.keys.iter().map(|part| (format!("{path}.{}", part.name), Form::Text)));
        }
        known.push((path, form(&key.kind)));
    }
    known
}

fn form(kind: &Kind) -> Form {
    match kind {
        Kind::Text | Kind::Path | Kind::Zone | Kind::Duration | Kind::Name => Form::Text,
        _ => Form::Yaml,
    }
}

/// Lays every `MATINS_CONFIG_` variable over the tree.
pub(super) fn environment(r: &mut Reader, root: &mut Spanned<Node>, env: &Env) {
    for (name, value) in env.with_prefix(ENV_PREFIX) {
        let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        let Some(text) = value.to_str() else {
            let message = "the value is not UTF-8".to_owned();
            r.push(Problem::of_file(std::path::Path::new(name), message, None));
            continue;
        };
        apply(r, root, &key, Source::named(name, Origin::Env, text));
    }
}

/// Lays settings of the command line over the tree.
pub(super) fn flags(r: &mut Reader, root: &mut Spanned<Node>, flags: &[(String, String, String)]) {
    for (key, flag, value) in flags {
        let value = if key.ends_with("_dir") || key == "listen.socket" {
            // A path on the command line is relative to where the command was given.
            super::locate::absolute(value.as_ref()).display().to_string()
        } else {
            value.clone()
        };
        apply(r, root, key, Source::named(flag, Origin::Flag, &value));
    }
}

fn apply(r: &mut Reader, root: &mut Spanned<Node>, key: &str, source: Source) {
    let known = known();
    let value = match known.iter().find(|(path, _)| path == key) {
        Some((_, Form::Text)) => {
            let text = source.text.to_string();
            let index = r.add(source.clone());
            Some(Spanned { value: Node::Text(text), span: source.span(index, 0, source.text.len()) })
        }
        Some((_, Form::Yaml)) => r.parse(source),
        None => {
            unknown(r, key, &source, &known);
            None
        }
    };
    if let Some(value) = value {
        let path: Vec<&str> = key.split('.').collect();
        put(root, &path, value);
    }
}

fn unknown(r: &mut Reader, key: &str, source: &Source, known: &[(String, Form)]) {
    let name = source.path.to_string_lossy().into_owned();
    let known = || known.iter().map(|(path, _)| path.as_str());
    let inside = known().find(|k| k.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    let help = inside.or_else(|| suggest::nearest(key, known())).map(|near| match source.origin {
        Origin::Env => {
            let near = near.to_uppercase().replace('.', "__");
            format!("did you mean `{ENV_PREFIX}{near}`?")
        }
        _ => format!("did you mean `{near}`?"),
    });
    let index = r.add(source.clone());
    let message = format!("{name} sets no known setting");
    r.note(Span::whole(index), Severity::Error, message, help);
}

/// Puts a value at a path. What is not a map on the way is replaced; a secret has one source, so a
/// new source replaces the whole secret.
fn put(at: &mut Spanned<Node>, path: &[&str], value: Spanned<Node>) {
    let [first, rest @ ..] = path else {
        *at = value;
        return;
    };
    let fresh = !matches!(at.value, Node::Map(_));
    if fresh {
        at.value = Node::Map(Vec::new());
        at.span = value.span;
    }
    let Node::Map(entries) = &mut at.value else {
        return;
    };
    let span = value.span;
    let index = entries.iter().position(|(k, _)| k.value == *first).unwrap_or(entries.len());
    if index == entries.len() {
        let key = Spanned { value: (*first).to_owned(), span };
        entries.push((key, Spanned { value: Node::Null, span }));
    }
    let (key, child) = &mut entries[index];
    if *first == "webhook_secret" || rest.is_empty() {
        key.span = span;
        child.value = Node::Null;
    }
    put(child, rest, value);
}
