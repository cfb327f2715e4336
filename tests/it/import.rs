//! Importing a crontab, and completions: what is written is what `check` takes.

use super::support::{Binary, Home};

const CRONTAB: &str = r#"
MAILTO="ops@example.org"
PATH=/usr/bin:/bin
CRON_TZ=Europe/Berlin

# Nightly report
30 2 * * 1-5	cd /tmp && /bin/echo "100\% of {{.Name}}" > /dev/null
@reboot /bin/true
*/15 * * * * /bin/cat%Dear {{ me }},%yours
@weekly /bin/true --again
0 0 31 2 * /bin/never
not a line
"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_crontab_becomes_agents_that_check_takes() {
    let home = Home::new();
    home.write("tab", &CRONTAB.replace("0 0 31 2 * /bin/never\n", "").replace("not a line\n", ""));
    let daemon = Binary::unstarted(home);
    let out = daemon.cli(&["import", "crontab", "tab", "--to", "new"]);
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(stdout, "new/echo.yaml\nnew/true.yaml\nnew/cat.yaml\nnew/true-2.yaml\n");
    assert!(stderr.contains("ops@example.org") && stderr.contains("on: startup"), "{stderr}");
    let out = daemon.cli(&["check", "new"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let checked = text(&out.stdout);
    assert!(checked.contains("4 agents"), "{checked}");
    assert!(checked.contains("30 2 * * 1-5 Europe/Berlin"), "{checked}");
    // They run as cron would run them.
    for id in ["echo", "cat"] {
        let from = daemon.home.path().join(format!("new/{id}.yaml"));
        std::fs::copy(from, daemon.home.path().join(format!("agents/{id}.yaml"))).unwrap();
    }
    let mut daemon = daemon;
    daemon.restart();
    let run = daemon.cli(&["run", "cat", "--follow"]);
    assert_eq!((run.status.code(), text(&run.stdout)), (Some(0), "Dear {{ me }},\nyours\n".to_owned()));
    assert_eq!(daemon.cli(&["run", "echo", "--follow"]).status.code(), Some(0));
}

#[test]
fn what_cannot_be_imported_is_said_at_its_line() {
    let home = Home::new();
    home.write("tab", CRONTAB);
    let daemon = Binary::unstarted(home);
    let out = daemon.cli(&["import", "crontab", "tab"]);
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("line 12") && stderr.contains("never.yaml"), "{stderr}");
    assert!(daemon.home.path().join("imported-agents/echo.yaml").exists(), "the others are there");
    let again = daemon.cli(&["import", "crontab", "tab"]);
    assert!(text(&again.stdout).contains("echo-2.yaml"), "no file is written over");
    assert_eq!(daemon.cli(&["import", "crontab", "none"]).status.code(), Some(1));
}

#[test]
fn shells_get_completions() {
    let daemon = Binary::unstarted(Home::new());
    for shell in ["bash", "zsh", "fish"] {
        let out = daemon.cli(&["completions", shell]);
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains("reload"), "{shell}");
    }
    assert_eq!(daemon.cli(&["completions", "tcsh-of-old"]).status.code(), Some(2));
}
