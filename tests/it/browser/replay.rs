//! Runs that are done again without a model: on the same pages, on pages that were made over, and how fast.

use std::time::{Duration, Instant};

use matins::model::{Event, Overrides, RunState};
use serde_json::{Value, json};

use super::cases::{self, Case};
use crate::support::chronos::prove;
use crate::support::site::{Change, Site};
use crate::support::{ModelServer, Reply, TestDaemon};

const CACHE: &str = "  cache: auto\n";
/// How long the model of a run that is timed takes for each answer.
const THINKS: Duration = Duration::from_millis(500);

struct Stand {
    server: ModelServer,
    site: Site,
    daemon: TestDaemon,
}

impl Stand {
    fn new() -> Self {
        Self::with("")
    }

    /// With these keys of the executors, too.
    fn with(executor: &str) -> Self {
        let (server, site) = (ModelServer::start(), Site::start());
        let daemon = TestDaemon::start(cases::home(&server, &site, &format!("{CACHE}{executor}"), ""));
        Self { server, site, daemon }
    }

    /// A run to its end, whose model says this; the event, and how often the model was asked.
    fn run(&self, agent: &str, script: Vec<Reply>) -> (Event, usize) {
        self.server.forget();
        self.server.script(script);
        let event = self.daemon.wait_end(self.daemon.trigger(agent)).event;
        assert_eq!(self.server.complaints(), Vec::<String>::new(), "{agent}: {event:#?}");
        assert_eq!(self.server.left(), 0, "{agent}: {event:#?}");
        (event, self.server.asked().len())
    }

    /// A first run, which is the model's.
    fn record(&self, case: Case) -> Value {
        let (event, _) = self.run(case.name, case.script);
        assert_eq!(
            (event.status, event.result.as_ref()),
            (RunState::Completed, Some(&case.result)),
            "{event:#?}"
        );
        case.result
    }

    /// A run that asks no model and ends with this.
    fn replays(&self, agent: &str, result: &Value) -> Event {
        let (event, asked) = self.run(agent, Vec::new());
        assert_eq!(
            (event.status, event.result.as_ref(), asked),
            (RunState::Completed, Some(result), 0),
            "{event:#?}"
        );
        let replay = event.workflow.unwrap_or_else(|| panic!("{agent} was not replayed"));
        assert_eq!((replay.replayed_steps, replay.repaired), (replay.steps, false));
        event
    }
}

#[test]
fn the_second_run_of_every_page_asks_no_model_and_ends_as_the_first() {
    let stand = Stand::new();
    for case in cases::all(&stand.site) {
        let (name, turns) = (case.name, case.script.len() as u64);
        let result = stand.record(case);
        let event = stand.replays(name, &result);
        assert_eq!(
            (event.usage.unwrap().model_calls, event.saved_model_calls),
            (Some(0), Some(turns)),
            "{name}"
        );
        assert!(event.browser_step_count.unwrap() > 0, "{name}");
    }
}

#[test]
fn a_page_that_moved_its_parts_about_is_replayed_as_it_is() {
    let stand = Stand::new();
    let result = stand.record(cases::prices(&stand.site));
    stand.site.change(Change::Moved);
    stand.replays("prices", &result);
}

#[test]
fn only_the_step_that_changed_asks_the_model_and_the_next_run_asks_none() {
    let stand = Stand::new();
    let result = stand.record(cases::prices(&stand.site));
    stand.site.change(Change::Renamed);
    let mended = Reply::call("browser_click", &json!({"ref": "button \"List them\""}))
        .and_call("workflow_continue", &json!({}));
    let (event, asked) = stand.run("prices", vec![mended]);
    assert_eq!(
        (event.status, event.result.as_ref(), asked),
        (RunState::Completed, Some(&result), 1),
        "{event:#?}"
    );
    assert!(event.workflow.unwrap().repaired);
    stand.replays("prices", &result);
    stand.site.change(Change::None);
    let (event, asked) = stand.run(
        "prices",
        vec![
            Reply::call("browser_click", &json!({"ref": "button \"Show prices\""}))
                .and_call("workflow_continue", &json!({})),
        ],
    );
    assert_eq!((event.result, asked), (Some(result), 1), "the repaired one has replaced the first");
}

#[test]
fn a_page_that_means_something_else_fails_the_run() {
    for change in [Change::Meaning, Change::Gone] {
        let stand = Stand::new();
        stand.record(cases::prices(&stand.site));
        stand.site.change(change);
        // A model that only wants to be done: the rest cannot be played, so it cannot make a result of it.
        let hasty = Reply::call("workflow_continue", &json!({}));
        let stop = Reply::call("stop_execution", &json!({"reason": "the page tells no prices"}));
        let (event, asked) = stand.run("prices", vec![hasty, stop]);
        assert_eq!((event.status, asked), (RunState::Failed, 2), "{change:?}");
        assert_eq!(event.result.unwrap_or_default(), Value::Null, "{change:?}: what it was is not told");
        stand.site.change(Change::None);
        let case = cases::prices(&stand.site);
        stand.replays("prices", &case.result);
    }
}

/// An errand once with a model that thinks and once without one, both from the order to the end.
fn timed(stand: &Stand, case: Case, name: &str) -> (Duration, Duration) {
    let (agent, result) = (case.name, case.result.clone());
    let script: Vec<Reply> = case.script.into_iter().map(|reply| reply.after(THINKS)).collect();
    let turns = script.len();
    let begun = Instant::now();
    stand.record(Case { script, ..case });
    let by_model = begun.elapsed();
    let begun = Instant::now();
    stand.replays(agent, &result);
    let replayed = begun.elapsed();
    let figures = [
        ("turns", turns.to_string()),
        ("by_model_ms", by_model.as_millis().to_string()),
        ("replayed_ms", replayed.as_millis().to_string()),
        ("ratio", format!("{:.1}", by_model.as_secs_f64() / replayed.as_secs_f64())),
    ];
    prove(name, &figures);
    (by_model, replayed)
}

#[test]
fn a_replay_takes_a_fifth_of_the_time_of_the_model() {
    let form = |stand: &Stand| cases::all(&stand.site).into_iter().find(|case| case.name == "form").unwrap();
    // The start of the browser is most of a short replay, and nothing shortens it.
    let stand = Stand::new();
    let (by_model, replayed) = timed(&stand, form(&stand), "browser:replay-short");
    assert!(replayed * 2 <= by_model, "{replayed:?} of {by_model:?}");
    let stand = Stand::with("  limits: { max_steps: 60 }\n");
    // As models do: looks between the deeds. The form is filled in twice, for the browser's start takes its share.
    let case = form(&stand);
    let look = || Reply::call("browser_snapshot", &json!({}));
    let (deeds, end) = case.script.split_at(case.script.len() - 2);
    let looked = deeds.iter().flat_map(|deed| [deed.clone(), look(), look()]);
    let script = looked.clone().chain(looked).chain(end.iter().cloned()).collect();
    let (by_model, replayed) = timed(&stand, Case { script, ..case }, "browser:replay");
    assert!(replayed * 5 <= by_model, "{replayed:?} of {by_model:?}");
}

#[test]
fn a_run_that_goes_on_with_a_conversation_is_the_models_and_leaves_no_workflow() {
    let stand = Stand::new();
    let in_session = |asks: bool| {
        let case = cases::prices(&stand.site);
        stand.server.forget();
        stand.server.script(if asks { case.script } else { Vec::new() });
        let session = Overrides { session_id: Some("talk".to_owned()), ..Overrides::default() };
        let event = stand.daemon.wait_end(stand.daemon.trigger_with("prices", session)).event;
        assert_eq!((event.result.as_ref(), stand.server.left()), (Some(&case.result), 0), "{event:#?}");
        event.workflow
    };
    assert_eq!(in_session(true), None);
    assert_eq!(in_session(true), None, "what it is asked for may be in what was said before");
    stand.replays("prices", &cases::prices(&stand.site).result);
}
