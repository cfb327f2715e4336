//! The dialect of the Kaizen execution API, by plain HTTP: every field, in every state.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Binary, Home, Http, eventually_sync};

fn start(home: Home, settings: &str) -> (Binary, Http) {
    home.settings_with_http(settings);
    Binary::start(home).with_http()
}

fn execute(http: &Http, body: &Value) -> Value {
    let answer = http.post("/agents/execute", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn get(http: &Http, id: &Value) -> Value {
    let answer = http.post("/executions/get", &json!({ "id": id }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["execution"].clone()
}

/// The execution when it is in this status.
fn when(http: &Http, id: &Value, status: &str) -> Value {
    eventually_sync(&format!("{id} is {status}"), || {
        let execution = get(http, id);
        let over = ["Completed", "Failed"].contains(&execution["status"].as_str().unwrap());
        assert!(!over || execution["status"] == status, "{execution}");
        (execution["status"] == status).then_some(execution)
    })
}

/// The ids of a list.
fn listed(http: &Http, body: &Value) -> Vec<Value> {
    let answer = http.post("/executions/list", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["executions"].as_array().unwrap().iter().map(|e| e["id"].clone()).collect()
}

fn stdout(daemon: &Binary, id: &Value) -> String {
    let file = daemon.home.run_file(id.as_str().unwrap(), "attempts/1/stdout.log");
    std::fs::read_to_string(file).unwrap()
}

fn upload(http: &Http, name: &str, content: &str) -> Value {
    let answer = http.send("POST", &format!("/v1/files?name={name}"), &[], content.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["data"]["id"].clone()
}

/// The pointers of what does not fit.
fn pointers(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let details = body["error"]["details"].as_array().cloned().unwrap_or_default();
    details.iter().map(|d| d["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_recipe_runs_as_it_is_printed() {
    let home = Home::new();
    home.agent("shop", "cat", "");
    let (daemon, http) = start(home, "");
    let url = format!("http://{}/agents/execute", http.address);
    let authorization = format!("Authorization: Bearer {}", http.token);
    // The recipe of the service's page; its placeholders are filled in.
    let out = Command::new("curl")
        .args(["--silent", "--request", "POST", "--url", &url])
        .args(["--header", "Content-Type: application/json", "--header", &authorization])
        .args([
            "--data",
            "\n{\n  \"agentId\": \"shop\",\n  \"content\": [\n    {\n      \"type\": \"text\",\n      \"text\": \"count the shelves\"\n    }\n  ],\n  \"archiveSessionFiles\": false,\n  \"summarySchema\": {}\n}\n",
        ])
        .output()
        .unwrap();
    let started: Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = &started["executionId"];
    assert_eq!(started, json!({ "sessionId": id, "executionId": id, "status": "Enqueued" }));
    let execution = when(&http, id, "Completed");
    assert_eq!(stdout(&daemon, id), "count the shelves");
    assert_eq!(execution["response"], json!({ "response": "count the shelves" }));
}

#[test]
fn an_execution_has_every_field_in_every_state() {
    let home = Home::new();
    let go = home.gate();
    let script = format!(
        "cat {} >/dev/null; echo x > $MATINS_FILES_DIR/made.csv; echo '{{\"n\": 1}}' > $MATINS_RESULT_FILE",
        go.display()
    );
    home.agent("shop", &script, "name: The Shop\n");
    home.agent("bad", "exit 3", "");
    let (daemon, http) = start(home, "max_running: 1\n");
    let first = execute(&http, &json!({"agentId": "shop", "content": [{"type": "json", "data": {"a": 1}}]}));
    let running = when(&http, &first["executionId"], "InProgress");
    let second = execute(&http, &json!({"agentId": "bad"}));
    let waiting = when(&http, &second["executionId"], "Enqueued");
    let expected = json!({
        "id": first["executionId"], "workflow": {"id": "shop", "name": "The Shop"}, "batch": null, "logins": [],
        "authentications": [], "startTime": running["startTime"], "params": {"a": 1},
        "metadata": {"agentId": "shop", "trigger": "manual", "userId": running["metadata"]["userId"]},
        "name": "The Shop", "startBlock": null, "contextAuthentications": [], "sessionId": first["sessionId"],
        "agentConversationThreadId": "1", "attempts": 1, "totalAttempts": 1, "isLastAttempt": true, "isTest": false,
        "status": "InProgress", "liveViewUrl": null, "browserSessionId": null,
        "downloads": {"status": "InProgress", "files": [], "message": null}, "parentExecutionId": null,
        "durationMs": null, "endTime": null, "response": null, "truncatedResponse": null, "responseFile": null,
        "failureCode": null, "failureExplanation": null, "sessionArchive": null,
    });
    assert_eq!(running, expected);
    assert!(running["startTime"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&waiting["startTime"], &waiting["attempts"], &waiting["isLastAttempt"]),
        (&Value::Null, &json!(0), &json!(false))
    );
    let listed = |body: Value| listed(&http, &body);
    let (one, two) = (first["executionId"].clone(), second["executionId"].clone());
    assert_eq!(listed(json!({})), [two.clone(), one.clone()]);
    assert_eq!(listed(json!({"status": "InProgress"})), std::slice::from_ref(&one));
    assert_eq!(listed(json!({"status": "Enqueued", "unknown": [1]})), std::slice::from_ref(&two));
    for none in [
        json!({"status": "Paused"}),
        json!({"status": "Failed"}),
        json!({"loginId": "x"}),
        json!({"tagFilters": ["x"]}),
        json!({"workflow": "none"}),
        json!({"search": ["nothing"]}),
    ] {
        assert_eq!(listed(none.clone()), Vec::<Value>::new(), "{none}");
    }
    assert_eq!(
        listed(json!({"search": ["the sh", "nothing"], "tagFilters": []})),
        std::slice::from_ref(&one)
    );
    assert_eq!(listed(json!({"workflow": "bad"})), std::slice::from_ref(&two));
    let page = http.post("/executions/list", &json!({"limit": 1})).json();
    let next = http.post("/executions/list", &json!({"limit": 1, "nextToken": page["nextToken"]})).json();
    assert_eq!(
        (&page["executions"][0]["id"], &next["executions"][0]["id"], &next["nextToken"]),
        (&two, &one, &Value::Null)
    );
    daemon.home.open_gate();
    let done = when(&http, &one, "Completed");
    assert_eq!((&done["response"], &done["truncatedResponse"]), (&json!({"n": 1}), &json!("{\"n\":1}")));
    assert!(done["durationMs"].is_u64() && done["endTime"].is_string());
    let url = format!("/v1/events/{}/files/files/made.csv", one.as_str().unwrap());
    let download = json!({"id": "files/made.csv", "name": "made.csv", "mimeType": null, "sizeBytes": 2, "downloadUrl": url, "key": "files/made.csv"});
    assert_eq!(done["downloads"], json!({"status": "Completed", "files": [download], "message": null}));
    assert_eq!(http.get(&url).text(), "x\n");
    let failed = when(&http, &two, "Failed");
    assert_eq!((&failed["failureCode"], &failed["response"]), (&json!("runtime_error"), &Value::Null));
    assert!(failed["failureExplanation"].as_str().unwrap().contains('3'));
}

#[test]
fn items_of_every_type_have_their_effect() {
    let home = Home::new();
    home.write("skills/own/SKILL.md", "---\nname: own\ndescription: Their own\n---\n");
    home.write("skills/more/SKILL.md", "no head\n");
    let script =
        "cat; echo; cat $MATINS_INPUT_FILE; echo; ls $MATINS_SKILLS_DIR; cat $MATINS_FILES_DIR/list.txt";
    home.agent("shop", script, "prompt: the agent's own\nskills: [own]\ninput: { x: 1 }\n");
    let (daemon, http) = start(home, "");
    let file = upload(&http, "list.txt", "of the shelves");
    let content = json!([
        {"type": "text", "text": "first"}, {"type": "json", "data": {"a": 1, "b": 1}}, {"type": "skill", "id": "more"},
        {"type": "file", "id": file}, {"type": "text", "text": "{{ second }}"}, {"type": "json", "data": {"b": 2}},
    ]);
    let id = execute(&http, &json!({"agentId": "1", "content": content}))["executionId"].clone();
    when(&http, &id, "Completed");
    assert_eq!(stdout(&daemon, &id), "first\n\n{{ second }}\n{\"a\":1,\"b\":2}\nmore\nown\nof the shelves");
    let event = http.get(&format!("/v1/events/{}", id.as_str().unwrap())).json()["data"].clone();
    assert_eq!((&event["files"][0]["id"], &event["files"][0]["name"]), (&file, &json!("list.txt")));
    assert_eq!(event["input"], json!({"a": 1, "b": 2}));
    let skills: Vec<_> = event["skills"].as_array().unwrap().iter().map(|s| s["id"].clone()).collect();
    assert_eq!(skills, ["own", "more"]);
    let list = http.get("/v1/events/@last/files").json()["data"].clone();
    assert_eq!(
        (&list[0]["path"], &list[0]["given"], &list[0]["bytes"]),
        (&json!("files/list.txt"), &json!(true), &json!(14))
    );
    assert_eq!(http.get(list[0]["url"].as_str().unwrap()).text(), "of the shelves");
    let medium = http.get(&format!("/media/conversations/{}/list.txt", event["conversation"]));
    assert_eq!((medium.status, medium.text().as_str()), (200, "of the shelves"));
    assert!(medium.header("content-disposition").unwrap().starts_with("attachment"));
    // Without a text the agent's prompt runs; natively the same items mean the same.
    let answer = http.post("/v1/agents/shop/execute", &json!({"content": [{"type": "skill", "id": "own"}]}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["data"]["eventId"].clone();
    when(&http, &id, "Failed");
    assert!(
        stdout(&daemon, &id).starts_with("the agent's own\n{\"x\":1}\nown\n"),
        "{}",
        stdout(&daemon, &id)
    );
    let described = http.get("/v1/skills").json()["data"].clone();
    assert_eq!(
        described,
        json!([
            {"id": "more", "name": null, "description": null, "agents": []},
            {"id": "own", "name": "own", "description": "Their own", "agents": ["shop"]},
        ])
    );
}

#[test]
fn what_does_not_fit_is_told_with_its_place_and_nothing_is_started() {
    let home = Home::new();
    home.agent("shop", "true", "input_schema: { type: object, required: [a] }\ninput: { a: 1 }\n");
    let (_daemon, http) = start(home, "");
    let none = "file_00000000000000000000000000000000";
    for (content, pointer) in [
        (json!("text"), "/content"),
        (json!([1]), "/content/0"),
        (json!([{}]), "/content/0/type"),
        (json!([{"type": "image"}]), "/content/0/type"),
        (json!([{"type": "text"}]), "/content/0/text"),
        (json!([{"type": "text", "text": 1}]), "/content/0/text"),
        (json!([{"type": "text", "text": "x"}, {"type": "skill", "id": "none"}]), "/content/1/id"),
        (json!([{"type": "skill", "id": "../agents"}]), "/content/0/id"),
        (json!([{"type": "file", "id": none}]), "/content/0/id"),
        (json!([{"type": "json", "data": [1]}]), "/content/0/data"),
        (json!([{"type": "json", "data": {"b": 1}}]), "/input"),
    ] {
        let answer = http.post("/agents/execute", &json!({"agentId": "shop", "content": content}));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"), "{}", answer.text());
        let told = if pointer == "/input" { "/content" } else { pointer };
        assert_eq!(pointers(&answer), [told], "{}", answer.text());
        let native = http.post("/v1/agents/shop/execute", &json!({"content": content}));
        assert_eq!((native.status, pointers(&native)), (422, vec![pointer.to_owned()]), "{}", native.text());
    }
    for (body, pointer) in [
        (json!({"kaizenVersion": "full"}), "/kaizenVersion"),
        (json!({"archiveSessionFiles": "yes"}), "/archiveSessionFiles"),
        (json!({"summarySchema": "x"}), "/summarySchema"),
        (json!({"summarySchema": {"type": "nonsense"}}), "/summarySchema"),
        (json!({"agentId": 7}), "/agentId"),
    ] {
        let mut body = body;
        body.as_object_mut().unwrap().entry("agentId").or_insert(json!("shop"));
        let answer = http.post("/agents/execute", &body);
        assert_eq!((answer.status, pointers(&answer)), (400, vec![pointer.to_owned()]), "{}", answer.text());
    }
    let many: Vec<_> = (0..201).map(|_| json!({"type": "text", "text": "x"})).collect();
    assert_eq!(http.post("/agents/execute", &json!({"agentId": "shop", "content": many})).status, 400);
    assert_eq!(
        http.post(
            "/v1/agents/shop/execute",
            &json!({"prompt": "a", "content": [{"type": "text", "text": "b"}]})
        )
        .status,
        422
    );
    let unknown = http.post("/agents/execute", &json!({"agentId": "none"}));
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown_agent"));
    for call in ["/executions/get", "/executions/getEvents", "/executions/retry"] {
        assert_eq!(pointers(&http.post(call, &json!({}))), ["/id"], "{call}");
        let missing = http.post(call, &json!({"id": "00000000-0000-7000-8000-000000000000"}));
        assert_eq!((missing.status, missing.code().as_str()), (404, "unknown_event"), "{call}");
    }
    assert_eq!(http.with("").post("/agents/execute", &json!({})).status, 401);
    assert_eq!(http.send("POST", "/agents/execute", &[], b"{").status, 400);
    assert_eq!(http.get("/v1/events").json()["data"], json!([]), "nothing was started");
}

#[test]
fn what_is_asked_for_this_execution_comes_before_what_the_agent_says() {
    let home = Home::new();
    home.agent(
        "shop",
        "echo '{\"n\": 1}' > $MATINS_RESULT_FILE",
        "result_schema: { type: object, required: [n] }\n",
    );
    let (_daemon, http) = start(home, "models: { full: openai/b, lite: openai/c }\n");
    let schema = json!({"type": "object", "required": ["m"]});
    let refused =
        execute(&http, &json!({"agentId": "shop", "summarySchema": schema, "kaizenVersion": "Lite"}));
    let failed = when(&http, &refused["executionId"], "Failed");
    assert_eq!(failed["failureCode"], "validation_failed");
    let event = http.get(&format!("/v1/events/{}", failed["id"].as_str().unwrap())).json()["data"].clone();
    assert_eq!(
        (&event["overrides"]["model"], &event["overrides"]["resultSchema"]),
        (&json!("lite"), &schema)
    );
    let taken = execute(&http, &json!({"agentId": "shop", "kaizenVersion": null, "anything": {"else": 1}}));
    assert_eq!(when(&http, &taken["executionId"], "Completed")["response"], json!({"n": 1}));
    let answer = http.post("/executions/retry", &json!({"id": failed["id"]}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let again = answer.json();
    assert_eq!((&again["success"], &again["execution"]["parentExecutionId"]), (&json!(true), &failed["id"]));
    assert!(again["message"].is_string());
    let again = when(&http, &again["execution"]["id"], "Failed");
    assert_eq!(again["failureCode"], "validation_failed", "what was asked for then holds");
}

#[test]
fn an_agent_is_got_or_made_where_none_is_named() {
    let (_daemon, http) = start(Home::new(), "");
    let made = execute(&http, &json!({"content": [{"type": "text", "text": "hello"}]}));
    let failed = when(&http, &made["executionId"], "Failed");
    let event = http.get("/v1/events/@last").json();
    assert_eq!(event["data"]["overrides"]["model"], "full", "the tier of who names none");
    assert_eq!(
        (&failed["workflow"]["id"], &failed["failureCode"]),
        (&json!("default"), &json!("launch_error"))
    );
    let home = Home::new();
    home.agent("default", "echo mine", "");
    let (daemon, http) = start(home, "");
    let got = execute(&http, &json!({}));
    when(&http, &got["executionId"], "Completed");
    assert_eq!(stdout(&daemon, &got["executionId"]), "mine\n");
}

#[test]
fn what_happened_is_told_step_by_step() {
    let home = Home::new();
    let lines = [
        json!({"type": "step", "kind": "browser", "description": "open", "at": "2026-03-02T09:00:00.000Z"}),
        json!({"type": "step", "description": "read", "at": "2026-03-02T09:00:01.000Z",
               "actions": [{"name": "click", "params": {}, "error": "no such button"}]}),
    ];
    let script = lines.map(|line| format!("echo '{line}' >> $MATINS_EVENTS_FILE")).join("; ");
    let script = serde_json::to_string(&script).unwrap();
    home.write(
        "agents/shop.yaml",
        &format!("executor: {{ type: command, protocol: matins, command: [/bin/sh, -c, {script}] }}\n"),
    );
    let (_daemon, http) = start(home, "");
    let id = execute(&http, &json!({"agentId": "shop"}))["executionId"].clone();
    when(&http, &id, "Completed");
    let answer = http.post("/executions/getEvents", &json!({ "id": id })).json();
    let second = "2026-03-02T09:00:01.000Z";
    let action = json!({"type": "click", "spanId": "1-1-0", "block": "no such button", "startTime": second, "endTime": null, "events": [], "level": "Error"});
    assert_eq!(
        answer,
        json!({"events": [
            {"type": "browser", "spanId": "1-0", "block": "open", "startTime": "2026-03-02T09:00:00.000Z", "endTime": second, "events": [], "level": "Info"},
            {"type": "step", "spanId": "1-1", "block": "read", "startTime": second, "endTime": null, "events": [action], "level": "Error"},
        ]})
    );
}

/// The names in a packed archive.
fn packed(bytes: &[u8]) -> Vec<String> {
    let plain = zstd::decode_all(bytes).unwrap();
    let mut archive = tar::Archive::new(plain.as_slice());
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn an_archive_that_was_asked_for_is_made_by_a_later_daemon_too() {
    let home = Home::new();
    let go = home.gate();
    home.agent("shop", &format!("echo out > work.txt; cat {} > /dev/null", go.display()), "");
    let (mut daemon, http) = start(home, "");
    let plain = execute(&http, &json!({"agentId": "shop", "archiveSessionFiles": false}));
    let asked = execute(&http, &json!({"agentId": "shop", "archiveSessionFiles": true}));
    let (plain, asked) = (plain["executionId"].clone(), asked["executionId"].clone());
    when(&http, &plain, "InProgress");
    assert_eq!(get(&http, &asked)["sessionArchive"]["status"], "Pending");
    daemon.kill();
    daemon.home.open_gate();
    daemon.restart();
    let http = Http { address: daemon.http_address(), ..http };
    when(&http, &asked, "Completed");
    let archive = eventually_sync("the archive is there", || {
        let archive = get(&http, &asked)["sessionArchive"].clone();
        (archive["status"] == "Ready").then_some(archive)
    });
    let url = archive["downloadUrl"].as_str().unwrap();
    let answer = http.get(url);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/zstd")));
    assert_eq!(json!(answer.body.len()), archive["sizeBytes"]);
    let names = packed(&answer.body);
    for name in
        ["run/prompt.md", "run/definition.yaml", "run/attempts/1/stdout.log", "session/workspace/work.txt"]
    {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n.starts_with("run/archive")), "{names:?}");
    // Where none was asked for it is packed as it is read.
    when(&http, &plain, "Completed");
    assert_eq!(get(&http, &plain)["sessionArchive"], Value::Null);
    let answer = http.get(&format!("/v1/events/{}/archive", plain.as_str().unwrap()));
    assert_eq!(answer.status, 200);
    assert!(answer.header("transfer-encoding").is_some());
}

#[test]
fn a_session_is_shown_by_its_name_and_its_integer() {
    let home = Home::new();
    home.agent("shop", "true", "session: shelf\n");
    home.agent("own", "true", "");
    let (_daemon, http) = start(home, "");
    let first = execute(&http, &json!({"agentId": "shop"}));
    assert_eq!(first["sessionId"], "shelf");
    when(&http, &first["executionId"], "Completed");
    let own = execute(&http, &json!({"agentId": "own"}));
    when(&http, &own["executionId"], "Completed");
    for name in ["shelf", "1"] {
        let session = http.get(&format!("/v1/sessions/{name}")).json()["data"].clone();
        assert_eq!(
            (&session["id"], &session["conversation"], &session["shared"]),
            (&json!("shelf"), &json!(1), &json!(true))
        );
        assert_eq!(session["events"][0]["id"], first["executionId"]);
    }
    let id = own["executionId"].as_str().unwrap();
    for name in [id, "2"] {
        let session = http.get(&format!("/v1/sessions/{name}")).json()["data"].clone();
        assert_eq!(
            (&session["id"], &session["conversation"], &session["shared"]),
            (&json!(id), &json!(2), &json!(false))
        );
    }
    for none in ["none", "3", "..", "00000000-0000-7000-8000-000000000000"] {
        let answer = http.get(&format!("/v1/sessions/{none}"));
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_session"), "{none}");
    }
    let token = http.post("/v1/tokens", &json!({"name": "other", "agents": "own"})).json();
    let Some(token) = token["data"]["token"].as_str() else { panic!("{token}") };
    let other = http.with(token);
    assert_eq!(other.get("/v1/sessions/shelf").status, 404, "another one's session");
    assert_eq!(other.post("/agents/execute", &json!({"agentId": "shop"})).status, 404);
    assert_eq!(other.post("/executions/get", &json!({"id": first["executionId"]})).status, 404);
    assert_eq!(other.post("/executions/list", &json!({})).json()["executions"].as_array().unwrap().len(), 1);
}

#[test]
fn an_archive_of_what_never_began_is_there_and_empty() {
    let home = Home::new();
    let go = home.gate();
    home.agent("one", &format!("cat {}", go.display()), "");
    let (daemon, http) = start(home, "");
    let first = execute(&http, &json!({"agentId": "one"}));
    when(&http, &first["executionId"], "InProgress");
    let never = execute(&http, &json!({"agentId": "one", "archiveSessionFiles": true}));
    let id = never["executionId"].as_str().unwrap();
    assert_eq!(http.post(&format!("/v1/events/{id}/cancel"), &json!({})).status, 202);
    let ready = eventually_sync("its archive is made", || {
        let found = http.post("/executions/get", &json!({"id": id})).json();
        let archive = found["execution"]["sessionArchive"].clone();
        (archive["status"] != "Pending").then_some(archive)
    });
    assert_eq!((&ready["status"], &ready["error"]), (&json!("Ready"), &Value::Null), "{ready}");
    daemon.home.open_gate();
}
