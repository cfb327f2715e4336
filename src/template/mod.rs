//! Templates: the one user of `minijinja`.
//!
//! A prompt is a whole template; in the elements of a command only `{{ }}` is one, so that a shell's
//! `${#x}` and a format's `{%d` pass unchanged. For that the block and comment openers are set to
//! texts that begin with NUL, which no argument of a program can hold and which is refused here.
//!
//! A template costs a bounded amount of work and of output: [`FUEL`] instructions and
//! [`MAX_OUTPUT`] bytes. What is undefined is an error, never an empty string: a prompt with a hole
//! in it would be run and paid for. Nothing is escaped: output is text for a model or an argument.
//! Values are data, so text from a caller that holds `{{` stays as it is.

use std::collections::BTreeSet;
use std::io;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;

/// Most instructions of one rendering.
pub const FUEL: u64 = 1_000_000;
/// Most bytes that one rendering gives.
pub const MAX_OUTPUT: usize = 16 << 20;

/// Why a template cannot be used or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Line in the template, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Error {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

static PROMPT: LazyLock<Environment<'static>> = LazyLock::new(|| environment(false));
static COMMAND: LazyLock<Environment<'static>> = LazyLock::new(|| environment(true));

/// Checks the syntax of a prompt.
pub fn check(source: &str) -> Result<(), Error> {
    names(source).map(|_| ())
}

/// The top-level names that a prompt asks its context for.
pub fn names(source: &str) -> Result<BTreeSet<String>, Error> {
    let template = PROMPT.template_from_str(source).map_err(|e| describe(&e))?;
    let known: BTreeSet<&str> = PROMPT.globals().map(|(name, _)| name).collect();
    let mut names: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
    names.retain(|name| !known.contains(name.as_str()));
    Ok(names)
}

/// Renders a prompt. `context` is an object; its keys are the names that the template sees.
pub fn render(source: &str, context: &Value) -> Result<String, Error> {
    render_with(&PROMPT, source, context)
}

/// Checks one element of a command, in which only `{{ }}` is a template.
pub fn check_command(source: &str) -> Result<(), Error> {
    refuse_nul(source)?;
    COMMAND.template_from_str(source).map(|_| ()).map_err(|e| describe(&e))
}

/// Renders one element of a command, in which only `{{ }}` is a template.
pub fn render_command(source: &str, context: &Value) -> Result<String, Error> {
    refuse_nul(source)?;
    let out = render_with(&COMMAND, source, context)?;
    refuse_nul(&out)?;
    Ok(out)
}

/// Whether text holds something that [`render_command`] would replace.
#[must_use]
pub fn is_dynamic_command(source: &str) -> bool {
    source.contains("{{")
}

fn refuse_nul(text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(Error::new(1, "an argument of a program cannot hold a NUL character"));
    }
    Ok(())
}

fn environment(command: bool) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_debug(true);
    env.add_filter("tojson", to_json);
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    if command {
        syntax.block_delimiters("\0%", "%\0").comment_delimiters("\0#", "#\0");
    }
    // The delimiters are distinct and not empty, the only two things that can be wrong with them.
    if let Ok(syntax) = syntax.build() {
        env.set_syntax(syntax);
    }
    env
}

/// `value|tojson` and `value|tojson(indent=true)`. The library's own filter escapes `<`, `>`, `&`
/// and `'` for HTML, which only spoils text that a model reads.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn to_json(value: &minijinja::Value, kwargs: minijinja::value::Kwargs) -> Result<String, minijinja::Error> {
    let pretty = kwargs.get::<Option<bool>>("indent")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|e| {
        minijinja::Error::new(ErrorKind::InvalidOperation, "the value cannot be written as JSON")
            .with_source(e)
    })
}

/// "undefined value" alone helps nobody: the expression is named.
fn name_undefined(described: Error, e: &minijinja::Error, source: &str) -> Error {
    match e.range().and_then(|range| source.get(range)) {
        Some(expression) if e.kind() == ErrorKind::UndefinedError => {
            Error::new(described.line, format!("line {}: `{expression}` is undefined", described.line))
        }
        _ => described,
    }
}

fn render_with(env: &Environment<'_>, source: &str, context: &Value) -> Result<String, Error> {
    let template = env.template_from_str(source).map_err(|e| describe(&e))?;
    let mut out = Capped(Vec::new());
    template
        .render_captured_to(minijinja::value::Serde(context), &mut out)
        .map_err(|e| name_undefined(describe(&e), &e, source))?;
    String::from_utf8(out.0).map_err(|_| Error::new(1, "the output is not UTF-8"))
}

/// Collects output up to [`MAX_OUTPUT`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn describe(error: &minijinja::Error) -> Error {
    let message = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("the template takes more than {FUEL} steps"),
        (ErrorKind::WriteFailure, _) => format!("the output is longer than {} MiB", MAX_OUTPUT >> 20),
        (ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    Error::new(error.line().unwrap_or(1).max(1), message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_is_a_template() {
        let ctx = json!({"input": {"site": "https://a.example/?x=1&y=<2>", "n": [1, 2]}});
        let got =
            render("Look at {{ input.site }}.\n{% for i in input.n %}{{ i }},{% endfor %}{# no #}\n", &ctx);
        assert_eq!(got.as_deref(), Ok("Look at https://a.example/?x=1&y=<2>.\n1,2,\n"));
    }

    #[test]
    fn json_is_plain() {
        let ctx = json!({"v": {"b": "<it's & ä>", "a": [1, null, true]}});
        assert_eq!(render("{{ v|tojson }}", &ctx).as_deref(), Ok(r#"{"a":[1,null,true],"b":"<it's & ä>"}"#));
        assert_eq!(
            render("{{ v.a|tojson(indent=true) }}", &ctx).as_deref(),
            Ok("[\n  1,\n  null,\n  true\n]")
        );
    }

    #[test]
    fn what_is_undefined_is_an_error_with_its_line() {
        for source in ["a\nb {{ input.sight }}", "a\n{{ nothing }}", "\n{% if nothing %}x{% endif %}"] {
            let error = render(source, &json!({"input": {}})).unwrap_err();
            assert_eq!(error.line, 2, "{source}: {error}");
            assert!(error.message.contains("undefined"), "{error}");
        }
        assert_eq!(render("{{ input.a|default('x') }}", &json!({"input": {}})).as_deref(), Ok("x"));
    }

    #[test]
    fn syntax_is_checked_with_its_line() {
        let error = check("a\nb\n{% if %}").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(check("{{ a ").is_err());
        assert_eq!(check("{{ a }}"), Ok(()));
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(check(&deep).is_err(), "deep nesting is refused, not a crash");
    }

    #[test]
    fn names_are_those_of_the_context() {
        assert_eq!(names("{% for i in range(2) %}{{ loop.index }}{% endfor %}").map(|n| n.len()), Ok(0));
        let names =
            names("{{ input.a }}{% set x = run.id %}{{ x }}{% for i in window.l %}{{ i }}{% endfor %}")
                .unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["input", "run", "window"]);
    }

    #[test]
    fn work_and_output_are_limited() {
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(render(endless, &json!({})).unwrap_err().message.contains("steps"));
        let ctx = json!({"x": "x".repeat(1 << 20)});
        assert_eq!(render(&"{{ x }}".repeat(16), &ctx).map(|s| s.len()), Ok(MAX_OUTPUT));
        let over = render(&format!("{}y", "{{ x }}".repeat(16)), &ctx).unwrap_err();
        assert_eq!(over.message, "the output is longer than 16 MiB");
    }

    #[test]
    fn other_templates_cannot_be_reached() {
        assert!(render("{% include '/etc/passwd' %}", &json!({})).is_err());
    }

    #[test]
    fn in_a_command_only_expressions_are_templates() {
        let ctx = json!({"input": {"n": 3, "t": "{{ input.n }} {% x %}"}});
        for verbatim in ["${#x}", "{% if %}", "{# a #}", "%}", "{ {", "a\n", "#}", "{%- raw -%}"] {
            assert_eq!(render_command(verbatim, &ctx).as_deref(), Ok(verbatim));
            assert_eq!(check_command(verbatim), Ok(()));
        }
        assert_eq!(render_command("${#x} {{ input.n }} {%d", &ctx).as_deref(), Ok("${#x} 3 {%d"));
        let values_are_data = render_command("{{ input.t }}", &ctx);
        assert_eq!(values_are_data.as_deref(), Ok("{{ input.n }} {% x %}"));
        assert!(check_command("{{ input.n").is_err());
        assert!(render_command("{{ nothing }}", &ctx).is_err());
        assert!(check_command("a\0%b").is_err());
        assert!(render_command("{{ x }}", &json!({"x": "\u{0}"})).is_err(), "an argument holds no NUL");
    }

    proptest! {
        #[test]
        fn a_command_without_expressions_is_verbatim(text in "[a-z{%#}$ \n\\\\'-]{0,40}") {
            prop_assume!(!text.contains("{{"));
            prop_assert_eq!(render_command(&text, &json!({})), Ok(text));
        }
    }
}
