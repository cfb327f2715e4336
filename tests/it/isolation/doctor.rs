//! `matins doctor`: what it says of a machine and of an installation, and with what code it ends.

use super::*;

/// The checks of `matins doctor --json` and its exit code.
fn doctor(daemon: &Binary) -> (Vec<Value>, Option<i32>) {
    let out = daemon.cli(&["doctor", "--json"]);
    let checks = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    (checks, out.status.code())
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no check {name}: {checks:#?}"))
}

#[test]
fn a_daemon_of_root_is_told_what_is_not_protected() {
    if !rustix::process::geteuid().is_root() {
        skip("only root is root");
        return;
    }
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = Binary::start(home);
    let (checks, code) = doctor(&daemon);
    assert_eq!(code, Some(0), "{checks:#?}");
    let user = check(&checks, "user");
    assert_eq!(user["level"], "warn", "{user}");
    assert!(user["found"].as_str().unwrap().contains("not protected from each other by uid"), "{user}");
    assert!(user["remedy"].as_str().unwrap().contains("`user:`"), "{user}");
}

#[test]
fn a_daemon_of_a_user_is_as_it_should_be() {
    let stand = Stand::new("true", "");
    let (checks, code) = doctor(&stand.daemon);
    assert_eq!(code, Some(0), "{checks:#?}");
    for name in ["user", "lock", "secrets", "agents", "alerting", "sqlite", "time zones", "process identity"]
    {
        assert_ne!(check(&checks, name)["level"], "fail", "{checks:#?}");
    }
    assert_eq!(check(&checks, "user")["level"], "ok");
    assert_eq!(check(&checks, "lock")["found"], "held by the daemon");
    let has = matins::proc::landlock_version();
    assert_eq!(check(&checks, "landlock")["level"] == "ok", has >= 6, "{checks:#?}");
}

#[test]
fn what_is_broken_fails_with_the_name_and_never_the_value() {
    let stand = Stand::new("true", "");
    std::fs::remove_file(stand.daemon.home.path().join("secret.txt")).unwrap();
    let (checks, code) = doctor(&stand.daemon);
    assert_eq!(code, Some(1), "{checks:#?}");
    let secrets = check(&checks, "secrets");
    assert_eq!(secrets["level"], "fail");
    assert!(secrets["found"].as_str().unwrap().contains("KEY of probe"), "{secrets}");
    assert!(!json!(checks).to_string().contains("hunter2"));
}

#[test]
fn without_a_daemon_it_looks_from_outside() {
    let home = Home::new();
    home.agent("a", "true", "");
    home.agent("b", "true", "nonsense: 1\n");
    let daemon = Binary::unstarted(home);
    let (checks, code) = doctor(&daemon);
    assert_eq!(code, Some(1), "{checks:#?}");
    assert_eq!(check(&checks, "agents")["level"], "fail");
    assert!(check(&checks, "service")["found"].as_str().unwrap().contains("no daemon answers"));
    let text = String::from_utf8(daemon.cli(&["doctor"]).stdout).unwrap();
    assert!(text.contains("fail\tagents\t"), "{text}");
}
