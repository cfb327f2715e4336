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
    assert!(!daemon.home.path().join("imported-agents/echo-2.yaml").exists());
    assert_eq!(daemon.cli(&["import", "crontab", "none"]).status.code(), Some(1));
}

#[test]
fn a_crontab_that_is_imported_again_makes_nothing_new() {
    let home = Home::new();
    let good = CRONTAB.replace("0 0 31 2 * /bin/never\n", "").replace("not a line\n", "");
    home.write("tab", &good);
    home.write("empty", "# only a comment\nMAILTO=a@example.org\n");
    let daemon = Binary::unstarted(home);
    let import = |file: &str| {
        let out = daemon.cli(&["import", "crontab", file, "--to", "new"]);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (code, stdout, stderr) = import("empty");
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains("no line that starts something"), "{stderr}");
    assert!(!daemon.home.path().join("new").exists(), "nothing is made for nothing");
    assert_eq!(import("tab").0, Some(0));
    let files = || {
        let entries = std::fs::read_dir(daemon.home.path().join("new")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let first = files();
    let (code, stdout, stderr) = import("tab");
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("new/echo.yaml: is there already, unchanged"), "{stderr}");
    assert!(stderr.contains("every line was imported before"), "{stderr}");
    assert_eq!(files(), first);
    // One that was edited is neither written over nor doubled.
    daemon.home.write("new/cat.yaml", "# mine\n");
    let (code, _, stderr) = import("tab");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("new/cat.yaml is there already with another text"), "{stderr}");
    assert_eq!(files(), first);
    assert_eq!(std::fs::read_to_string(daemon.home.path().join("new/cat.yaml")).unwrap(), "# mine\n");
    let out = daemon.cli(&["import", "crontab", "tab", "--to", "new", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (told["agents"].as_array().unwrap().len(), told["unchanged"].as_array().unwrap().len()),
        (0, 3)
    );
    assert_eq!(told["inTheWay"][0]["file"], "new/cat.yaml");
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
