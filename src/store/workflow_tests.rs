//! Versions of workflows, and what runs used of a browser, against a real file.

use serde_json::json;

use super::tests::{Fixture, fixture};
use super::*;
use crate::model::workflow::{Cached, Made, Replay, Workflow};
use crate::model::{Failure, FailureCode, Outcome, Overlap};

fn workflow(url: &str, tokens: u64) -> Workflow {
    let steps = json!([{"tool": "browser_navigate", "arguments": {"url": url}}]);
    let cost = json!({"model_calls": 3, "tokens": tokens});
    Workflow::read(&json!({"version": 1, "steps": steps, "result": "model", "recorded": cost})).unwrap()
}

fn purpose(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn made(letter: char, url: &str, tokens: u64) -> Outcome {
    let made = Some(Made { purpose: purpose(letter), workflow: workflow(url, tokens) });
    Outcome { cached: Box::new(Cached { made, ..Cached::default() }), ..Outcome::default() }
}

async fn carry_out(f: &Fixture, outcome: Outcome) -> i64 {
    f.manual(Overlap::Allow).await.unwrap();
    let claimed = f.claim_one().await;
    let _ = f.start(&claimed).await.unwrap();
    let _ = f.finish(&claimed, outcome).await.unwrap();
    claimed.number
}

async fn versions(f: &Fixture) -> Vec<(i64, bool, bool)> {
    let rows = f.store.workflows(f.agent.number).await.unwrap();
    rows.iter().map(|row| (row.number, row.pinned, row.current)).collect()
}

#[tokio::test]
async fn a_completed_run_leaves_a_version_and_a_failed_one_none() {
    let f = fixture().await;
    assert!(!f.store.has_workflows(f.agent.number).await.unwrap());
    let first = carry_out(&f, made('a', "http://a/", 10)).await;
    assert!(f.store.has_workflows(f.agent.number).await.unwrap());
    let failed = Outcome {
        failure: Some(Failure::new(FailureCode::RuntimeError, "no")),
        ..made('a', "http://b/", 10)
    };
    carry_out(&f, failed).await;
    carry_out(&f, made('a', "http://a/", 99)).await;
    assert_eq!(versions(&f).await, [(1, false, true)], "the same is not kept twice");
    let row = f.store.workflow_of_run(first).await.unwrap().unwrap();
    assert_eq!((row.number, row.workflow), (1, workflow("http://a/", 10)));
    assert!(row.run.is_some());
    carry_out(&f, made('a', "http://b/", 10)).await;
    carry_out(&f, made('b', "http://a/", 10)).await;
    assert_eq!(versions(&f).await, [(3, false, true), (2, false, true), (1, false, false)]);
    let of = f.store.workflows_for(f.agent.number, purpose('a')).await.unwrap();
    assert_eq!(of.iter().map(|row| row.number).collect::<Vec<_>>(), [2, 1]);
    carry_out(&f, made('a', "http://a/", 10)).await;
    assert_eq!(versions(&f).await, [(4, false, true), (3, false, true), (2, false, false)], "right again");
}

#[tokio::test]
async fn a_pinned_version_is_used_and_stays_and_numbers_never_come_again() {
    let f = fixture().await;
    let agent = f.agent.number;
    for n in 0..3 {
        carry_out(&f, made('a', &format!("http://{n}/"), 10)).await;
    }
    assert!(f.store.pin_workflow(agent, 1, true).await.unwrap());
    assert!(f.store.pin_workflow(agent, 2, true).await.unwrap(), "in the place of the other");
    assert!(!f.store.pin_workflow(agent, 9, true).await.unwrap());
    assert_eq!(versions(&f).await, [(3, false, false), (2, true, true), (1, false, false)]);
    let of = f.store.workflows_for(agent, purpose('a')).await.unwrap();
    assert_eq!(of.iter().map(|row| row.number).collect::<Vec<_>>(), [2]);
    for n in 3..3 + WORKFLOW_VERSIONS_MAX {
        carry_out(&f, made('a', &format!("http://{n}/"), 10)).await;
    }
    let kept = versions(&f).await;
    assert_eq!((kept.len(), kept.last()), (WORKFLOW_VERSIONS_MAX + 1, Some(&(2, true, true))));
    assert_eq!(f.store.forget_workflows(agent, Some(2)).await.unwrap(), 1);
    assert_eq!(f.store.workflows_for(agent, purpose('a')).await.unwrap().len(), WORKFLOW_VERSIONS_MAX);
    assert_eq!(f.store.forget_workflows(agent, None).await.unwrap(), WORKFLOW_VERSIONS_MAX);
    carry_out(&f, made('a', "http://again/", 10)).await;
    assert_eq!(versions(&f).await, [(14, false, true)]);
    assert!(f.store.pin_workflow(agent, 14, true).await.unwrap());
    assert!(f.store.pin_workflow(agent, 14, false).await.unwrap());
    assert_eq!(versions(&f).await, [(14, false, true)]);
}

#[tokio::test]
async fn an_event_tells_what_a_run_used_and_what_it_saved() {
    let f = fixture().await;
    let plain = carry_out(&f, Outcome::default()).await;
    let replay = Replay { version: Some(4), steps: 5, replayed_steps: 4, repaired: true };
    let cached =
        Cached { replay: Some(replay), saved_model_calls: Some(3), saved_tokens: Some(900), made: None };
    let outcome = Outcome { browser: Some((5, 1_001)), cached: Box::new(cached), ..Outcome::default() };
    let run = carry_out(&f, outcome).await;
    let event = f.store.event(run).await.unwrap().unwrap().event;
    assert_eq!((event.browser_step_count, event.browser_session_seconds), (Some(5), Some(2)));
    assert_eq!(
        (event.workflow, event.saved_model_calls, event.saved_tokens),
        (Some(replay), Some(3), Some(900))
    );
    let none = f.store.event(plain).await.unwrap().unwrap().event;
    assert_eq!(
        (none.browser_step_count, none.workflow, none.saved_tokens),
        (None, None, None),
        "unknown is not 0"
    );
}
