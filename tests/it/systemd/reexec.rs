//! Replacing the program in place: nothing notices, and nothing is lost where it fails.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use matins::proc::{LockHolder, lock_holder};
use serde_json::{Value, json};

use super::started;
use crate::support::binary::exe;
use crate::support::{Binary, Home, TestReceiver, eventually_sync};

/// A daemon that was started from a file of its own, which the test replaces.
fn installed(home: Home, env: &[(&str, &str)]) -> Binary {
    let program = home.path().join("bin/matins");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::copy(exe(), &program).unwrap();
    let mut daemon = Binary::unstarted(home);
    daemon.program = program;
    daemon.env.extend(env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    daemon.restart();
    daemon
}

/// Puts a file in the place of the daemon's program, as a package manager does.
fn install(daemon: &Binary, make: impl FnOnce(&PathBuf)) {
    let new = daemon.home.path().join("bin/new");
    make(&new);
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &daemon.program).unwrap();
}

fn upgrade(daemon: &Binary) {
    install(daemon, |new| assert!(std::fs::copy(exe(), new).unwrap() > 0));
}

/// Inode of the file that the daemon's process runs.
fn running(daemon: &Binary) -> u64 {
    std::fs::metadata(format!("/proc/{}/exe", daemon.pid())).unwrap().ino()
}

fn installed_inode(daemon: &Binary) -> u64 {
    std::fs::metadata(&daemon.program).unwrap().ino()
}

fn reexec(daemon: &Binary) -> Output {
    // Not by the installed file: what lies there need not be a matins.
    let mut command = daemon.command(&["reexec"]);
    command.stdin(Stdio::null());
    let mut client = std::process::Command::new(exe());
    client.args(command.get_args());
    client.output().unwrap()
}

fn replaced(daemon: &Binary) -> String {
    let done = reexec(daemon);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}\n{}", daemon.log());
    assert_eq!(running(daemon), installed_inode(daemon), "the new file runs in the old process");
    String::from_utf8(done.stdout).unwrap()
}

fn run_of(daemon: &Binary, agent: &str) -> String {
    let (status, answer) = daemon.post(&format!("/v1/agents/{agent}/execute"), &json!({}));
    assert!((200..300).contains(&status), "{answer}");
    let id = answer["data"]["eventId"].as_str().unwrap().to_owned();
    eventually_sync("it runs", || {
        (daemon.get(&format!("/v1/events/{id}"))["data"]["status"] == "RUNNING").then_some(())
    });
    id
}

fn event(daemon: &Binary, id: &str) -> Value {
    daemon.get(&format!("/v1/events/{id}"))["data"].clone()
}

/// A client command that runs beside the test.
fn beside(daemon: &Binary, args: &[&str]) -> Child {
    let whole = daemon.command(args);
    let mut client = std::process::Command::new(exe());
    client.args(whole.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    client.spawn().unwrap()
}

const SCRIPT: &str = "i=0; until [ -e $MATINS_AGENT_DIR/../go ]; do i=$((i+1)); echo line $i; \
                      echo err $i >&2; sleep 0.01; done; echo '{\"last\": '$i'}' > $MATINS_RESULT_FILE";

#[test]
fn runs_followers_socket_and_lock_outlive_two_replacements() {
    let home = Home::new();
    home.agent("long", SCRIPT, "");
    home.agent("quick", "echo hello", "");
    let daemon = installed(home, &[]);
    let pid = daemon.pid();
    let id = run_of(&daemon, "long");
    let logs = beside(&daemon, &["logs", "-f", &id]);
    let run = beside(&daemon, &["run", "long", "--follow", "--overlap", "allow"]);
    eventually_sync("both run", || {
        let running = daemon.events().iter().filter(|e| e["status"] == "RUNNING").count();
        (running == 2).then_some(())
    });
    let (over, lock) = (AtomicBool::new(false), daemon.home.state().join("lock"));
    let socket = daemon.home.socket();
    std::thread::scope(|scope| {
        // Another process would see the lock free, or the socket refuse, at any moment of it.
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(lock_holder(&lock).unwrap(), LockHolder::Pid(pid));
                drop(std::os::unix::net::UnixStream::connect(&socket).expect("nobody is refused"));
                crate::support::wait::pace(Duration::from_millis(1));
            }
        });
        for _ in 0..2 {
            upgrade(&daemon);
            let said = replaced(&daemon);
            assert!(said.contains("no run interrupted"), "{said}");
            assert_eq!(event(&daemon, &id)["status"], "RUNNING");
            run_of_quick(&daemon);
        }
        over.store(true, Ordering::SeqCst);
    });
    daemon.home.write("go", "");
    let events = daemon.settled();
    assert!(events.iter().all(|e| e["status"] == "COMPLETED"), "{events:#?}");
    let whole = |id: &str| daemon.get(&format!("/v1/events/{id}/logs")).as_str().unwrap().to_owned();
    let followed = logs.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), whole(&id), "logs -f missed and doubled nothing");
    assert!(followed.status.success());
    let second = events.iter().find(|e| e["agentId"] == "long" && e["id"] != id.as_str()).unwrap();
    let followed = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&followed.stderr).into_owned();
    assert_eq!(followed.status.code(), Some(0), "{said}");
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), whole(second["id"].as_str().unwrap()));
    let zombies = matins::proc::descendants(pid).into_iter().filter(|m| m.zombie).count();
    assert_eq!(zombies, 0, "its children are reaped by whichever program it is");
}

fn run_of_quick(daemon: &Binary) {
    let (status, answer) = daemon.post("/v1/agents/quick/execute", &json!({}));
    assert!((200..300).contains(&status), "{answer}");
}

#[test]
fn a_signal_replaces_and_a_stop_meanwhile_still_stops() {
    let mut daemon = installed(Home::new(), &[]);
    upgrade(&daemon);
    daemon.signal(12);
    eventually_sync("the new file runs", || (running(&daemon) == installed_inode(&daemon)).then_some(()));
    eventually_sync("the socket answers", || daemon.try_get("/healthz"));
    // Both at once: whichever comes first, the daemon ends, and ends well.
    daemon.signal(12);
    assert_eq!(daemon.terminate(), Some(0), "{}", daemon.log());
    assert!(!daemon.home.socket().exists(), "its socket goes with it, though another program made it");
}

#[test]
fn a_successor_that_cannot_take_over_is_refused() {
    let home = Home::new();
    home.agent("long", "sleep 600", "");
    let daemon = installed(home, &[]);
    let (old, id) = (running(&daemon), run_of(&daemon, "long"));
    let refused = |why: &str| {
        let done = reexec(&daemon);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains("the running daemon goes on"), "{why}: {said}");
        assert_eq!(running(&daemon), old);
        assert_eq!(event(&daemon, &id)["status"], "RUNNING");
    };
    install(&daemon, |new| std::fs::write(new, "no program").unwrap());
    refused("cannot be run");
    install(&daemon, |new| std::fs::write(new, "#!/bin/sh\necho broken >&2; exit 1\n").unwrap());
    refused("broken");
    install(&daemon, |new| std::fs::write(new, "#!/bin/sh\necho matins 9\n").unwrap());
    refused("no matins that can take over");
    let older = "#!/bin/sh\necho '{\"version\":\"0.0.1\",\"schema\":0}'\n";
    install(&daemon, |new| std::fs::write(new, older).unwrap());
    refused("matins 0.0.1, which knows databases up to version 0");
    upgrade(&daemon);
    daemon.home.settings("max_running: many\n");
    refused("max_running");
    std::fs::remove_file(&daemon.program).unwrap();
    refused("cannot be run");
    daemon.post(&format!("/v1/events/{id}/cancel"), &json!({}));
    daemon.settled();
}

#[test]
fn a_replacement_that_fails_after_all_leaves_the_daemon_and_its_runs() {
    let home = Home::new();
    home.agent("long", SCRIPT, "");
    let daemon = installed(home, &[]);
    let (old, id) = (running(&daemon), run_of(&daemon, "long"));
    let follower = beside(&daemon, &["logs", "-f", &id]);
    // It answers as it should and is gone when it is to be executed.
    let schema = matins::store::newest_schema();
    let script = format!("#!/bin/sh\nrm -- \"$0\"\necho '{{\"version\":\"9.9.9\",\"schema\":{schema}}}'\n");
    install(&daemon, |new| std::fs::write(new, &script).unwrap());
    let done = reexec(&daemon);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("could not be replaced"), "{said}");
    assert_eq!(running(&daemon), old);
    assert_eq!(lock_holder(&daemon.home.state().join("lock")).unwrap(), LockHolder::Pid(daemon.pid()));
    assert_eq!(event(&daemon, &id)["status"], "RUNNING");
    upgrade(&daemon);
    replaced(&daemon);
    daemon.home.write("go", "");
    let events = daemon.settled();
    assert_eq!((events.len(), events[0]["status"].as_str()), (1, Some("COMPLETED")), "{events:#?}");
    let log = daemon.get(&format!("/v1/events/{id}/logs"));
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), log.as_str().unwrap());
}

#[test]
fn replacements_under_load_lose_and_double_nothing() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.settings("max_running: 8\n");
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
    home.agent(
        "tick",
        "echo x >> $MATINS_RUN_DIR/files/once",
        &format!("schedules: [ {{ cron: \"* * * * * *\", overlap: allow }} ]\n{hook}"),
    );
    home.agent("busy", "echo x >> $MATINS_RUN_DIR/files/once; sleep 0.3", &hook);
    let daemon = installed(home, &[]);
    let pid = daemon.pid();
    let mut asked = 0;
    for _ in 0..6 {
        for _ in 0..4 {
            let (status, answer) = daemon.post("/v1/agents/busy/execute", &json!({"overlap": "allow"}));
            assert!((200..300).contains(&status), "no trigger is refused: {answer}");
            asked += 1;
        }
        upgrade(&daemon);
        replaced(&daemon);
    }
    assert_eq!(daemon.pid(), pid);
    std::fs::remove_file(daemon.home.path().join("agents/tick.yaml")).unwrap();
    daemon.post("/v1/reload", &json!({}));
    let events = daemon.settled();
    assert!(events.iter().all(|e| e["status"] == "COMPLETED" && e["attempt"] == 1), "{events:#?}");
    assert_eq!(events.iter().filter(|e| e["agentId"] == "busy").count(), asked);
    for event in &events {
        let once = daemon.home.run_file(event["id"].as_str().unwrap(), "files/once");
        assert_eq!(std::fs::read_to_string(once).unwrap(), "x\n", "each program ran once");
    }
    eventually_sync("every message has come", || {
        (daemon.get("/v1/status")["data"]["deliveries"]["pending"] == 0).then_some(())
    });
}

/// A command of `on_failure:` outlasts the wait of a replacement: who replaces knows nothing of its launcher.
#[test]
fn a_child_that_nobody_waits_for_is_reaped() {
    let home = Home::new();
    let wait = "touch here-$$; until [ -e go ]; do sleep 0.05; done; touch over-$$";
    home.agent("a", "exit 1", &format!("on_failure: {{ command: [sh, -c, {wait:?}], timeout: 60s }}\n"));
    let daemon = installed(home, &[]);
    let (status, answer) = daemon.post("/v1/agents/a/execute", &json!({}));
    assert!((200..300).contains(&status), "{answer}");
    let names = |start: &str| {
        let there = std::fs::read_dir(daemon.home.path().join("agents")).unwrap().flatten();
        there.filter(|e| e.file_name().to_string_lossy().starts_with(start)).count()
    };
    eventually_sync("the command runs", || (names("here-") == 1).then_some(()));
    upgrade(&daemon);
    replaced(&daemon);
    // It was cut, so it is told again, by another launcher.
    eventually_sync("the message goes out again", || (names("here-") == 2).then_some(()));
    std::fs::write(daemon.home.path().join("agents/go"), "").unwrap();
    eventually_sync("both are over", || (names("over-") == 2).then_some(()));
    eventually_sync("no child is left, dead or alive", || {
        matins::proc::descendants(daemon.pid()).is_empty().then_some(())
    });
    daemon.settled();
}

#[test]
fn a_replacement_is_no_start() {
    let home = Home::new();
    home.agent("hello", "true", "schedules: [ { on: startup } ]\n");
    home.agent("tick", "true", "schedules: [ { every: 1s, overlap: allow } ]\n");
    let mut daemon = installed(home, &[]);
    let of = |daemon: &Binary, agent: &str| daemon.pages(&format!("/v1/agents/{agent}/slots?limit=200"));
    let ticked = |daemon: &Binary| {
        let before = of(daemon, "tick").len();
        eventually_sync("the scheduler goes on", || (of(daemon, "tick").len() > before).then_some(()));
    };
    eventually_sync("the start is a slot", || (of(&daemon, "hello").len() == 1).then_some(()));
    for _ in 0..2 {
        upgrade(&daemon);
        replaced(&daemon);
        ticked(&daemon);
        assert_eq!(of(&daemon, "hello").len(), 1, "{:#?}", of(&daemon, "hello"));
    }
    // A crash and what follows it is one.
    daemon.kill();
    daemon.restart();
    eventually_sync("a start is a start", || (of(&daemon, "hello").len() == 2).then_some(()));
}

#[test]
fn systemd_hears_of_a_reload_and_goes_on_feeding() {
    let (mut daemon, manager) = started(Home::new(), &[("WATCHDOG_USEC", "2000000")]);
    manager.until("READY=1");
    daemon.signal(12);
    let reloading = manager.until("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "in the same message: {reloading}");
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    assert_eq!(daemon.terminate(), Some(0));
}

/// What a launcher of the first version wrote, byte for byte. Such launchers live on under their successors:
/// a change of the report must keep this readable.
const REPORT_OF_THE_FIRST: &str = r#"{"version":1,"run":"01a20242-bf50-7b08-bad2-2a9df58da780","attempt":1,"epoch":1,"launcher_pid":15398,"started":true,"launch_error":null,"exit_code":0,"signal":null,"reason":"exited","limit":null,"started_at_ms":1795334258611,"ended_at_ms":1795334266916,"stdout_bytes":631,"stderr_bytes":0,"log_error":null}"#;

#[test]
fn the_report_of_a_launcher_of_the_version_before_is_read() {
    let report: matins::exec::ExitReport = serde_json::from_str(REPORT_OF_THE_FIRST).unwrap();
    assert_eq!((report.exit_code, report.attempt, report.launcher_pid), (Some(0), 1, 15398));
    assert!(report.started && !report.never_started());
    assert!(report.version <= matins::exec::REPORT_VERSION);
}
