//! The daemon under systemd: what it tells, when it is fed, what its units promise.
//!
//! The manager is played by a socket of the test's own; `scripts/systemd-proof` has a real one.

mod activation;
mod init;
mod journal;
mod reexec;
mod units;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Binary, Home, TestDaemon, eventually_sync};

/// The socket that `NOTIFY_SOCKET` names.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// A manager that `daemon` will tell.
    fn of(daemon: &mut Binary) -> Self {
        let path = daemon.home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        daemon.env.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
        Self { socket }
    }

    /// The next message.
    fn heard(&self) -> String {
        let mut buffer = [0; 4096];
        let n = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    /// Listens until a message holds `word`; that message.
    fn until(&self, word: &str) -> String {
        loop {
            let message = self.heard();
            if message.lines().any(|line| line.contains(word)) {
                return message;
            }
        }
    }

    /// Throws away what has come.
    fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }
}

fn started(home: Home, env: &[(&str, &str)]) -> (Binary, Manager) {
    let mut daemon = Binary::unstarted(home);
    let manager = Manager::of(&mut daemon);
    daemon.env.extend(env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    daemon.spawn();
    (daemon, manager)
}

#[test]
fn ready_status_and_stopping_are_told_in_this_order() {
    let home = Home::new();
    home.settings("drain_timeout: 300s\nkill_grace: 20s\n");
    home.agent("slow", "until [ -e ../../../go ]; do sleep 0.05; done", "cwd: .\n");
    let yearly = "schedules: [ { cron: \"0 0 1 1 *\" } ]\n";
    home.agent("yearly", "true", yearly);
    let (mut daemon, manager) = started(home, &[]);
    let ready = manager.until("READY=1");
    assert!(ready.contains("STATUS=2 agents, 0 runs running"), "{ready}");
    assert!(daemon.try_get("/readyz").is_some(), "who is told that it is ready finds it ready");
    // The scheduler may have made its first tick before or after that.
    if !ready.contains("next fire 20") {
        manager.until("next fire 20");
    }
    daemon.post("/v1/agents/slow/execute", &json!({}));
    let busy = manager.until("1 run running");
    assert!(busy.contains("-01-01T00:00:00Z"), "{busy}");
    daemon.signal(15);
    let stopping = manager.until("STOPPING=1");
    // The drain, twice the grace, and a reserve.
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=370000000"), "{stopping}");
    assert!(stopping.contains("STATUS=stopping: waiting for 1 run"), "{stopping}");
    daemon.signal(15);
    daemon.exited();
}

#[test]
fn a_writer_that_hangs_starves_the_watchdog() {
    let home = Home::new();
    let database = home.state().join("matins.db");
    let (daemon, manager) = started(home, &[("WATCHDOG_USEC", "400000")]);
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    // Another process takes the database: the writer now waits in SQLite for as long as that allows.
    let other = rusqlite::Connection::open(database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let silent = |long: Duration| {
        let since = Instant::now();
        let mut buffer = [0; 4096];
        while since.elapsed() < long {
            if let Ok(n) = manager.socket.recv(&mut buffer)
                && buffer[..n].windows(10).any(|w| w == b"WATCHDOG=1")
            {
                return false;
            }
        }
        true
    };
    eventually_sync("the watchdog is not fed any more", || silent(Duration::from_millis(1500)).then_some(()));
    other.execute_batch("ROLLBACK").unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    manager.forget();
    manager.until("WATCHDOG=1");
    drop(daemon);
}

#[test]
fn a_scheduler_that_hangs_gives_no_beat() {
    let beats = |daemon: &TestDaemon, patience| {
        daemon.block_on(async { tokio::time::timeout(patience, daemon.core().beat()).await.is_ok() })
    };
    let alive = TestDaemon::start(Home::new());
    for _ in 0..3 {
        assert!(beats(&alive, Duration::from_secs(60)), "an idle one beats, though its clock stands still");
    }
    let hung = TestDaemon::without_loops(Home::new());
    assert!(!beats(&hung, Duration::from_millis(300)), "its writer answers, its scheduler does not");
    hung.core().tasks.stop().soft();
    assert!(beats(&hung, Duration::from_secs(60)), "one that stops has no scheduler to wait for");
}

#[test]
fn a_stopped_daemon_starves_the_watchdog() {
    let (daemon, manager) = started(Home::new(), &[("WATCHDOG_USEC", "400000")]);
    manager.until("WATCHDOG=1");
    daemon.signal(19);
    manager.forget();
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let error = manager.socket.recv(&mut [0; 4096]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    daemon.signal(18);
    manager.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    manager.until("WATCHDOG=1");
}

#[test]
fn nothing_of_the_manager_reaches_a_program() {
    let home = Home::new();
    home.agent("env", "env; readlink /proc/self/fd/* 2>/dev/null || true", "");
    let manager_words = [
        ("WATCHDOG_USEC", "60000000"),
        ("CREDENTIALS_DIRECTORY", "/run/credentials/matins.service"),
        ("INVOCATION_ID", "5f0ac8d4a6a34d5c8c5a4bb1c2a1d1f0"),
        ("JOURNAL_STREAM", "8:12345"),
        ("LISTEN_FDNAMES", "control"),
        ("SERVICE_RESULT", "success"),
    ];
    let (daemon, manager) = started(home, &manager_words);
    manager.until("READY=1");
    daemon.post("/v1/agents/env/execute", &json!({}));
    let run = daemon.settled().remove(0);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let log = daemon.get(&format!("/v1/events/{}/logs", run["id"].as_str().unwrap()));
    let log = log.as_str().unwrap();
    assert!(log.contains("MATINS_RUN_ID="), "{log}");
    for line in log.lines() {
        let name = line.split('=').next().unwrap();
        let foreign = manager_words.iter().any(|(n, _)| *n == name)
            || name == "NOTIFY_SOCKET"
            || name.starts_with("LISTEN_")
            || line.contains("/run/credentials");
        assert!(!foreign, "a program sees {line}");
    }
}

/// A run that lasts until it is ended, under a daemon that was killed.
fn orphaned(script: &str) -> (Binary, i32) {
    let home = Home::new();
    home.settings("kill_grace: 1s\n");
    home.agent("long", script, "");
    let mut daemon = Binary::start(home);
    daemon.post("/v1/agents/long/execute", &json!({}));
    let run = eventually_sync("it runs", || {
        let events = daemon.events();
        (events[0]["status"] == "RUNNING").then(|| events[0]["id"].as_str().unwrap().to_owned())
    });
    let log = daemon.home.run_file(&run, "attempts/1/stdout.log");
    let pid = eventually_sync("it tells its pid", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    });
    daemon.kill();
    (daemon, pid)
}

fn lives(pid: i32) -> bool {
    matins::proc::member(pid).is_some_and(|m| !m.zombie)
}

fn sweep(daemon: &Binary, result: &str) -> String {
    let done = daemon.command(&["__sweep"]).env("SERVICE_RESULT", result).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn after_a_crash_runs_go_on_and_after_a_stop_nothing_is_left() {
    let (mut daemon, pid) = orphaned("echo $$; while :; do sleep 1; done");
    for crashed in ["signal", "core-dump", "watchdog", "exit-code", "resources"] {
        sweep(&daemon, crashed);
        assert!(lives(pid), "after {crashed} the runs go on");
    }
    // A daemon that is up keeps its runs, whatever is said of the one before.
    daemon.restart();
    sweep(&daemon, "success");
    assert!(lives(pid));
    daemon.kill();
    let said = sweep(&daemon, "success");
    assert!(said.contains("ended 1 run"), "{said}");
    assert!(!lives(pid), "its program is gone too");
    assert_eq!(sweep(&daemon, "success"), "");
    daemon.restart();
    let events = daemon.settled();
    assert_eq!(events[0]["status"], "FAILED");
    assert_eq!(events[0]["failureCode"], "interrupted", "{}", events[0]);
}

#[test]
fn a_launcher_that_does_not_answer_is_swept_with_its_tree() {
    let (mut daemon, pid) = orphaned("trap '' TERM; echo $$; while :; do sleep 1; done");
    let launcher = matins::proc::launchers()
        .into_iter()
        .find(|(_, _, dir)| dir.starts_with(daemon.home.path()))
        .expect("the launcher lives");
    matins::proc::signal(&launcher.1, matins::proc::Signal::STOP).unwrap();
    sweep(&daemon, "timeout");
    assert!(!lives(pid));
    assert!(!lives(launcher.0));
    daemon.restart();
    assert_eq!(daemon.settled()[0]["failureCode"], "interrupted");
}
