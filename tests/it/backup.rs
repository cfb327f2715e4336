//! Backups: whole copies under load, and back again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matins::daemon::housekeeping::Backups;
use serde_json::json;

use super::support::{Binary, Home, TestDaemon, eventually_sync};

fn home() -> Home {
    let home = Home::new();
    home.settings("watch: false\nmax_running: 4\n");
    home.agent("a", "echo hello", "");
    home
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ids(daemon: &Binary) -> Vec<String> {
    daemon.events().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
}

fn execute(daemon: &Binary) -> String {
    let (status, run) = daemon.post("/v1/agents/a/execute", &json!({}));
    assert_eq!(status, 202, "{run}");
    run["data"]["eventId"].as_str().unwrap().to_owned()
}

#[test]
fn a_copy_made_under_load_is_whole_and_can_be_put_back() {
    let home = home();
    home.agent("busy", "true", "schedules: [ { cron: \"* * * * * *\" } ]\n");
    let mut daemon = Binary::start(home);
    for _ in 0..20 {
        execute(&daemon);
    }
    let kept = execute(&daemon);
    let file = daemon.home.path().join("copy.db");
    let out = daemon.cli(&["backup", "copy.db"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "copy.db\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    matins::store::check_backup(&file).unwrap();
    assert!(!daemon.home.path().join("copy.db.part").exists());
    let later = execute(&daemon);
    daemon.settled();
    let refused = daemon.cli(&["restore", "copy.db"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("stop the daemon first"), "{}", text(&refused.stderr));
    std::fs::remove_file(daemon.home.path().join("agents/busy.yaml")).unwrap();
    assert_eq!(daemon.terminate(), Some(0));
    // Folders of runs may be missing: a copy holds none.
    std::fs::remove_dir_all(daemon.home.run_file(&kept, "")).unwrap();
    let out = daemon.cli(&["restore", "copy.db"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let aside = |home: &Path| {
        let entries = std::fs::read_dir(home.join("var")).unwrap().map(|e| e.unwrap().path());
        entries.filter(|p| p.to_string_lossy().contains("matins.db.before-")).collect::<Vec<PathBuf>>()
    };
    let before = aside(daemon.home.path());
    assert_eq!(before.len(), 1, "{before:?}");
    matins::store::check_backup(&before[0]).unwrap();
    daemon.restart();
    daemon.settled();
    let now = ids(&daemon);
    assert!(now.contains(&kept) && !now.contains(&later), "what came after the copy is not there");
    let shown = daemon.cli(&["show", &kept]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
}

#[test]
fn a_copy_is_made_without_a_daemon_too() {
    let mut daemon = Binary::start(home());
    let run = execute(&daemon);
    daemon.settled();
    assert_eq!(daemon.terminate(), Some(0));
    let out = daemon.cli(&["backup", "cold.db", "--json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    matins::store::check_backup(&daemon.home.path().join("cold.db")).unwrap();
    daemon.restart();
    assert_eq!(ids(&daemon), [run]);
}

#[test]
fn what_is_no_copy_of_ours_is_refused_and_changes_nothing() {
    let mut daemon = Binary::start(home());
    let run = execute(&daemon);
    daemon.settled();
    assert!(daemon.cli(&["backup", "good.db"]).status.success());
    assert_eq!(daemon.terminate(), Some(0));
    let path = |name: &str| daemon.home.path().join(name);
    let good = std::fs::read(path("good.db")).unwrap();
    std::fs::write(path("text.db"), "no database at all, but some text that is long enough to be read")
        .unwrap();
    std::fs::write(path("half.db"), &good[..good.len() / 2]).unwrap();
    std::fs::write(path("newer.db"), &good).unwrap();
    let sql =
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'x', '', '')";
    rusqlite::Connection::open(path("newer.db")).unwrap().execute(sql, []).unwrap();
    for (file, says) in
        [("text.db", "text.db"), ("half.db", "half.db"), ("newer.db", "schema 999"), ("none.db", "none.db")]
    {
        let out = daemon.cli(&["restore", file]);
        assert_eq!(out.status.code(), Some(1), "{file}");
        assert!(text(&out.stderr).contains(says), "{file}: {}", text(&out.stderr));
    }
    daemon.restart();
    assert_eq!(ids(&daemon), [run]);
    let left: Vec<_> =
        std::fs::read_dir(daemon.home.state()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("restore")), "{left:?}");
}

#[test]
fn backups_come_by_their_pattern_and_the_oldest_go() {
    let home = home();
    home.settings("housekeeping: { backup: \"0 3 * * *\", keep_backups: 2 }\n");
    let mut daemon = TestDaemon::start(home);
    let mut backups = Backups::new(daemon.core().clock.now_ms());
    let look = |daemon: &TestDaemon, backups: &mut Backups| daemon.block_on(backups.look(daemon.core()));
    assert_eq!(look(&daemon, &mut backups), None, "nothing is due at the start");
    let mut made = Vec::new();
    for _ in 0..3 {
        daemon.advance(Duration::from_hours(24));
        let path = look(&daemon, &mut backups).expect("three in the morning has passed");
        matins::store::check_backup(&path).unwrap();
        made.push(path);
        assert_eq!(look(&daemon, &mut backups), None, "one is enough");
    }
    assert_eq!(made.iter().map(|p| p.exists()).collect::<Vec<_>>(), [false, true, true]);
    // A daemon that was down in the night makes up for it.
    daemon.stop();
    daemon.advance(Duration::from_hours(24));
    daemon.restart();
    let mut backups = Backups::new(daemon.core().clock.now_ms());
    assert!(look(&daemon, &mut backups).is_some());
    eventually_sync("nothing half is left", || {
        let mut entries = std::fs::read_dir(daemon.home.state().join("backups")).unwrap();
        entries.all(|e| !e.unwrap().file_name().to_string_lossy().ends_with(".part")).then_some(())
    });
}

#[test]
fn a_backup_never_takes_the_place_of_the_daemons_own_files() {
    let daemon = Binary::start(home());
    for name in ["matins.db", "matins.db-wal", "lock", "other.db"] {
        let out = daemon.cli(&["backup", &format!("var/{name}")]);
        assert_eq!(out.status.code(), Some(1), "{name}");
        assert!(text(&out.stderr).contains("is a state directory"), "{}", text(&out.stderr));
    }
    let socket = std::os::unix::net::UnixListener::bind(daemon.home.path().join("some.sock")).unwrap();
    for taken in ["some.sock", "agents"] {
        let out = daemon.cli(&["backup", taken]);
        assert_eq!(out.status.code(), Some(1), "{taken}");
        assert!(text(&out.stderr).contains("is no file"), "{}", text(&out.stderr));
    }
    drop(socket);
    execute(&daemon);
    daemon.settled();
}
