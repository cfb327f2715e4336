//! Target 4: /bin/true through the launcher, 8 at once, against bare spawns with two pipes, from a
//! small process and from one of 1 GiB.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use matins::engine::Launcher;
use matins::model::Overlap;

use crate::{Better, figure, lifecycle, median, stand};

const AT_ONCE: usize = 8;
const RUNS: usize = 1_000;
const REPETITIONS: usize = 5;

/// Runs the bench.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut bare, mut small, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        bare.push(runtime.block_on(bare_spawns()));
        small.push(runtime.block_on(launched()));
        let ballast = vec![1_u8; 1 << 30];
        large.push(runtime.block_on(launched()));
        assert_eq!(ballast[ballast.len() / 2], 1, "the ballast is in memory until here");
    }
    let (bare, small) = (median(bare), median(small));
    figure("real.launcher_vs_bare_spawn_8_at_once", small, bare, "runs/s", Some((Better::AtLeast, 0.25)));
    figure("real.from_1gib_vs_small", median(large), small, "runs/s", Some((Better::AtLeast, 0.9)));
}

async fn bare_spawns() -> f64 {
    let begun = Instant::now();
    let workers = (0..AT_ONCE).map(|_| async {
        for _ in 0..RUNS / AT_ONCE {
            let child = tokio::process::Command::new("/bin/true")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("spawned");
            child.wait_with_output().await.expect("ended");
        }
    });
    futures_util::future::join_all(workers).await;
    rate(begun.elapsed())
}

async fn launched() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let model = stand::agent("model", None, Overlap::Allow);
    let agents = (0..64).map(|i| stand::copy(&model, &format!("a{i}"), None, Overlap::Allow)).collect();
    let launcher =
        Launcher { exe: PathBuf::from(env!("CARGO_BIN_EXE_matins")), state_dir: dir.path().join("state") };
    let at_once = u32::try_from(AT_ONCE).expect("small");
    let core = stand::engine(dir.path(), agents, at_once, Some(Arc::new(launcher))).await;
    core.start();
    let begun = Instant::now();
    for index in 0..RUNS {
        lifecycle::trigger(&core, index % 64).await;
    }
    lifecycle::ended(&core).await;
    let rate = rate(begun.elapsed());
    stand::stop(&core).await;
    rate
}

fn rate(took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let runs = RUNS as f64;
    runs / took.as_secs_f64()
}
