//! The composition root: wires the parts, binds, runs, stops.
//!
//! The order of a start is the order of its promises: the lock before the database, the database
//! before the agents, settling before anything new, and "ready" only when the socket answers. The
//! order of a stop is the reverse, and the store closes last. The exit code is 0 only if nothing
//! that the daemon needs has died.

mod groups;
mod guard;
pub mod listen;
pub mod notify;
mod signals;
mod watchdog;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{self, Env, LoadedAgents, Settings};
use crate::engine::{Core, Launcher, Parts};
use crate::ids::SystemEntropy;
use crate::proc::{self, StateLock};
use crate::store::{Store, Threads};
use crate::task::{OnEnd, Stop, Tasks};
use crate::time::{Clock as _, SystemClock};

/// Exit code of a configuration that cannot be used.
pub const EXIT_CONFIG: u8 = 78;

/// This very program, also after its file was replaced.
const OWN_EXE: &str = "/proc/self/exe";

/// How `serve` was called.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The settings file or its directory; found by itself where absent.
    pub config: Option<PathBuf>,
}

/// A daemon whose parts are wired and which has taken up what the one before left.
pub struct Daemon {
    /// The engine.
    pub core: Arc<Core>,
    /// The threads behind the store; joined last.
    pub threads: Threads,
    /// Held as long as the daemon lives.
    pub lock: StateLock,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What keeps it from starting. Problems of the settings file are printed and give exit code 78.
pub fn serve(options: &Options) -> anyhow::Result<ExitCode> {
    let env = Env::from_process();
    let location = config::locate(options.config.as_deref(), &env);
    let (settings, problems) = config::load_settings(&location, &env);
    log(&problems);
    if problems.has_errors() {
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("matins")
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(settings, env))
}

async fn run(settings: Settings, env: Env) -> anyhow::Result<ExitCode> {
    let caught = signals::catch()?;
    let tasks = Tasks::new(Stop::new());
    let starting = watchdog::starting(&tasks);
    // An orphan of a run comes to us, and no process of the same user reads our memory.
    proc::set_subreaper().context("cannot become the reaper of orphaned processes")?;
    proc::set_non_dumpable().context("cannot protect the daemon's memory")?;
    let loaded = config::load_agents(&settings, &env, SystemClock.now());
    log(&loaded.problems);
    let launcher = Launcher { exe: PathBuf::from(OWN_EXE), state_dir: settings.state_dir.clone() };
    let state_dir = settings.state_dir.clone();
    let parts = move |store| Parts {
        store,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        settings,
        env,
        executor: Arc::new(launcher),
        tasks,
    };
    let daemon = Daemon::open(&state_dir, parts, &loaded).await?;
    let core = Arc::clone(&daemon.core);
    let socket = core.settings().listen.socket.clone();
    let listener = listen::bind_unix(&socket).await?;
    let router = crate::api::router(Arc::clone(&core));
    let callers = crate::api::Callers::of(&core);
    let serving = listen::serve_unix(listener, router, callers, core.tasks.clone(), core.drained().cancelled_owned());
    core.tasks.spawn("listener", OnEnd::Fatal, serving);
    groups::settle(&core);
    core.start();
    signals::watch(&core, caught);
    guard::watch_store(&core);
    guard::watch_lock(&core, &daemon.lock);
    notify::watch(&core);
    watchdog::watch(&core);
    drop(starting);
    notify::ready(&core);
    tracing::info!(
        agents = core.catalog.all().len(),
        socket = %socket.display(),
        "matins {} is ready at {}", env!("CARGO_PKG_VERSION"), socket.display()
    );
    // The store closes when its last handle goes: from here on only the daemon and its tasks hold one.
    drop(core);
    daemon.stopped().await
}

impl Daemon {
    /// Takes the lock, opens the store, stores the agents, settles what the daemon before left.
    ///
    /// # Errors
    /// What keeps the daemon from starting, with the place and the remedy.
    pub async fn open(
        state_dir: &Path,
        parts: impl FnOnce(Store) -> Parts,
        loaded: &LoadedAgents,
    ) -> anyhow::Result<Self> {
        make_dirs(state_dir)
            .with_context(|| format!("cannot create the state directory {}", state_dir.display()))?;
        let lock = StateLock::acquire(&state_dir.join("lock"))?;
        let (store, threads) = Store::open(&state_dir.join("matins.db"))?;
        let core = Core::new(parts(store));
        core.catalog.replace(&core.store, loaded, core.clock.now_ms()).await?;
        let settled = core.settle().await?;
        if settled.reattached + settled.settled > 0 {
            tracing::info!(
                runs.reattached = settled.reattached,
                runs.settled = settled.settled,
                "took over from the daemon before: {} runs go on, {} were settled",
                settled.reattached,
                settled.settled
            );
        }
        Ok(Self { core, threads, lock })
    }

    /// Waits for the stop, drains, and closes everything; the store last.
    async fn stopped(self) -> anyhow::Result<ExitCode> {
        let Self { core, threads, lock } = self;
        core.tasks.stop().softened().await;
        notify::stopping(&core);
        tracing::info!(runs = core.live_count(), "stopping: no new runs; waiting for those that run");
        core.drain().await;
        core.tasks.join().await;
        let died = core.tasks.died();
        drop(core);
        threads.join();
        drop(lock);
        match died {
            None => {
                tracing::info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            Some(name) => anyhow::bail!("the {name} died; see the log above"),
        }
    }
}

/// The state directory is for the daemon and the group of its socket; what runs leave is the daemon's alone.
fn make_dirs(state_dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(state_dir)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir.join("runs"))
}

fn log(problems: &config::Problems) {
    if !problems.is_empty() {
        let rendered = problems.render(false);
        tracing::warn!("{rendered}");
    }
}
