//! Tidiness of the tree as tests: the layer table, headers, sizes. There are no other checks of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layer of every top-level module. A new module or a new edge is a conscious change of this table.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["ids", "time", "task"]),
    (1, &["model", "schema", "template", "secret", "net", "proc"]),
    (2, &["config", "plan", "store", "exec", "webhook", "agentloop"]),
    (3, &["engine"]),
    (4, &["api"]),
    (5, &["daemon"]),
    (6, &["cli"]),
];
/// Lines a file may have.
const FILE_LINES: usize = 800;

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Every `.rs` file below `dir`, with its text.
fn sources(dir: &str) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), text);
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The modules that `text` names with `crate::`, in code (not in comments).
fn edges(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let inner = group.split("};").next().unwrap_or(group);
            found.extend(inner.split(',').map(|part| head(part.trim())));
        } else {
            found.push(head(rest));
        }
    }
    found.retain(|m| !m.is_empty());
    found
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn top_module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// What is wrong with the imports of a file of `module`.
fn forbidden_edges(module: &str, text: &str) -> Vec<String> {
    let Some(own) = layer(module) else {
        return vec![format!("module {module} is in no layer")];
    };
    let wrong = |target: &String| match layer(target) {
        _ if target == module => false,
        Some(other) => other >= own,
        None => false,
    };
    edges(text).into_iter().filter(wrong).map(|t| format!("{module} (layer {own}) imports {t}")).collect()
}

#[test]
fn imports_point_downward() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        if let Some(module) = top_module(&path) {
            wrong.extend(
                forbidden_edges(&module, &text).into_iter().map(|w| format!("{}: {w}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_layer_check_finds_what_it_must() {
    assert!(forbidden_edges("store", "use crate::exec::Spec;").len() == 1, "sideways");
    assert!(forbidden_edges("store", "use crate::engine::Core;").len() == 1, "upward");
    assert!(forbidden_edges("store", "use crate::{ids::RunId, engine::Core};").len() == 1, "in a group");
    assert!(forbidden_edges("store", "let x = crate::cli::main();").len() == 1, "in an expression");
    assert!(forbidden_edges("store", "use crate::ids::RunId;\n// crate::engine").is_empty());
    assert!(forbidden_edges("newcomer", "").len() == 1, "a module without a layer");
}

#[test]
fn every_file_has_a_header_and_a_bounded_size() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests"] {
        for (path, text) in sources(dir) {
            if !text.starts_with("//!") {
                wrong.push(format!("{} does not begin with a //! header", path.display()));
            }
            let lines = text.lines().count();
            if lines > FILE_LINES {
                wrong.push(format!("{} has {lines} lines; {FILE_LINES} are allowed", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sql_is_written_in_the_store_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let outside = top_module(&path).is_some_and(|m| m != "store");
        let mentions = ["rusqlite", "INSERT INTO", "SELECT ", "PRAGMA "].iter().find(|w| text.contains(**w));
        if let (true, Some(word)) = (outside, mentions) {
            wrong.push(format!("{} holds {word:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn routes_are_described() {
    // `.routes(routes!(..))` puts a call into the document, a plain route stays out of it.
    let mut wrong = Vec::new();
    for (path, text) in sources("src/api") {
        let in_tests = path.components().any(|c| c.as_os_str() == "tests");
        for (number, line) in text.lines().enumerate() {
            let plain = [".route(", ".route_service(", ".nest("].iter().any(|call| line.contains(call));
            if plain && !in_tests && !line.trim_start().starts_with("//") {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_wait_on_state_and_are_all_run() {
    let mut wrong = Vec::new();
    let (ignored, slept) = (["#[", "ignore"].concat(), ["sleep", "("].concat());
    for (path, text) in sources("tests") {
        let in_poll = path.ends_with("support/wait.rs");
        for (number, line) in text.lines().enumerate() {
            if line.contains(&ignored) || (line.contains(&slept) && !in_poll && !line.contains("script")) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The calls of `tracing` in `text`, each with its arguments.
fn log_calls(text: &str) -> Vec<&str> {
    let calls = text.match_indices("tracing::").map(|(at, _)| &text[at..]);
    let calls = calls.filter(|call| {
        let name = &call["tracing::".len()..];
        let level = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
        name[level.len()..].starts_with("!(")
    });
    calls.map(|call| call.split_once(");").map_or(call, |(arguments, _)| arguments)).collect()
}

/// `journalctl RUN_ID=..` and `AGENT=..` find a line by these fields.
fn misnamed(call: &str) -> bool {
    let names = |name: &str| call.contains(&format!("{name} ="));
    let agent = names("agent") || call.contains(", agent,");
    names("agent.id") || names("run") || (names("run.id") && !agent)
}

#[test]
fn lines_about_a_run_name_it_and_its_agent() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let calls = log_calls(&text).into_iter().filter(|call| misnamed(call));
        wrong.extend(calls.map(|call| format!("{}: {call}", path.display())));
    }
    assert!(wrong.is_empty(), "write `run.id = .., agent = ..`\n{}", wrong.join("\n"));
    let call = |fields: &str| misnamed(&format!("tracing::info!({fields} \"x\""));
    assert!(call("run.id = %id,") && call("agent.id = %id,") && call("run.id = %id, agent.id = %a,"));
    assert!(!call("run.id = %id, agent,") && !call("agent = %a,") && !call(""));
}

/// Every test of the tree as `module::name`: the module is the path below `src/` or `tests/it/`, with `/`.
fn tests() -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for (path, text) in sources("src").into_iter().chain(sources("tests/it")) {
        let path = path.display().to_string();
        let path = path.trim_start_matches("src/").trim_start_matches("tests/it/").trim_end_matches(".rs");
        let module = path.trim_end_matches("/mod");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ") else { continue };
            let marked = lines[at.saturating_sub(4)..at].iter().rev().take_while(|l| l.starts_with("#["));
            if marked.into_iter().any(|l| l.starts_with("#[test") || l.starts_with("#[tokio::test")) {
                found.insert(format!("{module}::{}", name.split('(').next().unwrap_or_default()));
            }
        }
    }
    found
}

/// The guarantees are worth what their tests are: each test that the page names is one.
#[test]
fn the_guarantees_name_tests_that_exist() {
    let tests = tests();
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md")).unwrap();
    let named: Vec<String> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains("::"))
        .map(|word| {
            let (module, name) = word.rsplit_once("::").unwrap();
            format!("{}::{name}", module.replace("::", "/"))
        })
        .collect();
    let missing: Vec<&String> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that do not exist: {missing:#?}");
    assert!(named.len() > 50, "only {} tests were found on the page", named.len());
}
