//! What usually lies behind a mistake in the YAML itself. The parser says what it met, in the words of
//! the grammar; whoever writes a definition wants to know which character to change.

/// What to write instead, by the place of the mistake and what the parser said.
pub(super) fn of(text: &str, at: usize, said: &str) -> Option<&'static str> {
    let rest = text.get(at..)?;
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |i| i + 1);
    let line = text.get(line_start..)?.lines().next().unwrap_or("");
    let before = text.get(line_start..at)?;
    if line.contains("{{") && !line.contains(['"', '\'']) {
        return Some("a text with `{{` needs quotes (`\"{{ .. }}\"`), or a block that begins with `|`");
    }
    by_message(said, before).or_else(|| by_character(rest))
}

fn by_message(said: &str, before: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    Some(match () {
        () if says(&["tab"]) && !says(&["table"]) => "indent with spaces, not with tabs",
        () if says(&["escape"]) => {
            "in double quotes a backslash begins an escape: write `\\\\` for one, or put the text into single quotes"
        }
        () if says(&["anchor or alias"]) => {
            "a text that begins with `*` or `&` needs quotes: `cron: \"* * * * *\"`"
        }
        () if says(&["quoted scalar", "end of stream"]) => {
            "a text in quotes ends with the quote that it begins with: one is missing in this line or above"
        }
        () if says(&["bracket", "flow sequence", "flow mapping", "',' or"]) => {
            "each `[` is closed by `]` and each `{` by `}`, with commas between the entries"
        }
        () if says(&["mapping values are not allowed"]) && before.contains(": ") => {
            "a text that holds `: ` needs quotes"
        }
        () if says(&["mapping values are not allowed", "expected key", "block", "indent"]) => {
            "keys of one map begin in the same column: this line is indented otherwise than those around it"
        }
        () if says(&["expected ':'", "could not find expected"]) => "a key is followed by `:` and a blank",
        () => return None,
    })
}

fn by_character(rest: &str) -> Option<&'static str> {
    match rest.chars().next()? {
        '\t' => Some("indent with spaces, not with tabs"),
        '*' | '&' | '@' | '`' | '%' | '!' | '|' | '>' => {
            Some("a text that begins with this character needs quotes")
        }
        ':' if rest.starts_with(": ") => Some("a text that holds `: ` needs quotes"),
        _ => None,
    }
}
