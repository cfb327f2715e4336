//! The tree: strict scalars, places, duplicate keys, bombs.

use serde_json::{Value, json};

use super::super::source::Spanned;
use super::super::yaml::*;

fn json_of(text: &str) -> Value {
    to_json(&parse(text, 0).unwrap().value)
}

#[test]
fn scalars_are_read_strictly() {
    assert_eq!(
        json_of("[no, on, yes, 017, 1_000, 0x1F, 1e3, .5, ~, null, true, False, 12:30, '5', 2026-01-01]"),
        json!([
            "no",
            "on",
            "yes",
            "017",
            "1_000",
            31,
            1000.0,
            0.5,
            null,
            null,
            true,
            false,
            "12:30",
            "5",
            "2026-01-01"
        ])
    );
    assert!(parse("x: .nan", 0).is_err());
    assert_eq!(json_of("{1: a, true: b, 0.50: c}"), json!({"1": "a", "true": "b", "0.50": "c"}));
}

#[test]
fn large_numbers_keep_every_digit_or_are_refused() {
    assert_eq!(
        json_of("[18446744073709551615, -9223372036854775808, 9007199254740993, 0xFFFFFFFFFFFFFFFF]"),
        json!([u64::MAX, i64::MIN, 9_007_199_254_740_993_u64, u64::MAX])
    );
    for large in
        ["18446744073709551616", "-9223372036854775809", "1234567890123456789012345678901234567890123"]
    {
        let error = parse(&format!("x: [1, {large}]"), 0).unwrap_err().remove(0);
        assert_eq!(error.message, "this whole number is longer than 64 bits and would lose digits");
        assert_eq!(error.help, Some(format!("write it as text: \"{large}\"")));
        assert_eq!((error.span.line, error.span.column), (1, 8));
    }
    assert_eq!(json_of("0x10000000000000000"), json!("0x10000000000000000"), "as text it keeps them");
}

fn walk(text: &str, node: &Spanned<Node>, seen: &mut Vec<String>) {
    assert_eq!(node.span.source, 7);
    match &node.value {
        Node::Seq(items) => items.iter().for_each(|n| walk(text, n, seen)),
        Node::Map(entries) => entries.iter().for_each(|(_, n)| walk(text, n, seen)),
        _ => seen.push(format!(
            "{}:{} {:?}",
            node.span.line,
            node.span.column,
            &text[node.span.start..node.span.end]
        )),
    }
}

#[test]
fn every_value_knows_its_place() {
    let text = "a: 1\nb:\n  - x\n  - {c: \"ä\", d: [y]}\ne: |\n  one\n  two\nf:\n";
    let root = parse(text, 7).unwrap();
    let mut seen = Vec::new();
    walk(text, &root, &mut seen);
    assert_eq!(
        seen,
        ["1:4 \"1\"", "3:5 \"x\"", "4:9 \"\\\"ä\\\"\"", "4:18 \"y\"", "6:3 \"one\\n  two\\n\"", "8:1 \"f\"",],
        "a block begins at its first line, an empty value is at its key"
    );
}

#[test]
fn a_pointer_leads_to_its_place() {
    let text = "a:\n  - {b: 1}\n  - 2\n\"c/d\":\n  e: [3]\n";
    let root = parse(text, 0).unwrap();
    let at = |pointer| {
        let span = locate(&root, pointer);
        (span.line, span.column)
    };
    assert_eq!(at(""), (1, 1));
    assert_eq!(at("/a"), (1, 1), "a container is at its key");
    assert_eq!(at("/a/0/b"), (2, 9));
    assert_eq!(at("/a/1"), (3, 5));
    assert_eq!(at("/c~1d/e/0"), (5, 7));
    assert_eq!(at("/a/0/none/x"), (2, 5), "the deepest place there is");
}

fn errors_of(text: &str) -> Vec<String> {
    let errors = parse(text, 0).unwrap_err();
    let show = |e: &SyntaxError| format!("{}:{} {}", e.span.line, e.span.column, e.message);
    errors.iter().map(show).collect()
}

#[test]
fn all_duplicate_keys_are_told() {
    assert_eq!(
        errors_of("a: 1\nb: {c: 1, c: 2}\na: 3\nd: [{e: 1, \"e\": 2}]\n"),
        ["2:11 duplicate key `c`", "4:12 duplicate key `e`", "3:1 duplicate key `a`"]
    );
    let help = parse("a: 1\na: 3\n", 0).unwrap_err().remove(0).help;
    assert_eq!(help.as_deref(), Some("it is already given in line 1; remove one of the two"));
}

#[test]
fn mistakes_have_a_place() {
    let texts = [
        "a: [1, 2\n",
        "a: b: c\n",
        "a: 1\n---\nb: 2\n",
        "a:\n\t- b\n",
        "a: *none\n",
        "a: &x [*x]\n",
        "a: !include /etc/passwd\n",
        "? [a]\n: b\n",
        "'a: 1\n",
        "~: 1\n",
        "a: \"\\q\"\n",
        "a: 1\n b: 2\n",
        "@x: 1",
    ];
    let got: Vec<_> = texts.iter().flat_map(|text| errors_of(text)).collect();
    assert_eq!(
        got,
        [
            "1:4 unclosed bracket '['",
            "1:5 mapping values are not allowed in this context",
            "3:1 a second document begins here",
            "2:2 tabs disallowed within this context (block indentation)",
            "1:4 reference to unknown value",
            "1:8 Recursive reference not allowed here",
            "1:13 unsupported tag `!include`",
            "1:3 expected string scalar",
            "1:1 unclosed quote",
            "1:1 null is not allowed here",
            "1:4 while parsing a quoted scalar, found unknown escape character",
            "2:3 mapping values are not allowed in this context",
            "1:1 unexpected character: `@'"
        ]
    );
}

#[test]
fn a_mistake_of_the_signs_shows_its_line_and_what_helps() {
    for (text, at, line, help) in [
        ("name: x\nexecutor:\n\ttype: command\n", (3, 2), "\ttype: command", "indent with spaces"),
        ("name: x\nschedules:\n  - cron: * * * * *\n", (3, 11), "  - cron: * * * * *", "cron: \"* * * * *\""),
        ("name: ä\nprompt: \"ü\\d+\"\n", (2, 9), "prompt: \"ü\\d+\"", "a backslash begins an escape"),
        ("name: x\nlimits:\n  cpu: 1\n memory: 1G\n", (4, 2), " memory: 1G", "begin in the same column"),
        ("name: x\nlimits:\n  cpu: 1\n   memory: 1G\n", (4, 10), "   memory: 1G", "begin in the same column"),
        ("name: x\nname: y: z\n", (2, 8), "name: y: z", "holds `: `"),
        ("name: x\nprompt: {{ a }\n", (2, 9), "prompt: {{ a }", "quotes"),
        ("name: x\nskills: [a, b\n", (2, 9), "skills: [a, b", "closed by `]`"),
        ("name: x\nskills: [a }\n", (2, 9), "skills: [a }", "closed by `]`"),
        ("name: x\nprompt: \"open\n", (2, 14), "prompt: \"open", "one is missing"),
    ] {
        let found = parse(text, 0).unwrap_err().remove(0);
        assert_eq!((found.span.line, found.span.column), at, "{text:?}: {found:?}");
        assert!(found.help.as_deref().is_some_and(|h| h.contains(help)), "{text:?}: {found:?}");
        let source = super::super::Source::named("a.yaml", super::super::Origin::File, text);
        let severity = super::super::Severity::Error;
        let problem = super::super::Problem::at(&source, found.span, severity, found.message, found.help);
        let shown = problem.rendered();
        assert!(shown.contains(&line.replace('\t', "    ")), "{text:?}: {shown}");
    }
}

#[test]
fn bombs_are_refused() {
    let levels: Vec<_> =
        (1..10).map(|i| format!("a{i}: &a{i} [{}]", vec![format!("*a{}", i - 1); 10].join(", "))).collect();
    let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}\n", levels.join("\n"));
    let brackets = "[".repeat(20_000);
    let steps: Vec<_> = (0..200).map(|i| format!("{}a:", " ".repeat(i))).collect();
    let deep_block = steps.join("\n");
    let wide = "- x\n".repeat(MAX_NODES + 1);
    let keys = "a: ".repeat(10_000);
    let got: Vec<_> =
        [&bomb, &brackets, &deep_block, &wide, &keys].iter().flat_map(|text| errors_of(text)).collect();
    assert_eq!(
        got,
        [
            "5:10 this document is too large or too deeply nested",
            "1:33 recursion limit exceeded",
            "33:33 this document is too large or too deeply nested",
            "20000:3 this document is too large or too deeply nested",
            "1:5 mapping values are not allowed in this context"
        ]
    );
    assert!(parse(&"- x\n".repeat(MAX_NODES - 1), 0).is_ok(), "the limit itself is fine");
}

#[test]
fn an_empty_document_is_nothing() {
    for text in ["", "# only a comment\n", "---\n", "~"] {
        assert_eq!(json_of(text), Value::Null, "{text:?}");
    }
}
