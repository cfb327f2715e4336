//! The cookies of a session: who stays signed in, who does not, and what lies on disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use matins::ids::RunId;
use matins::model::{Overrides, RunState};
use serde_json::json;

use super::steps;
use crate::agent::holding;
use crate::retention::pass;
use crate::support::site::{EMAIL, PASSWORD};
use crate::support::{Home, ModelServer, Reply, Site, TestDaemon, eventually_sync};

const KEY: &str = "a-key-that-nobody-guesses";

/// A daemon with two agents that may sign in and keep their cookies.
struct Bench {
    server: ModelServer,
    site: Site,
    daemon: TestDaemon,
}

impl Bench {
    fn start() -> Self {
        let (server, site, home) = (ModelServer::start(), Site::start(), Home::new());
        home.settings(&format!("{}retention: {{ completed: {{ keep: 1, days: 1 }} }}\n", server.settings()));
        let files = [("SHOP_PASSWORD", PASSWORD), ("COOKIE_KEY", KEY)];
        let secret =
            |(name, text): (&str, &str)| format!("{name}: {{ file: {} }}", home.write(name, text).display());
        let more = format!("secrets: {{ {} }}\n", files.map(secret).join(", "));
        let executor = "  tools: [browser, shell]\n  hosts: [127.0.0.1]\n  shell: { allow: [\"*\"] }\n  \
                        browser: { cookies: COOKIE_KEY }\n";
        for agent in ["shop", "other"] {
            home.llm_agent(agent, executor, &more);
        }
        Self { server, site, daemon: TestDaemon::start(home) }
    }

    fn begin(&self, agent: &str, session: Option<&str>, script: Vec<Reply>) -> RunId {
        self.server.script(script);
        let session_id = session.map(str::to_owned);
        self.daemon.trigger_with(agent, Overrides { session_id, ..Overrides::default() })
    }

    fn go(&self, path: &str) -> Reply {
        Reply::call("browser_navigate", &json!({"url": format!("{}{path}", self.site.url)}))
    }

    /// Signs in, says `last` and ends.
    fn sign_in(&self, last: Reply) -> Vec<Reply> {
        let write = |field: &str, more: serde_json::Value| {
            let mut arguments = json!({"ref": format!("textbox {field:?}")});
            arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Reply::call("browser_type", &arguments)
        };
        vec![
            self.go("/login"),
            write("E-mail", json!({"text": EMAIL})),
            write("Password", json!({"secret": "SHOP_PASSWORD", "submit": true})),
            last,
        ]
    }

    fn signs_in(&self, session: &str) {
        let run = self.begin("shop", Some(session), self.sign_in(Reply::finish(&json!({}))));
        self.daemon.wait_for(run, RunState::Completed);
        assert_eq!(self.site.asked().last().unwrap(), "GET /account");
    }

    /// Whether a run finds itself signed in; and the run.
    fn is_known(&self, agent: &str, session: Option<&str>) -> (bool, RunId) {
        let before = self.site.asked().len();
        let run = self.begin(agent, session, vec![self.go("/account"), Reply::finish(&json!({}))]);
        self.daemon.wait_for(run, RunState::Completed);
        assert_eq!(self.server.complaints(), Vec::<String>::new());
        let asked = self.site.asked().split_off(before);
        assert_eq!(asked[0], "GET /account");
        (asked.len() == 1, run)
    }

    fn file(&self, session: &str, agent: &str) -> PathBuf {
        self.daemon.home.state().join(format!("sessions/{session}/agent/cookies-{agent}"))
    }

    fn told(&self, run: RunId) -> String {
        let steps = steps(&self.daemon, self.daemon.detail(run).event.number);
        steps.into_iter().map(|step| step.description).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn a_session_stays_signed_in_and_nobody_else_is() {
    let bench = Bench::start();
    let home = bench.daemon.home.path();
    bench.signs_in("morning");
    let file = bench.file("morning", "shop");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&file).unwrap();
    assert!(
        ["session", "ada", "127.0.0.1"]
            .iter()
            .all(|word| !bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    );
    assert!(bench.is_known("shop", Some("morning")).0);
    assert!(!bench.is_known("shop", Some("evening")).0, "another session");
    assert!(!bench.is_known("other", Some("morning")).0, "another definition");
    let (known, alone) = bench.is_known("shop", None);
    assert!(!known, "a run without a session");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nobody wrote over it");
    assert!(!bench.file(&alone.to_string(), "shop").exists());
    // A file in the place of another's is none.
    std::fs::copy(&file, bench.file("evening", "shop")).unwrap();
    let (known, run) = bench.is_known("shop", Some("evening"));
    assert!(
        !known && bench.told(run).contains("begins without the session's cookies"),
        "{}",
        bench.told(run)
    );
    bench.server.forget();
    let env = Reply::call("shell", &json!({"command": "env"}));
    let run = bench.begin("shop", Some("morning"), vec![env, Reply::finish(&json!({}))]);
    bench.daemon.wait_for(run, RunState::Completed);
    let asked: String = bench.server.asked().iter().map(|asked| asked.body.to_string()).collect();
    assert!(asked.contains("SHOP_PASSWORD=") && !asked.contains("COOKIE_KEY"), "{asked}");
    assert_eq!(holding(home, KEY), [home.join("COOKIE_KEY").display().to_string()]);
}

#[test]
fn what_another_key_encrypted_is_told_and_then_written_anew() {
    let bench = Bench::start();
    bench.signs_in("morning");
    bench.daemon.home.write("COOKIE_KEY", "another-key-that-nobody-guesses");
    let (known, run) = bench.is_known("shop", Some("morning"));
    assert!(!known);
    let told = bench.told(run);
    assert!(told.contains("encrypted with another secret than COOKIE_KEY"), "{told}");
    bench.signs_in("morning");
    let (known, run) = bench.is_known("shop", Some("morning"));
    assert!(known && !bench.told(run).contains("cookies"), "{}", bench.told(run));
    bench.daemon.home.write("COOKIE_KEY", "too short");
    let (known, run) = bench.is_known("shop", Some("morning"));
    assert!(!known && bench.told(run).contains("shorter than 16 bytes"), "{}", bench.told(run));
}

#[test]
fn a_run_that_is_killed_leaves_what_it_had_after_its_last_step() {
    let bench = Bench::start();
    let run = bench.begin("shop", Some("morning"), bench.sign_in(Reply::silence()));
    eventually_sync("it thinks", || (bench.server.asked().len() == 4).then_some(()));
    bench.daemon.block_on(bench.daemon.core().cancel(run, "ann".to_owned())).unwrap();
    bench.daemon.wait_end(run);
    assert!(bench.is_known("shop", Some("morning")).0);
    let names = std::fs::read_dir(bench.file("morning", "shop").parent().unwrap()).unwrap();
    let new = names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new"));
    assert_eq!(new.count(), 0);
}

#[test]
fn they_go_with_their_session() {
    let bench = Bench::start();
    bench.signs_in("morning");
    let file = bench.file("morning", "shop");
    assert!(file.exists());
    bench.daemon.advance(Duration::from_hours(24 * 400));
    assert!(!bench.is_known("shop", Some("evening")).0);
    pass(&bench.daemon);
    assert!(!file.exists());
    assert!(bench.file("evening", "shop").parent().unwrap().exists());
}
