//! Real runs of /bin/true through the launcher (hold, release, ended) against a bare spawn with two pipes.
//!
//! Both do the same number of programs at the same time in the same process, in turns; each run has its own
//! prepared folder, as in the daemon. The figure that counts is the ratio.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use matins::exec::{
    Ended, Preparation, RELEASE_VERSION, Release, RunDirs, SPEC_VERSION, Spec, World, environment, hold,
    prepare,
};
use matins::ids::{AgentId, Epoch, RunId, SystemEntropy};
use matins::model::Trigger;

/// Programs at once.
const AT_ONCE: usize = 8;
/// Turns, after one to warm up.
const TURNS: usize = 5;

/// Prints `name ratio value peer unit`, with the spread of the turns. `exe` is the built binary.
pub fn spawn(exe: &Path, runs: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // Removed at the end only: ext4 goes out of its way not to give out inodes that were freed a moment ago,
    // which would slow down the next turn.
    let states: Vec<_> = (0..=TURNS)
        .map(|_| tempfile::tempdir().expect("a folder"))
        .collect();
    for (turn, state) in states.iter().enumerate() {
        let _lock = matins::proc::StateLock::acquire(&state.path().join("lock")).expect("the state lock");
        let (exe, path) = (exe.to_owned(), state.path().to_owned());
        let a = rate(&runtime, runs, move |i| launched(exe.clone(), path.clone(), i));
        let b = rate(&runtime, runs, |_| plain());
        if turn > 0 {
            ours.push(a);
            bare.push(b);
        }
    }
    ours.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let (a, b) = (ours[TURNS / 2], bare[TURNS / 2]);
    println!("spawn {:.2} {a:.0} {b:.0} runs/s", a / b);
    println!("  launcher {ours:.0?}, bare {bare:.0?}");
}

/// Runs per second of `runs` calls of `one`, [`AT_ONCE`] at a time.
fn rate<F, Fut>(runtime: &tokio::runtime::Runtime, runs: usize, one: F) -> f64
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    runtime.block_on(async {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (next, one) = (Arc::clone(&next), one.clone());
            set.spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= runs {
                        break;
                    }
                    one(i).await;
                }
            });
        }
        while let Some(ended) = set.join_next().await {
            ended.expect("a worker");
        }
    });
    let seconds = started.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / seconds
}

#[expect(clippy::disallowed_methods, reason = "the peer is a bare spawn")]
async fn plain() {
    let output = tokio::process::Command::new("/bin/true")
        .output()
        .await
        .expect("a spawn");
    assert!(output.status.success());
}

async fn launched(exe: PathBuf, state: PathBuf, i: usize) {
    let run = RunId::generate(i64::try_from(i).unwrap_or(0), &SystemEntropy);
    let dirs = RunDirs::new(&state, run);
    let session = run.to_string();
    let preparation = Preparation {
        prompt: "do it",
        input: &serde_json::json!({}),
        result_schema: None,
        definition_yaml: "name: bench\n",
        skills: &[],
        session: &session,
        attempt: 1,
    };
    prepare(&dirs, &preparation).expect("a folder");
    let agent: AgentId = "bench".parse().expect("an id");
    let base = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let world = World {
        base: &base,
        dirs: &dirs,
        attempt: 1,
        agent: &agent,
        agent_dir: &state,
        env: &BTreeMap::new(),
        has_result_schema: false,
        trigger: Trigger::Manual,
        scheduled_for_ms: None,
        window: None,
        idempotency_key: "",
        socket: None,
    };
    let spec = Spec {
        version: SPEC_VERSION,
        run,
        attempt: 1,
        env: environment(&world),
        agent: agent.clone(),
        argv: vec!["/bin/true".to_owned()],
        cwd: dirs.workspace(&session),
        stdin: dirs.prompt(),
        timeout_ms: Some(60_000),
        idle_timeout_ms: None,
        output_limit: 64 << 20,
        kill_signal: 15,
        kill_grace_ms: 10_000,
        orphan_grace_ms: 3_600_000,
        state_lock: Some(state.join("lock")),
    };
    let release = Release {
        version: RELEASE_VERSION,
        epoch: Epoch(1),
        spec,
        secrets: BTreeMap::new(),
    };
    let held = hold(&exe, &dirs.attempt(1)).expect("a launcher");
    let mut live = held.release(&release).await.expect("a release");
    let Ended::Report(report) = live.ended().await else {
        panic!("the launcher vanished");
    };
    assert_eq!(report.exit_code, Some(0));
}
