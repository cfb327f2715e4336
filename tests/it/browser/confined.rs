//! A browser in the sandbox of its run, as a user of its own: all of it works, and it writes where the run may.
//!
//! What it wrote is known by its user, whom nothing else has: whatever of that user lies anywhere is the browser's or the
//! agent's.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::cases::schema_of;
use crate::isolation::{landlock, of_root};
use crate::support::{Home, ModelServer, Reply, Site, eventually_sync};

/// A uid that nobody has, in no other test either.
const USER: u32 = 54_333;
/// What is told of a browser whose own sandbox is off.
const SANDBOX_OFF: &str = "own sandbox is off";

/// What is this user's below these folders.
fn owned(places: &[&Path]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PathBuf> = places.iter().map(|place| place.to_path_buf()).collect();
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                open.push(path.clone());
            }
            if meta.uid() == USER {
                found.insert(path);
            }
        }
    }
    found
}

/// The command lines of this user's processes.
fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let own = processes.filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == USER));
    let line = |path: PathBuf| std::fs::read(path.join("cmdline")).unwrap_or_default();
    own.map(|entry| String::from_utf8_lossy(&line(entry.path())).replace('\0', " ")).collect()
}

/// Whether this user may have the namespaces that Chromium's sandbox is made of.
fn may_have_namespaces() -> bool {
    let id = |what: &str| format!("--re{what}id={USER}");
    let mut command = std::process::Command::new("setpriv");
    command.args([&id("u"), &id("g"), "--clear-groups", "unshare", "--user", "--pid", "--net", "true"]);
    command.output().unwrap().status.success()
}

/// Writes the agent, and a file that its user could read and that is none of the run's.
fn agent(home: &Home, server: &ModelServer) {
    home.settings(&server.settings());
    let executor = "  model: local/m\n  tools: [browser]\n  hosts: [127.0.0.1]\n";
    home.llm_agent("shop", executor, &format!("user: '{USER}'\nsandbox: on\n"));
    let outside = home.write("open/outside.txt", "not yours");
    std::fs::set_permissions(outside.parent().unwrap(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(outside, PermissionsExt::from_mode(0o666)).unwrap();
}

#[test]
fn a_browser_of_another_user_works_in_the_sandbox_and_writes_in_the_folders_of_its_run() {
    let (server, site) = (ModelServer::start(), Site::start());
    let daemon = of_root(|home| agent(home, &server));
    let Some(daemon) = daemon else { return };
    let home = daemon.home.path();
    let places = [Path::new("/tmp"), Path::new("/var/tmp"), Path::new("/dev/shm"), home];
    let before = owned(&places);
    let result = json!({"title": "Uploaded"});
    let call = |tool: &str, arguments| Reply::call(&format!("browser_{tool}"), &arguments);
    let go = |path: &str| call("navigate", json!({"url": format!("{}{path}", site.url)}));
    let upload = |file: &str| call("upload", json!({"ref": "button \"File\"", "files": [file]}));
    server.script([
        go("/downloads"),
        call("download", json!({"ref": "link \"Report\""})),
        call("screenshot", json!({"name": "page"})),
        go("/upload"),
        upload(&home.join("open/outside.txt").display().to_string()),
        upload("../../../../open/outside.txt"),
        upload("@files/report.csv"),
        call("click", json!({"ref": "button \"Send\""})),
        call(
            "download",
            json!({"url": format!("{}/downloads/report.csv", site.url), "name": "../../report.csv"}),
        ),
        call(
            "extract",
            json!({"schema": schema_of(&result), "from": {"object": {"title": {"page": "title"}}}}),
        ),
        Reply::finish(&result).after(Duration::from_secs(2)),
    ]);
    let (status, answer) = daemon.post("/v1/agents/shop/execute", &json!({}));
    assert_eq!(status, 202, "{answer}");
    let run = answer["data"]["eventId"].as_str().unwrap();
    let event = || daemon.get(&format!("/v1/events/{run}"))["data"].clone();
    let open = || server.asked().len() == 11 || event()["status"] == "FAILED";
    eventually_sync("all is done but the end", || open().then_some(()));
    let (lines, during) = (command_lines(), owned(&places));
    let ended = || matches!(event()["status"].as_str(), Some("COMPLETED" | "FAILED")).then(event);
    let event = eventually_sync("the run ends", ended);
    assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &result), "{event:#}");
    assert_eq!(server.complaints(), Vec::<String>::new());

    let told = |call: usize| {
        let said = server.asked()[call].body["messages"].as_array().unwrap().last().unwrap().to_string();
        assert!(!said.is_empty());
        said
    };
    assert!(told(2).contains("Downloaded @files/report.csv"), "{}", told(2));
    assert!(told(3).contains("@files/page.png"), "{}", told(3));
    assert!(told(5).contains("is outside") && told(6).contains("outside"), "{} {}", told(5), told(6));
    assert!(told(8).contains("Got report.csv with 33 bytes"), "{}", told(8));
    assert!(told(9).contains("no name for a file"), "{}", told(9));

    let folder = daemon.home.run_file(run, "");
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("files")).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["page.png", "report.csv"]);
    assert!(during.iter().any(|path| path.ends_with("profile/Default")), "{during:#?}");
    let sessions = daemon.home.state().join("sessions");
    let elsewhere = |path: &&PathBuf| !path.starts_with(&folder) && !path.starts_with(&sessions);
    let left: Vec<PathBuf> = owned(&places).difference(&before).filter(elsewhere).cloned().collect();
    assert_eq!(left, Vec::<PathBuf>::new());

    let browser: Vec<&String> =
        lines.iter().filter(|line| line.contains("--remote-debugging-pipe")).collect();
    assert!(!browser.is_empty(), "{lines:#?}");
    let is_off = browser.iter().any(|line| line.contains("--no-sandbox"));
    let steps = daemon.get(&format!("/v1/events/{run}/history")).to_string();
    assert_eq!(is_off, steps.contains(SANDBOX_OFF), "{steps}");
    assert_eq!(is_off, !may_have_namespaces(), "{steps}");
    assert!(landlock(1), "else nothing of this was in a sandbox");
}
