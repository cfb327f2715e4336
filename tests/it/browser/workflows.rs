//! Workflows over the API: the versions of an agent, runs that are told to use one, and what is refused.

use serde_json::{Value, json};

use super::cases;
use crate::support::http::Answer;
use crate::support::{Binary, Http, ModelServer, Site, eventually_sync};

fn ended(http: &Http, begun: &Answer) -> Value {
    assert!((200..300).contains(&begun.status), "{}", begun.text());
    eventually_sync("it ends", || {
        let event = http.get("/v1/events/@last").json()["data"].clone();
        ["COMPLETED", "FAILED"].contains(&event["status"].as_str()?).then_some(event)
    })
}

#[test]
fn versions_are_listed_used_pinned_and_forgotten() {
    let (server, site) = (ModelServer::start(), Site::start());
    let home = cases::home(&server, &site, "", "");
    home.settings_with_http(&server.settings());
    let text = std::fs::read_to_string(home.path().join("agents/prices.yaml")).unwrap();
    home.write("agents/default.yaml", &text);
    home.agent("program", "true", "");
    let (_daemon, http) = Binary::start_with_key(home).with_http();
    let case = cases::prices(&site);
    let turns = case.script.len();
    server.script(case.script);
    let run = |body: &Value, calls: usize| {
        server.forget();
        let event = ended(&http, &http.post("/v1/agents/default/execute", body));
        assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &case.result), "{event:#}");
        assert_eq!(server.asked().len(), calls, "{body}");
        event
    };
    let first = run(&json!({"useCachedWorkflow": true}), turns);
    let at = |path: &str| format!("/v1/agents/default/workflows{path}");
    let listed = http.get(&at("")).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed["data"][0]["version"], &listed["data"][0]["eventId"]), (&json!(1), &first["id"]));
    assert!(listed["data"][0]["workflow"].is_null(), "only its heads");
    let one = http.get(&at("/1")).json()["data"].clone();
    let workflow = one["workflow"].clone();
    assert_eq!(workflow["steps"][0]["tool"], "browser_navigate", "{one:#}");
    let second = run(&json!({"useCachedWorkflow": true}), 0);
    assert_eq!(second["workflow"]["version"], 1, "{second:#}");
    let given = run(&json!({ "cachedWorkflow": workflow }), 0);
    assert!(given["workflow"]["version"].is_null(), "{given:#}");

    let pinned =
        |what: &str| http.post(&at(&format!("/1/{what}")), &json!({})).json()["data"]["pinned"].clone();
    assert_eq!((pinned("pin"), pinned("unpin")), (json!(true), json!(false)));
    let diff = http.get(&at("/1/diff/1")).json();
    assert_eq!(diff["data"], json!({"changes": [], "truncated": false}));
    for path in ["/9", "/x", "/1/diff/9", "/9/diff/1"] {
        assert_eq!(http.get(&at(path)).status, 404, "{path}");
    }
    assert_eq!(http.get("/v1/agents/nobody/workflows").status, 404);
    assert_eq!(http.post(&at("/9/pin"), &json!({})).status, 404);
    assert_eq!(http.post(&at("/1/pin"), &json!({"version": 1})).status, 422, "it takes no fields");

    let prompt = json!({"prompt": "Find the price.", "use_cached_workflow": true, "response_format": "json",
        "json_schema": cases::schema_of(&case.result).to_string(), "wait_for_completion": true});
    server.forget();
    let asked = http.post("/api/runs", &prompt).json();
    assert_eq!((&asked["result"], server.asked().len()), (&case.result, 0), "{asked:#}");
    assert_eq!(asked["cached_workflow"]["steps"], workflow["steps"]);
    let number = &asked["task_run_id"];
    let again = |query: &str| http.get(&format!("/api/runs/{number}{query}"));
    assert!(again("").json()["cached_workflow"]["steps"].is_array(), "the run was asked for with it");
    assert_eq!(again("?cached_workflow=true").json()["cached_workflow"]["steps"], workflow["steps"]);
    assert_eq!(again("?cached_workflow=perhaps").status, 400);

    let remove = |path: &str| http.send("DELETE", &at(path), &[], b"");
    let forgotten = remove("/1").json();
    assert_eq!(forgotten["data"]["forgotten"], 1, "{forgotten}");
    assert_eq!((http.get(&at("/1")).status, remove("/1").status), (404, 404));
    assert_eq!(remove("").json()["data"]["forgotten"], 0);
    let bad = json!({"useCachedWorkflow": true, "cachedWorkflow": workflow});
    let refused = http.post("/v1/agents/program/execute", &bad).json();
    let places: Vec<&Value> =
        refused["error"]["details"].as_array().unwrap().iter().map(|d| &d["pointer"]).collect();
    assert_eq!(places, ["/useCachedWorkflow", "/cachedWorkflow"], "{refused}");
}
