//! What the tests of the tools share: a brief whose paths are in a folder of the test.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Answer, Outcome, Toolbox};
use crate::agentloop::brief::{Brief, CatalogueSkill};

/// A brief with these tools; workspace, files, skills and notes are below `dir`, and exist.
pub(in crate::agentloop) fn brief(dir: &Path, tools: &[&str]) -> Brief {
    for folder in ["workspace", "files", "skills", "attempt"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let text = json!({
        "version": 1, "run": "01931a5c-0000-7000-8000-000000000001", "attempt": 1, "agent": "a", "trigger": "manual",
        "models": [], "seeded": [], "tools": tools,
        "paths": {
            "prompt": dir.join("prompt.md"), "input": dir.join("input.json"), "result_schema": null,
            "skills": dir.join("skills"), "files": dir.join("files"), "workspace": dir.join("workspace"),
            "events": dir.join("attempt/events.ndjson"), "transcript": dir.join("attempt/transcript.ndjson"),
            "notes": dir.join("attempt/notes.json"), "conversation": null
        },
        "limits": {"max_steps": 5, "max_tokens": null, "max_cost_usd": null, "max_output": 100, "corrections": 3,
                   "call_timeout_ms": 5000, "tool_timeout_ms": 20_000, "deadline_ms": null}
    });
    serde_json::from_value(text).unwrap()
}

/// A skill of the catalogue, with its `SKILL.md`.
pub(in crate::agentloop) fn catalogue_skill(dir: &Path, id: &str, text: &str) -> CatalogueSkill {
    let folder = dir.join("all-skills").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("SKILL.md"), text).unwrap();
    CatalogueSkill { id: id.to_owned(), description: format!("what {id} is for"), dir: folder }
}

/// A call with these arguments.
pub(super) async fn call(toolbox: &Toolbox, name: &str, arguments: Value) -> Answer {
    let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
    toolbox.call(name, &arguments).await
}

/// What a call gave that has to be done.
pub(super) async fn done(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Done, "{}", answer.content);
    answer.content
}

/// What a call gave that has to fail.
pub(super) async fn failed(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Failed, "{}", answer.content);
    answer.content
}

/// What a call gave that has to be denied.
pub(super) async fn denied(toolbox: &Toolbox, name: &str, arguments: Value) -> String {
    let answer = call(toolbox, name, arguments).await;
    assert_eq!(answer.outcome, Outcome::Denied, "{}", answer.content);
    answer.content
}

/// Answers one request after the other, each by what `answer` makes of its text; its port.
pub(super) fn http_server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            while !complete(&request) {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    n => request.push_str(&String::from_utf8_lossy(&buffer[..n])),
                }
            }
            // Whoever has read enough may have left.
            let _ = stream.write_all(&answer(&request));
        }
    });
    port
}

fn complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head
        .to_ascii_lowercase()
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.lines().next().unwrap_or_default().trim().parse::<usize>().unwrap());
    body.len() >= length
}

/// An answer over HTTP.
pub(super) fn http_answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
