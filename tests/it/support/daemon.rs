//! The daemon in process: real `SQLite` file, real launcher, a clock that the test moves.
//!
//! Each incarnation has a runtime of its own, so a crash is what it says: nothing is drained, no
//! task ends, the launchers live on. When the test is over the daemon must have left nothing: no
//! run that is not ended, no delivery that waits, no broken file, unless the test says otherwise.

use std::sync::Arc;
use std::time::Duration;

use matins::config::{self, Env};
use matins::daemon::Daemon;
use matins::engine::{Core, Executor, Launcher, Parts, Refused, TriggerRequest, Triggered};
use matins::ids::{RunId, SystemEntropy};
use matins::model::{Agent, Event, Overlap, Overrides, RunState, TokenScope};
use matins::store::{EventDetail, EventFilter, SlotFilter, SlotRow};
use matins::task::{Stop, Tasks};
use matins::time::{Clock as _, TestClock, from_ms};

use super::{Home, Http, eventually_sync, model_server};

/// 2026-03-02 09:00:00 UTC, a Monday.
pub const START_MS: i64 = 1_772_442_000_000;

/// An in-process daemon.
pub struct TestDaemon {
    /// Its home.
    pub home: Home,
    /// Its clock.
    pub clock: TestClock,
    up: Option<Up>,
    /// What is changed of every agent that is loaded.
    tweak: fn(&mut Agent),
    /// What carries attempts out in the place of the launcher.
    executor: Option<Arc<dyn Executor>>,
    /// What the end of the test may find.
    pub allow_leftovers: bool,
}

struct Up {
    core: Arc<Core>,
    lock: matins::proc::StateLock,
    threads: matins::store::Threads,
    runtime: tokio::runtime::Runtime,
}

impl TestDaemon {
    /// A daemon on `home`, settled and with its loops running.
    pub fn start(home: Home) -> Self {
        Self::start_with(home, |_| {})
    }

    /// As [`Self::start`], with agents that are changed when they have been read.
    pub fn start_with(home: Home, tweak: fn(&mut Agent)) -> Self {
        let mut daemon = Self::unopened(home);
        daemon.tweak = tweak;
        daemon.restart();
        daemon
    }

    /// As [`Self::start`], with something else in the launcher's place.
    pub fn start_over(home: Home, executor: Arc<dyn Executor>) -> Self {
        let mut daemon = Self::unopened(home);
        daemon.executor = Some(executor);
        daemon.restart();
        daemon
    }

    fn unopened(home: Home) -> Self {
        let clock = TestClock::new(from_ms(START_MS));
        Self { home, clock, up: None, tweak: |_| {}, executor: None, allow_leftovers: false }
    }

    /// A daemon whose loops do not run, as if each of them hung.
    pub fn without_loops(home: Home) -> Self {
        let mut daemon = Self::unopened(home);
        daemon.open();
        daemon
    }

    /// Starts again on the same files; a daemon that is up is stopped properly first.
    pub fn restart(&mut self) {
        self.stop();
        self.open();
        self.block_on(async { self.core().start() });
    }

    fn open(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let env = Env::from_iter([
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/tmp"),
            (model_server::KEY_ENV, model_server::KEY),
        ]);
        let location = config::locate(Some(self.home.path()), &env);
        let (settings, problems) = config::load_settings(&location, &env);
        assert!(!problems.has_errors(), "{}", problems.render(false));
        let mut loaded = config::load_agents(&settings, &env, self.clock.now());
        loaded.agents.iter_mut().for_each(|agent| (self.tweak)(Arc::make_mut(agent)));
        let launcher =
            Launcher { exe: env!("CARGO_BIN_EXE_matins").into(), state_dir: settings.state_dir.clone() };
        let state_dir = settings.state_dir.clone();
        let executor = self.executor.clone().unwrap_or_else(|| Arc::new(launcher));
        let clock = Arc::new(self.clock.clone());
        let daemon = runtime.block_on(async {
            let tasks = Tasks::new(Stop::new());
            let parts = move |store| Parts {
                store,
                clock,
                entropy: Arc::new(SystemEntropy),
                settings,
                env,
                executor,
                tasks,
            };
            Daemon::open(&state_dir, parts, &loaded).await.unwrap()
        });
        let Daemon { core, threads, lock } = daemon;
        self.up = Some(Up { core, lock, threads, runtime });
    }

    /// Ends the daemon as `kill -9` would: nothing is finished, launchers live on.
    pub fn crash(&mut self) {
        if let Some(up) = self.up.take() {
            up.runtime.shutdown_background();
            drop(up.lock);
        }
    }

    /// Ends the daemon as SIGTERM would.
    pub fn stop(&mut self) {
        if let Some(up) = self.up.take() {
            up.runtime.block_on(async {
                up.core.tasks.stop().soft();
                up.core.drain().await;
                up.core.tasks.join().await;
            });
            drop(up.core);
            up.threads.join();
            drop(up.lock);
        }
    }

    /// The engine.
    pub fn core(&self) -> &Arc<Core> {
        &self.up.as_ref().expect("the daemon is up").core
    }

    /// Answers HTTP over TCP from now on, to an administrator's token.
    pub fn serve(&self) -> Http {
        let token = self.token("admin", TokenScope::Admin, None);
        Http { token, ..self.serve_again() }
    }

    /// As [`Self::serve`], to the tokens that there are.
    pub fn serve_again(&self) -> Http {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.block_on(async { matins::daemon::tcp::serve(self.core(), listener) }).unwrap();
        Http { address, token: String::new() }
    }

    /// A token for a user of its own name.
    pub fn token(&self, name: &str, scope: TokenScope, agents: Option<&str>) -> String {
        let new = matins::engine::NewToken {
            name: name.to_owned(),
            user: name.to_owned(),
            scope,
            agents: agents.map(|glob| glob.parse().unwrap()),
            expires_at_ms: None,
            by: "test".to_owned(),
        };
        self.block_on(self.core().create_token(new)).unwrap().1
    }

    /// Runs a future on the daemon's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.up.as_ref().expect("the daemon is up").runtime.block_on(future)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Triggers an agent and returns the run.
    pub fn trigger(&self, agent: &str) -> RunId {
        self.trigger_with(agent, Overrides::default())
    }

    /// Triggers an agent with overrides.
    pub fn trigger_with(&self, agent: &str, overrides: Overrides) -> RunId {
        self.ask(agent, overrides, None, None).unwrap().id
    }

    /// Triggers an agent under an overlap policy.
    pub fn trigger_under(&self, agent: &str, overlap: Overlap) -> RunId {
        self.ask(agent, Overrides::default(), Some(overlap), None).unwrap().id
    }

    /// Asks for a run, under a key where there is one.
    pub fn ask(
        &self,
        agent: &str,
        overrides: Overrides,
        overlap: Option<Overlap>,
        key: Option<&str>,
    ) -> Result<Triggered, Refused> {
        let user = Some("ann".to_owned());
        let request = TriggerRequest { agent: agent.parse().unwrap(), overrides, overlap, user };
        self.block_on(self.core().trigger_once(request, key.map(ToOwned::to_owned)))
    }

    /// The newest runs, newest first.
    pub fn events(&self) -> Vec<Event> {
        let filter = EventFilter { limit: 1000, ..EventFilter::default() };
        self.block_on(self.core().store.events(filter)).unwrap()
    }

    /// Everything of one run.
    pub fn detail(&self, run: RunId) -> EventDetail {
        let number =
            self.events().into_iter().find(|e| e.id == run.to_string()).expect("the run exists").number;
        self.block_on(self.core().store.event(number)).unwrap().unwrap()
    }

    /// The ledger, newest first.
    pub fn slots(&self) -> Vec<SlotRow> {
        let filter = SlotFilter { limit: 10_000, ..SlotFilter::default() };
        self.block_on(self.core().store.slots(filter)).unwrap()
    }

    /// The ledger of one agent, newest first.
    pub fn slots_of(&self, agent: &str) -> Vec<SlotRow> {
        let filter = SlotFilter { agent: Some(agent.to_owned()), limit: 10_000, ..SlotFilter::default() };
        self.block_on(self.core().store.slots(filter)).unwrap()
    }

    /// Waits until a run is in `state`.
    pub fn wait_for(&self, run: RunId, state: RunState) -> EventDetail {
        eventually_sync(&format!("run {run} is {state}"), || {
            let detail = self.detail(run);
            assert!(
                detail.event.status == state || !detail.event.status.is_terminal(),
                "run {run} ended {} ({:?}: {:?})",
                detail.event.status,
                detail.event.failure_code,
                detail.event.error
            );
            (detail.event.status == state).then_some(detail)
        })
    }

    /// Waits until a run has written a pid into its file `files/NAME`.
    pub fn wait_pid(&self, run: RunId, name: &str) -> i32 {
        let file = self.home.run_file(&run.to_string(), &format!("files/{name}"));
        eventually_sync(name, || std::fs::read_to_string(&file).ok()?.trim().parse().ok())
    }

    /// Waits until a run has made its file `files/up`.
    pub fn wait_up(&self, run: RunId) {
        let file = self.home.run_file(&run.to_string(), "files/up");
        eventually_sync("it is up", || file.exists().then_some(()));
    }

    /// Sets the clock to what others, who cannot be told another time, have for now.
    pub fn go_to_real_time(&self) {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        self.clock.set(from_ms(i64::try_from(now.as_millis()).unwrap()));
    }

    /// Waits until a run has ended, either way.
    pub fn wait_end(&self, run: RunId) -> EventDetail {
        eventually_sync(&format!("run {run} ends"), || {
            Some(self.detail(run)).filter(|d| d.event.status.is_terminal())
        })
    }

    /// As [`Self::settle`], doing `meanwhile` at every look.
    pub fn settle_with(&self, mut meanwhile: impl FnMut()) {
        eventually_sync("every run has ended", || {
            meanwhile();
            self.events().iter().all(|e| e.status.is_terminal()).then_some(())
        });
    }

    /// Waits until no run is left that is not ended; the events, newest first.
    pub fn settle(&self) -> Vec<Event> {
        eventually_sync("every run has ended", || {
            let events = self.events();
            events.iter().all(|e| e.status.is_terminal()).then_some(events)
        })
    }
}

/// What lives of a run: by its environment, or, where that cannot be read, by its command line.
pub fn processes_of(run: RunId) -> Vec<i32> {
    let id = run.to_string();
    let named = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&id)
    };
    let of_run = |pid| matins::proc::environ_holds(pid, "MATINS_RUN_ID", &id) == Some(true) || named(pid);
    matins::proc::all().into_iter().filter(|m| !m.zombie).map(|m| m.pid).filter(|pid| of_run(*pid)).collect()
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.crash();
            return;
        }
        if self.up.is_none() {
            return;
        }
        let check = self.block_on(self.core().store.integrity_check()).unwrap();
        assert_eq!(check, "ok", "the database is whole");
        if !self.allow_leftovers {
            let gauges = || self.block_on(self.core().store.gauges()).unwrap();
            let [pending, running, ..] = gauges();
            assert_eq!((pending, running), (0, 0), "no run is left undone");
            // The receiver has the message first, the row is closed a moment later.
            eventually_sync("no message is left undone", || (gauges()[2] == 0).then_some(()));
            // The row ends first, the task that watched the run a moment later.
            eventually_sync("no run is watched", || (self.core().live_count() == 0).then_some(()));
        }
        self.stop();
    }
}
