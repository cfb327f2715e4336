//! `matins init`: what it writes runs, and what was there stays.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::binary::exe;
use crate::support::{Binary, Home};

fn init(home: &Path, args: &[&str], user_manager: bool) -> Output {
    let runtime = home.join("runtime");
    let below = if user_manager { "systemd" } else { "" };
    std::fs::create_dir_all(runtime.join(below)).unwrap();
    let mut command = Command::new(exe());
    command.arg("init").args(args).env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", runtime);
    command.current_dir(home).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn what_it_writes_runs_and_is_never_overwritten() {
    let home = Home::new();
    // A directory of its own: the home holds the settings of the test.
    let place = home.path().join("mine");
    let text = said(&init(home.path(), &["mine"], false));
    let named = place.display().to_string();
    for line in [format!("matins -c {named} serve"), format!("matins -c {named} run hello --follow")] {
        assert!(text.lines().any(|l| l.trim() == line), "{line}\n{text}");
    }
    let checked = Command::new(exe()).args(["check", "--config"]).arg(&place).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));

    let mut daemon = Binary::unstarted(home);
    std::fs::rename(place.join("agents/hello.yaml"), daemon.home.path().join("agents/hello.yaml")).unwrap();
    std::fs::rename(place.join("skills/greeting"), daemon.home.path().join("skills/greeting")).unwrap();
    daemon.restart();
    let followed = daemon.cli(&["run", "hello", "--follow"]);
    let text = String::from_utf8(followed.stdout).unwrap();
    assert_eq!(text, "Say hello to world.\nBe short and friendly.\n");
    assert!(followed.status.success());
    let run = daemon.settled().remove(0);
    let record = daemon.get(&format!("/v1/events/{}", run["id"].as_str().unwrap()));
    assert_eq!(record["data"]["result"]["greeted"], true, "{record}");

    std::fs::write(place.join("matins.yaml"), "max_running: 2\n").unwrap();
    let text = said(&init(daemon.home.path(), &["mine"], false));
    assert!(text.contains(&format!("kept   {named}/matins.yaml")), "{text}");
    assert!(text.contains(&format!("wrote  {named}/agents/hello.yaml")), "{text}");
    assert_eq!(std::fs::read_to_string(place.join("matins.yaml")).unwrap(), "max_running: 2\n");
}

#[test]
fn a_unit_is_written_where_a_manager_reads_it() {
    let home = tempfile::tempdir().unwrap();
    let without = said(&init(home.path(), &[], false));
    assert!(!without.contains("systemctl"), "{without}");
    assert!(home.path().join(".config/matins/matins.yaml").is_file(), "where the daemon looks by itself");
    let text = said(&init(home.path(), &[], true));
    assert!(text.contains("systemctl --user enable --now matins"), "{text}");
    let unit = home.path().join(".config/systemd/user/matins.service");
    let written = std::fs::read_to_string(&unit).unwrap();
    assert!(written.contains(&format!("ExecStart=\"{}\" serve", exe().display())), "{written}");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["--user", "verify"]).arg(&unit).stdin(Stdio::null());
    if let Ok(verified) = verify.env("XDG_RUNTIME_DIR", home.path().join("runtime")).output() {
        let said = String::from_utf8([verified.stdout, verified.stderr].concat()).unwrap();
        assert!(!said.contains("matins.service"), "{said}");
    }
    // There is one unit: a directory gets none, and one that serves another directory is told of.
    let other = said(&init(home.path(), &["other"], true));
    assert!(!other.contains("matins.service") && other.contains("no unit was written"), "{other}");
    let served = home.path().join("other");
    let mine = format!("[Service]\nExecStart=/usr/bin/matins --config \"{}\" serve\n", served.display());
    std::fs::write(&unit, &mine).unwrap();
    let kept = said(&init(home.path(), &[], true));
    let line = format!("which serves {}/matins.yaml, not these settings", served.display());
    assert!(kept.contains(&line) && !kept.contains("systemctl"), "{kept}");
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), mine);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let refused = init(home.path(), &["file/below"], false);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("file/below") && text.contains("matins init DIR"), "{text}");
    assert_eq!(init(home.path(), &["x", "-c", "y"], false).status.code(), Some(2));
}
