//! Runs over the router: triggered, refused, cancelled.

use super::*;

#[tokio::test]
async fn a_trigger_is_a_row_before_its_answer() {
    let stand = Stand::one().await;
    let body = json!({
        "prompt": "p {{ x }}", "input": {"n": 1}, "resultSchema": {"type": "object"}, "timeout": "90s", "overlap": "queue",
    });
    let (status, answer) = stand.post("/v1/agents/a/execute", body.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["data"]["eventId"].as_str().unwrap();
    assert_eq!((&answer["data"]["requestId"], &answer["data"]["agentId"]), (&json!(id), &json!("a")));
    let (_, body) = stand.get(&format!("/v1/events/{id}")).await;
    let event = &body["data"];
    assert_eq!(
        (&event["status"], &event["trigger"], &event["userId"]),
        (&json!("PENDING"), &json!("manual"), &json!("ann"))
    );
    let overrides = json!({
        "prompt": "p {{ x }}", "input": {"n": 1}, "resultSchema": {"type": "object"}, "timeoutMs": 90000,
    });
    assert_eq!(event["overrides"], overrides);
    assert_eq!((&event["attempts"], &event["result"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn a_trigger_that_cannot_be_is_refused_with_its_reason() {
    let stand = Stand::new(&[("a", AGENT), ("bad", "nonsense: 1\n")], "").await;
    let post = |body: &'static str| stand.post("/v1/agents/a/execute", body);
    for (body, pointer) in [
        (r#"{"promt": "x"}"#, "/promt"),
        (r#"{"prompt": 1}"#, "/prompt"),
        (r#"{"input": [1]}"#, "/input"),
        (r#"{"skills": ["none"]}"#, "/skills"),
        (r#"{"timeout": "soon"}"#, "/timeout"),
        (r#"{"timeout": 0}"#, "/timeout"),
        (r#"{"overlap": "wait"}"#, "/overlap"),
        (r#"{"resultSchema": {"type": "nothing"}}"#, "/resultSchema"),
        (r#"{"webhookUrl": "http://169.254.169.254/"}"#, "/webhookUrl"),
        (r#"{"model": ""}"#, "/model"),
        (r#"{"model": "lite"}"#, "/model"),
        (r#"{"useCachedWorkflow": 1}"#, "/useCachedWorkflow"),
        (r#"{"useCachedWorkflow": true}"#, "/useCachedWorkflow"),
        (r#"{"cachedWorkflow": []}"#, "/cachedWorkflow"),
        (
            r#"{"cachedWorkflow": {"version": 1, "steps": [{"tool": "shell", "arguments": {}}], "result": "model"}}"#,
            "/cachedWorkflow/steps/0/tool",
        ),
        ("[]", ""),
    ] {
        let (status, answer) = post(body).await;
        assert_eq!(
            (status, &answer["error"]["details"][0]["pointer"]),
            (422, &json!(pointer)),
            "{body}: {answer}"
        );
    }
    assert_eq!(post("{").await.0, 400);
    assert_eq!(stand.post("/v1/agents/none/execute", "").await.0, 404);
    assert_eq!(stand.post("/v1/agents/bad/execute", "").await.0, 404, "it was never good");
    let form =
        Request::post("/v1/agents/a/execute").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(stand.send(form.body("{}".into()).unwrap()).await.0, 415);
    for bad in [" ".to_owned(), "k".repeat(256)] {
        let key = Request::post("/v1/agents/a/execute").header("idempotency-key", &bad);
        assert_eq!(stand.send(key.body(Body::empty()).unwrap()).await.0, 400, "{bad:?}");
    }
    assert_eq!(stand.get("/v1/events").await.1["data"], json!([]), "nothing was admitted");
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let stand = Stand::one().await;
    let body = |bytes: usize| {
        let start = r#"{"input": {}, "prompt": "x", "overlap": "queue"}"#.to_owned();
        let rest = " ".repeat(bytes - start.len());
        start + &rest
    };
    assert_eq!(stand.post("/v1/agents/a/execute", body(BODY_MAX)).await.0, 202);
    let (status, answer) = stand.post("/v1/agents/a/execute", body(BODY_MAX + 1)).await;
    assert_eq!((status, code(&answer)), (413, "body_too_large"));
}

#[tokio::test]
async fn a_busy_agent_refuses_by_the_callers_policy() {
    let stand = Stand::one().await;
    let first = stand.run().await;
    let (status, answer) = stand.post("/v1/agents/a/execute", r#"{"overlap": "skip"}"#).await;
    assert_eq!((status, code(&answer)), (409, "overlap"));
    assert_eq!(answer["error"]["details"][0]["eventId"], first);
    for _ in 1..100 {
        stand.run().await;
    }
    let (status, answer) = stand.post("/v1/agents/a/execute", "").await;
    assert_eq!((status, code(&answer)), (429, "queue_full"));
}

#[tokio::test]
async fn a_cancelled_run_says_by_whom_and_cannot_be_cancelled_again() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    assert_eq!(stand.post("/v1/events/@last/cancel", r#"{"force": true}"#).await.0, 422);
    let (status, answer) = stand.post("/v1/events/@last/cancel", "").await;
    assert_eq!((status, &answer["data"]["eventId"]), (202, &json!(id)));
    let (_, body) = stand.get(&format!("/v1/events/{id}")).await;
    let event = &body["data"];
    assert_eq!((&event["status"], &event["failureCode"]), (&json!("FAILED"), &json!("cancelled")));
    assert_eq!(event["error"], "cancelled by ann");
    let (status, answer) = stand.post(&format!("/v1/events/{id}/cancel"), "").await;
    assert_eq!((status, code(&answer)), (409, "already_ended"));
    assert_eq!(stand.post("/v1/events/none@last/cancel", "").await.0, 404);
}
