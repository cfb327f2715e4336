//! The dialect of agentic executions, by plain HTTP and by its document's own recipes.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::http::{FORM, Part, form};
use crate::support::{Binary, Home, Http, eventually_sync};

/// Two fields by default null, as the document has them.
const CATALOG: &str = r#"
executions:
  catalog-enrichment:
    name: Catalog Enrichment
    files: [.pdf, .csv]
    input_schema:
      type: object
      additionalProperties: false
      properties:
        additional_instructions: { anyOf: [{ type: string }, { type: "null" }], default: null }
        skus: { anyOf: [{ items: { type: string }, type: array }, { type: "null" }], default: null }
  no-files: {}
failure_codes: { price_missing: A price is missing }
"#;

/// A daemon with the agent `shop`, which does what `script` says.
fn shop(script: &str) -> (Binary, Http) {
    let home = Home::new();
    home.settings_with_http("");
    home.agent("shop", script, CATALOG);
    Binary::start(home).with_http()
}

fn number(http: &Http, agent: &str) -> i64 {
    http.get(&format!("/v1/agents/{agent}")).json()["data"]["number"].as_i64().unwrap()
}

fn start(http: &Http, body: &Value) -> Value {
    let answer = http.post("/api/agents/shop/agentic-executions/", body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

fn poll(http: &Http, execution: &Value, status: &str) -> Value {
    let path = format!("/api/agentic-executions/{}/", execution["id"]);
    eventually_sync(&format!("it is {status}"), || {
        let told = http.get(&path).json();
        let ended = matches!(told["status"].as_str(), Some("finished" | "failed"));
        assert!(!ended || told["status"] == status, "{told}");
        (told["status"] == status).then_some(told)
    })
}

/// An instant of the published form, as milliseconds.
fn instant(value: &Value) -> i64 {
    let text = value.as_str().unwrap();
    assert!(text.len() == 27 && text.ends_with('Z') && &text[19..20] == ".", "{text}");
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn an_execution_goes_through_its_states_with_every_field() {
    let script = "read a < $MATINS_AGENT_DIR/../go; echo '{\"SKU-001\": \"Product updated successfully\"}' > $MATINS_RESULT_FILE";
    let home = Home::new();
    home.settings_with_http("");
    home.agent("shop", script, &format!("{CATALOG}sandbox: off\n"));
    home.gate();
    let (daemon, http) = Binary::start(home).with_http();
    let input = json!({"additional_instructions": "Focus on products missing a description.", "skus": ["SKU-001", "SKU-002"]});
    let pending = start(&http, &json!({"execution_key": "catalog-enrichment", "input": input}));
    let mut wanted = json!({
        "id": pending["id"], "agent": number(&http, "shop"), "execution_key": "catalog-enrichment",
        "conversation": pending["conversation"], "status": "pending", "input": input, "result": null,
        "failure_code": null, "failure_explanation": null, "celery_task_id": pending["celery_task_id"],
        "started_at": pending["started_at"], "finished_at": null, "duration_seconds": null, "files": []
    });
    assert_eq!(pending, wanted);
    assert!(pending["id"].is_i64() && pending["conversation"].is_i64());
    let event = http.get(&format!("/v1/events/{}", pending["celery_task_id"].as_str().unwrap())).json();
    assert_eq!(
        event["data"]["number"], pending["id"],
        "it is the run's integer, and the other is the run's id"
    );
    wanted["status"] = json!("in_progress");
    assert_eq!(poll(&http, &pending, "in_progress"), wanted);
    daemon.home.open_gate();
    let finished = poll(&http, &pending, "finished");
    let took = instant(&finished["finished_at"]) - instant(&finished["started_at"]);
    let took = std::time::Duration::from_millis(u64::try_from(took).unwrap());
    assert_eq!(finished["duration_seconds"], took.as_secs_f64(), "{finished}");
    wanted["status"] = json!("finished");
    wanted["result"] = json!({"SKU-001": "Product updated successfully"});
    wanted["finished_at"] = finished["finished_at"].clone();
    wanted["duration_seconds"] = finished["duration_seconds"].clone();
    assert_eq!(finished, wanted);
    let (list, mut row) = (http.get("/api/agentic-executions/").json(), wanted);
    row.as_object_mut().unwrap().remove("files");
    assert_eq!(list, json!({"count": 1, "next": null, "previous": null, "results": [row]}));
    let prompt_input = daemon.home.run_file(finished["celery_task_id"].as_str().unwrap(), "input.json");
    assert_eq!(
        serde_json::from_str::<Value>(&std::fs::read_to_string(prompt_input).unwrap()).unwrap(),
        input
    );
}

#[test]
fn a_failed_execution_says_why_and_one_that_only_wrote_answers_with_that() {
    let script = "case $(cat $MATINS_INPUT_FILE) in \
                  *fail*) echo '{\"type\": \"error\", \"code\": \"price_missing\", \"message\": \"No price.\"}' >> $MATINS_EVENTS_FILE; exit 1;; \
                  *break*) exit 3;; *json*) echo '[1, 2]';; *) echo; echo all done;; esac";
    let home = Home::new();
    home.settings_with_http("");
    let text = format!(
        "executor: {{ type: command, protocol: matins, command: [/bin/sh, -c, {}] }}\n{CATALOG}",
        serde_json::to_string(script).unwrap()
    );
    home.write("agents/shop.yaml", &text);
    let (_daemon, http) = Binary::start(home).with_http();
    let run = |word: &str| start(&http, &json!({"execution_key": "no-files", "input": {"word": word}}));
    let failed = poll(&http, &run("fail"), "failed");
    assert_eq!(
        (&failed["failure_code"], &failed["result"]),
        (&json!("price_missing"), &Value::Null),
        "{failed}"
    );
    assert!(failed["failure_explanation"].as_str().unwrap().contains("No price"), "{failed}");
    assert!(failed["duration_seconds"].is_f64());
    let broken = poll(&http, &run("break"), "failed");
    assert_eq!(broken["failure_code"], "runtime_error");
    assert_eq!(poll(&http, &run("json"), "finished")["result"], json!([1, 2]));
    let wrote = poll(&http, &run("other"), "finished");
    assert_eq!(wrote["result"], json!({"response": "all done"}));
    assert_eq!((&wrote["failure_code"], &wrote["failure_explanation"]), (&Value::Null, &Value::Null));
    let list = http.get("/api/agentic-executions/?status=failed").json();
    assert_eq!(list["count"], 2);
    assert_eq!(
        http.get("/api/agentic-executions/?status=finished").json()["results"][0]["result"],
        wrote["result"]
    );
}

#[test]
fn a_removed_agent_is_not_found_and_its_executions_stay() {
    let (daemon, http) = shop("true");
    let agent = number(&http, "shop");
    let execution = start(&http, &json!({"execution_key": "no-files"}));
    poll(&http, &execution, "finished");
    std::fs::remove_file(daemon.home.path().join("agents/shop.yaml")).unwrap();
    assert_eq!(http.post("/v1/reload", &json!({})).status, 200);
    let gone = json!({"detail": "Agent not found."});
    for name in [agent.to_string(), "shop".to_owned()] {
        let answer = http.get(&format!("/api/agents/{name}/agentic-execution-definitions/"));
        assert_eq!((answer.status, answer.json()), (404, gone.clone()));
        let body = json!({"execution_key": "no-files"});
        let answer = http.post(&format!("/api/agents/{name}/agentic-executions/"), &body);
        assert_eq!((answer.status, answer.json()), (404, gone.clone()));
    }
    assert_eq!(http.get(&format!("/api/agentic-executions/{}/", execution["id"])).status, 200);
    assert_eq!(http.get(&format!("/api/agentic-executions/?agent_id={agent}")).json()["count"], 1);
}

#[test]
fn a_token_lets_in_and_shows_what_is_its_own() {
    let (daemon, http) = shop("true");
    let refused = http.with("").get("/api/agentic-executions/");
    let wanted = json!({"detail": "Authentication credentials were not provided."});
    assert_eq!((refused.status, refused.json()), (401, wanted));
    let bad = http.with("nonsense").get("/api/agentic-executions/");
    assert_eq!((bad.status, bad.json()), (401, json!({"detail": "Invalid token."})));
    let token = |fields: Value| daemon.token(&fields);
    let ann = http.with(&token(json!({"name": "ann", "user": "ann", "scope": "trigger"})));
    let lab = http.with(&token(json!({"name": "lab", "user": "ann", "scope": "trigger", "agents": "lab*"})));
    let reader = http.with(&token(json!({"name": "reader", "user": "bob", "scope": "read"})));
    let execution = start(&ann, &json!({"execution_key": "no-files"}));
    let path = format!("/api/agentic-executions/{}/", execution["id"]);
    let as_token = ann.send("GET", &path, &[("Authorization", &format!("Token {}", ann.token))], b"");
    assert_eq!(as_token.status, 200, "{}", as_token.text());
    for (who, status) in [(&ann, 200), (&lab, 404), (&reader, 404), (&http, 404)] {
        assert_eq!(who.get(&path).status, status);
        let count = i64::from(status == 200);
        assert_eq!(who.get("/api/agentic-executions/").json()["count"], count);
    }
    assert_eq!(lab.get("/api/agents/shop/agentic-execution-definitions/").status, 404);
    assert_eq!(reader.get("/api/agents/shop/agentic-execution-definitions/").status, 200);
    let path = "/api/agents/shop/agentic-executions/";
    let answer = reader.post(path, &json!({"execution_key": "no-files"}));
    assert!(answer.status == 403 && answer.json()["detail"].is_string(), "{}", answer.text());
    poll(&ann, &execution, "finished");
    daemon.settled();
}

#[test]
fn a_form_brings_files() {
    let (daemon, http) = shop("cat $MATINS_FILES_DIR/data.csv $MATINS_FILES_DIR/product_data.pdf");
    let pdf = Some(("product_data.pdf", "application/pdf"));
    let csv = Some(("data.csv", "text/csv"));
    let parts = [
        ("execution_key", None, "catalog-enrichment"),
        ("input", None, "{\"skus\": [\"a\"]}"),
        ("files[]", pdf, "PDF"),
        ("files", csv, "a,b"),
    ];
    let path = "/api/agents/shop/agentic-executions/";
    let answer = http.send("POST", path, &[FORM], &form(&parts));
    let told = answer.json();
    assert_eq!(answer.status, 202, "{told}");
    assert_eq!(told["input"], json!({"skus": ["a"], "additional_instructions": null}));
    let files = told["files"].as_array().unwrap();
    let conversation = &told["conversation"];
    for (file, name, kind, content) in [
        (&files[0], "product_data.pdf", "application/pdf", "PDF"),
        (&files[1], "data.csv", "text/csv", "a,b"),
    ] {
        let wanted = json!({
            "id": file["id"], "filename": name, "file_url": format!("/media/conversations/{conversation}/{name}"),
            "content_type": kind
        });
        assert_eq!(*file, wanted);
        assert!(file["id"].is_i64());
        assert_eq!(http.get(file["file_url"].as_str().unwrap()).text(), content);
    }
    let finished = poll(&http, &told, "finished");
    assert_eq!((&finished["files"], &finished["result"]), (&told["files"], &json!({"response": "a,bPDF"})));
    let wrong = |parts: &[Part<'_>]| {
        let answer = http.send("POST", path, &[FORM], &form(parts));
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()
    };
    let key = ("execution_key", None, "catalog-enrichment");
    let detail = |text: &str| json!({ "detail": text });
    assert_eq!(
        wrong(&[key, ("files", Some(("x.XYZ", "text/plain")), "x")]),
        detail("File type '.xyz' is not supported. Supported: .pdf, .csv.")
    );
    assert_eq!(
        wrong(&[("files[]", pdf, "x"), ("execution_key", None, "no-files")]),
        detail("This agent does not support file uploads.")
    );
    let told = wrong(&[key, ("input", None, "{")]);
    assert!(told["input"].as_str().unwrap().starts_with("Invalid JSON: "), "{told}");
    assert_eq!(
        wrong(&[("files[]", pdf, "x")]),
        detail("No execution definition class registered with EXECUTION_KEY=''.")
    );
    let torn =
        http.send("POST", path, &[FORM], b"--b\r\nContent-Disposition: form-data; name=\"input\"\r\n\r\n{}");
    assert!(torn.status == 400 && torn.json()["detail"].is_string(), "{}", torn.text());
    assert_eq!(http.get("/api/agentic-executions/").json()["count"], 1, "nothing was made of any of them");
    let outside = [key, ("files", Some(("../../x.pdf", "application/pdf")), "x")];
    let told = http.send("POST", path, &[FORM], &form(&outside)).json();
    assert_eq!(told["files"][0]["filename"], "x.pdf", "where it lay is not its name");
    let nameless =
        http.send("POST", path, &[FORM], &form(&[key, ("files", Some(("..", "application/pdf")), "x")]));
    assert_eq!(nameless.status, 400, "{}", nameless.text());
    daemon.settled();
}

#[test]
fn the_recipes_of_the_document_run() {
    let (daemon, http) = shop("echo '{\"SKU-001\": \"Product updated successfully\"}'");
    let agent = number(&http, "shop");
    let pdf = daemon.home.write("product_data.pdf", "PDF");
    let base = format!("http://{}", http.address);
    let curl = |args: &[&str]| {
        let authorization = format!("Authorization: Token {}", http.token);
        let out = Command::new("curl").args(["-s", "-f", "-H", &authorization]).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
        serde_json::from_slice::<Value>(&out.stdout).unwrap()
    };
    let list = curl(&[&format!("{base}/api/agents/{agent}/agentic-execution-definitions/")]);
    assert_eq!(list[0]["key"], "catalog-enrichment");
    let body = "{ \"execution_key\": \"catalog-enrichment\", \"input\": { \"additional_instructions\": \"Focus on products missing a description.\", \"skus\": [\"SKU-001\", \"SKU-002\"] } }";
    let json = "Content-Type: application/json";
    let start = format!("{base}/api/agents/{agent}/agentic-executions/");
    let made = curl(&["-X", "POST", "-H", json, "-d", body, &start]);
    assert_eq!((&made["status"], &made["agent"]), (&json!("pending"), &json!(agent)));
    let input = "input={\"additional_instructions\": \"Focus on products missing a description.\"}";
    let file = format!("files[]=@{}", pdf.display());
    let made = curl(&["-F", "execution_key=catalog-enrichment", "-F", input, "-F", &file, &start]);
    assert_eq!(made["files"][0]["filename"], "product_data.pdf");
    assert_eq!(made["files"][0]["content_type"], "application/pdf");
    let one = format!("{base}/api/agentic-executions/{}/", made["id"]);
    eventually_sync("it is finished", || (curl(&[&one])["status"] == "finished").then_some(()));
    assert_eq!(curl(&[&one])["result"], json!({"SKU-001": "Product updated successfully"}));
    let all = curl(&[&format!("{base}/api/agentic-executions/?agent_id={agent}&status=finished")]);
    assert!(all["count"].as_i64().unwrap() >= 1 && all["next"].is_null(), "{all}");
    daemon.settled();
}
