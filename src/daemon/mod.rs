//! The composition root: wires the parts, binds, runs, stops.
//!
//! The order of a start is the order of its promises: the lock before the database, the database
//! before the agents, settling before anything new, and "ready" only when the socket answers. The
//! order of a stop is the reverse, and the store closes last. The exit code is 0 only if nothing
//! that the daemon needs has died.
//!
//! A process may hold several lives of a daemon, one after the other: where the program is replaced in
//! place ([`reexec`]) the next begins in another program, and where that fails in this one. What is
//! handed on from life to life is the same in both cases: the socket and the lock.

pub mod activation;
pub mod backup;
mod control;
mod groups;
mod guard;
pub mod housekeeping;
pub mod listen;
pub mod logging;
pub mod notify;
mod places;
pub mod reexec;
pub mod reload;
mod signals;
pub mod tcp;
mod tls;
pub mod watch;
mod watchdog;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::activation::Inherited;
use self::listen::Kept;
use self::reexec::Invocation;
use self::signals::ToldToStop;
use self::tcp::HeldTcp;
use crate::config::{self, Env, LoadedAgents};
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

/// Longest wait for what a life that is over still does.
const SHUT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the store to close before the program is replaced. What is written is on disk anyway.
const CLOSE_MAX: Duration = Duration::from_secs(10);

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

/// What a life of the daemon begins with.
#[derive(Debug, Default)]
struct Birth {
    inherited: Inherited,
    lock: Option<StateLock>,
    /// Why the program that was to live instead does not.
    failure: Option<String>,
    /// Whether it was told to stop before it began.
    stop: bool,
    /// When the daemon that it goes on with was started, Unix ms; `None`: this is a start.
    started_ms: Option<i64>,
}

/// How a life of the daemon ended.
#[derive(Debug)]
enum End {
    Stopped(ExitCode),
    Replaced(Legacy),
}

/// What a life leaves to the next.
#[derive(Debug)]
struct Legacy {
    socket: Kept,
    tcp: HeldTcp,
    lock: StateLock,
    threads: Threads,
    told_to_stop: ToldToStop,
    started_ms: i64,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What keeps it from starting. Problems of the settings file are printed and give exit code 78.
pub fn serve(options: &Options) -> anyhow::Result<ExitCode> {
    let env = Env::from_process();
    if env.get(reexec::REPLACES).is_some() {
        proc::reap_ended();
    }
    let inherited = Inherited::take(&env);
    let mut birth = Birth { inherited, started_ms: reexec::start_before(&env), ..Birth::default() };
    let invocation =
        Invocation::of_process(options.config.as_deref()).context("cannot find this program's own file")?;
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("matins")
            .build()
            .context("cannot start the runtime")?;
        match runtime.block_on(live(options, env.clone(), invocation.clone(), birth)) {
            Ok(End::Stopped(code)) => return Ok(code),
            Ok(End::Replaced(legacy)) => birth = legacy.hand_on(runtime, &invocation),
            Err(e) => {
                // A storage that hangs must not keep the process.
                runtime.shutdown_background();
                return Err(e);
            }
        }
    }
}

async fn live(options: &Options, env: Env, invocation: Invocation, mut birth: Birth) -> anyhow::Result<End> {
    let caught = signals::catch()?;
    let tasks = Tasks::new(Stop::new());
    let starting = watchdog::starting(&tasks);
    let location = config::locate(options.config.as_deref(), &env);
    let (settings, problems) = config::load_settings(&location, &env);
    log(&problems);
    if problems.has_errors() {
        return Ok(End::Stopped(ExitCode::from(EXIT_CONFIG)));
    }
    // An orphan of a run comes to us, and no process of the same user reads our memory.
    proc::set_subreaper().context("cannot become the reaper of orphaned processes")?;
    proc::set_non_dumpable().context("cannot protect the daemon's memory")?;
    let seen = watch::Print::of(&settings);
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
    make_dirs(&state_dir)?;
    let kept_lock = birth.lock.take().map(Ok);
    let lock = kept_lock.unwrap_or_else(|| StateLock::acquire_to_keep(&state_dir.join("lock")))?;
    let daemon = Daemon::open_locked(lock, &state_dir, parts, &loaded).await?;
    let core = Arc::clone(&daemon.core);
    birth.failure.take().into_iter().for_each(|why| core.handover.failed(why));
    if let Some(at) = birth.started_ms {
        core.handover.goes_on(at);
        guard::reap_inherited(&core);
    }
    let started_ms = birth.started_ms.unwrap_or_else(|| core.clock.now_ms());
    let (socket, kept) = listen(&core, &mut birth.inherited).await?;
    let tcp = tcp::start(&core, &mut birth.inherited, birth.started_ms.is_some())?;
    groups::settle(&core);
    core.start();
    let told_to_stop = caught.told_to_stop();
    core.reloads.locate(location);
    signals::watch(&core, caught);
    guard::watch_store(&core);
    guard::watch_lock(&core, &daemon.lock);
    watch::start(&core, seen);
    housekeeping::start(&core);
    notify::watch(&core);
    watchdog::watch(&core);
    reexec::watch(&core, invocation);
    drop(starting);
    notify::ready(&core);
    tracing::info!(
        agents = core.catalog.all().len(),
        socket = %socket.display(),
        "matins {} is ready at {}", env!("CARGO_PKG_VERSION"), socket.display()
    );
    if birth.stop {
        core.tasks.stop().soft();
    }
    // The store closes when its last handle goes: from here on only the daemon and its tasks hold one.
    drop(core);
    daemon.stopped((kept, tcp), told_to_stop, started_ms).await
}

/// Answers on the control socket, which may have been there before; its path, and a hold on it.
async fn listen(core: &Arc<Core>, inherited: &mut Inherited) -> anyhow::Result<(PathBuf, Kept)> {
    let path = core.settings().listen.socket.clone();
    let mut socket = match inherited.control(&path) {
        Some(given) => listen::adopt_unix(given)?,
        None => listen::bind_unix(&path).await?,
    };
    let kept = socket.kept().context("cannot hold the control socket")?;
    let router = crate::api::router(Arc::clone(core));
    let closing = {
        let (drained, begun, keep) = (core.drained(), core.handover.begun().clone(), kept.keeper());
        async move {
            tokio::select! {
                () = drained.cancelled() => {}
                () = begun.cancelled() => keep(),
            }
        }
    };
    let callers = crate::api::Callers::of(core);
    let serving = listen::serve_unix(socket, router, callers, core.tasks.clone(), closing);
    let (counted, stop) = (core.handover.enter_listener(), core.tasks.stop().clone());
    core.tasks.spawn("listener", OnEnd::Fatal, async move {
        serving.await;
        // A handover stops the loops once what was asked is answered.
        drop(counted);
        stop.softened().await;
    });
    Ok((path, kept))
}

impl Legacy {
    /// Ends what is left of a life and becomes the next program; where that fails, what the next life
    /// in this one begins with.
    fn hand_on(self, runtime: tokio::runtime::Runtime, invocation: &Invocation) -> Birth {
        runtime.shutdown_timeout(SHUT_MAX);
        if !self.threads.join_within(CLOSE_MAX) {
            tracing::warn!("the store did not close within {} s", CLOSE_MAX.as_secs());
        }
        let stop = self.told_to_stop.yes();
        let tcp = self.tcp.take();
        let failure = (!stop).then(|| {
            let error = invocation.replace(&self.socket, tcp.as_ref(), self.started_ms);
            let why = format!("the program could not be replaced, the one before goes on: {error}");
            tracing::error!("{why}");
            why
        });
        let listener = self.socket.listener().try_clone();
        let inherited = listener.map_or_else(
            |e| {
                tracing::error!(error = %e, "the control socket cannot be handed on: {e}");
                Inherited::default()
            },
            |listener| Inherited::kept(listener, self.socket.own, tcp),
        );
        Birth { inherited, lock: Some(self.lock), failure, stop, started_ms: Some(self.started_ms) }
    }
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
        make_dirs(state_dir)?;
        let lock = StateLock::acquire(&state_dir.join("lock"))?;
        Self::open_locked(lock, state_dir, parts, loaded).await
    }

    async fn open_locked(
        lock: StateLock,
        state_dir: &Path,
        parts: impl FnOnce(Store) -> Parts,
        loaded: &LoadedAgents,
    ) -> anyhow::Result<Self> {
        let (store, threads) = Store::open(&state_dir.join("matins.db"))?;
        let core = Core::new(parts(store));
        core.catalog.replace(&core.store, loaded, core.clock.now_ms()).await?;
        core.load_tokens().await?;
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

    /// Waits for the stop, drains, and closes everything; the store last. Or hands over, where that is
    /// what the stop is for.
    async fn stopped(
        self,
        (socket, tcp): (Kept, HeldTcp),
        told_to_stop: ToldToStop,
        started_ms: i64,
    ) -> anyhow::Result<End> {
        let Self { core, threads, lock } = self;
        core.tasks.stop().softened().await;
        if core.handover.begun().is_cancelled() {
            core.finish_handover().await;
            tracing::info!(runs = core.live_count(), "handing over; runs go on");
            return Ok(End::Replaced(Legacy { socket, tcp, lock, threads, told_to_stop, started_ms }));
        }
        drop((socket, tcp.take()));
        notify::stopping(&core);
        if core.tasks.died().is_some() {
            // As after a crash: runs go on, and the next start takes them over.
            tracing::error!(runs = core.live_count(), "leaving; runs go on without the daemon");
            core.leave();
        } else {
            tracing::info!(runs = core.live_count(), "stopping: no new runs; waiting for those that run");
            tokio::select! {
                () = core.drain() => {}
                error = core.store.failed() => {
                    // How runs end cannot be written any more: to wait for them, and to end them, is in vain.
                    tracing::error!(error = %error, "leaving; runs go on without the daemon: {error}");
                    core.tasks.fail("store");
                    core.leave();
                }
            }
        }
        core.tasks.join().await;
        let died = core.tasks.died();
        drop(core);
        threads.join();
        drop(lock);
        match died {
            None => {
                tracing::info!("stopped");
                Ok(End::Stopped(ExitCode::SUCCESS))
            }
            Some(name) => anyhow::bail!("the {name} died; see the log above"),
        }
    }
}

/// The state directory is for the daemon and the group of its socket; what runs leave is the daemon's alone.
fn make_dirs(state_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let make = |mode, dir: &Path| std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    make(0o750, state_dir)
        .and_then(|()| make(0o700, &state_dir.join("runs")))
        .with_context(|| format!("cannot create the state directory {}", state_dir.display()))
}

fn log(problems: &config::Problems) {
    let problems = problems.serious();
    if !problems.is_empty() {
        let rendered = problems.render(false);
        tracing::warn!("{rendered}");
    }
}
