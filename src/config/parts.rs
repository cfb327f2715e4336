//! What settings and agents share: secret sources, webhooks, names of variables.

use std::path::{Path, PathBuf};

use super::codes::Warning;
use super::keys;
use super::reader::{Fields, Reader};
use super::source::{Span, Spanned};
use super::yaml::Node;
use crate::model::{Format, SecretSource, Webhook, WebhookEvent};

/// Prefix of the variables that a run gets from the daemon.
const RESERVED_PREFIX: &str = "MATINS_";

/// Whether a text can name an environment variable.
pub(super) fn is_env_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Checks the name of a variable that a definition sets.
pub(super) fn variable_name(r: &mut Reader, key: &Spanned<String>) -> bool {
    let name = &key.value;
    let shown = name.escape_debug();
    if !is_env_name(name) {
        r.error_help(
            key.span,
            format!("`{shown}` cannot be the name of an environment variable"),
            "use letters, digits and `_`, and do not begin with a digit",
        );
        return false;
    }
    if name.starts_with(RESERVED_PREFIX) {
        r.error_help(
            key.span,
            format!("`{shown}`: names that begin with {RESERVED_PREFIX} are set by the daemon"),
            "choose another name",
        );
        return false;
    }
    true
}

/// A path of a definition, resolved against `base`. Nothing is expanded, so what looks as if it
/// should be is refused.
pub(super) fn path(r: &mut Reader, key: &str, node: &Spanned<Node>, base: &Path) -> Option<PathBuf> {
    let text = r.filled(key, node)?;
    if text == "~" || text.starts_with("~/") || text.starts_with('$') {
        r.error_help(
            node.span,
            format!("`{}`: `~` and variables are not expanded in paths", text.escape_debug()),
            "write the full path",
        );
        return None;
    }
    Some(normal(&base.join(text)))
}

/// A path without `.` components; `..` stays, for behind a symbolic link it is not its parent's name.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

/// Where a secret comes from: `{env: NAME}`, `{file: PATH}` or `{credential: NAME}`.
pub(super) fn secret(
    r: &mut Reader,
    key: &'static str,
    node: &Spanned<Node>,
    base: &Path,
) -> Option<SecretSource> {
    const FORMS: &str = "write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`";
    if !matches!(node.value, Node::Map(_)) {
        let message = match node.value {
            Node::Text(_) => "a secret is never written into a file, only where it comes from",
            _ => "this is no source of a secret",
        };
        r.error_help(node.span, message, FORMS);
        return None;
    }
    let mut fields = r.map(&keys::SECRET, key, node)?;
    let sources = [fields.take("env"), fields.take("file"), fields.take("credential")];
    let span = fields.span;
    let before = r.errors();
    fields.finish(r, &[("value", FORMS), ("from", FORMS)]);
    match sources {
        [Some(env), None, None] => {
            let name = r.filled("env", env)?;
            if !is_env_name(&name) {
                let message =
                    format!("`{}` cannot be the name of an environment variable", name.escape_debug());
                r.error_help(env.span, message, "write the name of a variable of the daemon");
                return None;
            }
            Some(SecretSource::Env(name))
        }
        [None, Some(file), None] => path(r, "file", file, base).map(SecretSource::File),
        [None, None, Some(credential)] => {
            let name = r.filled("credential", credential)?;
            if name.contains('/') || name.starts_with('.') {
                let message = format!("`{}` cannot be the name of a credential", name.escape_debug());
                r.error_help(credential.span, message, "write the name as in `LoadCredential=NAME:PATH`");
                return None;
            }
            Some(SecretSource::Credential(name))
        }
        [None, None, None] => {
            if r.errors() == before {
                r.error_help(span, "this is no source of a secret", FORMS);
            }
            None
        }
        _ => {
            r.error_help(span, "a secret has one source, not several", FORMS);
            None
        }
    }
}

/// The entries of a `webhooks:` list.
pub(super) fn webhooks(r: &mut Reader, node: &Spanned<Node>, base: &Path) -> Vec<Webhook> {
    let mut hooks = Vec::new();
    for item in r.list("webhooks", node).unwrap_or_default() {
        if let Node::Text(url) = &item.value {
            let help = format!("write `- url: {}`", url.escape_debug());
            r.error_help(item.span, "a webhook is a map", help);
            continue;
        }
        let Some(mut fields) = r.map(&keys::WEBHOOK, "webhook", item) else {
            continue;
        };
        let url_node = fields.take("url");
        if url_node.is_none() {
            r.error_help(fields.span, "this webhook has no `url`", "write `url: https://..`");
        }
        let url = url_node.and_then(|node| Some((node.span, r.address("url", node)?)));
        let secret = fields.take("secret").and_then(|node| secret(r, "secret", node, base));
        let events = match fields.take("events") {
            Some(node) => webhook_events(r, node),
            None => WebhookEvent::DEFAULT.to_vec(),
        };
        let format = format(r, &mut fields);
        fields.finish(r, &[("event", "write `events: [run.failed]`"), ("type", "write `format:`")]);
        if let Some((span, url)) = url {
            format_of_host(r, span, &url, format);
            hooks.push(Webhook { url: url.into(), secret, events, format });
        }
    }
    hooks
}

/// Services that take one shape only, by host.
const SHAPES: [(&str, Format); 2] = [("hooks.slack.com", Format::Slack), ("ntfy.sh", Format::Ntfy)];

fn format_of_host(r: &mut Reader, span: Span, url: &url::Url, format: Format) {
    let wanted = SHAPES.iter().find(|(host, _)| url.host_str() == Some(host)).map(|(_, wanted)| *wanted);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != format) {
        let host = url.host_str().unwrap_or_default();
        let message = format!("{host} does not take messages of `format: {format}`");
        r.warn(Warning::OtherFormat, span, message, format!("write `format: {wanted}`"));
    }
}

fn format(r: &mut Reader, fields: &mut Fields<'_>) -> Format {
    let known: Vec<_> = Format::ALL.iter().map(|f| f.as_str()).collect();
    let format: Option<Format> = fields.take("format").and_then(|node| r.choice("format", node, &known, &[]));
    let format = format.unwrap_or_default();
    // A secret of ntfy is its access token.
    if format == Format::Slack
        && let Some(secret) = fields.key("secret")
    {
        let message = format!("`secret` has no effect under `format: {format}`, whose messages are unsigned");
        r.warn(Warning::NoEffect, secret, message, "remove the key");
    }
    format
}

fn webhook_events(r: &mut Reader, node: &Spanned<Node>) -> Vec<WebhookEvent> {
    let known: Vec<_> = WebhookEvent::ALL.iter().map(|e| e.as_str()).collect();
    let mut events = Vec::new();
    let Some(items) = r.list("events", node) else {
        return events;
    };
    if items.is_empty() {
        r.error_help(node.span, "this webhook hears of nothing", "name an event, or remove `events`");
    }
    for item in items {
        if let Some(event) = r.choice("events", item, &known, &[]) {
            if events.contains(&event) {
                r.warn(
                    Warning::ListedTwice,
                    item.span,
                    format!("`{event}` is listed twice"),
                    "remove one of the two",
                );
            } else {
                events.push(event);
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables() {
        for good in ["A", "_", "a1_B"] {
            assert!(is_env_name(good), "{good}");
        }
        for bad in ["", "1A", "A-B", "A=B", "Ä", "A B"] {
            assert!(!is_env_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_path_keeps_its_meaning() {
        assert_eq!(normal(Path::new("/a/./b/../c/.")), Path::new("/a/b/../c"));
    }
}
