//! What a run cannot do: a daemon and its runs as one ordinary user, and a run that tries everything that this user
//! may. Each attempt that must fail is also made where it must succeed, so that no test can pass by a mistyped path.
//!
//! As root the daemon is started as a user that nobody has; else as whoever runs the tests.

mod doctor;
mod limits;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::binary::exe;
use crate::support::{Binary, Home, eventually_sync};

/// A uid and gid that nobody has.
const NOBODY_HAS: u32 = 54_321;

/// A daemon of an ordinary user, with credentials, another run to look at, and an agent to trigger.
struct Stand {
    daemon: Binary,
    other: String,
    _programs: tempfile::TempDir,
}

/// Tries one thing after the other and says of each whether it worked.
const PROBE: &str = r##"
try() { name=$1; shift; if "$@" >/dev/null 2>>"$TMPDIR/errors"; then echo "$name yes"; else echo "$name no"; fi; }
launcher=$PPID
daemon=$(awk '{ print $4 }' /proc/$launcher/stat)
sleep 600 & sibling=$!
try own-folder touch "$MATINS_RUN_DIR/files/made"
try own-prompt cat "$MATINS_PROMPT_FILE"
try own-tmp touch "$TMPDIR/made"
try workspace touch made
try agents cat "$AGENTS/probe.yaml"
try sibling-environ cat /proc/$sibling/environ
try sibling-signal kill -0 $sibling
try elsewhere touch "$ELSEWHERE/made"
try agents-write sh -c 'echo "# more" >> "$AGENTS/probe.yaml"'
try agents-new touch "$AGENTS/new.yaml"
try database cat "$STATE/matins.db"
try state-list ls "$STATE"
try other-run cat "$STATE/runs/$OTHER/prompt.md"
try other-run-write touch "$STATE/runs/$OTHER/files/forged"
try runs-list ls "$STATE/runs"
try settings cat "$STATE/../matins.yaml"
try credentials cat "$CREDENTIALS/token"
try secret-file cat "$SECRET_FILE"
try proc-root cat "/proc/$sibling/root$STATE/matins.db"
try daemon-environ cat /proc/$daemon/environ
try daemon-fds ls /proc/$daemon/fd
try daemon-signal kill -0 $daemon
try launcher-environ cat /proc/$launcher/environ
try launcher-fds ls /proc/$launcher/fd
try launcher-signal kill -0 $launcher
try no-stray-descriptors sh -c '[ "$(ls /proc/self/fd | wc -l)" -eq 4 ]'
kill $sibling
"##;

impl Stand {
    /// `more` are further keys of the agent `probe`, which runs `script`.
    fn new(script: &str, more: &str) -> Self {
        let home = Home::new();
        let programs = tempfile::Builder::new().prefix("mtp").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(programs.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // The target directory may lie where the other user cannot go.
        let program = programs.path().join("matins");
        std::fs::copy(exe(), &program).unwrap();
        let path = |name: &str| home.path().join(name);
        for (name, text) in [("credentials/token", "s3cret"), ("secret.txt", "hunter2"), ("elsewhere/x", "")]
        {
            home.write(name, text);
        }
        home.agent("other", "echo other", "prompt: private\n");
        let env: BTreeMap<&str, PathBuf> = BTreeMap::from([
            ("STATE", home.state()),
            ("AGENTS", path("agents")),
            ("CREDENTIALS", path("credentials")),
            ("SECRET_FILE", path("secret.txt")),
            ("ELSEWHERE", path("elsewhere")),
            ("MATINS", program.clone()),
        ]);
        let mut daemon = Binary::unstarted(home);
        daemon.program = program;
        daemon.env.push(("CREDENTIALS_DIRECTORY".into(), path_of(&daemon, "credentials")));
        let mut stand = Self { daemon, other: String::new(), _programs: programs };
        stand.agent("probe", script, &env, more);
        stand.own_everything();
        if rustix::process::geteuid().is_root() {
            let (user, group) = (format!("--reuid={NOBODY_HAS}"), format!("--regid={NOBODY_HAS}"));
            stand.daemon.prefix = ["setpriv", &user, &group, "--clear-groups"].map(str::to_owned).to_vec();
        }
        // Whoever starts the daemon may leave something open.
        let open = ["sh", "-c", "exec 9</; exec \"$@\"", "sh"].map(str::to_owned);
        stand.daemon.prefix.splice(0..0, open);
        stand.daemon.restart();
        stand.other = stand.run("other", &json!({}));
        stand
    }

    fn agent(&self, id: &str, script: &str, env: &BTreeMap<&str, PathBuf>, more: &str) {
        let secret = "secrets: { KEY: { file: ../secret.txt } }\n";
        let env = serde_json::to_string(env).unwrap();
        self.daemon.home.agent(id, script, &format!("env: {env}\n{secret}{more}"));
    }

    fn own_everything(&self) {
        if rustix::process::geteuid().is_root() {
            own(self.daemon.home.path());
        }
    }

    /// Runs an agent to its end.
    fn run(&self, agent: &str, body: &Value) -> String {
        let (status, answer) = self.daemon.post(&format!("/v1/agents/{agent}/execute"), body);
        assert_eq!(status, 202, "{answer}");
        let run = answer["data"]["eventId"].as_str().unwrap().to_owned();
        eventually_sync("the run ends", || {
            let event = self.daemon.get(&format!("/v1/events/{run}"));
            matches!(event["data"]["status"].as_str(), Some("COMPLETED" | "FAILED")).then_some(())
        });
        run
    }

    /// What the run of `probe` found: the name of each try and whether it worked.
    fn probe(&self) -> BTreeMap<String, String> {
        let run = self.run("probe", &json!({ "input": { "other": self.other } }));
        let event = self.daemon.get(&format!("/v1/events/{run}"));
        assert_eq!(event["data"]["status"], "COMPLETED", "{event}");
        let out = self.stdout(&run);
        out.lines().filter_map(|l| l.split_once(' ')).map(|(n, r)| (n.to_owned(), r.to_owned())).collect()
    }

    fn stdout(&self, run: &str) -> String {
        std::fs::read_to_string(self.daemon.home.run_file(run, "attempts/1/stdout.log")).unwrap()
    }
}

fn path_of(daemon: &Binary, name: &str) -> String {
    daemon.home.path().join(name).to_str().unwrap().to_owned()
}

fn own(path: &Path) {
    chown(path, Some(NOBODY_HAS), Some(NOBODY_HAS)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

/// The script that looks for the other run by its input.
fn with_other(script: &str) -> String {
    format!(
        "OTHER=$(sed 's/.*\"other\":\"\\([^\"]*\\)\".*/\\1/' \"$MATINS_INPUT_FILE\"); export OTHER\n{script}"
    )
}

/// What must work for every run, sandboxed or not.
const ALWAYS: [&str; 9] = [
    "no-stray-descriptors",
    "own-folder",
    "own-prompt",
    "own-tmp",
    "workspace",
    "agents",
    "sibling-environ",
    "sibling-signal",
    "elsewhere",
];
/// What must not work for any.
const NEVER: [&str; 4] = ["daemon-environ", "daemon-fds", "launcher-environ", "launcher-fds"];

/// A daemon of root in a folder that everybody may pass, with the agents that `make` writes.
pub fn of_root(make: impl FnOnce(&Home)) -> Option<Binary> {
    if !rustix::process::geteuid().is_root() {
        skip("only root can become another user");
        return None;
    }
    let home = Home::new();
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o711)).unwrap();
    make(&home);
    Some(Binary::start(home))
}

/// A run of an agent to its end; its event.
pub fn ended(daemon: &Binary, agent: &str) -> Value {
    let (status, answer) = daemon.post(&format!("/v1/agents/{agent}/execute"), &json!({}));
    assert_eq!(status, 202, "{answer}");
    let run = answer["data"]["eventId"].as_str().unwrap().to_owned();
    eventually_sync("the run ends", || {
        let event = daemon.get(&format!("/v1/events/{run}"));
        matches!(event["data"]["status"].as_str(), Some("COMPLETED" | "FAILED"))
            .then(|| event["data"].clone())
    })
}

/// Whether the kernel can do what a test shows; where not, the reason is printed.
pub fn landlock(version: u8) -> bool {
    let has = matins::proc::landlock_version();
    has >= version || skip(&format!("this kernel has Landlock {has}, {version} is needed"))
}

#[expect(clippy::print_stderr, reason = "a test that cannot show what it should says why")]
fn skip(why: &str) -> bool {
    eprintln!("skipped: {why}");
    false
}

#[test]
fn a_run_reaches_its_own_and_nothing_else_of_the_daemon() {
    if !landlock(6) {
        return;
    }
    let stand = Stand::new(&with_other(PROBE), "");
    let found = stand.probe();
    assert!(found.len() >= 25, "{found:?}");
    for (name, worked) in &found {
        let wanted = if ALWAYS.contains(&name.as_str()) { "yes" } else { "no" };
        assert_eq!(worked, wanted, "{name}: {found:#?}");
    }
}

#[test]
fn without_the_sandbox_all_of_it_works_but_what_is_non_dumpable() {
    let stand = Stand::new(&with_other(PROBE), "sandbox: off\n");
    let found = stand.probe();
    assert!(found.len() >= 25, "{found:?}");
    for (name, worked) in &found {
        let wanted = if NEVER.contains(&name.as_str()) { "no" } else { "yes" };
        assert_eq!(worked, wanted, "{name}: {found:#?}");
    }
}

/// Asks the daemon from within, in three ways, and says with what code each ended.
const ASK: &str = r#"
"$MATINS" run other >/dev/null 2>trigger.err; echo "trigger $?"
"$MATINS" events >/dev/null 2>read.err; echo "read $?"
"$MATINS" notify test other >/dev/null 2>admin.err; echo "admin $?"
orphan='until [ "$(awk "{ print \$4 }" /proc/$$/stat)" != '$$' ]; do sleep 0.01; done
        "$MATINS" run other >/dev/null 2>&1; echo $? > "$MATINS_FILES_DIR/code"'
( setsid sh -c "$orphan" & )
( setsid sh -c "exec env -i MATINS=$MATINS MATINS_FILES_DIR=$MATINS_FILES_DIR MATINS_SOCKET=$MATINS_SOCKET sh -c '"'
    until [ -s "$MATINS_FILES_DIR/code" ]; do sleep 0.01; done
    "$MATINS" run other >/dev/null 2>&1; echo $? > "$MATINS_FILES_DIR/bare"'"'" & )
until [ -s "$MATINS_FILES_DIR/code" ] && [ -s "$MATINS_FILES_DIR/bare" ]; do sleep 0.01; done
echo "orphan $(cat "$MATINS_FILES_DIR/code")"
echo "bare-orphan $(cat "$MATINS_FILES_DIR/bare")"
cat trigger.err admin.err
"#;

/// What a run with these keys may ask, and what it was told.
fn asked(more: &str) -> (BTreeMap<String, String>, String, usize) {
    let stand = Stand::new(ASK, more);
    let found = stand.probe();
    let events = stand.daemon.settled();
    let others = events.iter().filter(|e| e["agentId"] == "other").count();
    let run = events.iter().find(|e| e["agentId"] == "probe").unwrap()["id"].as_str().unwrap().to_owned();
    (found, stand.stdout(&run), others)
}

fn codes(found: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let names = ["read", "trigger", "admin", "orphan", "bare-orphan"];
    names.iter().map(|name| (*name, found.get(*name).map_or("", String::as_str))).collect()
}

#[test]
fn a_run_may_ask_nothing_by_default_nor_may_its_orphans() {
    let (found, out, others) = asked("");
    let wanted = [("read", "4"), ("trigger", "4"), ("admin", "4"), ("orphan", "4"), ("bare-orphan", "4")];
    assert_eq!(codes(&found), wanted, "{out}");
    assert!(out.contains("a run of agent probe may not start or stop runs; write `api: trigger`"), "{out}");
    assert_eq!(others, 1, "none was triggered from within");
}

#[test]
fn a_run_that_may_read_cannot_trigger() {
    let (found, out, others) = asked("api: read\n");
    let wanted = [("read", "0"), ("trigger", "4"), ("admin", "4"), ("orphan", "4"), ("bare-orphan", "4")];
    assert_eq!(codes(&found), wanted, "{out}");
    assert_eq!(others, 1);
}

#[test]
fn a_run_that_may_trigger_is_no_administrator() {
    let (found, out, others) = asked("api: trigger\n");
    let wanted = [("read", "0"), ("trigger", "0"), ("admin", "4"), ("orphan", "0"), ("bare-orphan", "0")];
    assert_eq!(codes(&found), wanted, "{out}");
    assert!(out.contains("no run may"), "{out}");
    assert_eq!(others, 4, "its own, an orphan's and a bare orphan's");
}

#[test]
fn a_run_that_kills_its_launcher_gains_nothing() {
    if !landlock(6) {
        return;
    }
    let script = "kill -KILL $PPID && echo killed; kill -KILL -1; echo alive; exec \"$MATINS\" run other";
    let stand = Stand::new(script, "");
    let run = stand.run("probe", &json!({}));
    let event = stand.daemon.get(&format!("/v1/events/{run}"));
    assert!(event["data"]["status"] == "FAILED" && event.to_string().contains("code 4"), "{event}");
    assert_eq!(stand.stdout(&run), "alive\n");
}

#[test]
fn another_user_of_the_socket_may_trigger_and_not_administer() {
    if !rustix::process::geteuid().is_root() {
        skip("only root can become another user");
        return;
    }
    let stand = Stand::new("true", "");
    let home = stand.daemon.home.path();
    for path in [home.to_owned(), stand.daemon.home.state()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o711)).unwrap();
    }
    std::fs::set_permissions(stand.daemon.home.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    let ask = |uid: u32, args: &[&str]| {
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        let mut command = std::process::Command::new("setpriv");
        command.args([&user, &group, "--clear-groups"]).arg(&stand.daemon.program).args(args);
        command.arg("--socket").arg(stand.daemon.home.socket()).current_dir("/").output().unwrap()
    };
    for (uid, args, code) in [
        (NOBODY_HAS + 1, &["run", "other"][..], 0),
        (NOBODY_HAS + 1, &["events"], 0),
        (NOBODY_HAS + 1, &["notify", "test", "other"], 4),
        // No webhook is configured: the daemon's own user gets as far as that.
        (NOBODY_HAS, &["notify", "test", "other"], 1),
    ] {
        let out = ask(uid, args);
        assert_eq!(out.status.code(), Some(code), "{uid} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    stand.daemon.settled();
}
