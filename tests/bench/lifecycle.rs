//! Target 3: whole runs through the engine with an executor that does nothing, against bare life
//! cycles of 100 grouped in a commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use matins::engine::{Core, TriggerRequest};
use matins::model::{Overlap, Overrides};

use crate::{Better, bare, figure, median, stand};

const AGENTS: usize = 64;
const QUEUE: usize = 100;
const ROUNDS: usize = 3;
const REPETITIONS: usize = 5;

/// Runs the bench.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut ours, mut limits, mut one) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let dir = tempfile::tempdir().expect("a directory");
        let db = bare::database(&dir.path().join("bare.db"));
        limits.push(bare::life_cycles(&db, 100, Duration::from_secs(1)));
        one.push(bare::life_cycles(&db, 1, Duration::from_millis(500)));
        ours.push(runtime.block_on(engine_rate()));
    }
    let limit = median(limits);
    figure(
        "lifecycle.engine_vs_bare_100_grouped",
        median(ours),
        limit,
        "runs/s",
        Some((Better::AtLeast, 0.5)),
    );
    figure("lifecycle.bare_one_at_a_time", median(one), limit, "runs/s", None);
}

async fn engine_rate() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let model = stand::agent("model", None, Overlap::Allow);
    let agents = (0..AGENTS).map(|i| stand::copy(&model, &format!("a{i}"), None, Overlap::Allow)).collect();
    let core = stand::engine(dir.path(), agents, 256, None).await;
    core.start();
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        // A round is what the queues hold, so no trigger is refused.
        let submitters = (0..AGENTS * QUEUE).map(|i| trigger(&core, i % AGENTS));
        futures_util::future::join_all(submitters).await;
        ended(&core).await;
    }
    let took = begun.elapsed().as_secs_f64();
    stand::stop(&core).await;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let runs = (ROUNDS * AGENTS * QUEUE) as f64;
    runs / took
}

/// Triggers an agent; where its queue is full, when it has room again.
pub async fn trigger(core: &Arc<Core>, agent: usize) {
    loop {
        let request = TriggerRequest {
            agent: format!("a{agent}").parse().expect("an id"),
            overrides: Overrides::default(),
            overlap: Some(Overlap::Allow),
            user: None,
        };
        match core.trigger(request).await {
            Ok(_) => return,
            Err(matins::engine::Refused::QueueFull { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Waits until no run is left that has not ended.
pub async fn ended(core: &Core) {
    loop {
        let [pending, running, ..] = core.store.gauges().await.expect("gauges");
        if pending == 0 && running == 0 {
            return;
        }
        crate::pace(Duration::from_millis(20)).await;
    }
}
