//! Target 2: a durable 202 over the socket, against a bare commit and a bare request.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use matins::engine::Core;
use matins::model::Overlap;

use crate::{Better, bare, figure, median, stand};

/// Enough of them that no queue of 100 fills up: what is measured is a 202.
const AGENTS: usize = 256;
const ONE_CLIENT: usize = 1_000;
const CLIENTS: usize = 64;
const EACH: usize = 150;
const REPETITIONS: usize = 5;

/// Runs the bench.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut limit, mut one, mut bare_rate, mut many) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let dir = tempfile::tempdir().expect("a directory");
        let db = bare::database(&dir.path().join("bare.db"));
        let commit = bare::commit(&db, ONE_CLIENT);
        bare_rate.push(bare::life_cycles(&db, 100, Duration::from_secs(1)));
        let request = runtime.block_on(bare_request(dir.path()));
        limit.push((commit + request) * 1e6);
        let (p50, rate) = runtime.block_on(ours(dir.path()));
        one.push(p50 * 1e6);
        many.push(rate);
    }
    figure(
        "trigger.one_client_p50_vs_commit_and_request",
        median(one),
        median(limit),
        "us",
        Some((Better::AtMost, 2.0)),
    );
    figure(
        "trigger.64_clients_vs_bare_life_cycles",
        median(many),
        median(bare_rate),
        "runs/s",
        Some((Better::AtLeast, 0.5)),
    );
}

/// Serves `router` on a socket below `dir` for as long as the runtime lives.
fn serve(dir: &Path, name: &str, router: axum::Router) -> std::path::PathBuf {
    let path = dir.join(name);
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move { axum::serve(listener, router).await });
    path
}

/// Median seconds of `times` requests, to the given paths in turn.
async fn p50(socket: &Path, paths: &[String], times: usize) -> f64 {
    let client = matins::net::unix_client(socket).expect("a client");
    let mut took = Vec::with_capacity(times);
    for path in paths.iter().cycle().take(times) {
        let url = format!("http://localhost{path}");
        let begun = Instant::now();
        let answer = client.post(url).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 202);
        answer.bytes().await.expect("a body");
        took.push(begun.elapsed().as_secs_f64());
    }
    median(took)
}

async fn bare_request(dir: &Path) -> f64 {
    let answer =
        || async { (axum::http::StatusCode::ACCEPTED, axum::Json(serde_json::json!({"data": {"id": "x"}}))) };
    let socket = serve(dir, "bare.sock", axum::Router::new().route("/", axum::routing::post(answer)));
    p50(&socket, &["/".to_owned()], ONE_CLIENT).await
}

async fn ours(dir: &Path) -> (f64, f64) {
    let model = stand::agent("model", None, Overlap::Allow);
    let agents = (0..AGENTS).map(|i| stand::copy(&model, &format!("a{i}"), None, Overlap::Allow)).collect();
    let core = stand::engine(dir, agents, 64, None).await;
    core.start();
    let socket = listen(dir, &core).await;
    let path = |agent: usize| format!("/v1/agents/a{agent}/execute");
    let all: Vec<String> = (0..AGENTS).map(path).collect();
    let one = p50(&socket, &all, ONE_CLIENT).await;
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|i| {
        let socket = socket.clone();
        // Agents of its own, so that no client fills the queue of another.
        let own: Vec<String> = (0..AGENTS).skip(i).step_by(CLIENTS).map(path).collect();
        async move { p50(&socket, &own, EACH).await }
    });
    futures_util::future::join_all(clients).await;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = (CLIENTS * EACH) as f64 / begun.elapsed().as_secs_f64();
    crate::lifecycle::ended(&core).await;
    stand::stop(&core).await;
    (one, rate)
}

/// Serves the API of an engine on a socket below `dir`.
pub async fn listen(dir: &Path, core: &Arc<Core>) -> std::path::PathBuf {
    let socket = dir.join("matins.sock");
    let listener = matins::daemon::listen::bind_unix(&socket).await.expect("a socket");
    let serving = matins::daemon::listen::serve_unix(
        listener,
        matins::api::router(Arc::clone(core)),
        matins::api::Callers::of(core),
        core.tasks.clone(),
        core.drained().cancelled_owned(),
    );
    core.tasks.spawn("listener", matins::task::OnEnd::Logged, serving);
    socket
}
