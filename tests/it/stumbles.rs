//! What newcomers stumbled over: a command that spoke of another installation, errors that programs could
//! not read, messages in the middle of a line, names without a run.

use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::support::{Binary, Home, eventually_sync};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything a command printed.
fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// A command that was told of a daemon by its socket alone, far from any settings of its own.
fn by_socket(socket: &std::path::Path, elsewhere: &Home, args: &[&str]) -> Output {
    let mut command = Command::new(super::support::binary::exe());
    command.args(args).env("MATINS_SOCKET", socket).current_dir(elsewhere.path());
    // The default installation is another one.
    command.env("CONFIGURATION_DIRECTORY", elsewhere.path()).env_remove("STATE_DIRECTORY");
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_dead_daemons_socket_is_not_answered_with_another_installation() {
    let (own, other) = (Home::new(), Home::new());
    own.agent("mine", "true", "");
    let mut daemon = Binary::start(own);
    let out = daemon.cli(&["run", "mine", "--follow"]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(daemon.terminate(), Some(0));
    // Its settings name the socket and lie near it: it is that installation.
    let socket = daemon.home.socket();
    let own_file = daemon.home.path().join("matins.yaml").display().to_string();
    let doctor = by_socket(&socket, &other, &["doctor"]);
    assert!(said(&doctor).contains(&own_file), "{}", said(&doctor));
    assert!(said(&doctor).contains("no daemon answers at"), "{}", said(&doctor));
    assert!(!said(&doctor).contains(&other.path().display().to_string()), "{}", said(&doctor));
    let backup = by_socket(&socket, &other, &["backup", "copy.db"]);
    assert!(backup.status.success(), "{}", said(&backup));
    assert!(text(&by_socket(&socket, &other, &["check"]).stdout).contains("1 agent"));
    // Nothing tells whose socket this is: it says so, and looks at nobody's files.
    let strange = other.path().join("elsewhere/matins.sock");
    for args in [&["doctor"][..], &["backup", "strange.db"]] {
        let out = by_socket(&strange, &other, args);
        assert_eq!(out.status.code(), Some(69), "{args:?}: {}", said(&out));
        assert_eq!(text(&out.stdout), "", "{args:?}");
        assert!(text(&out.stderr).contains("with -c FILE"), "{args:?}: {}", said(&out));
    }
    assert!(!other.path().join("strange.db").exists());
    let check = by_socket(&strange, &other, &["check"]);
    assert!(text(&check.stderr).contains("these are not the settings of MATINS_SOCKET"), "{}", said(&check));
}

#[test]
fn with_json_an_error_is_one_line_of_json_on_stderr() {
    let home = Home::new();
    home.agent("a", "true", "");
    let error = |out: &Output| -> Value {
        assert_eq!(text(&out.stdout), "", "{}", said(out));
        let told: Value =
            serde_json::from_slice(&out.stderr).unwrap_or_else(|e| panic!("{e}: {}", said(out)));
        assert_eq!(told["error"]["exitCode"], json!(out.status.code().unwrap()), "{told}");
        told["error"].clone()
    };
    let mut daemon = Binary::unstarted(home);
    let none = error(&daemon.cli(&["agents", "--json"]));
    assert!(none["message"].as_str().unwrap().contains("no daemon"), "{none}");
    assert!(none["hint"].as_str().unwrap().contains("matins serve"), "{none}");
    daemon.restart();
    let unknown = error(&daemon.cli(&["run", "b", "--json"]));
    assert_eq!((&unknown["code"], &unknown["exitCode"]), (&json!("unknown_agent"), &json!(1)));
    let field = error(&daemon.cli(&["why", "a", "soon", "--json"]));
    assert!(field["message"].as_str().unwrap().contains("is not a time"), "{field}");
    let usage = error(&daemon.cli(&["events", "--limit", "-1", "--json"]));
    assert_eq!(usage["exitCode"], 2);
    assert!(usage["message"].as_str().unwrap().contains("write a whole number from 1"), "{usage}");
}

#[test]
fn a_name_without_a_run_says_so() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = Binary::start(home);
    for (name, code, says) in [
        ("@last", 1, "there is no run yet"),
        ("a@last", 1, "agent \"a\" has no run yet"),
        ("b@last", 1, "agent \"b\" does not exist"),
        ("", 2, "write a run's id"),
        ("  ", 2, "write a run's id"),
    ] {
        let out = daemon.cli(&["show", name]);
        assert_eq!(out.status.code(), Some(code), "{name:?}: {}", said(&out));
        assert!(text(&out.stderr).contains(says), "{name:?}: {}", said(&out));
    }
    assert!(text(&daemon.cli(&["logs", "a@last"]).stderr).contains("`matins run AGENT` runs one now"));
    assert!(daemon.cli(&["run", "a", "--follow"]).status.success());
    assert!(daemon.cli(&["show", "a@last"]).status.success());
    assert_eq!(text(&daemon.cli(&["events", "-n", "1"]).stdout).lines().count(), 1);
}

#[test]
fn ctrl_c_of_a_follower_is_no_error() {
    let home = Home::new();
    let fifo = home.gate();
    home.agent("a", "echo begun; cat $MATINS_AGENT_DIR/../go", "");
    let daemon = Binary::start(home);
    let mut command = daemon.command(&["run", "a", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 6];
    follower.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    let pid = follower.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let out = follower.wait_with_output().unwrap();
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{told}");
    assert!(!told.contains("error:"), "{told}");
    let run = daemon.events()[0]["id"].as_str().unwrap().to_owned();
    assert!(told.contains(&format!("run {run} goes on")), "{told}");
    assert!(told.contains(&format!("`matins logs -f {run}`")), "{told}");
    std::fs::write(&fifo, "go").unwrap();
    assert_eq!(daemon.settled()[0]["status"], "COMPLETED");
}

#[test]
fn a_follower_begins_its_message_on_a_line_of_its_own() {
    let home = Home::new();
    home.agent("a", "printf out; printf problem >&2; exit 3", "");
    let daemon = Binary::start(home);
    // One file for both, as a terminal is.
    let both = daemon.home.path().join("both");
    let file = std::fs::File::create(&both).unwrap();
    let mut command = daemon.command(&["run", "a", "--follow"]);
    let code = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap().code();
    assert_eq!(code, Some(1));
    let told = std::fs::read_to_string(&both).unwrap();
    let (run, rest) = told.split_once('\n').unwrap();
    assert!(run.starts_with("run "), "{told}");
    // Two files have no common order: what was written at once may come either way.
    let whole = ["outproblem\nerror: run ", "problemout\nerror: run "];
    assert!(whole.iter().any(|begin| rest.starts_with(begin)), "{told}");
}

#[test]
fn a_schedule_may_lift_the_timeout_of_its_agent() {
    let home = Home::new();
    home.agent("a", "sleep 2", "timeout: 1s\nschedules: [ { on: startup, timeout: none, max_runs: 1 } ]\n");
    let daemon = Binary::start(home);
    let run = eventually_sync("the run of the start", || {
        daemon
            .events()
            .into_iter()
            .find(|event| event["status"] == "COMPLETED" || event["status"] == "FAILED")
    });
    assert_eq!(run["status"], "COMPLETED", "{run}");
    // By hand the agent's own holds.
    let out = daemon.cli(&["run", "a", "--follow"]);
    assert!(text(&out.stderr).contains("(timeout)"), "{}", said(&out));
}

#[test]
fn a_damaged_database_is_told_once_and_with_its_remedy() {
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = Binary::start(home);
    assert!(daemon.cli(&["run", "a", "--follow"]).status.success());
    assert_eq!(daemon.terminate(), Some(0));
    let file = daemon.home.state().join("matins.db");
    let good = std::fs::read(&file).unwrap();
    // What a stop has left in the log would mend the file.
    for beside in ["matins.db-wal", "matins.db-shm"] {
        let _ = std::fs::remove_file(daemon.home.state().join(beside));
    }
    std::fs::write(&file, [&b"SQLite format 3\0"[..], &vec![7; good.len()]].concat()).unwrap();
    daemon.spawn();
    assert_ne!(daemon.exited(), Some(0));
    let log = daemon.log();
    let last = log.lines().rfind(|line| line.contains("error")).unwrap_or_default().to_owned();
    assert!(last.contains("matins restore FILE") && last.contains("matins.db"), "{log}");
    assert_eq!(last.matches("SQLite code").count(), 1, "{last}");
    let backup = daemon.cli(&["backup", "copy.db"]);
    assert!(text(&backup.stderr).contains("matins restore FILE"), "{}", said(&backup));
    assert!(!daemon.home.path().join("copy.db").exists());
}

#[test]
fn a_refused_restore_leaves_nothing_beside_the_copy() {
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = Binary::start(home);
    assert!(daemon.cli(&["run", "a", "--follow"]).status.success());
    assert_eq!(daemon.terminate(), Some(0));
    // A copy of the file of a daemon: SQLite opens it with a log beside it.
    let copies = daemon.home.path().join("copies # 100%");
    std::fs::create_dir(&copies).unwrap();
    let copy = copies.join("by hand.db");
    std::fs::copy(daemon.home.state().join("matins.db"), &copy).unwrap();
    let sql =
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'x', '', '')";
    let newer = copies.join("newer.db");
    std::fs::copy(&copy, &newer).unwrap();
    rusqlite::Connection::open(&newer).unwrap().execute(sql, []).unwrap();
    let half = std::fs::read(&copy).unwrap();
    std::fs::write(copies.join("half.db"), &half[..half.len() / 2]).unwrap();
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(&copies)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(files(), ["by hand.db", "half.db", "newer.db"]);
    for name in ["newer.db", "half.db"] {
        let out = daemon.cli(&["restore", copies.join(name).to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(1), "{name}: {}", said(&out));
        assert_eq!(files(), ["by hand.db", "half.db", "newer.db"], "{name}");
    }
    std::fs::write(copies.join("by hand.db-wal"), "what was not yet moved").unwrap();
    let out = daemon.cli(&["restore", copy.to_str().unwrap()]);
    assert!(text(&out.stderr).contains("write-ahead log lies beside it"), "{}", said(&out));
    std::fs::remove_file(copies.join("by hand.db-wal")).unwrap();
    let out = daemon.cli(&["restore", copy.to_str().unwrap()]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(files(), ["by hand.db", "half.db", "newer.db"]);
    let left = std::fs::read_dir(daemon.home.state()).unwrap().map(|e| e.unwrap().file_name());
    assert!(!left.map(|n| n.to_string_lossy().into_owned()).any(|n| n.contains(".restore")));
    daemon.restart();
    assert_eq!(daemon.events().len(), 1);
}
