//! The daemon under simulation: the real engine over a real database file, with the clock, the
//! randomness, the launchers and the receivers of the simulation.
//!
//! Each incarnation has a runtime of its own, so a crash drops every task where it stands; what was
//! handed to the database before is written or not, as with a process that is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use matins::config::{self, Env};
use matins::daemon::Daemon;
use matins::engine::{Core, Parts, Refused, TriggerRequest, Triggered};
use matins::ids::Entropy;
use matins::task::{Stop, Tasks};
use matins::time::{Clock as _, TestClock, from_ms};

use super::launchers::Launchers;
use super::receivers::Receivers;
use super::rng::Rng;
use super::scenario::Scenario;

/// What chance gives every wait. With it no back-off is near a whole second, on which clocks move here.
pub const UNIT: f64 = 0.261_885;

/// Randomness that follows from the seed; waits get [`UNIT`].
struct Seeded(Mutex<Rng>);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        let mut rng = self.0.lock().unwrap();
        for byte in out {
            *byte = rng.next().to_le_bytes()[3];
        }
    }

    fn unit(&self) -> f64 {
        UNIT
    }
}

struct Up {
    core: Arc<Core>,
    lock: matins::proc::StateLock,
    threads: matins::store::Threads,
    runtime: tokio::runtime::Runtime,
}

/// A machine with one daemon.
pub struct World {
    dir: tempfile::TempDir,
    pub clock: TestClock,
    pub launchers: Launchers,
    pub receivers: Receivers,
    entropy: Arc<Seeded>,
    /// Agents whose file is broken.
    pub broken: BTreeSet<String>,
    up: Option<Up>,
}

impl World {
    /// A machine on which nothing has been started.
    pub fn new(seed: u64, scenario: &Scenario) -> Self {
        // The database is never lost with its machine here, so it may be in memory.
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("ms").tempdir_in(parent).unwrap();
        let launchers = Launchers::default();
        Self {
            clock: TestClock::new(from_ms(scenario.start_ms)),
            receivers: Receivers::start(&launchers),
            launchers,
            entropy: Arc::new(Seeded(Mutex::new(Rng::new(!seed)))),
            broken: BTreeSet::new(),
            up: None,
            dir,
        }
    }

    /// The database file.
    pub fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("var/matins.db")
    }

    /// The time, Unix ms.
    pub fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Sets the clock, to wherever.
    pub fn set(&self, now_ms: i64) {
        self.clock.set(from_ms(now_ms));
    }

    /// Writes every file.
    pub fn write(&self, scenario: &Scenario) {
        let agents = self.dir.path().join("agents");
        std::fs::create_dir_all(&agents).unwrap();
        std::fs::create_dir_all(self.dir.path().join("skills")).unwrap();
        let dirs =
            "agents_dir: agents\nskills_dir: skills\nstate_dir: var\nlisten: { socket: var/matins.sock }\n";
        std::fs::write(self.dir.path().join("matins.yaml"), format!("{dirs}{}", scenario.settings()))
            .unwrap();
        for agent in &scenario.agents {
            let broken = self.broken.contains(&agent.id);
            let text = if broken { "schedules: 7\n".to_owned() } else { agent.text(&self.receivers.urls) };
            std::fs::write(agents.join(format!("{}.yaml", agent.id)), text).unwrap();
        }
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let env = Env::from_iter([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp")]);
        let location = config::locate(Some(self.dir.path()), &env);
        let (settings, problems) = config::load_settings(&location, &env);
        assert!(!problems.has_errors(), "{}", problems.render(false));
        let loaded = config::load_agents(&settings, &env, self.clock.now());
        assert_eq!(loaded.invalid.len(), self.broken.len(), "{}", loaded.problems.render(false));
        let state_dir = settings.state_dir.clone();
        let (clock, entropy) = (Arc::new(self.clock.clone()), Arc::clone(&self.entropy));
        let executor = Arc::new(self.launchers.clone());
        let Daemon { core, threads, lock } = runtime.block_on(async {
            let tasks = Tasks::new(Stop::new());
            let parts = move |store| Parts { store, clock, entropy, settings, env, executor, tasks };
            let daemon = Daemon::open(&state_dir, parts, &loaded).await.unwrap();
            daemon.core.start();
            daemon
        });
        self.up = Some(Up { core, lock, threads, runtime });
    }

    /// Ends the daemon as `kill -9` would.
    pub fn crash(&mut self) {
        let Some(Up { core, lock, threads, runtime }) = self.up.take() else { return };
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(core);
        assert!(threads.join_within(Duration::from_secs(5)), "a task of the daemon outlives its runtime");
        drop(lock);
        self.launchers.daemon_died();
    }

    /// Ends the daemon as SIGTERM would.
    pub fn stop(&mut self) {
        let Some(Up { core, lock, threads, runtime }) = self.up.take() else { return };
        runtime.block_on(async {
            core.tasks.stop().soft();
            core.drain().await;
            core.tasks.join().await;
        });
        drop(core);
        threads.join();
        drop(lock);
        self.launchers.daemon_died();
    }

    /// Whether the daemon is up.
    pub fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// The engine.
    pub fn core(&self) -> &Arc<Core> {
        &self.up.as_ref().unwrap().core
    }

    /// Runs a future on the daemon's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.up.as_ref().unwrap().runtime.block_on(future)
    }

    /// Triggers an agent.
    pub fn trigger(
        &self,
        agent: &str,
        key: Option<&str>,
        overlap: Option<&str>,
    ) -> Result<Triggered, Refused> {
        let request = TriggerRequest {
            agent: agent.parse().unwrap(),
            overrides: matins::model::Overrides::default(),
            overlap: overlap.map(|o| o.parse().unwrap()),
            user: Some("ann".to_owned()),
        };
        self.block_on(self.core().trigger_once(request, key.map(str::to_owned)))
    }

    /// Lets every loop look at the clock once more: one that was about to sleep when it was set would
    /// sleep until its cap.
    pub fn turn(&self) {
        let core = self.core();
        self.block_on(async {
            core.beat().await;
            core.beat().await;
        });
        core.wake.dispatcher.notify_one();
        core.wake.deliverer.notify_one();
    }

    /// Waits until nothing has moved for a moment, or a crash point is reached.
    pub fn quiet(&self) {
        let begun = Instant::now();
        let counts = || {
            use std::sync::atomic::Ordering::Relaxed;
            let held: usize = (0..super::scenario::ENDPOINTS).map(|n| self.receivers.held(n)).sum();
            (self.core().store.counts().jobs.load(Relaxed), self.launchers.moves(), held)
        };
        let (mut last, mut since) = (counts(), Instant::now());
        while since.elapsed() < Duration::from_micros(1500) && begun.elapsed() < Duration::from_secs(5) {
            super::super::support::wait::pace(Duration::from_micros(200));
            let now = counts();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.crash();
    }
}
