//! A run with a browser as each of the published interfaces asks for it and tells of it.

use serde_json::{Value, json};

use super::cases;
use crate::support::{Binary, Http, ModelServer, Site, eventually_sync};

/// The names of a history's actions; each is whole, and claims success only where it is done.
fn actions(history: &Value) -> Vec<String> {
    let items = history.as_array().unwrap();
    let of = |item: &Value| -> Vec<Value> {
        assert!(item["description"].is_string(), "{item}");
        item["actions"].as_array().unwrap().clone()
    };
    let all: Vec<Value> = items.iter().flat_map(of).collect();
    for action in &all {
        let fields =
            ["error", "extracted_content", "include_in_memory", "is_done", "name", "params", "success"];
        assert_eq!(action.as_object().unwrap().keys().collect::<Vec<_>>(), fields, "{action}");
        assert_eq!(action["success"] == true, action["is_done"] == true, "{action}");
    }
    all.iter().map(|action| action["name"].as_str().unwrap().to_owned()).collect()
}

fn ended(http: &Http) -> Value {
    eventually_sync("it ends", || {
        let event = http.get("/v1/events/@last").json()["data"].clone();
        ["COMPLETED", "FAILED"].contains(&event["status"].as_str()?).then_some(event)
    })
}

#[test]
fn every_interface_asks_for_it_and_tells_what_was_done() {
    let (server, site) = (ModelServer::start(), Site::start());
    let home = cases::home(&server, &site, "", "");
    home.settings_with_http(&server.settings());
    let text = std::fs::read_to_string(home.path().join("agents/form.yaml")).unwrap();
    home.write("agents/default.yaml", &(text + "executions: { plain: {} }\n"));
    let (_daemon, http) = Binary::start_with_key(home).with_http();
    let case = cases::all(&site).into_iter().find(|case| case.name == "form").unwrap();
    server.answer_with(cases::by_turn(case.script));
    let asked: [(&str, Value); 4] = [
        ("/v1/agents/default/execute", json!({})),
        (
            "/agents/execute",
            json!({"agentId": "default", "content": [{"type": "text", "text": "Find the price."}]}),
        ),
        ("/api/agents/default/agentic-executions/", json!({"execution_key": "plain"})),
        (
            "/api/runs",
            json!({"prompt": "Find the price.", "wait_for_completion": false, "response_format": "json",
            "json_schema": cases::schema_of(&case.result).to_string()}),
        ),
    ];
    for (path, body) in asked {
        let answer = http.post(path, &body);
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
        let event = ended(&http);
        assert_eq!(
            (&event["status"], &event["result"]),
            (&json!("COMPLETED"), &case.result),
            "{path}: {event:#}"
        );
        // Steps are what was done in the browser: not the reading, and not the end.
        assert!(event["browserStepCount"].as_u64().unwrap() >= 7, "{event:#}");
        assert!(event["browserSessionSeconds"].is_u64(), "{event:#}");
        let id = event["id"].as_str().unwrap();
        let history = http.get(&format!("/v1/events/{id}/history")).json();
        let names = actions(&history["data"].as_array().unwrap().iter().map(item).collect());
        assert_eq!((names[0].as_str(), names.last().unwrap().as_str()), ("browser_navigate", "finish"));
        assert_eq!(names.iter().filter(|name| *name == "browser_click").count(), 3, "{names:?}");
        let number = &event["number"];
        let (told, result) = match path {
            "/agents/execute" => {
                let body = json!({ "id": id });
                let told = http.post("/executions/get", &body).json()["execution"].clone();
                let events = http.post("/executions/getEvents", &body).json();
                assert_eq!(
                    events["events"].as_array().unwrap().len(),
                    history["data"].as_array().unwrap().len()
                );
                (told.clone(), told["response"].clone())
            }
            "/api/agents/default/agentic-executions/" => {
                let told = http.get(&format!("/api/agentic-executions/{number}/")).json();
                (told.clone(), told["result"].clone())
            }
            "/api/runs" => {
                let told = http.get(&format!("/api/runs/{number}")).json();
                assert_eq!(actions(&told["history"]), names);
                (told.clone(), told["result"].clone())
            }
            _ => (event.clone(), event["result"].clone()),
        };
        assert_eq!(result, case.result, "{path}: {told:#}");
    }
    assert_eq!(server.complaints(), Vec::<String>::new());
}

/// The published fields of a step.
fn item(step: &Value) -> Value {
    json!({"description": step["description"], "actions": step["actions"]})
}
