//! The dialect of tasks, by plain HTTP and by its document's own recipe.

use std::io::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Binary, Home, Http, TestReceiver, eventually_sync};

/// A daemon whose agent `default` does what `script` says.
fn daemon(script: &str, more: &str, settings: &str) -> (Binary, Http) {
    let home = Home::new();
    home.settings_with_http(settings);
    let script = serde_json::to_string(script).unwrap();
    let text =
        format!("executor: {{ type: command, protocol: matins, command: [/bin/sh, -c, {script}] }}\n{more}");
    home.write("agents/default.yaml", &text);
    Binary::start(home).with_http()
}

fn run(http: &Http, body: &Value) -> Answer {
    http.post("/api/runs", body)
}

#[test]
fn who_waits_gets_the_whole_answer() {
    let step = r#"{"type": "step", "description": "opened the shop", "actions": [{"name": "done", "params": {"url": "x"}, "is_done": true, "success": true, "extracted_content": "7", "error": null, "include_in_memory": true}, {"name": "look", "success": false}]}"#;
    let script =
        format!("echo '{step}' >> $MATINS_EVENTS_FILE; printf '{{\"price\": 7}}' > $MATINS_RESULT_FILE");
    let (daemon, http) = daemon(&script, "", "");
    let schema = json!({"type": "object", "required": ["price"]});
    let body = json!({"prompt": "Find the price", "response_format": "json", "json_schema": schema});
    let answer = run(&http, &body);
    let action = |name: &str, params: Value, done: bool, success: Value, content: Value| {
        json!({"name": name, "params": params, "is_done": done, "success": success, "extracted_content": content,
               "error": null, "include_in_memory": done})
    };
    let history = json!([{
        "description": "opened the shop",
        "actions": [
            action("done", json!({"url": "x"}), true, json!(true), json!("7")),
            action("look", json!({}), false, Value::Null, Value::Null),
        ]
    }]);
    let wanted = json!({
        "task_id": 1, "task_run_id": 1, "history": history, "result": {"price": 7}, "is_done": true,
        "is_successful": true, "status": "success"
    });
    assert_eq!((answer.status, answer.json()), (200, wanted.clone()));
    assert_eq!(http.get("/api/runs/1").json(), wanted);
    let again = http.post("/api/tasks/1/runs", &json!({"response_format": "text"})).json();
    assert_eq!((&again["task_id"], &again["task_run_id"]), (&json!(1), &json!(2)));
    assert_eq!(again["result"], "{\"price\":7}", "as a text");
    let id = daemon.settled()[0]["id"].as_str().unwrap().to_owned();
    let prompt = std::fs::read_to_string(daemon.home.run_file(&id, "prompt.md")).unwrap();
    assert_eq!(prompt, "Find the price", "the stored request");
    let none = http.post("/api/tasks/1/runs", &Value::Null);
    assert_eq!(none.status, 422, "null is no body: {}", none.text());
    let empty = http.send("POST", "/api/tasks/1/runs", &[], b"");
    assert_eq!((empty.status, &empty.json()["status"]), (200, &json!("success")));
}

#[test]
fn a_failure_is_done_and_not_successful() {
    let (_daemon, http) = daemon("echo half; exit 1", "", "");
    let told = run(&http, &json!({"prompt": "abc"})).json();
    let why = "the program exited with code 1";
    let action = json!({
        "name": "runtime_error", "params": {}, "is_done": true, "success": false, "extracted_content": null,
        "error": why, "include_in_memory": false
    });
    let wanted = json!({
        "task_id": 1, "task_run_id": 1, "history": [{"description": "The run failed", "actions": [action]}],
        "result": null, "is_done": true, "is_successful": false, "status": "failure"
    });
    assert_eq!(told, wanted);
}

#[test]
fn who_only_wrote_has_answered_with_that() {
    let (_daemon, http) = daemon("echo; echo the price is 7", "", "");
    let told = run(&http, &json!({"prompt": "abc"})).json();
    assert_eq!((&told["result"], &told["status"]), (&json!("the price is 7"), &json!("success")));
    let told = run(&http, &json!({"prompt": "abc", "response_format": "json"})).json();
    assert_eq!(told["result"], "the price is 7");
}

#[test]
fn without_a_file_a_run_ends_with_a_launch_error() {
    let home = Home::new();
    home.settings_with_http("");
    let (daemon, http) = Binary::start(home).with_http();
    let told = run(&http, &json!({"prompt": "abc"})).json();
    assert_eq!((&told["status"], &told["is_successful"]), (&json!("failure"), &json!(false)), "{told}");
    let event = &daemon.settled()[0];
    assert_eq!((&event["agentId"], &event["failureCode"]), (&json!("default"), &json!("launch_error")));
    let id = event["id"].as_str().unwrap();
    assert_eq!(http.post(&format!("/v1/events/{id}/retry"), &json!({})).status, 202, "it can be run again");
    daemon.settled();
    assert_eq!(http.get("/v1/agents").json()["data"], json!([]));
}

#[test]
fn the_wait_has_a_ceiling_and_the_run_has_not() {
    let home = Home::new();
    home.settings_with_http("wait_ceiling: 1s\n");
    home.agent("default", "read a < $MATINS_AGENT_DIR/../go; echo late", "sandbox: off\n");
    home.gate();
    let (daemon, http) = Binary::start(home).with_http();
    let told = run(&http, &json!({"prompt": "abc"})).json();
    let wanted = json!({
        "task_id": 1, "task_run_id": 1, "history": null, "result": null, "is_done": false, "is_successful": null,
        "status": "in_progress"
    });
    assert_eq!(told, wanted);
    daemon.home.open_gate();
    let ended = eventually_sync("it ends", || {
        Some(http.get("/api/runs/1").json()).filter(|told| told["is_done"] == true)
    });
    assert_eq!((&ended["result"], &ended["status"]), (&json!("late"), &json!("success")));
}

#[test]
fn a_client_who_leaves_leaves_the_run() {
    let home = Home::new();
    home.settings_with_http("");
    home.agent("default", "read a < $MATINS_AGENT_DIR/../go; echo late", "sandbox: off\n");
    home.gate();
    let (daemon, http) = Binary::start(home).with_http();
    let body = json!({"prompt": "abc"}).to_string();
    let mut stream = http.connect().unwrap();
    let head = format!(
        "POST /api/runs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        http.address,
        http.token,
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    eventually_sync("it runs", || (http.get("/api/runs/1").json()["task_run_id"] == 1).then_some(()));
    drop(stream);
    daemon.home.open_gate();
    let ended = eventually_sync("it ends", || {
        Some(http.get("/api/runs/1").json()).filter(|told| told["is_done"] == true)
    });
    assert_eq!(ended["status"], "success");
}

#[test]
fn who_is_to_be_told_is_told_through_the_outbox() {
    let receiver = TestReceiver::start();
    let (daemon, http) = daemon("echo done", "", "allow_private_webhooks: true\n");
    let told = run(&http, &json!({"prompt": "abc", "webhook_url": receiver.url})).json();
    assert_eq!(told["status"], "success", "{told}");
    let message = eventually_sync("the message comes", || receiver.received().pop()).json();
    assert_eq!(message["type"], "run.completed");
    assert_eq!(message["data"]["number"], told["task_run_id"]);
    drop(daemon);
    let (_daemon, http) = self::daemon("echo done", "", "");
    let refused = run(&http, &json!({"prompt": "abc", "webhook_url": receiver.url}));
    assert_eq!((refused.status, &refused.json()["detail"][0]["loc"]), (422, &json!(["body", "webhook_url"])));
}

#[test]
fn a_result_that_does_not_fit_is_a_failure() {
    let (daemon, http) = daemon("printf '{\"price\": \"dear\"}' > $MATINS_RESULT_FILE", "", "");
    let schema = json!({"type": "object", "properties": {"price": {"type": "number"}}}).to_string();
    let told = run(&http, &json!({"prompt": "abc", "json_schema": schema})).json();
    assert_eq!(told["status"], "failure", "{told}");
    assert_eq!(daemon.settled()[0]["failureCode"], "validation_failed");
}

#[test]
fn a_token_sees_the_tasks_of_its_agents() {
    let (daemon, http) = daemon("true", "", "");
    assert_eq!(run(&http, &json!({"prompt": "abc"})).status, 200);
    let lab = http.with(&daemon.token(&json!({"name": "lab", "scope": "trigger", "agents": "lab*"})));
    let reader = http.with(&daemon.token(&json!({"name": "reader", "scope": "read"})));
    for path in ["/api/runs/1", "/api/tasks/1"] {
        assert_eq!((lab.get(path).status, reader.get(path).status), (404, 200), "{path}");
    }
    for path in ["/api/runs", "/api/tasks/1/runs"] {
        let body = json!({"prompt": "abc"});
        assert_eq!((lab.post(path, &body).status, reader.post(path, &body).status), (404, 403), "{path}");
    }
    let refused = http.with("").post("/api/runs", &json!({"prompt": "abc"}));
    assert!(refused.status == 401 && refused.json()["detail"].is_string(), "{}", refused.text());
}

#[test]
fn the_recipe_of_the_document_runs() {
    let (_daemon, http) = daemon("echo 7", "", "");
    let url = format!("http://{}/api/runs", http.address);
    let authorization = format!("Authorization: Bearer {}", http.token);
    let body = r#"
{
  "prompt": "Find the price",
  "model": "o3",
  "provider": "openai",
  "wait_for_completion": true,
  "webhook_url": "https://hooks.example.com/done",
  "response_format": "text",
  "json_schema": "{\"type\": \"integer\"}",
  "use_cached_workflow": true,
  "cached_workflow": {}
}
"#;
    let header = "Content-Type: application/json";
    let args = [
        "-s",
        "--request",
        "POST",
        "--url",
        &url,
        "--header",
        header,
        "--header",
        &authorization,
        "--data",
        body,
    ];
    let out = Command::new("curl").args(args).output().unwrap();
    let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    assert_eq!(
        (&told["task_id"], &told["task_run_id"], &told["status"]),
        (&json!(1), &json!(1), &json!("success"))
    );
    assert_eq!(told["result"], "7");
}
