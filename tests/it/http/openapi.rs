//! The description of the API against the daemon that it describes, by programs that know nothing but the description: a
//! client that a public generator wrote, and a tester that tries what the description allows and forbids.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::contract::DOCUMENT;
use crate::support::{Binary, Home, Http};

/// A program of the Python packages that `scripts/test` installs.
fn python(program: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("MATINS_TEST_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    python.with_file_name(program)
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// Runs a program to its end and prints what it said.
#[expect(clippy::print_stdout, reason = "what it found is for whoever reads the test's output")]
fn finished(command: &mut Command) -> bool {
    let done = command.output().unwrap_or_else(|e| {
        panic!("{}: {e}; scripts/test installs what it needs", command.get_program().display())
    });
    println!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    done.status.success()
}

/// A daemon with the agents `quick`, which ends well, and `slow`, which does not end.
fn daemon() -> (Binary, Http) {
    let home = Home::new();
    home.settings_with_http("");
    let schedule = "schedules: [{ cron: '0 9 29 2 *', timezone: UTC }]\n\
        executions: { catalog: { name: Catalog } }\n";
    home.agent("quick", "echo hello; echo '{\"n\": 1}' > \"$MATINS_RESULT_FILE\"", schedule);
    home.agent("slow", "exec sleep 60", &format!("overlap: skip\n{schedule}"));
    Binary::start(home).with_http()
}

#[test]
fn the_document_and_its_page_are_for_everybody() {
    let (_daemon, http) = daemon();
    let nobody = http.with("");
    let sent = nobody.get("/openapi.json");
    assert_eq!((sent.status, sent.header("content-type")), (200, Some("application/json")));
    assert_eq!(sent.json(), *DOCUMENT);
    let page = nobody.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.text().contains("execute_agent"));
}

#[test]
fn every_call_of_the_document_is_one_of_the_daemon() {
    let (_daemon, http) = daemon();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            // A replacement needs no body and would end what is asked here.
            if path == "/v1/reexec" && method == "post" {
                continue;
            }
            // A body that nothing takes: what takes one refuses it behind the router.
            let made = path.replace('{', "none-").replace('}', "");
            let method = method.to_uppercase();
            let answer = match method.as_str() {
                "GET" if path == "/v1/stream" || path == "/v1/backup" => continue,
                "GET" => http.send("GET", &made, &[], b""),
                method => http.send(method, &made, &[("Content-Type", "text/x-none")], b"none"),
            };
            // What the dialects say of a path that is none.
            let detail = answer.json()["detail"].clone();
            let unknown = answer.code() == "unknown_route" || detail == "Not found." || detail == "Not Found";
            assert!(answer.status != 405 && !unknown, "{method} {path}: {}", answer.status);
        }
    }
}

#[test]
fn a_client_that_a_generator_wrote_runs_a_whole_cycle() {
    let (daemon, http) = daemon();
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, matins::api::openapi_text()).unwrap();
    let mut generate = Command::new(python("openapi-python-client"));
    generate
        .args(["generate", "--meta", "none", "--overwrite", "--fail-on-warning", "--path"])
        .arg(&document);
    generate.arg("--config").arg(fixture("openapi-python-client.yaml"));
    generate.arg("--output-path").arg(folder.path().join("client"));
    // It formats what it wrote with a program that lies beside it.
    let path = std::env::var("PATH").unwrap_or_default();
    generate.env("PATH", format!("{}:{path}", python("").display()));
    assert!(finished(&mut generate), "the generator does not understand the document");
    let mut cycle = Command::new(python("python"));
    cycle.arg(fixture("generated_client.py")).arg(folder.path());
    cycle.arg(format!("http://{}", http.address)).arg(&http.token);
    assert!(finished(&mut cycle), "the generated client met something unexpected");
    let ended: Vec<Value> = daemon.settled();
    assert_eq!(ended.len(), 3);
}

/// Tries the whole document: every check, links followed. `MATINS_API_SECONDS`: for how long.
#[test]
fn a_tester_finds_no_answer_that_is_not_described() {
    let (daemon, http) = daemon();
    for _ in 0..3 {
        http.post("/v1/agents/quick/execute", &serde_json::json!({}));
    }
    daemon.settled();
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, matins::api::openapi_text()).unwrap();
    let seconds = std::env::var("MATINS_API_SECONDS").unwrap_or_else(|_| "0".to_owned());
    let mut tester = Command::new(python("python"));
    tester.arg(fixture("schemathesis/run.py")).arg(&document).arg(http.address.to_string()).arg(&http.token);
    tester.arg(seconds);
    if let Ok(seed) = std::env::var("MATINS_SEED") {
        tester.args(["--seed", &seed]);
    }
    // It may take back any token but the one by which it comes in.
    tester.env("MATINS_TOKEN_ID", http.token.split('_').nth(1).unwrap());
    tester.current_dir(folder.path());
    assert!(finished(&mut tester), "what it found is printed above");
    assert_eq!(http.get("/healthz").status, 200);
}
