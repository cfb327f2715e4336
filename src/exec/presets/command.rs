//! The arguments that a preset adds to the command of a definition.
//!
//! What the definition says itself is never said twice: a permission mode, a sandbox or an approval mode that stands in
//! `command` is the one that holds; how the output is printed is the preset's. Without a mode the tool may write in its working directory, as any program of a run
//! may, and whatever else would need somebody's leave is denied, not waited for.

use serde_json::Value;

use super::place::Conversation;
use crate::model::{Preset, Protocol};

/// What a run asks of a tool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Which tool.
    pub tool: Protocol,
    /// The limits.
    pub preset: &'a Preset,
    /// The model's name as the tool knows it.
    pub model: Option<&'a str>,
    /// The run's folder.
    pub run_dir: &'a str,
    /// The file with the result schema, and what it holds.
    pub schema: Option<(&'a str, &'a Value)>,
    /// Ids of the skills that are seeded.
    pub skills: &'a [String],
    /// Whether the working directory is the session's workspace.
    pub in_workspace: bool,
    /// Whether the run is confined already, by us.
    pub sandboxed: bool,
    /// The conversation to go on with.
    pub conversation: Option<&'a Conversation>,
}

/// The whole command, and what is added to the prompt; empty: nothing.
#[must_use]
pub fn command(words: Vec<String>, ask: &Ask<'_>) -> (Vec<String>, String) {
    let mut words = Words(words);
    match ask.tool {
        Protocol::Claude => claude(&mut words, ask),
        Protocol::Codex => codex(&mut words, ask),
        Protocol::Gemini => gemini(&mut words, ask),
        Protocol::Plain | Protocol::Matins => {}
    }
    (words.0, added(ask))
}

/// The name of a model as a tool knows it: without the provider where that is the tool's own.
#[must_use]
pub fn tool_model(tool: Protocol, name: &str) -> &str {
    let own = match tool {
        Protocol::Claude => "anthropic/",
        Protocol::Codex => "openai/",
        Protocol::Gemini => "google/",
        Protocol::Plain | Protocol::Matins => "",
    };
    name.strip_prefix(own).unwrap_or(name)
}

fn claude(words: &mut Words, ask: &Ask<'_>) {
    if !ask.skills.is_empty() {
        words.add(["--add-dir", ask.run_dir]);
    }
    words.remove(&["--output-format"]);
    words.flag("-p", &["--print"]);
    words.add(["--output-format", "stream-json"]);
    words.flag("--verbose", &[]);
    if !words.has(&["--permission-mode", "--dangerously-skip-permissions"]) {
        words.add(["--permission-mode", "acceptEdits"]);
    }
    words.option("--model", ask.model);
    words.option("--max-turns", ask.preset.max_steps.map(|n| n.to_string()).as_deref());
    words.option("--max-budget-usd", ask.preset.max_cost_usd.map(|usd| usd.to_string()).as_deref());
    words.option("--json-schema", ask.schema.map(|(_, schema)| schema.to_string()).as_deref());
    words.option("--resume", ask.conversation.map(|c| c.handle.as_str()));
}

fn codex(words: &mut Words, ask: &Ask<'_>) {
    if !words.0.iter().skip(1).any(|word| word == "exec" || word == "e") {
        words.add(["exec"]);
    }
    if !words.has(&["-s", "--sandbox", "--dangerously-bypass-approvals-and-sandbox", "--yolo"])
        && !words.0.iter().any(|word| word.starts_with("sandbox_mode="))
    {
        // Its own sandbox mounts, which nothing may that is confined by Landlock: each command would fail, and it
        // would not tell.
        let mode = if ask.sandboxed { "danger-full-access" } else { "workspace-write" };
        words.add(["-c", &format!("sandbox_mode=\"{mode}\"")]);
    }
    words.option("--model", ask.model);
    if let Some(conversation) = ask.conversation {
        words.add(["resume", &conversation.handle]);
    }
    words.flag("--json", &[]);
    words.flag("--skip-git-repo-check", &[]);
    if let Some((file, schema)) = ask.schema
        && is_strict(schema)
    {
        words.add(["--output-schema", file]);
    }
}

fn gemini(words: &mut Words, ask: &Ask<'_>) {
    words.remove(&["--output-format", "-o"]);
    words.add(["--output-format", "stream-json"]);
    words.flag("--skip-trust", &[]);
    if !words.has(&["--approval-mode", "-y", "--yolo"]) {
        words.add(["--approval-mode", "auto_edit"]);
    }
    words.option("--model", ask.model);
    if !ask.skills.is_empty() && !ask.in_workspace {
        words.add(["--include-directories", ask.run_dir]);
    }
    words.option("--resume", ask.conversation.map(|c| c.handle.as_str()));
}

/// What no argument of the tool can say, as the end of the prompt.
fn added(ask: &Ask<'_>) -> String {
    let mut added = String::new();
    if ask.tool != Protocol::Claude && !ask.in_workspace && !ask.skills.is_empty() {
        added.push_str("\n\nRead these skills before you begin:\n");
        for id in ask.skills {
            added.extend(["- ", ask.run_dir, "/skills/", id, "/SKILL.md\n"]);
        }
    }
    let told = match ask.tool {
        Protocol::Claude => true,
        Protocol::Codex => ask.schema.is_none_or(|(_, schema)| is_strict(schema)),
        _ => false,
    };
    if let Some((_, schema)) = ask.schema
        && !told
    {
        added
            .push_str("\n\nYour last message must be nothing but a JSON value that fits this JSON Schema:\n");
        added.extend([schema.to_string().as_str(), "\n"]);
    }
    added
}

/// Whether a schema is one that the Responses API takes: objects that are closed and want all their properties.
fn is_strict(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else { return false };
    fields.get("type") == Some(&Value::from("object")) && is_closed(schema)
}

/// Keys of a schema that the Responses API refuses, or that it takes in another sense than ours.
const NOT_STRICT: [&str; 20] = [
    "oneOf",
    "allOf",
    "not",
    "if",
    "$ref",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "additionalItems",
    "prefixItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
];

fn is_closed(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else { return false };
    if NOT_STRICT.iter().any(|key| fields.contains_key(*key)) {
        return false;
    }
    let is = |kind: &str| match fields.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        one => one.is_some_and(|one| one == kind),
    };
    if is("array") && !fields.contains_key("items") {
        return false;
    }
    let each =
        |key: &str| fields.get(key).and_then(Value::as_array).is_none_or(|list| list.iter().all(is_closed));
    let items = fields.get("items").is_none_or(is_closed);
    if is("object") || fields.contains_key("properties") {
        let Some(properties) = fields.get("properties").and_then(Value::as_object) else { return false };
        let required: Vec<&str> = fields
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
        if !closed || !properties.keys().all(|name| required.contains(&name.as_str())) {
            return false;
        }
        return properties.values().all(is_closed) && each("anyOf") && items;
    }
    each("anyOf")
        && items
        && (fields.contains_key("type") || fields.contains_key("enum") || fields.contains_key("anyOf"))
}

struct Words(Vec<String>);

impl Words {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(ToOwned::to_owned));
    }

    fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add([name, value]);
        }
    }

    /// An option without a value, which the tools do not take twice; `names`: its other names.
    fn flag(&mut self, name: &str, names: &[&str]) {
        if !self.has(&[name]) && !self.has(names) {
            self.add([name]);
        }
    }

    /// Takes an option with its value away, under any of its names.
    fn remove(&mut self, names: &[&str]) {
        let mut value_follows = false;
        self.0.retain(|word| {
            if std::mem::take(&mut value_follows) {
                return false;
            }
            value_follows = names.contains(&word.as_str());
            !value_follows
                && !names.iter().any(|name| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
        });
    }

    /// Whether one of these options stands there already.
    fn has(&self, names: &[&str]) -> bool {
        let is = |word: &str, name: &str| {
            word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        };
        self.0.iter().any(|word| names.iter().any(|name| is(word, name)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Usage;

    fn ask(tool: Protocol, preset: &Preset) -> Ask<'_> {
        Ask {
            tool,
            preset,
            model: None,
            run_dir: "/run",
            schema: None,
            skills: &[],
            in_workspace: true,
            sandboxed: false,
            conversation: None,
        }
    }

    fn line(words: &[&str], ask: &Ask<'_>) -> String {
        command(words.iter().map(|word| (*word).to_owned()).collect(), ask).0.join(" ")
    }

    #[test]
    fn a_bare_program_gets_what_it_needs_and_no_more() {
        let preset = Preset::default();
        let of = |tool, words: &[&str]| line(words, &ask(tool, &preset));
        assert_eq!(
            of(Protocol::Claude, &["claude"]),
            "claude -p --output-format stream-json --verbose --permission-mode acceptEdits"
        );
        assert_eq!(
            of(Protocol::Codex, &["codex"]),
            "codex exec -c sandbox_mode=\"workspace-write\" --json --skip-git-repo-check"
        );
        let confined = line(&["codex"], &Ask { sandboxed: true, ..ask(Protocol::Codex, &preset) });
        assert!(confined.contains("sandbox_mode=\"danger-full-access\""), "{confined}");
        assert_eq!(
            of(Protocol::Gemini, &["gemini"]),
            "gemini --output-format stream-json --skip-trust --approval-mode auto_edit"
        );
    }

    #[test]
    fn what_the_command_says_itself_holds() {
        let preset = Preset::default();
        let of = |tool, words: &[&str]| line(words, &ask(tool, &preset));
        let claude = of(Protocol::Claude, &["claude", "--permission-mode=plan"]);
        assert!(!claude.contains("acceptEdits"), "{claude}");
        let codex = of(Protocol::Codex, &["codex", "exec", "-s", "read-only"]);
        assert_eq!(codex, "codex exec -s read-only --json --skip-git-repo-check");
        let gemini = of(Protocol::Gemini, &["gemini", "--yolo"]);
        assert!(!gemini.contains("--approval-mode"), "{gemini}");
    }

    #[test]
    fn a_line_of_cron_may_stand_as_it_is() {
        let preset = Preset::default();
        let of = |tool, words: &[&str]| line(words, &ask(tool, &preset));
        let claude = of(Protocol::Claude, &["claude", "-p", "do it", "--output-format", "json", "--verbose"]);
        assert_eq!(
            claude,
            "claude -p do it --verbose --output-format stream-json --permission-mode acceptEdits"
        );
        let codex = of(Protocol::Codex, &["codex", "exec", "--json", "do it"]);
        assert_eq!(
            codex,
            "codex exec --json do it -c sandbox_mode=\"workspace-write\" --skip-git-repo-check"
        );
        let gemini = of(Protocol::Gemini, &["gemini", "-o", "json", "--output-format=text", "-p", "do it"]);
        assert_eq!(
            gemini,
            "gemini -p do it --output-format stream-json --skip-trust --approval-mode auto_edit"
        );
    }

    #[test]
    fn limits_model_schema_skills_and_conversation_are_told() {
        let preset = Preset { max_steps: Some(3), max_cost_usd: Some(0.5), ..Preset::default() };
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
        let skills = ["tides".to_owned()];
        let conversation = Conversation { handle: "h-1".to_owned(), used: Usage::default() };
        let full = Ask {
            model: Some("opus"),
            schema: Some(("/run/schema.json", &schema)),
            skills: &skills,
            conversation: Some(&conversation),
            ..ask(Protocol::Claude, &preset)
        };
        let claude = line(&["claude"], &full);
        for part in [
            "--add-dir /run -p",
            "--model opus",
            "--max-turns 3",
            "--max-budget-usd 0.5",
            "--json-schema {",
            "--resume h-1",
        ] {
            assert!(claude.contains(part), "{part} in {claude}");
        }
        let codex = line(&["codex"], &Ask { tool: Protocol::Codex, ..full });
        assert!(
            codex.contains("resume h-1 --json") && codex.ends_with("--output-schema /run/schema.json"),
            "{codex}"
        );
        let gemini = Ask { tool: Protocol::Gemini, in_workspace: false, ..full };
        let (words, added) = command(vec!["gemini".to_owned()], &gemini);
        assert!(words.join(" ").contains("--include-directories /run --resume h-1"), "{words:?}");
        assert!(added.contains("/run/skills/tides/SKILL.md") && added.contains("JSON Schema"), "{added}");
    }

    #[test]
    fn only_closed_schemas_are_left_to_the_provider() {
        let closed = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"], "additionalProperties": false});
        assert!(is_strict(&closed));
        for open in [
            json!({}),
            json!(true),
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false}),
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}),
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
            json!({"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"], "additionalProperties": false}),
        ] {
            assert!(!is_strict(&open), "{open}");
        }
        let with = |a: Value| json!({"type": "object", "properties": {"a": a}, "required": ["a"], "additionalProperties": false});
        assert!(is_strict(&with(json!({"type": ["string", "null"], "enum": ["x", null]}))));
        for open in [
            json!({"type": "array"}),
            json!({"type": ["array", "null"]}),
            json!({"type": ["object", "null"]}),
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            json!({"type": "array", "items": {"type": "string"}, "contains": {"type": "string"}}),
            json!({"type": "array", "items": {"type": "array", "prefixItems": [{"type": "string"}]}}),
        ] {
            assert!(!is_strict(&with(open.clone())), "{open}");
        }
    }

    #[test]
    fn a_model_loses_the_provider_that_is_its_tools_own() {
        assert_eq!(tool_model(Protocol::Claude, "anthropic/claude-opus"), "claude-opus");
        assert_eq!(tool_model(Protocol::Codex, "gpt-mini"), "gpt-mini");
        assert_eq!(tool_model(Protocol::Claude, "arn:aws:bedrock/x"), "arn:aws:bedrock/x");
    }
}
