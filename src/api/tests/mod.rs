//! The router in process, over a real store and a core whose loops do not run: what is admitted stays
//! PENDING, and what a launcher would write is written by the test.

mod enthusiast;
mod history;
mod lists;
mod loglines;
mod logs;
mod metrics;
mod runs;
mod stream;
mod tasks;
mod undone;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::config::{self, Env};
use crate::engine::{Launcher, Parts};
use crate::exec::RunDirs;
use crate::ids::{RunId, SeededEntropy};
use crate::model::{NotRun, Outcome};
use crate::proc::Identity;
use crate::store::{Admission, Choice, Claimed, Finish, Store, Verdict};
use crate::task::{Stop, Tasks};
use crate::time::{TestClock, from_ms};

/// 2026-03-02 09:00 UTC, a Monday.
const NOW: i64 = 1_772_442_000_000;

struct Stand {
    _dir: tempfile::TempDir,
    core: Arc<Core>,
    clock: TestClock,
    router: Router,
}

/// A request that names no caller is root's.
async fn by_root(mut request: axum::extract::Request, next: middleware::Next) -> Response {
    if request.extensions().get::<Caller>().is_none() {
        request.extensions_mut().insert(Caller::user(0, "root"));
    }
    next.run(request).await
}

const AGENT: &str = "executor: { type: command, command: [/bin/true] }\n\
                     schedules: [{ cron: '0 9 * * MON-FRI', timezone: Europe/Berlin }]\n";

impl Stand {
    async fn new(agents: &[(&str, &str)], settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("agents")).unwrap();
        std::fs::write(
            dir.path().join("matins.yaml"),
            format!("agents_dir: agents\nstate_dir: var\n{settings}"),
        )
        .unwrap();
        for (id, text) in agents {
            std::fs::write(dir.path().join(format!("agents/{id}.yaml")), text).unwrap();
        }
        let env = Env::default();
        let (settings, problems) = config::load_settings(&config::locate(Some(dir.path()), &env), &env);
        assert!(!problems.has_errors(), "{}", problems.render(false));
        let loaded = config::load_agents(&settings, &env, from_ms(NOW));
        std::fs::create_dir_all(settings.state_dir.join("runs")).unwrap();
        let (store, _threads) = Store::open(&settings.state_dir.join("matins.db")).unwrap();
        let clock = TestClock::new(from_ms(NOW));
        let core = Core::new(Parts {
            store,
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededEntropy::new(7)),
            executor: Arc::new(Launcher { exe: "/none".into(), state_dir: settings.state_dir.clone() }),
            settings,
            env,
            tasks: Tasks::new(Stop::new()),
        });
        core.catalog.replace(&core.store, &loaded, NOW).await.unwrap();
        let router = router(Arc::clone(&core)).layer(middleware::from_fn(by_root));
        Self { _dir: dir, core, clock, router }
    }

    async fn one() -> Self {
        Self::new(&[("a", AGENT)], "").await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts.status, parts.headers, to_bytes(body, 1 << 26).await.unwrap().to_vec())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}")))
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let caller = Caller::user(0, "ann");
        let request = Request::post(path).extension(caller).body(body.into()).unwrap();
        let (status, _, body) = self.send(request).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}")))
    }

    async fn run(&self) -> String {
        let (status, body) = self.post("/v1/agents/a/execute", "").await;
        assert_eq!(status, 202, "{body}");
        body["data"]["eventId"].as_str().unwrap().to_owned()
    }

    /// Every row of a list, by pages of two.
    async fn pages(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut next) = (Vec::new(), String::new());
        loop {
            let (status, page) = self.get(&format!("{path}limit=2{next}")).await;
            assert_eq!(status, 200, "{page}");
            let data = page["data"].as_array().unwrap();
            assert!(data.len() <= 2 && !data.is_empty(), "a page is neither too long nor empty");
            rows.extend(data.clone());
            match page["nextToken"].as_str() {
                Some(token) => next = format!("&nextToken={token}"),
                None => return rows,
            }
        }
    }

    async fn raw(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status.as_u16(), String::from_utf8(body).unwrap())
    }
}

impl Stand {
    /// Moves the oldest run that waits to RUNNING, as the dispatcher would.
    async fn start(&self) -> (Claimed, RunDirs) {
        let claimed = {
            let room = crate::store::Room { runs: 1, ..Default::default() };
            self.core.store.claim_next(room, NOW).await.unwrap().runs.remove(0)
        };
        let launcher =
            Identity { boot_id: crate::ids::BootId::new("b"), pid: 1, start_ticks: 1, pidfd_inode: 1 };
        let start =
            self.core.store.start(claimed.number, claimed.id, claimed.epoch, launcher, Vec::new(), NOW);
        assert_eq!(start.await.unwrap(), crate::store::Wanted::Yes);
        let dirs = RunDirs::new(self.core.state_dir(), claimed.id);
        std::fs::create_dir_all(dirs.attempt(1).path()).unwrap();
        (claimed, dirs)
    }

    async fn finish(&self, claimed: &Claimed) {
        self.finish_as(claimed, Outcome::default()).await;
    }

    async fn finish_as(&self, claimed: &Claimed, outcome: Outcome) {
        let verdict = if outcome.failure.is_some() { Verdict::Failure } else { Verdict::Success };
        let finish = Finish {
            number: claimed.number,
            id: claimed.id,
            epoch: claimed.epoch,
            outcome,
            deliveries: Vec::new(),
            breaker: crate::store::BreakerStep { verdict, ..Default::default() },
            changed: None,
            compared: crate::store::Compared::Nothing,
            at_ms: NOW,
        };
        let _ = self.core.store.finish(finish).await.unwrap();
    }
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn what_is_not_there_is_answered_in_the_same_shape() {
    let stand = Stand::one().await;
    for path in ["/", "/v1", "/v1/nothing", "/v2/agents", "/v1/agents/"] {
        let (status, body) = stand.get(path).await;
        assert_eq!((status, code(&body)), (404, "unknown_route"), "{path}");
    }
    let (status, headers, body) =
        stand.send(Request::delete("/v1/agents").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "GET,HEAD"));
    assert_eq!(code(&serde_json::from_slice(&body).unwrap()), "method_not_allowed");
    let (status, _, body) = stand.send(Request::head("/v1/agents").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), body.len()), (200, 0));
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let stand = Stand::one().await;
    let id = |given: Option<&'static str>, path: &'static str| {
        let mut request = Request::get(path);
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let answer = stand.send(request.body(Body::empty()).unwrap());
        async { answer.await.1["x-request-id"].to_str().unwrap().to_owned() }
    };
    assert_eq!(id(Some("abc-1"), "/healthz").await, "abc-1");
    assert_eq!(id(Some("abc-1"), "/none").await, "abc-1");
    let made = id(Some("with space"), "/healthz").await;
    assert_eq!(made.len(), 16);
    assert_ne!(id(None, "/healthz").await, made);
}

#[tokio::test]
async fn readiness_ends_with_the_soft_stop_and_health_does_not() {
    let stand = Stand::one().await;
    assert_eq!(stand.get("/readyz").await.0, 200);
    stand.core.tasks.stop().soft();
    assert_eq!(stand.get("/healthz").await.0, 200);
    let (status, body) = stand.get("/readyz").await;
    assert_eq!((status, code(&body)), (503, "draining"));
    let (_, headers, body) =
        stand.send(Request::post("/v1/agents/a/execute").body(Body::empty()).unwrap()).await;
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(code(&serde_json::from_slice(&body).unwrap()), "draining");
    assert_eq!(stand.get("/v1/status").await.1["data"]["draining"], true);
}

#[tokio::test]
async fn status_tells_of_the_whole() {
    let stand = Stand::new(&[("a", AGENT), ("bad", "nonsense: 1\n")], "max_running: 3\n").await;
    stand.run().await;
    stand.clock.advance(std::time::Duration::from_secs(2));
    let (_, body) = stand.get("/v1/status").await;
    let data = &body["data"];
    assert_eq!(data["agents"], json!({"active": 1, "paused": 0, "invalid": 1}));
    assert_eq!(data["runs"], json!({"pending": 1, "running": 0}));
    assert_eq!(data["deliveries"], json!({"pending": 0, "exhausted": 0}));
    assert_eq!(data["lateness"], json!({"count": 0, "p50Ms": null, "p99Ms": null}));
    assert_eq!((&data["maxRunning"], &data["uptimeMs"]), (&json!(3), &json!(2000)));
    assert_eq!(data["pid"], std::process::id());
}

#[tokio::test]
async fn agents_are_listed_by_id_found_and_paged() {
    let named = format!("{AGENT}name: Shelf Watch\ndescription: blue things\n");
    let agents = [("c", AGENT), ("a", AGENT), ("b", named.as_str()), ("d", "nonsense: 1\n")];
    let stand = Stand::new(&agents, "").await;
    let ids = |rows: &[Value]| rows.iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&stand.pages("/v1/agents?").await), ["a", "b", "c", "d"]);
    for q in ["shelf", "BLUE", "b"] {
        let (_, body) = stand.get(&format!("/v1/agents?q={q}")).await;
        assert!(ids(body["data"].as_array().unwrap()).contains(&"b".to_owned()), "{q}");
    }
    let (_, body) = stand.get("/v1/agents/a?fires=2").await;
    let agent = &body["data"];
    assert_eq!(agent["schedules"][0]["timing"], "0 9 * * MON-FRI Europe/Berlin");
    assert_eq!(agent["schedules"][0]["overlap"], "skip");
    assert_eq!(agent["schedules"][0]["catchUp"], "latest");
    let fires = json!([
        {"at": "2026-03-03T08:00:00.000Z", "timezone": "Europe/Berlin"},
        {"at": "2026-03-04T08:00:00.000Z", "timezone": "Europe/Berlin"},
    ]);
    assert_eq!((&agent["nextFires"], &agent["status"]), (&fires, &json!("ACTIVE")));
    assert_eq!(agent["definitionSha256"].as_str().unwrap().len(), 64);
    assert_eq!(agent["lastRun"], Value::Null);
    let run = stand.run().await;
    assert_eq!(stand.get("/v1/agents/a").await.1["data"]["lastRun"]["id"], run);
    let (_, body) = stand.get("/v1/agents/d").await;
    assert_eq!((&body["data"]["status"], &body["data"]["nextFires"]), (&json!("INVALID"), &json!([])));
}

#[tokio::test]
async fn questions_are_read_strictly() {
    let stand = Stand::one().await;
    for path in [
        "/v1/agents?limt=1",
        "/v1/agents?limit=0",
        "/v1/agents?limit=201",
        "/v1/agents?limit=x",
        "/v1/agents?limit=1&limit=2",
        "/v1/agents?fires=101",
        "/v1/agents?nextToken=abc",
        "/v1/agents/a?x=1",
        "/v1/events?status=done",
        "/v1/events?status=",
        "/v1/events?startedAfter=yesterday",
        "/v1/events?requestId=7",
        "/v1/events?agentId=A",
        "/v1/agents/a/events?agentId=a",
        "/v1/slots?agentId=a",
        "/v1/deliveries?state=sent",
        "/v1/events/@last/logs?stream=stdin",
        "/v1/events/@last/logs?offset=-1",
        "/v1/events/@last/logs?offset=1&tail=1",
    ] {
        assert_eq!(stand.get(path).await.0, 400, "{path}");
    }
    let cursor = cursor::Kind::Deliveries.encode("1");
    assert_eq!(stand.get(&format!("/v1/events?nextToken={cursor}")).await.0, 400, "a foreign cursor");
    for path in ["/v1/agents/none", "/v1/agents/No/events", "/v1/agents/none/slots", "/v1/agents/none/events"]
    {
        assert_eq!(stand.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn events_are_listed_filtered_paged_and_named() {
    let stand = Stand::new(&[("a", AGENT), ("b", AGENT)], "").await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(stand.run().await);
        stand.clock.advance(std::time::Duration::from_mins(10));
    }
    let (_, other) = stand.post("/v1/agents/b/execute", "").await;
    let other = other["data"]["eventId"].as_str().unwrap().to_owned();
    let ids = |rows: &[Value]| rows.iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let newest_first: Vec<String> = runs.iter().rev().cloned().collect();
    assert_eq!(ids(&stand.pages("/v1/agents/a/events?").await), newest_first);
    assert_eq!(ids(&stand.pages("/v1/events?agentId=a&").await), newest_first);
    assert_eq!(stand.pages("/v1/events?").await.len(), 6);
    let (_, all) = stand.get("/v1/events").await;
    assert!(all["data"][0].get("result").is_none(), "lists carry no bodies");
    let of = async |query: &str| {
        ids(stand.get(&format!("/v1/events?{query}")).await.1["data"].as_array().unwrap())
    };
    assert_eq!(of(&format!("requestId={}", runs[1])).await, [runs[1].as_str()]);
    assert!(of(&format!("requestId={}&agentId=b", runs[1])).await.is_empty(), "the other filters hold");
    assert!(of(&format!("requestId={}", RunId::generate(1, &SeededEntropy::new(1)))).await.is_empty());
    assert_eq!(of("status=PENDING").await.len(), 6);
    assert!(of("status=FAILED").await.is_empty() && of("trigger=schedule").await.is_empty());
    assert!(of("startedAfter=2026-01-01").await.is_empty(), "none has started");
    for (name, id) in [
        ("@last", &other),
        ("a@last", &runs[4]),
        (&runs[2][..23], &runs[2]),
        (&runs[2].replace('-', ""), &runs[2]),
    ] {
        assert_eq!(stand.get(&format!("/v1/events/{name}")).await.1["data"]["id"], **id, "{name}");
    }
    let (status, answer) = stand.get(&format!("/v1/events/{}", &runs[0][..4])).await;
    assert_eq!((status, code(&answer)), (409, "ambiguous"));
    assert!(answer["error"]["details"].as_array().unwrap().len() >= 2);
    let (status, answer) = stand.get("/v1/events/019").await;
    assert_eq!((status, code(&answer)), (400, "prefix_too_short"));
    for name in ["none@last", "zzzz", "%00", &"0".repeat(40)] {
        assert_eq!(stand.get(&format!("/v1/events/{name}")).await.0, 404, "{name}");
    }
}

#[tokio::test]
async fn the_ledger_is_paged() {
    let stand = Stand::one().await;
    let entry = stand.core.catalog.get(&"a".parse().unwrap()).unwrap();
    let schedule = &entry.schedules[0];
    let not_run = |hours: i64, count: u64| Choice::NotRun {
        nominal_ms: NOW + hours * 3_600_000,
        until_ms: NOW + (hours + i64::try_from(count).unwrap() - 1) * 3_600_000,
        count,
        reason: NotRun::MissedWindow,
        into_own_run: false,
        into_pass: None,
    };
    let pass = Admission {
        schedule: schedule.number,
        agent: entry.number,
        from_ms: schedule.watermark_ms,
        to_ms: NOW + 100 * 3_600_000,
        choices: vec![not_run(1, 1), not_run(2, 1), not_run(3, 3), not_run(6, 1), not_run(7, 1)],
        all_not_run: None,
        max_runs: None,
        tell: None,
    };
    stand.core.store.admit_passes(vec![pass], NOW).await.unwrap();
    let nominal = |row: &Value| row["nominal"].as_str().unwrap()[11..13].to_owned();
    for path in ["/v1/slots?", "/v1/agents/a/slots?"] {
        let rows = stand.pages(path).await;
        assert_eq!(rows.iter().map(nominal).collect::<Vec<_>>(), ["16", "15", "12", "11", "10"], "{path}");
        let stretch = json!({
            "agentId": "a", "scheduleId": schedule.schedule.id, "nominal": "2026-03-02T12:00:00.000Z",
            "until": "2026-03-02T14:00:00.000Z", "count": 3, "outcome": "not_run", "reason": "missed_window",
            "runId": null, "latenessMs": null,
        });
        assert_eq!(rows[2], stretch);
    }
}

#[tokio::test]
async fn pings_are_deliveries() {
    let settings = "webhooks: [{ url: 'http://127.0.0.1:9/all' }]\n";
    let with = format!("{AGENT}webhooks: [{{ url: 'http://127.0.0.1:9/mine' }}]\n");
    let stand = Stand::new(&[("a", &with), ("b", AGENT)], settings).await;
    assert_eq!(stand.post("/v1/webhooks/test", r#"{"nonsense": "http://x"}"#).await.0, 422);
    let (status, answer) = stand.post("/v1/webhooks/test", r#"{"url": "http://x/"}"#).await;
    assert_eq!((status, code(&answer)), (404, "no_endpoint"), "only what a file names");
    assert_eq!(stand.post("/v1/webhooks/test", r#"{"agentId": "none"}"#).await.0, 404);
    let (status, sent) = stand.post("/v1/webhooks/test", r#"{"agentId": "a"}"#).await;
    assert_eq!((status, sent["data"]["deliveryIds"].as_array().unwrap().len()), (202, 2));
    stand.post("/v1/webhooks/test", "").await;
    let rows = stand.pages("/v1/deliveries?").await;
    let urls: Vec<&str> = rows.iter().map(|d| d["url"].as_str().unwrap()).collect();
    assert_eq!(urls.len(), 3);
    assert_eq!(
        (&rows[0]["type"], &rows[0]["state"], &rows[0]["eventId"]),
        (&json!("ping"), &json!("PENDING"), &Value::Null)
    );
    assert_eq!(stand.get("/v1/deliveries?state=EXHAUSTED").await.1["data"], json!([]));
    let id = rows[0]["id"].as_str().unwrap();
    assert_eq!(stand.post(&format!("/v1/deliveries/{id}/redeliver"), "").await.0, 202);
    for none in ["x", "msg_00000000000000000000000000000000"] {
        let (status, answer) = stand.post(&format!("/v1/deliveries/{none}/redeliver"), "").await;
        assert_eq!((status, code(&answer)), (404, "unknown_delivery"), "{none}");
    }
    let silent = Stand::one().await;
    let (status, answer) = silent.post("/v1/webhooks/test", "").await;
    assert_eq!((status, code(&answer)), (409, "no_endpoint"));
}

#[tokio::test]
async fn a_panic_is_the_requests_own() {
    async fn panics() -> &'static str {
        panic!("a secret detail")
    }
    let routes = Router::new().route("/", get(panics));
    let app = routes.layer(CatchPanicLayer::custom(observe::panicked));
    let answer = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 500);
    let body = to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(code(&body), "internal");
    assert!(!body.to_string().contains("secret"));
}
