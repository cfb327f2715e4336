//! The steps of a run over the router: paged, over all attempts, and never through a link.

use super::*;

async fn told(stand: &Stand, lines: &str) -> (String, std::path::PathBuf) {
    let id = stand.run().await;
    let (_, dirs) = stand.start().await;
    let events = dirs.attempt(1).events();
    std::fs::write(&events, lines).unwrap();
    (format!("/v1/events/{id}/history"), events)
}

#[tokio::test]
async fn history_is_paged_from_the_first_step_to_the_last() {
    let stand = Stand::one().await;
    let line = |n| format!("{{\"type\":\"step\",\"description\":\"s{n}\"}}");
    let lines: Vec<String> = (0..5).map(line).collect();
    let (path, _) = told(&stand, &format!("{}\nnonsense\n", lines.join("\n"))).await;
    let rows = stand.pages(&format!("{path}?")).await;
    let shown: Vec<(u64, &str)> =
        rows.iter().map(|s| (s["index"].as_u64().unwrap(), s["description"].as_str().unwrap())).collect();
    assert_eq!(shown, [(0, "s0"), (1, "s1"), (2, "s2"), (3, "s3"), (4, "s4")]);
    assert_eq!(rows[0]["attempt"], 1);
    let (_, whole) = stand.get(&path).await;
    assert_eq!((whole["data"].as_array().unwrap().len(), &whole["nextToken"]), (5, &Value::Null));
    for bad in ["?limit=0", "?limit=10001", "?nextToken=x", "?page=1"] {
        assert_eq!(stand.get(&format!("{path}{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_run_that_told_nothing_has_an_empty_history() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let path = format!("/v1/events/{id}/history");
    let empty = json!({"data": [], "nextToken": null});
    assert_eq!(stand.get(&path).await, (200, empty.clone()), "it waits");
    stand.start().await;
    assert_eq!(stand.get(&path).await, (200, empty), "it runs");
    let (status, body) = stand.get("/v1/events/ffffffffffffffffffffffffffffffff/history").await;
    assert_eq!((status, code(&body)), (404, "unknown_event"));
}

#[tokio::test]
async fn a_link_in_the_place_of_the_events_is_not_followed() {
    let stand = Stand::one().await;
    let (path, events) = told(&stand, "").await;
    std::fs::remove_file(&events).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &events).unwrap();
    let (status, body) = stand.get(&path).await;
    assert_eq!((status, code(&body)), (409, "history_replaced"));
}

#[tokio::test]
async fn one_reading_of_steps_is_bounded() {
    let stand = Stand::one().await;
    let line = format!("{{\"type\":\"step\",\"description\":\"{}\"}}\n", "x".repeat(1 << 20));
    let (path, _) = told(&stand, &line.repeat(20)).await;
    let (_, first) = stand.get(&path).await;
    let (shown, token) = (first["data"].as_array().unwrap().len(), first["nextToken"].as_str().unwrap());
    assert_eq!(shown, 15, "no more than STEPS_BYTES_MAX");
    let (_, rest) = stand.get(&format!("{path}?nextToken={token}")).await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["nextToken"]), (5, &Value::Null));
}
