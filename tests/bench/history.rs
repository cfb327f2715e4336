//! Target 6: pages of history over the socket with a million runs, newest and deep, of all runs, of an agent and of a
//! status; and the overview of twenty thousand agents. `MATINS_BENCH_RUNS` says another number of runs.

use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use matins::model::Overlap;
use rusqlite::Connection;

use crate::{Better, figure, median, quantile, stand, trigger};

/// Runs of history where nobody says how many.
const RUNS: i64 = 1_000_000;
const AGENTS: i64 = 100;
const INDEXED: usize = 20_000;
const REQUESTS: usize = 300;
/// What a page may take, ms.
const PAGE_MS: f64 = 3.0;
const CHUNK: i64 = 100_000;

/// Runs the bench.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let runs = std::env::var("MATINS_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(RUNS);
    runtime.block_on(async {
        pages(runs).await;
        overview().await;
    });
}

async fn pages(runs: i64) {
    let dir = tempfile::tempdir().expect("a directory");
    let model = stand::agent("model", None, Overlap::Allow);
    let agents = (0..AGENTS).map(|i| stand::copy(&model, &format!("a{i}"), None, Overlap::Allow)).collect();
    let core = stand::engine(dir.path(), agents, 64, None).await;
    fill(&dir.path().join("state/matins.db"), runs);
    let socket = trigger::listen(dir.path(), &core).await;
    let deep = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("e1:{}", runs / 2));
    for (name, filter) in [
        ("all", ""),
        ("by_agent", "agentId=a7&"),
        ("by_status", "status=FAILED&"),
        ("by_agent_and_status", "agentId=a7&status=FAILED&"),
        ("by_trigger", "trigger=manual&"),
        ("by_failure_code", "failureCode=timeout&"),
        ("started_before", "startedBefore=1970-01-06T00:00:00Z&"),
    ] {
        for (depth, cursor) in [("newest", String::new()), ("deep", format!("nextToken={deep}&"))] {
            let took = ask(&socket, &format!("/v1/events?{filter}{cursor}limit=50"), REQUESTS, 50).await;
            report(&format!("history.{name}.{depth}"), took);
        }
    }
    stand::stop(&core).await;
}

async fn overview() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = stand::agent("model", None, Overlap::Allow);
    let agents = (0..INDEXED).map(|i| stand::copy(&model, &format!("a{i}"), None, Overlap::Allow)).collect();
    let core = stand::engine(dir.path(), agents, 64, None).await;
    let socket = trigger::listen(dir.path(), &core).await;
    let took = ask(&socket, "/v1/agents?view=index", 20, INDEXED).await;
    figure("history.index_of_20k_agents.p50", median(took), 0.0, "ms", None);
    stand::stop(&core).await;
}

fn report(name: &str, mut took: Vec<f64>) {
    let p99 = quantile(&mut took, 0.99);
    figure(&format!("{name}.p50"), median(took), PAGE_MS, "ms", None);
    figure(&format!("{name}.p99"), p99, PAGE_MS, "ms", Some((Better::AtMost, 1.0)));
}

/// Milliseconds of each of `times` requests, after some that are not counted.
async fn ask(socket: &Path, path: &str, times: usize, rows: usize) -> Vec<f64> {
    let client = matins::net::unix_client(socket).expect("a client");
    let mut took = Vec::with_capacity(times);
    for n in 0..times + 10 {
        let begun = Instant::now();
        let answer = client.get(format!("http://localhost{path}")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        let body = answer.bytes().await.expect("a body");
        if n >= 10 {
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        } else {
            let page: serde_json::Value = serde_json::from_slice(&body).expect("a page");
            assert_eq!(page["data"].as_array().map(Vec::len), Some(rows), "{path}");
        }
    }
    took
}

/// Makes runs that have ended, as the daemon would have left them: one each second, every 7th failed, every 5th by hand.
fn fill(path: &Path, runs: i64) {
    let db = Connection::open(path).expect("the database");
    db.busy_timeout(std::time::Duration::from_secs(60)).expect("a timeout");
    db.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;
         INSERT INTO schedules (agent, id, watermark, active) VALUES (1, 'bench', 1, 0);",
    )
    .expect("a schedule");
    for from in (0..runs).step_by(usize::try_from(CHUNK).unwrap_or(1)) {
        let to = (from + CHUNK).min(runs);
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT {from} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < {to})
             INSERT INTO runs (number, id, agent, definition, trigger, state, overlap, schedule, nominal, claimed_at, attempt, pid,
                               failure_code, explanation, created_at, started_at, completed_at, updated_at)
             SELECT i, randomblob(16), 1 + i % {AGENTS}, 1, iif(i % 5, 'schedule', 'manual'), iif(i % 7, 'COMPLETED', 'FAILED'),
                    'queue', iif(i % 5, (SELECT max(number) FROM schedules), NULL), iif(i % 5, i, NULL), i, 1, 1,
                    iif(i % 7, NULL, iif(i % 2, 'timeout', 'runtime_error')), 'x', i * 1000, i * 1000, i * 1000 + 900, i * 1000 + 900
             FROM n;
             INSERT INTO run_blocks SELECT number >> 10, min(started_at), max(started_at) FROM runs
             WHERE number > {from} AND number <= {to} GROUP BY 1
             ON CONFLICT (block) DO UPDATE SET last_started = max(last_started, excluded.last_started);
             COMMIT;"
        ))
        .expect("rows");
    }
}
