//! The dialect of agentic executions over a router whose runs stay PENDING.

use super::*;

const CATALOG: &str = "executor: { type: command, command: [/bin/true] }
dataset_id: 3
executions:
  catalog-enrichment:
    name: Catalog Enrichment
    input_schema:
      title: CatalogEnrichmentAgenticExecutionInput
      description: Input for the catalog enrichment agentic execution.
      type: object
      additionalProperties: false
      properties:
        additional_instructions:
          { title: Additional Instructions, anyOf: [{ type: string }, { type: \"null\" }], default: null }
        skus:
          title: Skus
          anyOf: [{ items: { type: string }, type: array }, { type: \"null\" }]
          default: null
  must:
    description: Needs a field
    input_schema:
      type: object
      required: [required_field]
      properties:
        required_field: { type: string }
        optional_field: { type: integer, default: 10 }
        more: { type: array, items: { type: object, required: [n], properties: { n: { type: integer } } } }
  open: {}
";
const OTHER: &str = "executor: { type: command, command: [/bin/true] }\nexecutions: { elsewhere: {} }\n";
const PLAIN: &str = "executor: { type: command, command: [/bin/true] }\n";

impl Stand {
    async fn shop() -> Self {
        Self::new(&[("shop", CATALOG), ("other", OTHER), ("plain", PLAIN)], "").await
    }

    async fn as_user(&self, user: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).extension(Caller::user(0, user));
        let request = request.header("host", "shop.example:7700").body(Body::from(body)).unwrap();
        let (status, _, body) = self.send(request).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}")))
    }

    async fn read(&self, path: &str) -> (u16, Value) {
        self.as_user("ann", "GET", path, &Value::Null).await
    }

    async fn begin(&self, agent: &str, body: &Value) -> (u16, Value) {
        self.as_user("ann", "POST", &format!("/api/agents/{agent}/agentic-executions/"), body).await
    }
}

#[tokio::test]
async fn definitions_are_the_variants_of_an_agent() {
    let stand = Stand::shop().await;
    let (status, list) = stand.read("/api/agents/shop/agentic-execution-definitions/").await;
    assert_eq!(status, 200);
    assert_eq!(
        list[0],
        json!({
            "key": "catalog-enrichment", "name": "Catalog Enrichment", "description": null,
            "input_schema": {
                "title": "CatalogEnrichmentAgenticExecutionInput",
                "description": "Input for the catalog enrichment agentic execution.",
                "type": "object", "additionalProperties": false,
                "properties": {
                    "additional_instructions": {
                        "title": "Additional Instructions", "anyOf": [{"type": "string"}, {"type": "null"}], "default": null
                    },
                    "skus": {
                        "title": "Skus",
                        "anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}], "default": null
                    }
                }
            }
        })
    );
    assert_eq!(
        list[1]["input_schema"]["additionalProperties"], false,
        "unknown fields are refused, and it says so"
    );
    assert_eq!(
        list[2],
        json!({"key": "open", "name": "open", "description": null, "input_schema": {"type": "object"}})
    );
    let number = stand.core.catalog.get(&"shop".parse().unwrap()).unwrap().number;
    let by_number = format!("/api/agents/{number}/agentic-execution-definitions/");
    assert_eq!(stand.read(&by_number).await, (200, list));
    assert_eq!(stand.read("/api/agents/plain/agentic-execution-definitions/").await, (200, json!([])));
    for gone in ["99999", "nobody", "No/Agent", "-1"] {
        let path = format!("/api/agents/{}/agentic-execution-definitions/", gone.replace('/', "%2F"));
        assert_eq!(stand.read(&path).await, (404, json!({"detail": "Agent not found."})), "{gone}");
    }
}

#[tokio::test]
async fn an_execution_is_answered_as_it_was_admitted() {
    let stand = Stand::shop().await;
    let body = json!({"execution_key": "catalog-enrichment", "input": {"skus": ["SKU-001"]}, "unknown": 1});
    let (status, told) = stand.begin("shop", &body).await;
    assert_eq!(status, 202, "{told}");
    let run =
        stand.core.store.events(crate::store::EventFilter { limit: 1, ..Default::default() }).await.unwrap();
    let agent = stand.core.catalog.get(&"shop".parse().unwrap()).unwrap().number;
    let wanted = json!({
        "id": run[0].number, "agent": agent, "execution_key": "catalog-enrichment", "conversation": told["conversation"],
        "status": "pending", "input": {"skus": ["SKU-001"], "additional_instructions": null}, "result": null,
        "failure_code": null, "failure_explanation": null, "celery_task_id": run[0].id,
        "started_at": "2026-03-02T09:00:00.000000Z", "finished_at": null, "duration_seconds": null, "files": []
    });
    assert_eq!(told, wanted);
    assert!(told["conversation"].is_i64());
    assert_eq!(run[0].user_id.as_deref(), Some("ann"));
    for name in [run[0].number.to_string(), run[0].id.clone()] {
        assert_eq!(stand.read(&format!("/api/agentic-executions/{name}/")).await, (200, wanted.clone()));
    }
    let detail = stand.core.store.event(run[0].number).await.unwrap().unwrap();
    assert_eq!(detail.overrides.input, Some(wanted["input"].clone()), "stored with its defaults");
}

#[tokio::test]
async fn a_path_without_its_last_slash_leads_to_the_one_with_it() {
    let stand = Stand::shop().await;
    for (method, path, to) in [
        ("GET", "/api/agentic-executions?status=failed", "/api/agentic-executions/?status=failed"),
        ("POST", "/api/agents/shop/agentic-executions", "/api/agents/shop/agentic-executions/"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (status, headers, _) = stand.send(request).await;
        assert_eq!((status.as_u16(), headers["location"].to_str().unwrap()), (308, to));
    }
    let other = Request::get("/api/runs/1/nothing").body(Body::empty()).unwrap();
    assert_eq!(stand.send(other).await.0.as_u16(), 404);
}

#[tokio::test]
async fn only_who_asked_sees_an_execution() {
    let stand = Stand::shop().await;
    let (_, told) = stand.begin("shop", &json!({"execution_key": "open"})).await;
    let path = format!("/api/agentic-executions/{}/", told["id"]);
    let gone = json!({"detail": "No AgenticExecution matches the given query."});
    assert_eq!(stand.as_user("bob", "GET", &path, &Value::Null).await, (404, gone.clone()));
    let (_, list) = stand.as_user("bob", "GET", "/api/agentic-executions/", &Value::Null).await;
    assert_eq!(list, json!({"count": 0, "next": null, "previous": null, "results": []}));
    let (status, plain) = stand.post("/v1/agents/plain/execute", "").await;
    assert_eq!(status, 202);
    let plain = format!("/api/agentic-executions/{}/", plain["data"]["eventId"].as_str().unwrap());
    assert_eq!(stand.read(&plain).await, (404, gone.clone()), "a run without a key is none");
    for none in ["99999", "x", "0"] {
        assert_eq!(
            stand.read(&format!("/api/agentic-executions/{none}/")).await,
            (404, gone.clone()),
            "{none}"
        );
    }
}

#[tokio::test]
async fn a_wrong_start_is_told_as_the_original_does() {
    let stand = Stand::shop().await;
    let detail = |text: &str| json!({ "detail": text });
    for (body, wanted) in [
        (json!({}), detail("No execution definition class registered with EXECUTION_KEY=''.")),
        (
            json!({"execution_key": "x"}),
            detail("No execution definition class registered with EXECUTION_KEY='x'."),
        ),
        (
            json!({"execution_key": "elsewhere"}),
            detail("Execution 'elsewhere' does not belong to this agent."),
        ),
        (json!({"execution_key": 5}), json!({"execution_key": ["Not a valid string."]})),
        (json!({"execution_key": "must"}), json!({"input": {"required_field": "Field required"}})),
        (
            json!({"execution_key": "must", "input": {"required_field": "ok", "surprise": 1}}),
            json!({"input": {"surprise": "Extra inputs are not permitted"}}),
        ),
        (
            json!({"execution_key": "must", "input": {"required_field": "ok", "optional_field": "no"}}),
            json!({"input": {"optional_field": "\"no\" is not of type \"integer\""}}),
        ),
        (
            json!({"execution_key": "must", "input": {"required_field": "ok", "more": [{"n": 1}, {}]}}),
            json!({"input": {"more.1.n": "Field required"}}),
        ),
        (
            json!({"execution_key": "open", "input": [1]}),
            json!({"input": ["Expected a dictionary of items but got type \"list\"."]}),
        ),
        (json!({"execution_key": "open", "input": null}), json!({"input": ["This field may not be null."]})),
    ] {
        assert_eq!(stand.begin("shop", &body).await, (400, wanted), "{body}");
    }
    let (status, told) = stand.begin("shop", &json!([1])).await;
    assert_eq!((status, told), (400, json!({"non_field_errors": ["Invalid data. Expected a dictionary."]})));
    let (status, told) = stand.begin("shop", &json!({"execution_key": "open", "input": "{\"a\""})).await;
    assert!(status == 400 && told["input"].as_str().unwrap().starts_with("Invalid JSON: "), "{told}");
    assert_eq!(stand.begin("nobody", &json!({})).await, (404, detail("Agent not found.")));
    let (_, list) = stand.read("/api/agentic-executions/").await;
    assert_eq!(list["count"], 0, "nothing was made of any of them");
}

#[tokio::test]
async fn errors_that_no_handler_makes_have_the_shape_too() {
    let stand = Stand::shop().await;
    let path = "/api/agents/shop/agentic-executions/";
    let send = async |request: Request<Body>| {
        let (status, headers, body) = stand.send(request).await;
        (status.as_u16(), headers, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let post = || Request::post(path).extension(Caller::user(0, "ann"));
    let (status, _, told) = send(post().body(Body::from("{\"a\"")).unwrap()).await;
    assert!(status == 400 && told["detail"].as_str().unwrap().starts_with("JSON parse error"), "{told}");
    let text = post().header("content-type", "text/plain").body(Body::from("x")).unwrap();
    let (status, _, told) = send(text).await;
    assert!(status == 415 && told["detail"].is_string(), "{told}");
    let (status, headers, told) = send(Request::put(path).body(Body::empty()).unwrap()).await;
    assert!(status == 405 && told["detail"].is_string() && headers["allow"] == "POST", "{told}");
    let (status, _, told) =
        send(Request::get("/api/agents/shop/nothing/").body(Body::empty()).unwrap()).await;
    assert_eq!((status, told), (404, json!({"detail": "Not found."})));
    let long = post().body(Body::from(vec![b' '; BODY_MAX + 1])).unwrap();
    let (status, headers, told) = send(long).await;
    assert!(status == 413 && told["detail"].is_string() && headers.contains_key("x-request-id"), "{told}");
}

#[tokio::test]
async fn pages_have_twenty_five_and_know_their_neighbours() {
    let stand = Stand::shop().await;
    for _ in 0..60 {
        assert_eq!(stand.begin("shop", &json!({"execution_key": "open"})).await.0, 202);
    }
    let here = "http://shop.example:7700/api/agentic-executions/";
    let (_, first) = stand.read("/api/agentic-executions/").await;
    assert_eq!((&first["count"], &first["previous"]), (&json!(60), &Value::Null));
    assert_eq!(first["next"], format!("{here}?page=2"));
    let ids = |page: &Value| -> Vec<i64> {
        page["results"].as_array().unwrap().iter().map(|e| e["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids(&first).len(), 25);
    assert!(first["results"][0].get("files").is_none(), "a list has no files");
    let (_, second) = stand.read("/api/agentic-executions/?page=2&x=1").await;
    assert_eq!(
        (&second["next"], &second["previous"]),
        (&json!(format!("{here}?page=3&x=1")), &json!(format!("{here}?x=1")))
    );
    let (_, last) = stand.read("/api/agentic-executions/?page=last").await;
    assert_eq!((ids(&last).len(), &last["next"]), (10, &Value::Null));
    let all: Vec<i64> = [&first, &second, &last].into_iter().flat_map(ids).collect();
    assert!(all.windows(2).all(|pair| pair[0] > pair[1]) && all.len() == 60, "newest first, each once");
    for none in ["0", "-1", "4", "x", "99999999999999999999"] {
        let (status, told) = stand.read(&format!("/api/agentic-executions/?page={none}")).await;
        assert_eq!((status, told), (404, json!({"detail": "Invalid page."})), "{none}");
    }
}

#[tokio::test]
async fn filters_narrow_and_what_there_is_not_is_nothing() {
    let stand = Stand::shop().await;
    for (agent, key) in [("shop", "open"), ("other", "elsewhere"), ("shop", "open")] {
        assert_eq!(stand.begin(agent, &json!({ "execution_key": key })).await.0, 202);
    }
    let number = stand.core.catalog.get(&"other".parse().unwrap()).unwrap().number;
    for (query, count) in [
        ("", 3),
        ("agent_id=shop", 2),
        (&*format!("agent_id={number}"), 1),
        ("agent_id=nobody", 0),
        ("agent_id=plain", 0),
        ("status=pending", 3),
        ("status=in_progress", 0),
        ("status=PENDING", 0),
        ("status=whatever&page=1", 0),
        ("dataset_id=3", 2),
        ("dataset_id=4", 0),
        ("dataset_id=3&agent_id=other", 0),
        ("dataset_id=3&agent_id=shop&status=pending", 2),
        ("status=&agent_id=&dataset_id=", 3),
    ] {
        let (status, list) = stand.read(&format!("/api/agentic-executions/?{query}")).await;
        assert_eq!((status, &list["count"]), (200, &json!(count)), "{query}: {list}");
        assert_eq!(list["results"].as_array().unwrap().len(), count, "{query}");
    }
    let (status, told) = stand.read("/api/agentic-executions/?dataset_id=x").await;
    assert_eq!((status, told), (400, json!({"dataset_id": ["A valid integer is required."]})));
    assert_eq!(stand.read("/api/agentic-executions/?status=x&page=2").await.0, 404);
}

#[tokio::test]
async fn a_request_that_comes_again_makes_one_execution() {
    let stand = Stand::shop().await;
    let ask = async |body: Value| {
        let request = Request::post("/api/agents/shop/agentic-executions/").extension(Caller::user(0, "ann"));
        let request = request.header("idempotency-key", "k").body(Body::from(body.to_string())).unwrap();
        let (status, _, body) = stand.send(request).await;
        (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (_, first) = ask(json!({"execution_key": "open"})).await;
    let (status, second) = ask(json!({"execution_key": "open"})).await;
    assert_eq!((status, &second["id"]), (202, &first["id"]));
    let (status, told) = ask(json!({"execution_key": "open", "input": {"a": 1}})).await;
    assert!(status == 409 && told["detail"].is_string(), "{told}");
}
