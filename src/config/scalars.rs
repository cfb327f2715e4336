//! Numbers, shares, switches and addresses: readers of single values that are more than their YAML
//! kind. Each refuses what it does not take with what to write instead.

use super::reader::Reader;
use super::source::Spanned;
use super::yaml::Node;

impl Reader {
    /// A whole number within bounds.
    pub fn whole(&mut self, key: &str, node: &Spanned<Node>, min: u64, max: u64) -> Option<u64> {
        let Node::Number(number) = &node.value else {
            self.wrong_kind(key, node, "a whole number", None);
            return None;
        };
        let found = number.as_u64().filter(|n| (min..=max).contains(n));
        if found.is_none() {
            self.error(node.span, format!("`{key}` must be a whole number from {min} to {max}"));
        }
        found
    }

    /// A whole number that may be negative.
    pub fn integer(&mut self, key: &str, node: &Spanned<Node>) -> Option<i64> {
        let Node::Number(number) = &node.value else {
            self.wrong_kind(key, node, "a whole number", None);
            return None;
        };
        let found = number.as_i64();
        if found.is_none() {
            self.error(node.span, format!("`{key}` must be a whole number of at most 64 bits"));
        }
        found
    }

    /// A number within bounds.
    pub fn number(&mut self, key: &str, node: &Spanned<Node>, min: f64, max: f64) -> Option<f64> {
        let Node::Number(number) = &node.value else {
            self.wrong_kind(key, node, "a number", None);
            return None;
        };
        let found = number.as_f64().filter(|n| (min..=max).contains(n));
        if found.is_none() {
            self.error(node.span, format!("`{key}` must be a number from {min} to {max}"));
        }
        found
    }

    /// A part of a whole: `20%` or `0.2`.
    pub fn share(&mut self, key: &str, node: &Spanned<Node>) -> Option<f64> {
        let found = match &node.value {
            Node::Number(number) => number.as_f64(),
            Node::Text(text) => {
                text.trim().strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n / 100.0)
            }
            _ => {
                self.wrong_kind(key, node, "a share", Some("write e.g. `20%`".to_owned()));
                return None;
            }
        };
        let found = found.filter(|n| (0.0..=1.0).contains(n));
        if found.is_none() {
            let written = self.written(node.span).escape_debug().to_string();
            let message = format!("`{written}` is not a share between 0% and 100%");
            self.error_help(node.span, message, "write e.g. `20%`");
        }
        found
    }

    /// `on` or `off`, which YAML reads as text.
    pub fn switch(&mut self, key: &str, node: &Spanned<Node>) -> Option<bool> {
        let help = match &node.value {
            Node::Text(text) if text == "on" => return Some(true),
            Node::Text(text) if text == "off" => return Some(false),
            Node::Bool(true) => "write `on`",
            Node::Bool(false) => "write `off`",
            _ => "write `on` or `off`",
        };
        self.wrong_kind(key, node, "`on` or `off`", Some(help.to_owned()));
        None
    }

    /// An http or https address without a user name.
    pub fn address(&mut self, key: &str, node: &Spanned<Node>) -> Option<url::Url> {
        let text = self.filled(key, node)?;
        let url = match url::Url::parse(text.trim()) {
            Ok(url) => url,
            Err(e) => {
                let help = "write an address such as `https://hooks.example/matins`";
                self.error_help(node.span, format!("this is no URL: {e}"), help);
                return None;
            }
        };
        if !matches!(url.scheme(), "http" | "https") {
            let message = format!("a request is sent by http or https, not by `{}`", url.scheme());
            self.error_help(node.span, message, "write a URL that begins with `https://`");
            return None;
        }
        if !url.username().is_empty() || url.password().is_some() {
            let message = "a URL with a user name or password ends up in logs";
            self.error_help(node.span, message, "remove the part before the `@`");
            return None;
        }
        Some(url)
    }

    /// A name of lower-case letters, digits and `-`, at most 63 characters.
    pub fn name(&mut self, what: &str, node: &Spanned<Node>) -> Option<String> {
        let text = self.filled(what, node)?;
        self.check_name(what, &Spanned { value: text, span: node.span })
    }

    /// As [`Reader::name`], of a key.
    pub fn check_name(&mut self, what: &str, key: &Spanned<String>) -> Option<String> {
        if is_name(&key.value) {
            return Some(key.value.clone());
        }
        let message = format!("`{}` is no name of {what}", key.value.escape_debug());
        self.error_help(key.span, message, "use a-z, 0-9 and -, at most 63 characters");
        None
    }
}

/// Whether a text is `[a-z0-9][a-z0-9-]{0,62}`.
fn is_name(text: &str) -> bool {
    const LONGEST: usize = 63;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| plain(b) || b == b'-')
        && text.bytes().next().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "a-b", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a b", "ä", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
