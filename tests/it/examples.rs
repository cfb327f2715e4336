//! The examples that are shipped: they load without a problem, and every file reads the same with
//! an independent YAML reader.

use std::path::{Path, PathBuf};

use matins::config::{self, Env};
use matins::time::{Clock as _, SystemClock};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn yaml_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_loads_without_a_problem() {
    let env = Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp")]);
    let checked = config::check_path(&root(), &env, SystemClock.now());
    assert!(checked.problems.is_empty(), "{}", checked.problems.render(false));
    assert!(checked.invalid.is_empty());
    assert!(checked.agents.len() >= 4, "{} agents", checked.agents.len());
}

#[test]
fn every_example_reads_the_same_with_another_reader() {
    let mut files = Vec::new();
    yaml_files(&root(), &mut files);
    assert!(files.len() >= 5);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let ours = config::yaml::to_json(&config::yaml::parse(&text, 0).unwrap().value);
        let theirs: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(ours, theirs, "{}", file.display());
    }
}

#[test]
fn a_definition_that_was_written_reads_as_the_same_definition() {
    let env = Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp")]);
    for agent in config::check_path(&root(), &env, SystemClock.now()).agents {
        let written = config::to_yaml(agent.as_ref());
        let read: serde_json::Value = serde_yaml::from_str(&written).unwrap();
        assert_eq!(read, serde_json::to_value(agent.as_ref()).unwrap(), "{}", agent.id);
    }
}
