//! `models:`, `providers:` and `prices:`: which models there are, how they are reached and what they cost.
//!
//! A provider that everybody knows needs no entry: its address is known, and its key is looked for in the variable
//! that its own programs look in.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::take;
use super::{Provider, Settings};
use crate::config::reader::{Fields, Reader};
use crate::config::source::{Span, Spanned};
use crate::config::yaml::Node;
use crate::config::{keys, llm, parts};
use crate::model::{Price, Wire};
use crate::net::{self, Reach};

pub(super) fn read_models(r: &mut Reader, f: &mut Fields<'_>, s: &mut Settings, dir: &Path) {
    let sources = &mut s.sources;
    take(r, f, sources, "providers", &mut s.providers, |r, node| providers(r, node, dir));
    // A provider whose entry is wrong is named there; that its models are none would only hide it.
    let given: Vec<&str> = f.names("providers");
    take(r, f, sources, "models", &mut s.models, |r, node| models(r, node, &given));
    let kaizen =
        take(r, f, sources, "kaizen_version", &mut s.kaizen_version, |r, node| r.name("a model", node));
    if !s.models.is_empty()
        && let Some(span) = kaizen
        && !s.models.contains_key(&s.kaizen_version)
    {
        let message = format!("`kaizen_version: {}` is no alias of `models`", s.kaizen_version);
        r.error_help(span, message, format!("write it under `models:`, or name one of {}", known(&s.models)));
    }
    take(r, f, sources, "prices", &mut s.prices, |r, node| prices(r, node, &given));
}

fn known<T>(map: &BTreeMap<String, T>) -> String {
    crate::config::suggest::list(&map.keys().map(String::as_str).collect::<Vec<_>>())
}

fn models(r: &mut Reader, node: &Spanned<Node>, given: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut models = BTreeMap::new();
    for (key, node) in r.names("models", node)? {
        let model = r.filled(&key.value, node).filter(|text| is_model(r, node.span, text, given));
        if let (Some(alias), Some(model)) = (r.check_name("an alias", key), model) {
            models.insert(alias, model);
        }
    }
    Some(models)
}

fn is_model(r: &mut Reader, span: Span, text: &str, given: &[&str]) -> bool {
    let parts = text.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty());
    if let Some((provider, _)) = parts.filter(|_| !text.contains(char::is_whitespace)) {
        return llm::provider_of(r, span, provider, given.iter().copied());
    }
    let message = format!("`{}` is no model", text.escape_debug());
    r.error_help(span, message, "write provider/model, e.g. `anthropic/claude-opus`");
    false
}

fn providers(r: &mut Reader, node: &Spanned<Node>, dir: &Path) -> Option<BTreeMap<String, Provider>> {
    let wires: Vec<&str> = Wire::ALL.iter().map(|wire| wire.as_str()).collect();
    let mut found = BTreeMap::new();
    for (key, node) in r.names("providers", node)? {
        let name = r.check_name("a provider", key);
        let Some(mut f) = r.map(&keys::PROVIDER, "provider", node) else {
            continue;
        };
        let (address, wire, secret) = (f.take("base_url"), f.take("wire"), f.take("key"));
        if address.is_none() && name.as_ref().is_some_and(|name| name.parse::<Wire>().is_err()) {
            let message = format!("provider `{}` has no `base_url`, and its address is not known", key.value);
            let help = address_help(&key.value, &wires);
            r.error_help(f.span, message, help);
        }
        let base_url = address.and_then(|node| base_url(r, node));
        let wire = wire.and_then(|node| r.choice("wire", node, &wires, &[]));
        let secret = secret.and_then(|node| parts::secret(r, "key", node, dir));
        f.finish(r, &[("url", "write `base_url:`"), ("api_key", "write `key: { env: NAME }`")]);
        if let Some(name) = name {
            found.insert(name, Provider { base_url, wire, key: secret });
        }
    }
    Some(found)
}

/// Where a provider is asked: on this machine and in private networks too, never at a metadata service.
fn base_url(r: &mut Reader, node: &Spanned<Node>) -> Option<String> {
    let url = r.address("base_url", node)?;
    if let Err(why) = net::check_url(url.as_str(), Reach::PrivateToo) {
        let help = "write the address of a server that answers as a provider does";
        r.error_help(node.span, format!("`base_url` cannot be asked: {why}"), help);
        return None;
    }
    Some(url.into())
}

/// A name that is nearly that of a known provider, or where the address goes.
fn address_help(name: &str, wires: &[&str]) -> String {
    crate::config::suggest::nearest(name, wires.iter().copied()).map_or_else(
        || "write it, e.g. `base_url: http://127.0.0.1:11434/v1/`".to_owned(),
        |near| format!("did you mean `{near}`? Else write its `base_url`"),
    )
}

fn prices(r: &mut Reader, node: &Spanned<Node>, given: &[&str]) -> Option<BTreeMap<String, Price>> {
    const MOST: f64 = 1e6;
    let mut found = BTreeMap::new();
    for (key, node) in r.names("prices", node)? {
        let good = is_model(r, key.span, &key.value, given);
        let Some(mut f) = r.map(&keys::PRICE, "price", node) else {
            continue;
        };
        let span = f.span;
        let mut price = |name: &'static str, needed: bool| {
            let node = f.take(name);
            if needed && node.is_none() {
                r.error_help(span, format!("this price has no `{name}`"), "write `{ input: 3, output: 15 }`");
            }
            node.and_then(|node| r.number(name, node, 0.0, MOST))
        };
        let (input, output) = (price("input", true), price("output", true));
        let (cached, written) = (price("cached_input", false), price("cache_write", false));
        f.finish(r, &[("cached", "write `cached_input:`"), ("cache_read", "write `cached_input:`")]);
        if let (true, Some(input), Some(output)) = (good, input, output) {
            let (cached_input, cache_write) = (cached.unwrap_or(input), written.unwrap_or(input));
            found.insert(key.value.clone(), Price { input, output, cached_input, cache_write });
        }
    }
    Some(found)
}
