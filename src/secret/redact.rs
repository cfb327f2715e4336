//! Replaces known secret values in a stream of bytes by `[redacted:NAME]`.
//!
//! The decision at a byte depends only on the bytes that follow it, never on where the chunks end: a byte
//! is held back exactly while what follows could still become a secret. So a live tail lags by at most a
//! beginning of a secret, and redacting in chunks equals redacting the whole. Overlapping secrets are
//! covered by the union of their places: nothing of the second shows behind the marker of the first.
//!
//! A value is found as it is and as it stands in an address or a form that was sent: any of its bytes may be `%XX`, a space
//! also `+`, since who writes an address escapes more or less as they please. A value of several lines is also matched line by
//! line (8 bytes and more), and a value that JSON would escape also in that form.
//!
//! Not redacted: values under 4 bytes, which would destroy ordinary output, and what a program has made of a value
//! (Base64, a hash, its letters apart).

use std::sync::Arc;

/// Shortest value that is redacted, bytes.
const VALUE_MIN: usize = 4;
/// Shortest line of a value of several lines that is redacted on its own, bytes.
const LINE_MIN: usize = 8;

/// What to look for and what to write in its place.
#[derive(Clone)]
struct Pattern {
    bytes: Vec<u8>,
    marker: Vec<u8>,
    /// A percent sign of it is never escaped: with what follows it may look like the escape of one.
    percent_is_plain: bool,
}

/// A streaming replacement; one per stream.
#[derive(Clone)]
pub struct Redactor {
    /// Longest first: of two that are found as long, the one with the longer value counts.
    patterns: Arc<[Pattern]>,
    /// Which bytes begin a pattern.
    starts: [bool; 256],
    /// Bytes that could still become a secret.
    held: Vec<u8>,
    /// How many of the next bytes belong to a secret that was already marked.
    covered: usize,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("patterns", &self.patterns.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// A redactor for these secrets, given as name and value.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut patterns: Vec<Pattern> = Vec::new();
        for (name, value) in secrets {
            let marker = format!("[redacted:{name}]").into_bytes();
            for bytes in forms(value) {
                if !patterns.iter().any(|p| p.bytes == bytes) {
                    let pattern = Pattern { bytes, marker: marker.clone(), percent_is_plain: false };
                    if pattern.bytes.contains(&b'%') {
                        patterns.push(Pattern { percent_is_plain: true, ..pattern.clone() });
                    }
                    patterns.push(pattern);
                }
            }
        }
        patterns.sort_by_key(|p| std::cmp::Reverse(p.bytes.len()));
        let mut starts = [false; 256];
        for first in patterns.iter().filter_map(|p| p.bytes.first()) {
            let others = if *first == b' ' { b"%+".as_slice() } else { b"%" };
            for byte in others.iter().chain([first]) {
                starts[usize::from(*byte)] = true;
            }
        }
        Self { patterns: patterns.into(), starts, held: Vec::new(), covered: 0 }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Takes the next bytes of the stream and appends to `out` what may be shown.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.is_idle() {
            out.extend_from_slice(chunk);
            return;
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(chunk);
        let done = self.scan(&data, out, false);
        data.drain(..done);
        self.held = data;
    }

    /// The stream has ended: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let data = std::mem::take(&mut self.held);
        self.scan(&data, out, true);
        self.covered = 0;
    }

    /// The rest of the stream is not shown: drops what was held back.
    pub fn forget(&mut self) {
        self.held.clear();
        self.covered = 0;
    }

    /// Redacts a whole text at once.
    #[must_use]
    pub fn redact(&self, text: &[u8]) -> Vec<u8> {
        let (mut fresh, mut out) = (Self { held: Vec::new(), covered: 0, ..self.clone() }, Vec::new());
        fresh.push(text, &mut out);
        fresh.finish(&mut out);
        out
    }

    /// Redacts the beginning of a text whose rest is not shown: a secret that begins in it is not shown either.
    #[must_use]
    pub fn redact_beginning(&self, text: &[u8]) -> Vec<u8> {
        let (mut fresh, mut out) = (Self { held: Vec::new(), covered: 0, ..self.clone() }, Vec::new());
        fresh.push(text, &mut out);
        out
    }

    /// Decides byte after byte; how many bytes of `data` are decided. At the end nothing more can follow.
    fn scan(&mut self, data: &[u8], out: &mut Vec<u8>, at_end: bool) -> usize {
        let mut i = 0;
        while i < data.len() {
            i = self.skip(data, i, out);
            let Some(rest) = data.get(i..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let mut longest: Option<(usize, &Pattern)> = None;
            for pattern in self.patterns.iter() {
                let found = pattern.found(rest);
                if found.goes_on && !at_end {
                    return i;
                }
                if let Some(length) = found.length.filter(|length| longest.is_none_or(|(l, _)| *length > l)) {
                    longest = Some((length, pattern));
                }
            }
            if let Some((length, pattern)) = longest {
                if self.covered == 0 {
                    out.extend_from_slice(&pattern.marker);
                }
                self.covered = self.covered.max(length);
            }
            self.emit(rest.get(..1).unwrap_or_default(), out);
            i += 1;
        }
        data.len()
    }

    /// Passes bytes that begin no pattern; the index of the first that does.
    fn skip(&mut self, data: &[u8], from: usize, out: &mut Vec<u8>) -> usize {
        let rest = data.get(from..).unwrap_or_default();
        let plain = rest.iter().position(|b| self.starts[usize::from(*b)]).unwrap_or(rest.len());
        self.emit(rest.get(..plain).unwrap_or_default(), out);
        from + plain
    }

    /// Shows bytes, except those that a marker already stands for.
    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let hidden = self.covered.min(bytes.len());
        self.covered -= hidden;
        out.extend_from_slice(bytes.get(hidden..).unwrap_or_default());
    }
}

/// What of a value is at the beginning of a text.
struct Found {
    /// How long it is there, where it is whole.
    length: Option<usize>,
    /// More text could make it whole, or longer.
    goes_on: bool,
}

impl Pattern {
    /// Looks for it at the beginning of a text, each byte as it is or escaped.
    fn found(&self, text: &[u8]) -> Found {
        let (mut at, mut goes_on) = (0, false);
        for byte in &self.bytes {
            let rest = text.get(at..).unwrap_or_default();
            let Some(first) = rest.first() else { return Found { length: None, goes_on: true } };
            let plain = first == byte || (*first == b'+' && *byte == b' ');
            let own = self.percent_is_plain && *byte == b'%';
            at += match if own { Some(false) } else { escaped(*byte, rest) } {
                Some(true) => 3,
                undecided if plain => {
                    goes_on |= undecided.is_none();
                    1
                }
                undecided => return Found { length: None, goes_on: goes_on || undecided.is_none() },
            };
        }
        Found { length: Some(at), goes_on }
    }
}

/// Whether a text begins with this byte as `%XX`; `None`: it ends before that is told.
fn escaped(byte: u8, text: &[u8]) -> Option<bool> {
    let digit = |n: u8| b"0123456789ABCDEF".get(usize::from(n)).copied().unwrap_or_default();
    let form = [b'%', digit(byte >> 4), digit(byte & 15)];
    let same = text.iter().zip(form).all(|(one, other)| one.to_ascii_uppercase() == other);
    (!same || text.len() >= form.len()).then_some(same)
}

/// The forms in which a value is looked for.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    if value.len() >= VALUE_MIN {
        forms.push(value.to_owned());
    }
    if value.contains('\n') {
        let lines = value.lines().filter(|line| line.len() >= LINE_MIN);
        forms.extend(lines.map(str::to_owned));
    }
    let escaped: Vec<String> = forms.iter().filter_map(|form| json_escaped(form)).collect();
    forms.extend(escaped);
    forms.into_iter().map(String::into_bytes).collect()
}

/// The value as it stands inside a JSON string, where that differs.
fn json_escaped(value: &str) -> Option<String> {
    let quoted = serde_json::to_string(value).ok()?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    (inner != value).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(secrets: &[(&str, &str)], input: &str) -> String {
        let out = Redactor::new(secrets.iter().copied()).redact(input.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_replaced_by_their_names() {
        let one = [("KEY", "hunter2")];
        assert_eq!(text(&one, "a hunter2 b hunter2"), "a [redacted:KEY] b [redacted:KEY]");
        assert_eq!(text(&one, "hunter2hunter2"), "[redacted:KEY][redacted:KEY]");
        assert_eq!(text(&one, "hunter, hunterhunter2"), "hunter, hunter[redacted:KEY]");
        assert_eq!(text(&[("A", "abc")], "abc"), "abc", "too short to redact");
        assert_eq!(text(&[], "abc"), "abc");
    }

    #[test]
    fn overlapping_and_nested_values_leave_no_rest() {
        assert_eq!(text(&[("A", "abcdef"), ("B", "defghi")], "xabcdefghiy"), "x[redacted:A]y");
        assert_eq!(text(&[("A", "abcd"), ("B", "abcdefgh")], "abcdefgh abcde"), "[redacted:B] [redacted:A]e");
        assert_eq!(text(&[("A", "aaaa")], "aaaaaa!"), "[redacted:A]!");
    }

    #[test]
    fn lines_and_json_forms_are_found() {
        let key = [("KEY", "-----BEGIN-----\nabcdefgh\"1\nxy\n-----END-----")];
        assert_eq!(text(&key, "> abcdefgh\"1 <"), "> [redacted:KEY] <");
        assert_eq!(text(&key, "xy stays"), "xy stays");
        assert_eq!(
            text(&key, r#"{"k":"-----BEGIN-----\nabcdefgh\"1\nxy\n-----END-----"}"#),
            r#"{"k":"[redacted:KEY]"}"#
        );
    }

    #[test]
    fn values_are_found_as_addresses_and_forms_have_them() {
        let key = [("KEY", "a+b c/ü%41%25")];
        for form in [
            "a+b c/ü%41%25",
            "a%2Bb+c%2F%C3%BC%2541%2525",
            "a%2bb%20c%2f%c3%bc%2541%2525",
            "a+b%20c/%C3%BC%41%25",
            "%61%2B%62%20%63%2F%C3%BC%25%34%31%25%32%35",
        ] {
            assert_eq!(text(&key, &format!("?p={form}&q=%2")), "?p=[redacted:KEY]&q=%2", "{form}");
        }
        assert_eq!(text(&key, "a%2Bb+c%2Fu"), "a%2Bb+c%2Fu");
        assert_eq!(text(&[("P", "pass%2")], "pass%25"), "[redacted:P]5");
        assert_eq!(text(&[("P", "abc%")], "abc% abc%25 abc%"), "[redacted:P] [redacted:P] [redacted:P]");
        assert_eq!(text(&[("P", " 123")], "+123%20123"), "[redacted:P][redacted:P]");
    }

    #[test]
    fn of_a_text_that_is_cut_no_beginning_of_a_secret_is_shown() {
        let r = Redactor::new([("KEY", "hunter2")]);
        let cut = |text: &str| String::from_utf8(r.redact_beginning(text.as_bytes())).unwrap();
        assert_eq!((cut("a hunt"), cut("a h%75n")), ("a ".to_owned(), "a ".to_owned()));
        assert_eq!((cut("hunter2 x"), cut("hunting")), ("[redacted:KEY] x".to_owned(), "hunting".to_owned()));
    }

    #[test]
    fn only_a_beginning_of_a_secret_is_held_back() {
        let mut r = Redactor::new([("KEY", "hunter2")]);
        let mut out = Vec::new();
        r.push(b"line\nhunt", &mut out);
        assert_eq!(out, b"line\n");
        r.push(b"ing\n", &mut out);
        assert_eq!(out, b"line\nhunting\n");
        r.push(b"hun", &mut out);
        r.finish(&mut out);
        assert_eq!(out, b"line\nhunting\nhun");
    }

    #[test]
    fn the_debug_form_shows_no_secret() {
        let mut r = Redactor::new([("KEY", "hunter2")]);
        r.push(b"hunt", &mut Vec::new());
        assert!(!format!("{r:?}").contains("hunt"));
    }

    proptest! {
        // The letters of the secrets are not those of the markers, so a marker cannot spell a secret.
        #[test]
        fn chunks_do_not_matter_and_no_secret_passes(
            secrets in proptest::collection::vec("[xy\n %25]{1,12}", 0..4),
            input in "([xyz\n +]|%25|%20|%7|%){0,200}",
            cuts in proptest::collection::vec(0_usize..200, 0..12),
        ) {
            let named: Vec<(String, String)> =
                secrets.iter().enumerate().map(|(i, s)| (format!("N{i}"), s.clone())).collect();
            let redactor = Redactor::new(named.iter().map(|(n, s)| (n.as_str(), s.as_str())));
            let whole = redactor.redact(input.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c <= input.len()).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let (mut streaming, mut out) = (redactor.clone(), Vec::new());
            for pair in cuts.windows(2) {
                streaming.push(&input.as_bytes()[pair[0]..pair[1]], &mut out);
            }
            streaming.finish(&mut out);
            prop_assert_eq!(&out, &whole);
            let shown = String::from_utf8(out).unwrap();
            for secret in secrets.iter().filter(|s| s.len() >= VALUE_MIN) {
                prop_assert!(!shown.contains(secret.as_str()), "{:?} in {:?}", secret, shown);
            }
            if secrets.iter().all(|s| s.len() < VALUE_MIN) {
                prop_assert_eq!(shown, input);
            }
        }

        #[test]
        fn no_form_of_a_secret_passes(secret in "[ -~é]{4,20}", which in proptest::collection::vec(any::<(bool, bool)>(), 40)) {
            let encoded: String = secret.bytes().zip(which).map(|(byte, (escape, small))| match byte {
                b' ' if small => "+".to_owned(),
                byte if escape || !byte.is_ascii() || byte == b'%' => {
                    if small { format!("%{byte:02x}") } else { format!("%{byte:02X}") }
                }
                byte => char::from(byte).to_string(),
            }).collect();
            prop_assert_eq!(text(&[("\t", &secret)], &format!("\n{encoded}\n")), "\n[redacted:\t]\n");
        }
    }
}
