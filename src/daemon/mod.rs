//! The composition root: wires the parts, binds, runs, stops.
//!
//! The order of a start is the order of its promises: the lock before the database, the database
//! before the agents, settling before anything new, and "ready" only when the socket answers. The
//! order of a stop is the reverse, and the store closes last. The exit code is 0 only if nothing
//! that the daemon needs has died.

mod groups;
pub mod listen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

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

/// Time between two looks at the lock file.
const LOCK_CHECK: std::time::Duration = std::time::Duration::from_secs(2);

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
    let stop = Stop::new();
    let tasks = Tasks::new(stop.clone());
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
    watch_signals(&core)?;
    watch_store(&core);
    watch_lock(&core, &daemon.lock);
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

/// SIGTERM and SIGINT stop; a second one is hard.
fn watch_signals(core: &Arc<Core>) -> anyhow::Result<()> {
    let mut signals =
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot watch signals")?;
    let handle = signals.handle();
    let (killer, stop, drained) = (Arc::clone(core), core.tasks.stop().clone(), core.drained());
    let watch = async move {
        while let Some(signal) = signals.next().await {
            if signal == SIGHUP {
                tracing::warn!("reloading is not available in this version; restart to read the files again");
            } else if stop.is_soft() {
                tracing::warn!("a second signal: ending runs now");
                killer.kill_all();
                stop.hard();
            } else {
                stop.soft();
            }
        }
    };
    core.tasks.spawn("signals", OnEnd::Logged, async move {
        // The watch outlives the drain, so that a second signal is heard, and ends with it.
        tokio::select! {
            () = watch => {}
            () = drained.cancelled() => handle.close(),
        }
    });
    Ok(())
}

/// The state directory is for the daemon and the group of its socket; what runs leave is the daemon's alone.
fn make_dirs(state_dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(state_dir)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir.join("runs"))
}

/// A lock file that was removed or replaced no longer keeps a second daemon away: this one stops.
fn watch_lock(core: &Arc<Core>, lock: &StateLock) {
    use std::os::unix::fs::MetadataExt as _;
    let (path, stop, clock) = (lock.path().to_owned(), core.tasks.stop().clone(), Arc::clone(&core.clock));
    let held = lock.file().metadata().map(|m| (m.dev(), m.ino())).ok();
    core.tasks.spawn("state directory", OnEnd::Fatal, async move {
        let in_place = || std::fs::symlink_metadata(&path).map(|m| (m.dev(), m.ino())).ok() == held;
        while in_place() {
            tokio::select! {
                () = stop.softened() => return,
                () = clock.sleep_until(clock.now() + LOCK_CHECK) => {}
            }
        }
        tracing::error!(
            "{} is not the file that this daemon locked: its state directory was moved or removed",
            path.display()
        );
    });
}

/// A storage that failed stops the daemon: what is on disk is known again only after a restart.
fn watch_store(core: &Arc<Core>) {
    let (core, tasks) = (Arc::clone(core), core.tasks.clone());
    let stop = tasks.stop().clone();
    tasks.spawn("store", OnEnd::Fatal, async move {
        let store = core.store.clone();
        tokio::select! {
            error = store.failed() => {
                tracing::error!(error = %error, "stopping: {error}");
                stop.hard();
            }
            () = stop.softened() => {}
        }
    });
}

fn log(problems: &config::Problems) {
    if !problems.is_empty() {
        let rendered = problems.render(false);
        tracing::warn!("{rendered}");
    }
}
