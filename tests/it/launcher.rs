//! The launcher with real processes: what it starts, limits, ends and reports.

mod attach;
mod group;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matins::exec::{
    AttemptDir, Confine, Ended, ExitReport, Held, Live, Preparation, RELEASE_VERSION, Reason, Release,
    RunDirs, SPEC_VERSION, Spec, World, environment, hold, prepare,
};
use matins::ids::{AgentId, Epoch, RunId, SystemEntropy};
use matins::model::Trigger;
use serde_json::json;

/// Longest wait for anything; only a failing test takes it.
const PATIENCE: Duration = Duration::from_mins(1);
/// What "at once" means on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_matins"))
}

/// One attempt in a state directory of its own.
struct Attempt {
    state: tempfile::TempDir,
    dirs: RunDirs,
    dir: AttemptDir,
    release: Release,
}

impl Attempt {
    fn new(argv: &[&str]) -> Self {
        Self::with_prompt(argv, "the prompt")
    }

    fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    fn with_prompt(argv: &[&str], prompt: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let run = RunId::generate(1, &SystemEntropy);
        let dirs = RunDirs::new(state.path(), run);
        let input = json!({});
        let preparation = Preparation {
            prompt,
            input: &input,
            result_schema: None,
            definition_yaml: "name: test\n",
            skills: &[],
            files: &[],
            agent: None,
            session: "s",
            attempt: 1,
        };
        prepare(&dirs, &preparation).unwrap();
        let agent: AgentId = "test".parse().unwrap();
        let base = BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
        let world = World {
            base: &base,
            dirs: &dirs,
            attempt: 1,
            agent: &agent,
            agent_dir: state.path(),
            env: &BTreeMap::new(),
            has_result_schema: false,
            trigger: Trigger::Manual,
            scheduled_for_ms: None,
            window: None,
            idempotency_key: "key",
            socket: None,
        };
        let spec = Spec {
            version: SPEC_VERSION,
            run,
            attempt: 1,
            env: environment(&world),
            agent,
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            cwd: dirs.workspace("s"),
            stdin: dirs.prompt(),
            timeout_ms: None,
            idle_timeout_ms: None,
            output_limit: 64 << 20,
            kill_signal: 15,
            kill_grace_ms: 600_000,
            orphan_grace_ms: 600_000,
            state_lock: None,
            confine: Confine::default(),
            total_ms: None,
            gate: None,
            verify: None,
            listen: None,
        };
        let release = Release {
            version: RELEASE_VERSION,
            epoch: Epoch(7),
            spec,
            secrets: BTreeMap::new(),
            keys: BTreeMap::new(),
        };
        let dir = dirs.attempt(1);
        Self { state, dirs, dir, release }
    }

    fn spec(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.release.spec);
        self
    }

    fn secret(mut self, name: &str, value: &str) -> Self {
        self.release.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    fn hold(&self) -> Held {
        hold(exe(), &self.dir).unwrap()
    }

    async fn start(&self) -> Live {
        self.hold().release(&self.release).await.unwrap()
    }

    /// Runs it to its end.
    async fn run(&self) -> ExitReport {
        report(&mut self.start().await).await
    }

    fn stdout(&self) -> String {
        String::from_utf8(std::fs::read(self.dir.stdout()).unwrap()).unwrap()
    }

    /// A file in the working directory of the program.
    fn file(&self, name: &str) -> PathBuf {
        self.release.spec.cwd.join(name)
    }

    /// Waits until the program has written this on stdout.
    async fn until_stdout(&self, wanted: &str) {
        until(&format!("{wanted:?} on stdout"), || {
            std::fs::read(self.dir.stdout()).is_ok_and(|out| String::from_utf8_lossy(&out).contains(wanted))
        })
        .await;
    }
}

/// Waits for a state.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    crate::support::wait::eventually(what, || is().then_some(())).await;
}

async fn ended(live: &mut Live) -> Ended {
    tokio::time::timeout(PATIENCE, live.ended()).await.expect("it never ended")
}

async fn report(live: &mut Live) -> ExitReport {
    match ended(live).await {
        Ended::Report(report) => report,
        Ended::Vanished => panic!("the launcher vanished"),
    }
}

fn code(report: &ExitReport) -> (Reason, Option<i32>, Option<i32>) {
    (report.reason, report.exit_code, report.signal)
}

#[tokio::test]
async fn a_program_completes_with_its_output_whole() {
    let a = Attempt::sh("cat; echo out; echo err >&2; pwd; exit 3");
    let report = a.run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(3), None));
    assert_eq!(a.stdout(), format!("the promptout\n{}\n", a.release.spec.cwd.display()));
    assert_eq!(std::fs::read(a.dir.stderr()).unwrap(), b"err\n");
    assert_eq!((report.stdout_bytes, report.stderr_bytes), (a.stdout().len() as u64, 4));
    assert_eq!((report.run, report.attempt, report.epoch), (a.dirs.run(), 1, Some(Epoch(7))));
    assert!(report.started && report.launch_error.is_none() && report.log_error.is_none());
    assert!(report.started_at_ms > 0 && report.ended_at_ms >= report.started_at_ms);
    let spec: Spec = serde_json::from_slice(&std::fs::read(a.dir.spec()).unwrap()).unwrap();
    assert_eq!(spec, a.release.spec);
}

#[tokio::test]
async fn the_prompt_is_stdin_however_large() {
    let prompt = "0123456789".repeat(1 << 20);
    let a = Attempt::with_prompt(&["wc", "-c"], &prompt);
    assert_eq!(a.run().await.exit_code, Some(0));
    assert_eq!(a.stdout().trim(), prompt.len().to_string());
}

#[tokio::test]
async fn the_program_gets_its_environment_and_nothing_else() {
    let a =
        Attempt::new(&["env", "-0"]).secret("TOKEN", "hunter2-hunter2").secret("MATINS_RUN_ID", "forged-id");
    a.run().await;
    let mut expected: Vec<String> = a.release.spec.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    expected.push("TOKEN=[redacted:TOKEN]".to_owned());
    let stdout = a.stdout();
    let mut got: Vec<&str> = stdout.split_terminator('\0').collect();
    expected.sort();
    got.sort_unstable();
    assert_eq!(got, expected);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a program started plainly, to compare with")]
async fn the_program_inherits_nothing_of_the_launcher() {
    // The shell's own mask changes while it starts a child: what replaces it shows what was inherited.
    let script = "ls /proc/$$/fd; exec grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let a = Attempt::sh(script);
    a.run().await;
    let plain = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    // Whoever started the tests may have left descriptors open: those pass through a plain spawn, not through us.
    let signals = plain.find("Sig").unwrap();
    assert_eq!(a.stdout(), format!("0\n1\n2\n{}", &plain[signals..]));
    let cores = Attempt::sh("ulimit -Sc; ulimit -Hc");
    cores.run().await;
    assert_eq!(cores.stdout(), "0\n0\n");
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_exactly() {
    let a = Attempt::sh(r"printf '\377\376\000\001end'");
    a.run().await;
    assert_eq!(std::fs::read(a.dir.stdout()).unwrap(), b"\xff\xfe\x00\x01end");
}

#[tokio::test]
async fn a_signal_is_reported_as_such() {
    let report = Attempt::sh("kill -SEGV $$").run().await;
    assert_eq!(code(&report), (Reason::Exited, None, Some(11)));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let said = |report: ExitReport| {
        assert!(!report.started && report.exit_code.is_none(), "{report:?}");
        assert_eq!(report.epoch, Some(Epoch(7)));
        report.launch_error.unwrap()
    };
    let why = said(Attempt::new(&["no-such-program", "x"]).run().await);
    assert!(why.contains("no-such-program") && why.contains("PATH"), "{why}");
    let why = said(Attempt::new(&["/no/such/file"]).run().await);
    assert!(why.contains("/no/such/file") && why.contains("does not exist"), "{why}");
    let why = said(Attempt::sh("true").spec(|s| s.cwd = "/no/such/folder".into()).run().await);
    assert!(why.contains("working directory /no/such/folder"), "{why}");
    let a = Attempt::new(&["./script"]);
    std::fs::write(a.file("script"), "#!/no/such/interpreter\n").unwrap();
    let why = said(a.run().await);
    assert!(why.contains("may not be executed"), "{why}");
    std::fs::set_permissions(a.file("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let why = said(a.run().await);
    assert!(why.contains("interpreter"), "{why}");
    let why = said(Attempt::new(&[]).run().await);
    assert!(why.contains("cannot start"), "{why}");
    let why = said(Attempt::sh("true").spec(|s| s.stdin = "/no/such/prompt".into()).run().await);
    assert!(why.contains("/no/such/prompt"), "{why}");
}

#[tokio::test]
async fn output_is_bounded_and_the_file_holds_what_came_up_to_the_limit() {
    let limit: u64 = 1 << 20;
    let a = Attempt::sh("head -c 1073741824 /dev/zero | tr '\\0' x; echo more >&2")
        .spec(|s| s.output_limit = limit);
    let report = a.run().await;
    assert_eq!((report.reason, report.limit), (Reason::OutputLimit, Some(limit)));
    let logged = std::fs::read(a.dir.stdout()).unwrap();
    assert!(logged.len() as u64 == limit && logged.iter().all(|b| *b == b'x'), "{}", logged.len());
    assert!(report.stdout_bytes > limit && report.stdout_bytes < 1 << 30, "ended early: {report:?}");
}

#[tokio::test]
async fn the_limit_itself_is_allowed_and_counts_both_streams() {
    let both = "head -c 5000 /dev/zero; head -c 5000 /dev/zero >&2";
    let report = Attempt::sh(both).spec(|s| s.output_limit = 10_000).run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None));
    let report = Attempt::sh(both).spec(|s| s.output_limit = 9_999).run().await;
    assert_eq!(report.reason, Reason::OutputLimit);
}

#[tokio::test]
async fn a_timeout_ends_it() {
    let a = Attempt::sh("echo on; exec sleep 600").spec(|s| s.timeout_ms = Some(100));
    let report = a.run().await;
    assert_eq!(code(&report), (Reason::Timeout, None, Some(15)));
    assert_eq!(report.limit, Some(100));
    assert!(report.ended_at_ms - report.started_at_ms >= 99, "{report:?}");
    let report = Attempt::sh("exit 0").spec(|s| s.timeout_ms = Some(u64::MAX)).run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None));
}

#[tokio::test]
async fn silence_ends_it_and_events_break_the_silence() {
    let report = Attempt::sh("exec sleep 600").spec(|s| s.idle_timeout_ms = Some(100)).run().await;
    assert_eq!(code(&report), (Reason::IdleTimeout, None, Some(15)));
    // Silent on its streams for three times the limit, but not in its events file.
    let talk = "for i in 1 2 3 4 5 6 7 8 9 10; do echo '{\"type\":\"step\"}' >> $MATINS_EVENTS_FILE; sleep 0.3; done";
    let report = Attempt::sh(talk).spec(|s| s.idle_timeout_ms = Some(1_000)).run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None));
    let talk = "for i in 1 2 3 4 5 6 7 8 9 10; do echo on >&2; sleep 0.3; done";
    let report = Attempt::sh(talk).spec(|s| s.idle_timeout_ms = Some(1_000)).run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None));
}

#[tokio::test]
async fn a_secret_is_redacted_also_across_reads_and_nowhere_on_disk() {
    let script = "printf 'a hunt'; until [ -e go ]; do sleep 0.01; done; printf 'er2-value b\\n'; \
        echo \"$KEY\" >&2; printf '{\"k\":\"%s\"}' \"$KEY\" > $MATINS_RESULT_FILE; \
        printf '{\"type\":\"step\",\"k\":\"%s\"}\\n' \"$KEY\" > $MATINS_EVENTS_FILE";
    let a = Attempt::sh(script).secret("KEY", "hunter2-value");
    let mut live = a.start().await;
    a.until_stdout("a ").await;
    assert_eq!(a.stdout(), "a ", "only the beginning of the secret is held back");
    std::fs::write(a.file("go"), "").unwrap();
    assert_eq!(report(&mut live).await.exit_code, Some(0));
    assert_eq!(a.stdout(), "a [redacted:KEY] b\n");
    assert_eq!(std::fs::read(a.dir.stderr()).unwrap(), b"[redacted:KEY]\n");
    assert_eq!(std::fs::read(a.dir.result()).unwrap(), br#"{"k":"[redacted:KEY]"}"#);
    let mut folders = vec![a.state.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read(&path).unwrap();
                assert!(!String::from_utf8_lossy(&text).contains("hunter2-value"), "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn a_run_whose_daemon_is_gone_ends_after_its_grace() {
    let lock = |a: &Attempt| a.state.path().join("lock");
    let a = Attempt::sh("echo on; exec sleep 600");
    let path = lock(&a);
    let a = a.spec(|s| (s.orphan_grace_ms, s.state_lock) = (300, Some(path.clone())));
    let held = matins::proc::StateLock::acquire(&path).unwrap();
    let mut live = a.start().await;
    a.until_stdout("on").await;
    let waited = tokio::time::timeout(Duration::from_millis(900), live.ended()).await;
    assert!(waited.is_err(), "it lives while the lock is held: {waited:?}");
    drop(held);
    let report = report(&mut live).await;
    assert_eq!(code(&report), (Reason::Orphaned, None, Some(15)));
    matins::proc::StateLock::acquire(&path).expect("probing took nothing");
}
