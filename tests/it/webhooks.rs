//! Webhooks through the whole daemon.

use std::time::Duration;

use matins::engine::PingTarget;
use matins::model::{DeliveryState, Overrides, RunState};
use matins::store::{DeliveryFilter, DeliveryRow};
use serde_json::json;

use crate::support::receiver::Answer;
use crate::support::{Home, TestDaemon, TestReceiver, eventually_sync};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn hooked(url: &str, more: &str) -> String {
    format!("webhooks: [ {{ url: \"{url}\", {more} }} ]\n")
}

fn deliveries(daemon: &TestDaemon) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    daemon.block_on(daemon.core().store.deliveries(filter)).unwrap()
}

fn wait_state(daemon: &TestDaemon, state: DeliveryState) -> Vec<DeliveryRow> {
    eventually_sync(&format!("deliveries are {state}"), || {
        let rows = deliveries(daemon);
        (!rows.is_empty() && rows.iter().all(|r| r.state == state)).then_some(rows)
    })
}

#[test]
fn both_ends_are_told_signed_and_once() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.write("secret", SECRET);
    let secret = format!("secret: {{ file: {} }}", home.path().join("secret").display());
    home.agent("good", "echo '{\"n\":1}' > $MATINS_RESULT_FILE", &hooked(&receiver.url, &secret));
    home.agent("bad", "echo it broke >&2; exit 4", &hooked(&receiver.url, &secret));
    let daemon = TestDaemon::start(home);
    let (good, bad) = (daemon.trigger("good"), daemon.trigger("bad"));
    daemon.wait_end(good);
    daemon.wait_end(bad);
    wait_state(&daemon, DeliveryState::Delivered);
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    let of = |run: matins::ids::RunId| {
        received.iter().find(|r| r.json()["data"]["id"] == run.to_string()).expect("it was told")
    };
    let body = of(good).json();
    assert_eq!(body["type"], "run.completed");
    assert_eq!(body["data"]["status"], "COMPLETED");
    assert_eq!(body["data"]["agentId"], "good");
    assert_eq!(body["data"]["result"], json!({"n": 1}));
    assert_eq!(body["data"]["links"]["event"], format!("/v1/events/{good}"));
    let body = of(bad).json();
    assert_eq!(body["type"], "run.failed");
    assert_eq!(body["data"]["failureCode"], "runtime_error");
    assert!(body["data"]["error"].as_str().unwrap().contains("it broke"));
    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    for r in &received {
        let id = r.header("webhook-id").to_owned();
        let stamp: i64 = r.header("webhook-timestamp").parse().unwrap();
        assert_eq!(verifier.sign(&id, stamp, r.body.as_bytes()).unwrap(), r.header("webhook-signature"));
    }
}

#[test]
fn a_receiver_that_is_down_for_a_while_gets_everything_later() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Status(500), Answer::Status(503), Answer::Status(302)]);
    let home = Home::new();
    home.agent("a", "true", &hooked(&receiver.url, ""));
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    let attempts = |n: i64| {
        eventually_sync(&format!("{n} attempts"), || (deliveries(&daemon)[0].attempts == n).then_some(()));
    };
    attempts(1);
    daemon.advance(Duration::from_secs(7));
    attempts(2);
    daemon.advance(Duration::from_secs(301));
    daemon.advance(Duration::from_secs(60));
    attempts(3);
    daemon.advance(Duration::from_secs(2200));
    wait_state(&daemon, DeliveryState::Delivered);
    let ids: Vec<String> = receiver.received().iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id == ids[0]), "one stable id: {ids:?}");
    assert!(receiver.received().iter().all(|r| r.body == receiver.received()[0].body));
}

#[test]
fn a_dead_letter_is_kept_and_can_be_sent_again() {
    let receiver = TestReceiver::start();
    receiver.answer(std::iter::repeat_n(Answer::Status(500), 8));
    let home = Home::new();
    home.agent("a", "true", &hooked(&receiver.url, ""));
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    let dead = eventually_sync("it is given up", || {
        daemon.advance(Duration::from_secs(3600));
        deliveries(&daemon).into_iter().find(|d| d.state == DeliveryState::Exhausted)
    });
    assert_eq!((dead.attempts, dead.last_status), (8, Some(500)));
    assert!(daemon.block_on(daemon.core().redeliver(dead.id.clone())).unwrap());
    let row = wait_state(&daemon, DeliveryState::Delivered).remove(0);
    assert_eq!((row.attempts, row.id), (9, dead.id));
}

#[test]
fn retry_after_is_honoured() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::RetryAfter(429, 900)]);
    let home = Home::new();
    home.agent("a", "true", &hooked(&receiver.url, ""));
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    let row =
        eventually_sync("the first attempt", || deliveries(&daemon).into_iter().find(|d| d.attempts == 1));
    let wait = row.next_at_ms.unwrap() - crate::support::daemon::START_MS;
    assert!((900_000..1_200_000).contains(&wait), "{wait} ms");
    daemon.advance(Duration::from_secs(1200));
    wait_state(&daemon, DeliveryState::Delivered);
}

#[test]
fn a_crash_between_end_and_attempt_loses_no_message() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Status(500)]);
    let home = Home::new();
    home.agent("a", "true", &hooked(&receiver.url, ""));
    let mut daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    eventually_sync("the first attempt", || deliveries(&daemon).into_iter().find(|d| d.attempts == 1));
    daemon.crash();
    daemon.advance(Duration::from_secs(3600));
    daemon.restart();
    wait_state(&daemon, DeliveryState::Delivered);
}

#[test]
fn a_slow_endpoint_holds_up_no_other() {
    let (slow, quick) = (TestReceiver::start(), TestReceiver::start());
    slow.answer(std::iter::repeat_n(Answer::Slow(Duration::from_secs(2)), 8));
    let home = Home::new();
    home.settings("max_running: 16\n");
    home.agent("slow", "true", &(hooked(&slow.url, "") + "overlap: allow\n"));
    home.agent("quick", "true", &(hooked(&quick.url, "") + "overlap: allow\n"));
    let daemon = TestDaemon::start(home);
    for _ in 0..8 {
        daemon.trigger("slow");
    }
    eventually_sync("the slow one is busy", || (slow.received().len() >= 4).then_some(()));
    daemon.trigger("quick");
    eventually_sync("the quick one hears", || (quick.received().len() == 1).then_some(()));
    assert_eq!(slow.received().len(), 4, "a few at once to one endpoint");
    daemon.settle();
    wait_state(&daemon, DeliveryState::Delivered);
}

#[test]
fn a_callers_url_is_guarded_and_unsigned_without_a_secret() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = TestDaemon::start(home);
    let overrides = |url: &str| Overrides { webhook_url: Some(url.to_owned()), ..Overrides::default() };
    for url in
        [receiver.url.as_str(), "http://169.254.169.254/latest", "ftp://example.com/", "http://localhost:1/"]
    {
        let refused = daemon.ask("a", overrides(url), None, None);
        assert!(
            matches!(&refused, Err(matins::engine::Refused::Field { pointer, .. }) if pointer == "/webhookUrl"),
            "{url}: {refused:?}"
        );
    }
    daemon.allow_leftovers = true;
    daemon.home.settings("allow_private_webhooks: true\n");
    daemon.restart();
    let run = daemon.trigger_with("a", overrides(&receiver.url));
    assert_eq!(daemon.wait_end(run).event.status, RunState::Completed);
    eventually_sync("it is told", || (receiver.received().len() == 1).then_some(()));
    assert_eq!(receiver.received()[0].header("webhook-signature"), "");
}

#[test]
fn a_ping_reaches_the_endpoints() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.agent("a", "true", &hooked(&receiver.url, ""));
    home.agent("silent", "true", "");
    let daemon = TestDaemon::start(home);
    let sent = daemon.block_on(daemon.core().ping(PingTarget::Agent("a".parse().unwrap()))).unwrap();
    assert_eq!(sent.len(), 1);
    wait_state(&daemon, DeliveryState::Delivered);
    assert_eq!(receiver.received()[0].json()["type"], "ping");
    assert!(daemon.block_on(daemon.core().ping(PingTarget::Agent("silent".parse().unwrap()))).is_err());
}

#[test]
fn an_endpoint_that_is_gone_gets_nothing_more_and_the_others_hear_of_it() {
    let (gone, other) = (TestReceiver::start(), TestReceiver::start());
    gone.answer([Answer::Status(410)]);
    let home = Home::new();
    let hooks = format!(
        "webhooks: [ {{ url: \"{}\" }}, {{ url: \"{}\", events: [endpoint.disabled] }} ]\n",
        gone.url, other.url
    );
    home.agent("a", "true", &hooks);
    let mut daemon = TestDaemon::start(home);
    let trigger = |daemon: &TestDaemon| {
        let run = daemon.trigger("a");
        daemon.wait_end(run);
    };
    trigger(&daemon);
    eventually_sync("the other hears", || (other.received().len() == 1).then_some(()));
    let body = other.received()[0].json();
    assert_eq!(body["type"], "endpoint.disabled");
    assert_eq!(
        format!("http://{}/hook", body["data"]["host"].as_str().unwrap()),
        gone.url,
        "no path is told"
    );
    daemon.restart();
    trigger(&daemon);
    let dead = |n: usize| {
        let rows = deliveries(&daemon);
        let to_it: Vec<_> = rows.into_iter().filter(|d| d.url == gone.url).collect();
        assert!(to_it.iter().all(|d| d.state == DeliveryState::Exhausted), "{to_it:#?}");
        assert_eq!(to_it.len(), n);
        to_it
    };
    assert_eq!(dead(2)[0].attempts, 0);
    assert_eq!(gone.received().len(), 1, "nothing more is sent");
    let alerting = daemon.block_on(daemon.core().alerting()).unwrap();
    assert_eq!((alerting.disabled[0].endpoint.as_str(), alerting.exhausted), (gone.url.as_str(), 2));
    assert!(daemon.block_on(daemon.core().enable_endpoint(gone.url.clone())).unwrap());
    assert!(!daemon.block_on(daemon.core().enable_endpoint(gone.url.clone())).unwrap());
    trigger(&daemon);
    eventually_sync("it hears again", || (gone.received().len() == 2).then_some(()));
    let missed =
        deliveries(&daemon).into_iter().find(|d| d.state == DeliveryState::Exhausted && d.attempts == 0);
    let missed = missed.unwrap();
    daemon.block_on(daemon.core().redeliver(missed.id)).unwrap();
    eventually_sync("and what it missed", || (gone.received().len() == 3).then_some(()));
    eventually_sync("all is told", || {
        deliveries(&daemon).iter().all(|d| d.state != DeliveryState::Pending).then_some(())
    });
}

#[test]
fn many_messages_for_a_slow_endpoint_hold_up_no_other() {
    let (slow, quick) = (TestReceiver::start(), TestReceiver::start());
    slow.answer(std::iter::repeat_n(Answer::Slow(Duration::from_secs(60)), 400));
    let home = Home::new();
    home.agent("quick", "true", &hooked(&quick.url, ""));
    let mut daemon = TestDaemon::start(home);
    daemon.allow_leftovers = true;
    let backlog = (0..400).map(|n| matins::store::NewDelivery {
        id: format!("msg_{n:032x}").parse().unwrap(),
        event: matins::model::WebhookEvent::Ping,
        url: slow.url.clone(),
        secret: None,
        private: true,
        format: matins::model::Format::Standard,
        agent: None,
        once: None,
        body: "{}".to_owned(),
    });
    daemon.block_on(daemon.core().store.add_deliveries(backlog.collect(), 0)).unwrap();
    daemon.core().wake.deliverer.notify_one();
    eventually_sync("the slow one is busy", || (slow.received().len() == 4).then_some(()));
    let run = daemon.trigger("quick");
    daemon.wait_end(run);
    eventually_sync("the quick one hears", || (quick.received().len() == 1).then_some(()));
    assert_eq!(slow.received().len(), 4);
    daemon.crash();
}

/// Runs the check of the package `standardwebhooks` of `PyPI` on one request.
fn python_accepts(received: &crate::support::receiver::Received, body: &str) -> bool {
    python_accepts_with(SECRET, received, body)
}

fn python_accepts_with(secret: &str, received: &crate::support::receiver::Received, body: &str) -> bool {
    use std::io::Write as _;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("MATINS_TEST_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), std::path::PathBuf::from);
    let headers: serde_json::Map<String, serde_json::Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    let mut child = std::process::Command::new(&python)
        .arg(root.join("tests/fixtures/verify_webhook.py"))
        .arg(secret)
        .arg(serde_json::to_string(&headers).unwrap())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}; scripts/test installs what it needs", python.display()));
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "scripts/test installs what it needs ({status})");
    status.success()
}

/// Runs the check of the package `standardwebhooks` of npm on one request.
fn node_accepts(received: &crate::support::receiver::Received, body: &str) -> bool {
    use std::io::Write as _;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("MATINS_TEST_NODE")
        .map_or_else(|| root.join("target/node"), std::path::PathBuf::from);
    let headers: serde_json::Map<String, serde_json::Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    let mut child = std::process::Command::new("node")
        .arg(root.join("tests/fixtures/verify_webhook.mjs"))
        .arg(folder)
        .arg(SECRET)
        .arg(serde_json::to_string(&headers).unwrap())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("node: {e}; scripts/test installs what it needs"));
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "scripts/test installs what it needs ({status})");
    status.success()
}

/// A daemon whose agent `a` tells `receiver`, signed with the secret in a file. Its clock is real: other
/// verifiers compare the time stamp with their own.
fn signing(receiver: &TestReceiver) -> TestDaemon {
    let home = Home::new();
    home.write("secret", SECRET);
    let secret = format!("secret: {{ file: {} }}", home.path().join("secret").display());
    home.agent("a", "true", &hooked(&receiver.url, &secret));
    let daemon = TestDaemon::start(home);
    daemon.go_to_real_time();
    daemon
}

#[test]
fn another_implementation_accepts_our_signature() {
    let receiver = TestReceiver::start();
    let daemon = signing(&receiver);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    wait_state(&daemon, DeliveryState::Delivered);
    let received = receiver.received().remove(0);
    let changed = received.body.replace("COMPLETED", "FAILED");
    assert!(python_accepts(&received, &received.body) && node_accepts(&received, &received.body));
    assert!(!python_accepts(&received, &changed), "a changed body is refused");
    assert!(!node_accepts(&received, &changed), "a changed body is refused");
}

#[test]
fn a_secret_is_exchanged_without_a_restart_and_without_a_gap() {
    const NEW: &str = "whsec_bmV3IHNlY3JldCBvZiB0aGUgcmVjZWl2ZXIsIGxvbmc=";
    let receiver = TestReceiver::start();
    let daemon = signing(&receiver);
    let send = |n: usize| {
        let run = daemon.trigger("a");
        daemon.wait_end(run);
        wait_state(&daemon, DeliveryState::Delivered);
        eventually_sync("it is told", || {
            (receiver.received().len() == n).then(|| receiver.received().remove(n - 1))
        })
    };
    let accepted = |r: &crate::support::receiver::Received| {
        (python_accepts_with(SECRET, r, &r.body), python_accepts_with(NEW, r, &r.body))
    };
    assert_eq!(accepted(&send(1)), (true, false));
    daemon.home.write("secret", &format!("{NEW}\n{SECRET}\n"));
    let both = send(2);
    assert_eq!(both.header("webhook-signature").split(' ').count(), 2);
    assert_eq!(accepted(&both), (true, true), "old and new receivers verify");
    daemon.home.write("secret", NEW);
    assert_eq!(accepted(&send(3)), (false, true));
}
