//! The unit files: they parse, they are as closed as they say, and they name what the program has.
//!
//! Held only where `systemd-analyze` is installed; `scripts/test` installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::binary::exe;

/// Exposure levels, in tenths: `systemd-analyze security` says them with one digit.
const PLAIN_MAX: u32 = 19;
const LOOSENED_MAX: u32 = 25;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The version of systemd; `None` where it is not installed.
fn systemd() -> Option<u32> {
    let said = Command::new("systemd-analyze").arg("--version").output().ok()?;
    String::from_utf8(said.stdout).ok()?.split(' ').nth(1)?.parse().ok()
}

/// The unit with a drop-in, its program replaced by the one under test, in a folder of its own.
fn laid_out(file: &str, dropin: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(Path::new(file).file_name().unwrap());
    let here = exe().display().to_string();
    std::fs::write(&path, unit(file).replace("/usr/bin/matins", &here)).unwrap();
    if let Some(name) = dropin {
        let below = dir.path().join("matins.service.d");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join(name), unit(&format!("matins.service.d/{name}"))).unwrap();
    }
    (dir, path)
}

fn analyze(args: &[&str], path: &Path) -> (bool, String) {
    let said = Command::new("systemd-analyze").args(args).arg(path).output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    (said.status.success(), String::from_utf8(text).unwrap())
}

/// The drop-ins that this systemd knows.
fn dropins(version: u32) -> Vec<&'static str> {
    let mut all = vec!["home.conf", "browser.conf"];
    if version >= 254 {
        all.push("delegate.conf");
    }
    all
}

fn exposure(path: &Path) -> u32 {
    let (_, text) = analyze(&["security", "--offline=true"], path);
    let after = text.split("Overall exposure level for").nth(1).expect("a level");
    let level = after.split(": ").nth(1).unwrap().split(' ').next().unwrap();
    level.replace('.', "").parse().unwrap()
}

#[test]
fn the_units_parse_without_a_word() {
    let Some(version) = systemd() else { return };
    let mut units = vec![("matins.service", None), ("user/matins.service", None)];
    units.extend(dropins(version).into_iter().map(|d| ("matins.service", Some(d))));
    for (file, dropin) in units {
        let (_dir, path) = laid_out(file, dropin);
        let (fine, said) = analyze(&["verify"], &path);
        assert!(fine && said.trim().is_empty(), "{file} with {dropin:?}: {said}");
    }
    let (dir, _) = laid_out("matins.service", None);
    let socket = dir.path().join("matins.socket");
    std::fs::copy(folder().join("matins.socket"), &socket).unwrap();
    let (fine, said) = analyze(&["verify"], &socket);
    assert!(fine && said.trim().is_empty(), "{said}");
}

#[test]
fn the_units_are_as_closed_as_they_say() {
    let Some(version) = systemd() else { return };
    let (_dir, plain) = laid_out("matins.service", None);
    let level = exposure(&plain);
    assert!(level <= PLAIN_MAX, "matins.service is at {level} tenths");
    for dropin in dropins(version) {
        let (_dir, path) = laid_out("matins.service", Some(dropin));
        let loosened = exposure(&path);
        assert!(loosened > level, "{dropin} was read");
        assert!(loosened <= LOOSENED_MAX, "{dropin} makes it {loosened} tenths");
    }
    println!("matins.service: {level} tenths");
}

#[test]
fn the_units_keep_what_survival_needs() {
    for file in ["matins.service", "user/matins.service"] {
        let text = unit(file);
        for line in [
            "Type=notify",
            "NotifyAccess=main",
            "KillMode=process",
            "OOMPolicy=continue",
            "RuntimeDirectoryPreserve=yes",
            "Restart=always",
            "RestartPreventExitStatus=78",
            "TimeoutStopSec=120",
            "ExecStopPost=/usr/bin/matins __sweep",
        ] {
            assert!(text.lines().any(|l| l == line), "{file} lacks {line}");
        }
        // A /tmp that goes with the daemon, or a group that systemd empties, would take the runs along.
        for word in ["PrivateTmp=yes", "Delegate=", "DynamicUser="] {
            assert!(!text.lines().any(|l| l.starts_with(word)), "{file} holds {word}");
        }
    }
    let confined = unit("matins.service");
    for call in ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"] {
        let allows = |l: &str| l.starts_with("SystemCallFilter=") && l.contains(call);
        assert!(confined.lines().any(allows), "runs are confined by {call}");
    }
}
