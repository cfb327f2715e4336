//! What the binary says of keys: the schemas hold for what is shipped, `explain` and `config show`
//! answer, and a check can be read by programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::Home;

fn matins(args: &[&str]) -> Output {
    Command::new(crate::support::binary::exe()).args(args).env_remove("MATINS_SOCKET").output().unwrap()
}

fn document(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    matins::config::yaml::to_json(&matins::config::yaml::parse(&text, 0).unwrap().value)
}

fn agents() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/agents");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect()
}

#[test]
fn the_schemas_hold_for_every_shipped_file_and_refuse_unknown_keys() {
    let schema = |of: &str| {
        let schema = document(&matins(&["schema", of]));
        jsonschema::meta::validate(&schema).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let (agent, daemon) = (schema("agent"), schema("daemon"));
    let files = agents();
    assert!(files.len() >= 4);
    for file in files {
        let mut value = yaml(&file);
        let errors: Vec<String> = agent.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        value["nonsense"] = json!(1);
        assert!(!agent.is_valid(&value), "{}", file.display());
    }
    let mut settings = yaml(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/matins.yaml"));
    assert!(daemon.is_valid(&settings), "{:?}", daemon.iter_errors(&settings).next());
    settings["retention"]["nonsense"] = json!(1);
    assert!(!daemon.is_valid(&settings));
    assert_eq!(matins(&["schema", "nonsense"]).status.code(), Some(2));
}

#[test]
fn a_key_and_a_code_are_explained() {
    let text = |args: &[&str]| String::from_utf8_lossy(&matins(args).stdout).into_owned();
    let key = text(&["explain", "schedules.catch_up"]);
    assert!(key.contains("latest all none") && key.contains("default  latest"), "{key}");
    assert!(text(&["explain", "coalesced"]).contains("reason of a slot that did not run"));
    assert!(text(&["explain", "past"]).contains("warning of a check"));
    let found = document(&matins(&["explain", "idle_timeout", "--json"]));
    assert_eq!((&found[0]["key"], &found[1]["code"]), (&json!("idle_timeout"), &json!("idle_timeout")));
    let unknown = matins(&["explain", "catchup"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("matins explain catch_up"));
}

#[test]
fn the_settings_in_force_are_shown_with_their_sources() {
    let home = Home::new();
    let dir = home.path().display().to_string();
    let output = Command::new(crate::support::binary::exe())
        .args(["config", "show", "--json", "-c", &dir])
        .env("MATINS_CONFIG_POOLS", "{ browser: 2 }")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = document(&output);
    let of = |key: &str| shown.as_array().unwrap().iter().find(|e| e["key"] == key).unwrap().clone();
    assert_eq!(
        of("pools"),
        json!({ "key": "pools", "value": { "browser": 2 }, "source": "MATINS_CONFIG_POOLS" })
    );
    assert_eq!(of("listen.tls")["source"], "default");
    let wrong = Command::new(crate::support::binary::exe())
        .args(["config", "show", "-c", &dir])
        .env("MATINS_CONFIG_POOL", "{}")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("MATINS_CONFIG_POOLS"), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("max_running\t"), "{wrong:?}");
}

#[test]
fn a_check_is_a_list_of_problems_for_programs() {
    let home = Home::new();
    home.write("agents/a.yaml", "executor: { type: command, command: [/bin/true] }\npromt: |\n  x\nschedules: [{ cron: '*/45 * * * *' }]\n");
    let output = matins(&["check", &home.path().display().to_string(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(78));
    let problems = document(&output);
    let at =
        |i: usize| ["line", "column", "endLine", "endColumn"].map(|key| problems[i][key].as_u64().unwrap());
    assert_eq!((at(0), &problems[0]["severity"]), ([2, 1, 2, 6], &json!("error")));
    assert_eq!(problems[0]["help"], "did you mean `prompt`?");
    assert!(problems[0]["file"].as_str().unwrap().ends_with("agents/a.yaml"));
    assert_eq!(
        (&problems[1]["severity"], &problems[1]["code"]),
        (&json!("warning"), &json!("surprising_pattern"))
    );
    assert!(problems[1]["help"].as_str().unwrap().matches(", ").count() == 4, "five fires: {problems}");
}

#[test]
fn a_path_upward_is_shown_as_it_is() {
    let home = Home::new();
    home.write("agents/a.yaml", "nonsense: 1\n");
    let output = Command::new(crate::support::binary::exe())
        .args(["check", "../matins.yaml"])
        .current_dir(home.path().join("agents"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("--> a.yaml:1:1") && !text.contains(".."), "{text}");
}
