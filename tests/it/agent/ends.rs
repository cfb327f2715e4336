//! Every way in which the built-in agent can end, asked for in the words of each API and read in them: a trigger, a
//! run, its event and its webhook.
//!
//! Natively each way is run, by the others one of each code, in one daemon of its own process. What an API shows is
//! held against the event, and the message against both, so no two of them can tell different stories of one run.

use serde_json::{Value, json};

use crate::support::receiver::Received;
use crate::support::{Binary, Home, Http, ModelServer, Reply, TestReceiver, eventually_sync};

const PROMPT: &str = "Find the price.";

/// One way to end.
struct Way {
    /// Code of the failure; `None`: it completes.
    code: Option<&'static str>,
    /// Keys of the executor.
    executor: &'static str,
    /// Keys of the agent.
    more: &'static str,
    /// What the model says.
    says: Vec<Reply>,
    /// Whether a price is promised; how, is the API's.
    priced: bool,
    /// Whether it is cancelled when the model has been asked.
    cancelled: bool,
}

fn way(code: &'static str, executor: &'static str, says: Vec<Reply>) -> Way {
    Way { code: Some(code), executor, more: "", says, priced: false, cancelled: false }
}

impl Way {
    fn with(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    fn priced(self) -> Self {
        Self { priced: true, ..self }
    }

    fn cancelled(self) -> Self {
        Self { cancelled: true, ..self }
    }
}

fn ways() -> Vec<Way> {
    let hint = |reply: Reply| reply.header("retry-after-ms", "1");
    let list = || Reply::call("list_dir", &json!({"path": "."}));
    let stop = || Reply::call("stop_execution", &json!({"reason": "no shop"}));
    let bad = || Reply::raw_call("finish", "{\"result\": ");
    let wrong = || Reply::finish(&json!({"price": "seven"}));
    let long = || Reply::text("long").cut_short();
    let done = vec![list(), wrong(), Reply::finish(&json!({"price": 7}))];
    vec![
        Way { code: None, ..way("", "  tools: [files]\n", done).priced() },
        way("step_limit", "  tools: [files]\n  limits: { max_steps: 2 }\n", vec![list(), list()]),
        way("budget_exceeded", "  limits: { max_tokens: 100 }\n", vec![]),
        way("budget_exceeded", "  limits: { max_cost_usd: 0.000001 }\n", vec![]),
        way("validation_failed", "", vec![stop()]),
        way("validation_failed", "", vec![Reply::call("finish", &json!({"result": null, "success": false}))]),
        way(
            "validation_failed",
            "  validators: [ { command: [sh, -c, 'echo ''{\"retry\": false}''; exit 1'] } ]\n",
            vec![Reply::finish(&json!(8))],
        ),
        // A code that nobody has registered.
        way(
            "unknown",
            "  validators: [ { command: [sh, -c, 'echo ''{\"retry\": false, \"code\": \"no_shop\"}''; exit 1'] } ]\n",
            vec![Reply::finish(&json!(8))],
        ),
        way(
            "price_missing",
            "  validators: [ { command: [sh, -c, 'echo ''{\"retry\": false, \"code\": \"price_missing\"}''; exit 1'] } ]\n",
            vec![Reply::finish(&json!(8))],
        )
        .with("failure_codes: { price_missing: A price is missing }\n"),
        way(
            "max_retries_exceeded",
            "",
            vec![wrong(), wrong(), wrong(), wrong(), Reply::text("I cannot.")],
        )
        .priced(),
        way(
            "max_retries_exceeded",
            "  validators: [ { command: [sh, -c, 'echo too dear; exit 1'] } ]\n  corrections: 0\n",
            vec![Reply::finish(&json!(8)), Reply::text("It was too dear.")],
        ),
        way("refused", "", vec![Reply::refusal("no")]),
        way("refused", "", vec![Reply::filtered()]),
        way("permission_denied", "", vec![list(), list(), list()]),
        way("permission_denied", "", vec![list(), stop()]),
        way("provider_error", "", vec![Reply::error(400, "invalid_request_error", "no such model")]),
        way("provider_error", "", vec![Reply::out_of_quota()]),
        way("provider_error", "", vec![Reply::endless()]),
        way("provider_error", "", (0..5).map(|_| hint(Reply::status(503))).collect()),
        way("rate_limited", "", (0..5).map(|_| hint(Reply::rate_limited())).collect()),
        way("runtime_error", "", vec![bad(), bad(), bad()]),
        way("runtime_error", "", vec![long(), long()]),
        way("launch_error", "  model: keyless/m\n", vec![]),
        way("timeout", "", vec![Reply::silence()]).with("timeout: 1s\n"),
        way("cancelled", "", vec![Reply::silence()]).cancelled(),
    ]
}

/// The first way to each code.
fn one_of_each() -> Vec<Way> {
    let mut ways = ways();
    ways.dedup_by_key(|way| way.code);
    ways
}

/// What is promised.
fn price() -> Value {
    json!({"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}})
}

/// How an API is asked for a run, and what it tells of one.
struct Api {
    /// Asks for a run of this result.
    start: fn(&Http, Option<Value>),
    /// Its words for a run that has completed and for one that has failed.
    words: [&'static str; 2],
    /// What it shows of the run of an event: its word for the state, code, sentence and result.
    told: fn(&Http, &Value) -> [Value; 4],
    /// How many failed runs its list has.
    failed: fn(&Http) -> usize,
}

/// What was posted, which has to be taken.
fn post(http: &Http, path: &str, body: &Value) -> Value {
    let answer = http.post(path, body);
    assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
    answer.json()
}

fn count(rows: &Value) -> usize {
    rows.as_array().unwrap_or_else(|| panic!("{rows} is no list")).len()
}

/// A home whose agent `default` is the way's.
fn write(home: &Home, way: &Way, receiver: &TestReceiver) {
    let executions = format!("executions: {{ plain: {{}}, priced: {{ result_schema: {} }} }}\n", price());
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\nbreaker: {{ failures: 0 }}\n", receiver.url);
    home.llm_agent("default", way.executor, &format!("{}{executions}{hook}", way.more));
}

/// Takes these ways through an API.
fn take(ways: Vec<Way>, api: &Api) {
    let (server, receiver, home) = (ModelServer::start(), TestReceiver::start(), Home::new());
    let keyless =
        format!("  keyless: {{ base_url: '{}', key: {{ env: NOT_SET }} }}\n", server.base("openai"));
    let prices = "prices: { openai/gpt-5: { input: 2, output: 10 } }\n";
    home.settings_with_http(&format!("{}{keyless}{prices}", server.settings()));
    write(&home, &way("", "", Vec::new()), &receiver);
    let (daemon, http) = Binary::start_with_key(home).with_http();
    let failed = ways.iter().filter(|way| way.code.is_some()).count();
    for (n, way) in ways.into_iter().enumerate() {
        write(&daemon.home, &way, &receiver);
        post(&http, "/v1/reload", &json!({}));
        let (what, asked) = (format!("way {n} ({:?})", way.code), server.asked().len());
        server.script(way.says.iter().cloned());
        (api.start)(&http, way.priced.then(price));
        if way.cancelled {
            eventually_sync("the model is asked", || (server.asked().len() > asked).then_some(()));
            post(&http, "/v1/events/@last/cancel", &json!({}));
        }
        let event = eventually_sync(&format!("{what} ends"), || {
            let event = http.get("/v1/events/@last").json()["data"].clone();
            ["COMPLETED", "FAILED"].contains(&event["status"].as_str()?).then_some(event)
        });
        assert_eq!(event["failureCode"], json!(way.code), "{what}: {event:#}");
        assert_eq!(server.left(), 0, "{what} asked less than it should: {}", event["error"]);
        let why = &event["failureExplanation"];
        let word = api.words[usize::from(way.code.is_some())];
        let result = if way.code.is_some() { Value::Null } else { json!({"price": 7}) };
        assert_eq!((api.told)(&http, &event), [json!(word), json!(way.code), why.clone(), result], "{what}");
        assert_eq!(why.is_string(), way.code.is_some(), "{what} says why");
        tells_the_same(&receiver, &event);
    }
    assert_eq!((api.failed)(&http), failed);
    assert_eq!(server.complaints(), Vec::<String>::new());
}

/// The message of a run says what its event says.
fn tells_the_same(receiver: &TestReceiver, event: &Value) {
    let message = eventually_sync("the message", || {
        receiver.received().iter().map(Received::json).find(|m| m["data"]["id"] == event["id"])
    });
    let kind = if event["status"] == "COMPLETED" { "run.completed" } else { "run.failed" };
    assert_eq!(message["type"], kind);
    for name in
        ["status", "failureCode", "failureExplanation", "result", "usage", "costUsd", "finalModel", "number"]
    {
        assert_eq!(message["data"][name], event[name], "{name}: {message:#}");
    }
}

#[test]
fn natively() {
    take(
        ways(),
        &Api {
            start: |http, schema| {
                let mut body = json!({});
                if let Some(schema) = schema {
                    body["resultSchema"] = schema;
                }
                post(http, "/v1/agents/default/execute", &body);
            },
            words: ["COMPLETED", "FAILED"],
            told: |_, event| {
                assert_eq!(event["error"], event["failureExplanation"]);
                ["status", "failureCode", "error", "result"].map(|name| event[name].clone())
            },
            failed: |http| count(&http.get("/v1/events?status=FAILED&limit=200").json()["data"]),
        },
    );
}

#[test]
fn as_kaizen() {
    take(
        one_of_each(),
        &Api {
            start: |http, schema| {
                let content = json!([{"type": "text", "text": PROMPT}]);
                let mut body = json!({"agentId": "default", "content": content});
                if let Some(schema) = schema {
                    body["summarySchema"] = schema;
                }
                post(http, "/agents/execute", &body);
            },
            words: ["Completed", "Failed"],
            told: |http, event| {
                let id = json!({"id": event["id"]});
                let steps = http.get(&format!("/v1/events/{}/history", event["id"].as_str().unwrap())).json();
                let events = post(http, "/executions/getEvents", &id);
                assert_eq!(count(&events["events"]), count(&steps["data"]));
                let execution = &post(http, "/executions/get", &id)["execution"];
                ["status", "failureCode", "failureExplanation", "response"]
                    .map(|name| execution[name].clone())
            },
            failed: |http| count(&post(http, "/executions/list", &json!({"status": "Failed"}))["executions"]),
        },
    );
}

#[test]
fn as_enthusiast() {
    take(
        one_of_each(),
        &Api {
            start: |http, schema| {
                let key = if schema.is_some() { "priced" } else { "plain" };
                post(http, "/api/agents/default/agentic-executions/", &json!({"execution_key": key}));
            },
            words: ["finished", "failed"],
            told: |http, event| {
                let execution = http.get(&format!("/api/agentic-executions/{}/", event["number"])).json();
                assert_eq!(execution["celery_task_id"], event["id"]);
                ["status", "failure_code", "failure_explanation", "result"]
                    .map(|name| execution[name].clone())
            },
            failed: |http| {
                let list = http.get("/api/agentic-executions/?status=failed").json();
                usize::try_from(list["count"].as_u64().unwrap()).unwrap()
            },
        },
    );
}

#[test]
fn as_tasks() {
    take(
        one_of_each(),
        &Api {
            start: |http, schema| {
                let mut body =
                    json!({"prompt": PROMPT, "wait_for_completion": false, "response_format": "json"});
                if let Some(schema) = schema {
                    body["json_schema"] = json!(schema.to_string());
                }
                post(http, "/api/runs", &body);
            },
            words: ["success", "failure"],
            told: |http, event| {
                let run = http.get(&format!("/api/runs/{}", event["number"])).json();
                let completed = event["status"] == "COMPLETED";
                assert_eq!((&run["is_done"], &run["is_successful"]), (&json!(true), &json!(completed)));
                let steps = http.get(&format!("/v1/events/{}/history", event["id"].as_str().unwrap())).json();
                let history = run["history"].as_array().unwrap();
                // The shape has no other place for a failure than one more step.
                assert_eq!(history.len(), count(&steps["data"]) + usize::from(!completed), "{run:#}");
                let last = &history.last().unwrap()["actions"][0];
                assert_eq!(
                    (&last["is_done"], &last["success"]),
                    (&json!(true), &json!(completed)),
                    "{run:#}"
                );
                let code = if completed { Value::Null } else { last["name"].clone() };
                [run["status"].clone(), code, last["error"].clone(), run["result"].clone()]
            },
            failed: |http| {
                let failed = |n: &i64| http.get(&format!("/api/runs/{n}")).json()["status"] == "failure";
                (1..=200)
                    .take_while(|n| http.get(&format!("/api/tasks/{n}")).status == 200)
                    .filter(failed)
                    .count()
            },
        },
    );
}
