//! An agent with a real browser, through the whole daemon: Chromium on pages that imitate real sites, driven by a
//! scripted model that sees what the browser shows.

mod cases;
mod confined;
mod cookies;
mod dialects;
mod files;
mod kills;
mod many;
mod replay;
mod workflows;

use std::time::Duration;

use crate::agent::holding;
use crate::support::site::{PASSWORD, Site};
use crate::support::{ModelServer, TestDaemon, TestReceiver, eventually_sync};
use matins::model::{RunState, Step, Trigger};

fn steps(daemon: &TestDaemon, number: i64) -> Vec<Step> {
    daemon.block_on(daemon.core().steps(number)).unwrap()
}

#[test]
fn every_page_is_used_by_a_model_and_what_it_found_reaches_the_webhook() {
    let (server, site, receiver) = (ModelServer::start(), Site::start(), TestReceiver::start());
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
    let daemon = TestDaemon::start(cases::home(&server, &site, "", &hook));
    for (nth, case) in cases::all(&site).into_iter().enumerate() {
        let turns = case.script.len();
        server.script(case.script);
        let event = daemon.wait_end(daemon.trigger(case.name)).event;
        let told = || format!("{}: {:?}\n{:#?}", case.name, event.error, steps(&daemon, event.number));
        assert_eq!(server.complaints(), Vec::<String>::new(), "{}", told());
        assert_eq!(
            (event.status, event.result.as_ref()),
            (RunState::Completed, Some(&case.result)),
            "{}",
            told()
        );
        assert_eq!((server.asked().len(), server.left()), (turns, 0), "{}", case.name);
        let sent = eventually_sync("its message", || receiver.received().get(nth).cloned()).json();
        assert_eq!(sent["data"]["result"], case.result);
        let steps = steps(&daemon, event.number);
        assert!(
            steps.iter().flat_map(|step| &step.actions).all(|action| action.error.is_none()),
            "{steps:#?}"
        );
        server.forget();
    }
    let posted = site.asked().iter().filter(|asked| *asked == "POST /order").count();
    assert_eq!(posted, 2, "each thing is done once: the form was refused once and taken once");
}

#[test]
fn a_schedule_uses_it_as_a_trigger_does() {
    let (server, site) = (ModelServer::start(), Site::start());
    let hourly = "schedules: [ { cron: \"0 * * * *\" } ]\n";
    let (home, case) = (cases::home(&server, &site, "", ""), cases::prices(&site));
    let text = std::fs::read_to_string(home.path().join("agents/prices.yaml")).unwrap();
    home.write("agents/prices.yaml", &(text + hourly));
    let daemon = TestDaemon::start(home);
    server.script(case.script);
    daemon.advance(Duration::from_secs(3_600));
    eventually_sync("the scheduled run", || (!daemon.events().is_empty()).then_some(()));
    let newest = daemon.settle().remove(0);
    let event = daemon.detail(newest.id.parse().unwrap()).event;
    assert_eq!((event.trigger, event.result), (Trigger::Schedule, Some(case.result)), "{:?}", event.error);
}

#[test]
fn a_secret_is_typed_by_its_name_and_stands_nowhere() {
    let (server, site) = (ModelServer::start(), Site::start());
    let daemon =
        TestDaemon::start(cases::home(&server, &site, "  browser: { screenshots: each_step }\n", ""));
    let case = cases::all(&site).remove(0);
    server.script(case.script);
    let run = daemon.trigger(case.name);
    daemon.wait_for(run, RunState::Completed);
    let asked: String = server.asked().iter().map(|asked| asked.body.to_string()).collect();
    assert!(asked.contains("SHOP_PASSWORD") && !asked.contains(PASSWORD));
    assert_eq!(
        holding(daemon.home.path(), PASSWORD),
        [daemon.home.path().join("shop.key").display().to_string()]
    );
}
