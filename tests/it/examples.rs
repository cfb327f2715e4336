//! The examples that are shipped and those of the pages: they load without a problem, every file reads the same with
//! an independent YAML reader, and those with a model do what they promise.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use matins::config::{self, Env};
use matins::model::{Overrides, RunState, Wire, known_model};
use matins::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::support::{Home, ModelServer, Reply, TestDaemon, eventually_sync};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The files of a page, by the comment with which each of its blocks begins: what is said of one file in several
/// blocks stands in one file.
fn files(page: &str) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for block in page.split("```yaml\n# ").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let (head, text) = block.split_once('\n').unwrap();
        let (name, _) = head.split_once(',').unwrap_or((head, ""));
        files.entry(name.to_owned()).or_default().push_str(text);
    }
    files
}

/// A home of the files of a page, with settings of a test beside those of the page.
fn home_of(page: &str, settings: &str) -> Home {
    let home = Home::new();
    for (name, text) in files(page) {
        match name.as_str() {
            "matins.yaml" => home.settings(&format!("{text}{settings}")),
            _ => drop(home.write(&name, &text)),
        }
    }
    home
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
        let theirs: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(ours, theirs, "{}", file.display());
    }
}

#[test]
fn a_definition_that_was_written_reads_as_the_same_definition() {
    let env = Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp")]);
    for agent in config::check_path(&root(), &env, SystemClock.now()).agents {
        let written = config::to_yaml(agent.as_ref());
        let read: Value = serde_yaml::from_str(&written).unwrap();
        assert_eq!(read, serde_json::to_value(agent.as_ref()).unwrap(), "{}", agent.id);
    }
}

#[test]
fn every_file_of_the_pages_about_models_loads_without_a_problem() {
    for name in ["first-agent.md", "models.md", "websites.md"] {
        let page = page(name);
        let files = files(&page);
        assert!(files.contains_key("matins.yaml") && files.len() >= 2, "{name}: {:?}", files.keys());
        let home = home_of(&page, "");
        let env = Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp")]);
        let checked = config::check_path(home.path(), &env, SystemClock.now());
        assert!(checked.problems.is_empty(), "{name}: {}", checked.problems.render(false));
        assert_eq!(checked.agents.len(), files.len() - 1, "{name}");
    }
}

/// Provider, variable and model of each row of the table of providers.
fn providers(page: &str) -> Vec<(String, String, String)> {
    let (_, table) = page.split_once("| provider | the key | a model |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().skip(2).map(|row| {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [_, provider, key, model, _] = cells.try_into().unwrap();
        (provider, key, model)
    });
    rows.collect()
}

#[test]
fn each_provider_of_the_page_is_asked_where_its_key_is_and_has_a_price() {
    let rows = providers(&page("models.md"));
    let mut named: Vec<&str> = rows.iter().map(|(provider, _, _)| provider.as_str()).collect();
    let mut known: Vec<&str> = Wire::ALL.iter().map(|wire| wire.as_str()).collect();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
    let home = Home::new();
    for (provider, _, model) in &rows {
        let (of, name) = model.split_once('/').unwrap();
        assert_eq!(of, provider);
        assert!(known_model(of, name).is_some(), "{model} has no price");
        let text = format!("prompt: x\nexecutor: {{ type: llm, model: {model} }}\n");
        home.write(&format!("agents/{provider}.yaml"), &text);
    }
    let daemon = TestDaemon::start(home);
    for (provider, key, _) in &rows {
        let event = daemon.wait_end(daemon.trigger(provider)).event;
        let why = event.error.unwrap_or_default();
        assert_eq!(event.failure_code.as_deref(), Some("launch_error"), "{provider}: {why}");
        assert!(why.contains(&format!("no {key};")), "{provider}: {why}");
    }
}

#[test]
fn the_first_agent_runs_on_time_and_leaves_out_what_it_has_named() {
    let server = ModelServer::start();
    let page = page("first-agent.md");
    // The page says where the key of its provider is; here that is the server's own.
    let (_, providers) =
        server.settings().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let ours = page.replace("  anthropic: { key: { file: /etc/matins/anthropic-key } }\n", &providers);
    let home = home_of(
        &ours.replace(
            "webhooks:\n  - url: https://hooks.slack.com/services/YOUR/OWN/HOOK\n    format: slack\n",
            "",
        ),
        "",
    );
    let fetch = || Reply::call("http_fetch", &json!({"url": "http://127.0.0.1:9/"}));
    server.script([
        fetch(),
        Reply::finish(&json!({"news": "one"})),
        Reply::finish(&json!({"news": ["one"]})),
        Reply::finish(&json!({"news": ["two"]})),
    ]);
    let daemon = TestDaemon::start(home);
    daemon.wait_for(daemon.trigger("news"), RunState::Completed);
    // From Monday, 10:00 in Berlin, to Tuesday, 8:00.
    daemon.advance(Duration::from_secs(22 * 3_600));
    eventually_sync("the scheduled run", || (daemon.events().len() == 2).then_some(()));
    let newest = daemon.settle().remove(0);
    let newest = daemon.detail(newest.id.parse().unwrap()).event;
    assert_eq!((newest.status, newest.result), (RunState::Completed, Some(json!({"news": ["two"]}))));
    assert_eq!(server.complaints(), Vec::<String>::new());
    let told: Vec<String> = server.asked().iter().map(|asked| asked.body.to_string()).collect();
    assert!(
        told[1].contains("is not among the hosts that this agent may reach: blog.rust-lang.org"),
        "{}",
        told[1]
    );
    assert!(
        !told[0].contains("leave them out") && told[3].contains("leave them out: [\\\"one\\\"]"),
        "{}",
        told[3]
    );
    assert_eq!(server.left(), 0, "what did not fit was corrected");
}

/// A home with those of the shipped agents that ask a model.
fn home_with_models(server: &ModelServer) -> Home {
    let home = Home::new();
    home.settings(&server.settings());
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").args(["agents", "skills"].map(|dir| root().join(dir))).arg(home.path());
    assert!(copy.status().unwrap().success());
    for entry in std::fs::read_dir(home.path().join("agents")).unwrap().map(Result::unwrap) {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if entry.path().is_file() && !text.contains("type: llm") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    home
}

#[test]
fn the_examples_with_a_model_run() {
    let server = ModelServer::start();
    let daemon = TestDaemon::start(home_with_models(&server));
    server.script([Reply::finish(&json!({"news": ["one"]}))]);
    daemon.wait_for(daemon.trigger("page-news"), RunState::Completed);

    let advice = |line: &str| Reply::finish(&json!({"advice": [{"line": line, "todo": "Free some space."}]}));
    let line = "2026-11-20T06:07:31Z CRITICAL backup: target is full, 0 bytes left";
    server.script([
        Reply::call("read_file", &json!({"path": "shop.log"})),
        advice("CRITICAL the disk is full"),
        advice(line),
    ]);
    let event = daemon.wait_for(daemon.trigger("log-advice"), RunState::Completed).event;
    assert_eq!(server.complaints(), Vec::<String>::new());
    assert_eq!(event.result.unwrap()["advice"][0]["line"], Value::from(line));
    let told: Vec<String> = server.asked().iter().map(|asked| asked.body.to_string()).collect();
    assert!(told[1].contains("# Log triage") && told[2].contains("target is full"), "{}", told[2]);
    assert!(told[3].contains("no line of shop.log is: CRITICAL the disk is full"), "{}", told[3]);
}

/// A server of the sample pages, as the example says to start one; and its port.
fn sample_pages() -> (Served, u16) {
    let mut command = std::process::Command::new("python3");
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
    command.arg(root().join("agents/samples")).arg("0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let served = Served(child);
    let (_, port) = line.split_once(" port ").unwrap_or_else(|| panic!("{line:?}"));
    (served, port.split(' ').next().unwrap().parse().unwrap())
}

/// A server that ends with this value.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_with_a_website_needs_its_model_once() {
    let server = ModelServer::start();
    let home = home_with_models(&server);
    let (_served, port) = sample_pages();
    let file = home.path().join("agents/shop-prices.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("http.server --bind 127.0.0.1 --directory config/agents/samples 8000"));
    std::fs::write(&file, text.replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"))).unwrap();
    let good = |name: &str, price: f64| json!({"name": name, "price": price});
    let tea = json!({"goods": [good("Green tea", 3.5), good("Black tea", 2.8), good("Iced tea", 1.2)]});
    let schema = json!({"type": "object", "properties": {"goods": {"type": "array", "items": {
        "type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "number"}}}}}});
    let from = json!({"object": {"goods": {"rows": {
        "ref": "table \"Price list\"", "columns": {"name": "Article", "price": "Price"}}}}});
    server.script([
        Reply::call("browser_navigate", &json!({"url": format!("http://127.0.0.1:{port}/prices.html")})),
        Reply::call("browser_select", &json!({"ref": "combobox \"Category\"", "options": ["Tea"]})),
        Reply::call("browser_click", &json!({"ref": "button \"Show prices\""})),
        Reply::call("browser_extract", &json!({"schema": schema, "from": from})),
        Reply::finish(&tea),
    ]);
    let daemon = TestDaemon::start(home);
    let rice = json!({"goods": [good("Basmati", 4.1), good("Jasmine", 3.9)]});
    for (input, result, calls) in [(None, &tea, 5), (None, &tea, 0), (Some("Rice"), &rice, 0)] {
        let input = input.map(|category| json!({ "category": category }));
        let run = daemon.trigger_with("shop-prices", Overrides { input, ..Overrides::default() });
        let event = daemon.wait_for(run, RunState::Completed).event;
        assert_eq!(server.complaints(), Vec::<String>::new());
        assert_eq!((event.result.as_ref(), server.asked().len()), (Some(result), calls), "{event:#?}");
        server.forget();
    }
}
