//! An engine to measure: a real store on a real file, the system's clock, and an executor that does
//! nothing, so that only the engine is measured.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use matins::config::{self, Env, LoadedAgents, Problems, Settings};
use matins::daemon::Daemon;
use matins::engine::{Attached, Core, Ending, Executor, Held, Job, OutcomeRequest, Parts, Watched};
use matins::exec::{Ended, ExitReport};
use matins::ids::{BootId, Epoch, RunId, SystemEntropy};
use matins::model::{Agent, Failure, Outcome, Overlap, Schedule, SeededSkill, Timing};
use matins::proc::Identity;
use matins::task::{Stop, Tasks};
use matins::time::{Clock as _, SystemClock};

/// Carries nothing out and says at once that it ended well.
struct Noop;

struct NoopRun {
    identity: Identity,
}

fn identity() -> Identity {
    Identity { boot_id: BootId::new("bench"), pid: 1, start_ticks: 1, pidfd_inode: 1 }
}

impl Executor for Noop {
    fn hold(&self, _: Arc<Job>) -> BoxFuture<'static, Result<Box<dyn Held>, Failure>> {
        Box::pin(async { Ok(Box::new(NoopRun { identity: identity() }) as Box<dyn Held>) })
    }

    fn reattach(&self, _: Identity, _: RunId, _: u32, _: Epoch) -> BoxFuture<'static, Attached> {
        Box::pin(async { Attached::Ended(Ended::Vanished) })
    }

    fn outcome(&self, _: OutcomeRequest, _: ExitReport) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Outcome { exit_code: Some(0), ..Outcome::default() } })
    }
}

impl Held for NoopRun {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn skills(&self) -> &[SeededSkill] {
        &[]
    }

    fn release(self: Box<Self>, _: Epoch) -> BoxFuture<'static, Result<Box<dyn Watched>, Failure>> {
        Box::pin(async move { Ok(self as Box<dyn Watched>) })
    }
}

impl Watched for NoopRun {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        Box::pin(async { Ended::Report(report()) })
    }

    fn end(&self, _: Ending) {}
}

fn report() -> ExitReport {
    ExitReport {
        started: true,
        exit_code: Some(0),
        ..ExitReport::new(RunId::generate(0, &SystemEntropy), 1, 1, 0)
    }
}

/// An agent that runs /bin/true at `timing`.
pub fn agent(id: &str, timing: Option<Timing>, overlap: Overlap) -> Arc<Agent> {
    let text = "executor: { type: command, command: [/bin/true] }\n";
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("agents")).expect("a directory");
    std::fs::write(dir.path().join("agents").join(format!("{id}.yaml")), text).expect("a file");
    std::fs::write(dir.path().join("matins.yaml"), "agents_dir: agents\nskills_dir: agents\n")
        .expect("a file");
    let mut agent = read(dir.path()).agents.remove(0).as_ref().clone();
    set_timing(&mut agent, timing, overlap);
    Arc::new(agent)
}

/// A copy of `model` under another id.
pub fn copy(model: &Agent, id: &str, timing: Option<Timing>, overlap: Overlap) -> Arc<Agent> {
    let mut agent = model.clone();
    agent.id = id.parse().expect("an id");
    set_timing(&mut agent, timing, overlap);
    Arc::new(agent)
}

fn set_timing(agent: &mut Agent, timing: Option<Timing>, overlap: Overlap) {
    agent.overlap = overlap;
    agent.max_concurrent = None;
    agent.schedules = timing
        .map(|timing| {
            let id = matins::ids::ScheduleId::new(&matins::model::fingerprint(&timing), 0);
            Schedule { overlap, ..Schedule::plain(id, timing) }
        })
        .into_iter()
        .collect();
}

fn read(dir: &Path) -> LoadedAgents {
    let (settings, env) = settings(dir, 4);
    config::load_agents(&settings, &env, SystemClock.now())
}

/// Settings with their state below `dir`.
pub fn settings(dir: &Path, max_running: u32) -> (Settings, Env) {
    let env = Env::from_iter([("PATH", "/usr/bin:/bin")]);
    let (mut settings, _) = config::load_settings(&config::locate(Some(dir), &env), &env);
    settings.state_dir = dir.join("state");
    settings.max_running = max_running;
    (settings, env)
}

/// A set of agents as if read from files.
pub fn loaded(agents: Vec<Arc<Agent>>) -> LoadedAgents {
    LoadedAgents { agents, invalid: Vec::new(), problems: Problems::default() }
}

/// A wired engine with `agents`; its loops run if `start` says so.
pub async fn engine(
    dir: &Path,
    agents: Vec<Arc<Agent>>,
    max_running: u32,
    executor: Option<Arc<dyn Executor>>,
) -> Arc<Core> {
    let (settings, env) = settings(dir, max_running);
    let tasks = Tasks::new(Stop::new());
    let state = settings.state_dir.clone();
    let parts = move |store| Parts {
        store,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        settings,
        env,
        executor: executor.unwrap_or_else(|| Arc::new(Noop)),
        tasks,
    };
    let daemon = Daemon::open(&state, parts, &loaded(agents)).await.expect("a daemon");
    let core = Arc::clone(&daemon.core);
    std::mem::forget(daemon);
    core
}

/// Ends the loops of an engine.
pub async fn stop(core: &Core) {
    core.tasks.stop().soft();
    core.drain().await;
    core.tasks.join().await;
}
