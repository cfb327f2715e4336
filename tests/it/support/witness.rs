//! A daemon whose every deed is seen from outside: what the test was answered, what the programs wrote to a file
//! of the test's, what a receiver heard. Together they are the history that [`super::chronos`] checks.
//!
//! Its agents: `tick` fires each second, `manual` runs when it is triggered, `flaky` needs a second attempt, `long`
//! lasts until it is cancelled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::chronos::{Asked, History, Target, effects_of, runs_of, second, slots_of};
use super::wait::within;
use super::{Binary, Home, TestReceiver, eventually_sync};
use crate::blackbox::{assert_integrity, launchers_of, programs_of};

/// How long processes of ended runs may still be seen.
const GONE: Duration = Duration::from_secs(30);
const SETTINGS: &str = "max_running: 8
watch: false
drain_timeout: 1s
kill_grace: 1s
housekeeping: { backup: null }
retention: { completed: { keep: 100000, days: 100000 }, failed: { keep: 100000, days: 100000 } }
";

/// A daemon and what is known of it.
pub struct Witness {
    /// The daemon.
    pub daemon: Binary,
    /// What was asked for.
    pub asked: Vec<Asked>,
    receiver: TestReceiver,
    /// Apart from the home: the sandbox hides what lies beside the state directory.
    place: tempfile::TempDir,
}

impl Witness {
    /// A home on which nothing has happened; its daemon is not started.
    pub fn new() -> Self {
        let receiver = TestReceiver::start();
        let home = Home::new();
        home.settings(SETTINGS);
        let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
        let place = tempfile::tempdir().unwrap();
        let effects = place.path().join("effects").display().to_string();
        let did = |what: &str| format!("echo $MATINS_RUN_ID $MATINS_ATTEMPT {what} >> {effects}");
        let (begin, done) = (did("begin"), did("done"));
        let tick = format!("schedules: [ {{ every: 1s, overlap: allow }} ]\n{hook}");
        home.agent("tick", &format!("{begin}; {done}"), &tick);
        home.agent("manual", &format!("{begin}; sleep 0.1; {done}"), &hook);
        let retry = format!("retry: {{ max: 2, initial: 100ms, jitter: 0% }}\n{hook}");
        home.agent("flaky", &format!("{begin}; [ $MATINS_ATTEMPT = 2 ] || exit 9; {done}"), &retry);
        home.agent("long", &format!("{begin}; sleep 30; {done}"), &hook);
        Self { daemon: Binary::unstarted(home), asked: Vec::new(), receiver, place }
    }

    /// What the programs wrote so far.
    pub fn effects(&self) -> String {
        std::fs::read_to_string(self.place.path().join("effects")).unwrap_or_default()
    }

    /// Triggers an agent under a key of its own, which may come to nothing; the place in `asked`.
    pub fn trigger(&mut self, agent: &str) -> usize {
        let key = format!("{agent}-{}", self.asked.len());
        let answered = self.ask(agent, &key);
        let agent = agent.to_owned();
        self.asked.push(Asked { agent, key, answered, run: None, cancelled: false });
        self.asked.len() - 1
    }

    fn ask(&self, agent: &str, key: &str) -> Option<String> {
        let body = json!({"overlap": "allow"});
        let (status, answer) =
            self.daemon.try_call(&format!("/v1/agents/{agent}/execute"), &body, Some(key))?;
        (status == 202).then(|| answer["data"]["eventId"].as_str().unwrap().to_owned())
    }

    /// Cancels what was asked for, where it was answered.
    pub fn cancel(&mut self, place: usize) {
        let Some(id) = &self.asked[place].answered else { return };
        let answer = self.daemon.try_call(&format!("/v1/events/{id}/cancel"), &json!({}), None);
        self.asked[place].cancelled = answer.is_some_and(|(status, _)| status == 202);
    }

    /// Asks again under the keys that had no answer, or under all of them.
    pub fn ask_again(&mut self, all: bool) {
        for i in 0..self.asked.len() {
            let Asked { agent, key, answered, .. } = &self.asked[i];
            let run = if all || answered.is_none() {
                // Its queue may be full for a while of what was asked before.
                Some(eventually_sync("an undisturbed daemon takes a trigger", || self.ask(agent, key)))
            } else {
                answered.clone()
            };
            self.asked[i].run = run;
        }
    }

    /// Waits until the ledger has come to `last`, a second.
    pub fn ledger_reaches(&self, last: i64) {
        eventually_sync("the last target has its row", || {
            let newest = self.daemon.try_get("/v1/agents/tick/slots?limit=1")?;
            (second(newest["data"].get(0)?.get("until")?) >= last).then_some(())
        });
    }

    /// Lets everything come to its end and tells what happened; every second up to `last` had to fire.
    pub fn history(&mut self, last: i64) -> History {
        let created = second(&self.daemon.get("/v1/agents/tick")["data"]["createdAt"]);
        self.ledger_reaches(last);
        self.daemon.post("/v1/agents/tick/pause", &json!({}));
        let events = self.all_ended();
        eventually_sync("every message has come", || {
            (self.daemon.get("/v1/status")["data"]["deliveries"]["pending"] == 0).then_some(())
        });
        let home = self.daemon.home.path();
        let left = || [programs_of(home), launchers_of(home)].concat();
        within(GONE, || left().is_empty().then_some(()));
        let history = History {
            targets: vec![Target { agent: "tick".to_owned(), first: created + 1, last }],
            slots: slots_of(&self.daemon),
            runs: runs_of(&events),
            endings: endings(),
            effects: effects_of(&self.effects()),
            asked: self.asked.clone(),
            told: Some(self.told()),
            left: left(),
        };
        self.daemon.kill();
        assert_integrity(&self.daemon.home);
        history
    }

    /// Cancels what would last and waits for all; the events.
    fn all_ended(&self) -> Vec<Value> {
        let ended = |e: &Value| matches!(e["status"].as_str(), Some("COMPLETED" | "FAILED"));
        eventually_sync("every run has ended", || {
            let events = self.daemon.events();
            for event in events.iter().filter(|e| e["agentId"] == "long" && !ended(e)) {
                self.daemon.try_post(&format!("/v1/events/{}/cancel", event["id"].as_str().unwrap()));
            }
            events.iter().all(ended).then_some(events)
        })
    }

    /// How often its receiver was called.
    pub fn heard(&self) -> usize {
        self.receiver.received().len()
    }

    fn told(&self) -> Vec<(String, String)> {
        let told = |r: super::receiver::Received| {
            let run = r.json()["data"]["id"].as_str().unwrap().to_owned();
            (run, r.header("webhook-id").to_owned())
        };
        self.receiver.received().into_iter().map(told).collect()
    }

    /// What its daemons said last, for the report of a fault.
    pub fn said(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The second that it is, by the clock of the test.
pub fn this_second() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// How runs may end here. A stop cancels what lasts, and what nobody cancelled comes to its end through many daemons;
/// a slot that waited for the daemon may be too late. Nothing else may be `interrupted`: a launcher outlives its daemon.
fn endings() -> BTreeMap<String, Vec<&'static str>> {
    let of = |agent: &str, endings: &[&'static str]| (agent.to_owned(), endings.to_vec());
    [
        of("tick", &["COMPLETED", "deadline"]),
        of("manual", &["COMPLETED"]),
        of("flaky", &["COMPLETED"]),
        of("long", &["COMPLETED", "cancelled", "interrupted"]),
    ]
    .into()
}
