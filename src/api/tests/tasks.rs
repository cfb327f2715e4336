//! The dialect of tasks over a router whose runs stay PENDING.

use super::*;

const DEFAULT: &str = "executor: { type: command, command: [/bin/true] }\n";

async fn ask(stand: &Stand, path: &str, body: &Value) -> (u16, Value) {
    stand.post(path, body.to_string()).await
}

#[tokio::test]
async fn who_does_not_wait_gets_the_integers() {
    let stand = Stand::new(&[("default", DEFAULT)], "").await;
    let body = json!({
        "prompt": "Find the price", "model": "o3", "provider": "openai", "wait_for_completion": false,
        "webhook_url": "https://hooks.example.com/x", "response_format": "json",
        "json_schema": "{\"type\": \"object\"}", "use_cached_workflow": false, "cached_workflow": {}
    });
    let (status, told) = ask(&stand, "/api/runs", &body).await;
    let wanted = json!({
        "task_id": 1, "task_run_id": 1, "history": null, "result": null, "is_done": false, "is_successful": null,
        "status": "in_progress"
    });
    assert_eq!((status, told), (200, wanted.clone()));
    let detail = stand.core.store.event(1).await.unwrap().unwrap();
    assert_eq!(detail.overrides.prompt.as_deref(), Some("Find the price"));
    assert_eq!(detail.overrides.webhook_url.as_deref(), Some("https://hooks.example.com/x"));
    assert_eq!(detail.overrides.result_schema, Some(json!({"type": "object"})));
    assert_eq!(detail.event.user_id.as_deref(), Some("ann"));
    let (status, run) = stand.get("/api/runs/1").await;
    assert_eq!((status, &run["task_id"], &run["status"]), (200, &json!(1), &json!("in_progress")));
    assert_eq!(stand.get(&format!("/api/runs/{}", detail.event.id)).await, (200, run));
    let (status, task) = stand.get("/api/tasks/1").await;
    let wanted = json!({
        "task_id": 1, "prompt": "Find the price", "model": "o3", "provider": "openai",
        "webhook_url": "https://hooks.example.com/x", "response_format": "json", "json_schema": {"type": "object"},
        "created_at": "2026-03-02T09:00:00.000Z", "runs": [{"task_run_id": 1, "status": "in_progress"}]
    });
    assert_eq!((status, task), (200, wanted));
}

#[tokio::test]
async fn a_task_runs_again_with_what_is_said_otherwise() {
    let stand = Stand::new(&[("default", DEFAULT)], "").await;
    let body = json!({"prompt": "first words", "wait_for_completion": false, "response_format": "json"});
    ask(&stand, "/api/runs", &body).await;
    let (status, told) = ask(&stand, "/api/tasks/1/runs", &json!({"wait_for_completion": false})).await;
    assert_eq!((status, &told["task_id"], &told["task_run_id"]), (200, &json!(1), &json!(2)));
    let other = json!({"wait_for_completion": false, "prompt": "other words", "response_format": "text"});
    ask(&stand, "/api/tasks/1/runs", &other).await;
    let prompt = async |run| stand.core.store.event(run).await.unwrap().unwrap().overrides.prompt.unwrap();
    assert_eq!((prompt(2).await, prompt(3).await), ("first words".into(), "other words".into()));
    let (_, task) = stand.get("/api/tasks/1").await;
    assert_eq!(
        (&task["prompt"], &task["response_format"]),
        (&json!("first words"), &json!("json")),
        "it stays as it was"
    );
    assert_eq!(task["runs"].as_array().unwrap().len(), 3);
    for none in ["9", "x", "-1"] {
        let (status, told) = ask(&stand, &format!("/api/tasks/{none}/runs"), &json!({})).await;
        assert_eq!((status, told), (404, json!({"detail": "Task not found"})), "{none}");
        assert_eq!(stand.get(&format!("/api/tasks/{none}")).await.0, 404);
        assert_eq!(stand.get(&format!("/api/runs/{none}")).await, (404, json!({"detail": "Run not found"})));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_told_with_its_place() {
    let stand = Stand::new(&[("default", DEFAULT)], "").await;
    let (status, told) = ask(&stand, "/api/runs", &json!({"prompt": "ab"})).await;
    let wanted = json!({"loc": ["body", "prompt"], "msg": "String should have at least 3 characters", "type": "string_too_short"});
    assert_eq!((status, told), (422, json!({ "detail": [wanted] })));
    let workflow = json!({"version": 1, "steps": [{"tool": "shell", "arguments": {}}], "result": "model"});
    let (status, told) =
        ask(&stand, "/api/runs", &json!({"prompt": "abc", "cached_workflow": workflow})).await;
    let place = json!(["body", "cached_workflow", "steps", 0, "tool"]);
    assert_eq!((status, &told["detail"][0]["loc"]), (422, &place), "{told}");
    // Refused by the engine, not by the form.
    for (field, bad) in [("webhook_url", json!("http://127.0.0.1/x")), ("webhook_url", json!("x"))] {
        let (status, told) = ask(&stand, "/api/runs", &json!({"prompt": "abc", field: bad})).await;
        assert_eq!((status, &told["detail"][0]["loc"]), (422, &json!(["body", field])), "{told}");
    }
    let (status, _, body) = stand.send(Request::put("/api/runs").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), body.as_slice()), (405, br#"{"detail":"Method Not Allowed"}"#.as_slice()));
    let (status, told) = stand.get("/api/runs/1/nothing").await;
    assert_eq!((status, told), (404, json!({"detail": "Not Found"})));
    assert_eq!(stand.get("/api/tasks/1").await.0, 404, "no task was made of any of them");
}

#[tokio::test]
async fn without_a_file_the_agent_is_built_in_and_in_no_list() {
    let stand = Stand::one().await;
    let (status, told) =
        ask(&stand, "/api/runs", &json!({"prompt": "abc", "wait_for_completion": false})).await;
    assert_eq!((status, &told["task_run_id"]), (200, &json!(1)), "{told}");
    let (_, event) = stand.get("/v1/events/@last").await;
    assert_eq!(event["data"]["agentId"], "default");
    let (_, agents) = stand.get("/v1/agents").await;
    assert_eq!(agents["data"].as_array().unwrap().len(), 1, "{agents}");
    assert_eq!(stand.get("/v1/agents/default").await.0, 404);
    let (_, again) = ask(&stand, "/api/runs", &json!({"prompt": "abc", "wait_for_completion": false})).await;
    assert_eq!(again["task_id"], 2);
}

#[tokio::test]
async fn a_request_that_comes_again_makes_one_task() {
    let stand = Stand::new(&[("default", DEFAULT)], "").await;
    let ask = async |prompt: &str| {
        let body = json!({"prompt": prompt, "wait_for_completion": false}).to_string();
        let request =
            Request::post("/api/runs").extension(Caller::user(0, "ann")).header("idempotency-key", "k");
        let (status, _, body) = stand.send(request.body(Body::from(body)).unwrap()).await;
        (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    let first = ask("abc").await;
    assert_eq!(first.0, 200);
    assert_eq!(ask("abc").await, first);
    assert_eq!(ask("other").await.0, 409);
    assert_eq!(stand.get("/api/tasks/2").await.0, 404);
}

#[tokio::test]
async fn who_waits_waits_no_longer_than_the_ceiling() {
    let stand = Stand::new(&[("default", DEFAULT)], "wait_ceiling: 1m\n").await;
    let body = json!({"prompt": "abc"});
    let waits = ask(&stand, "/api/runs", &body);
    // The loops do not run: only the clock can end the wait.
    let ticks = async {
        loop {
            stand.clock.advance(std::time::Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
    };
    let (status, told) = tokio::select! {
        told = waits => told,
        () = ticks => unreachable!("it has no end"),
    };
    assert_eq!(status, 200);
    assert_eq!(
        (&told["status"], &told["task_id"], &told["is_done"]),
        (&json!("in_progress"), &json!(1), &json!(false))
    );
}
