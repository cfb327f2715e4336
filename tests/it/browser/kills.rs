//! `kill -9` in the middle of a run with a browser: of the daemon, of the agent, of the browser itself.

use std::time::Duration;

use matins::ids::RunId;
use matins::model::RunState;
use serde_json::json;

use super::cases;
use crate::support::daemon::processes_of;
use crate::support::{ModelServer, Reply, Site, TestDaemon, eventually_sync};

/// A daemon with a run whose page is open and whose model takes its time; what the model says then is `then`.
fn open(server: &ModelServer, site: &Site, then: Vec<Reply>) -> (TestDaemon, RunId) {
    let daemon = TestDaemon::start(cases::home(server, site, "", ""));
    let mut script = vec![Reply::call("browser_navigate", &json!({"url": format!("{}/prices", site.url)}))];
    let mut then = then.into_iter();
    script.extend(then.next().map(|reply| reply.after(Duration::from_secs(3))));
    script.extend(then);
    server.script(script);
    let run = daemon.trigger("prices");
    eventually_sync("the page is open", || (server.asked().len() == 2).then_some(()));
    (daemon, run)
}

/// The processes of a run whose command line holds this.
fn those(run: RunId, what: &str) -> Vec<i32> {
    let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    processes_of(run).into_iter().filter(|pid| String::from_utf8_lossy(&line(pid)).contains(what)).collect()
}

fn kill(pids: &[i32]) {
    assert!(!pids.is_empty(), "nobody to kill");
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let _ = std::process::Command::new("kill").arg("-9").args(pids).output().unwrap();
}

fn gone(run: RunId) {
    eventually_sync("nothing of it lives", || processes_of(run).is_empty().then_some(()));
}

/// The rest of the errand, from the page on.
fn rest(site: &Site) -> (Vec<Reply>, serde_json::Value) {
    let case = cases::prices(site);
    (case.script[1..].to_vec(), case.result)
}

#[test]
fn a_daemon_that_is_killed_leaves_the_browser_to_its_run() {
    let (server, site) = (ModelServer::start(), Site::start());
    let (script, result) = rest(&site);
    let (mut daemon, run) = open(&server, &site, script);
    let browser = those(run, "--remote-debugging-pipe");
    daemon.crash();
    daemon.restart();
    assert_eq!(those(run, "--remote-debugging-pipe"), browser, "it is the same one");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!((event.result, event.attempt), (Some(result), 1));
    assert_eq!(server.complaints(), Vec::<String>::new());
    gone(run);
}

#[test]
fn an_agent_that_is_killed_takes_its_browser_with_it() {
    let (server, site) = (ModelServer::start(), Site::start());
    let (daemon, run) = open(&server, &site, vec![Reply::finish(&json!({"goods": []}))]);
    kill(&those(run, "__agent"));
    let event = daemon.wait_end(run).event;
    assert_eq!((event.status, event.signal), (RunState::Failed, Some(9)), "{event:#?}");
    gone(run);
}

#[test]
fn a_browser_that_is_killed_is_told_and_the_next_call_starts_another() {
    let (server, site) = (ModelServer::start(), Site::start());
    let (mut script, result) = rest(&site);
    let again = Reply::call("browser_navigate", &json!({"url": format!("{}/prices", site.url)}));
    script.splice(0..0, [Reply::call("browser_snapshot", &json!({})), again]);
    let (daemon, run) = open(&server, &site, script);
    kill(&those(run, "--remote-debugging-pipe"));
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(event.result, Some(result));
    let steps = daemon.block_on(daemon.core().steps(event.number)).unwrap();
    let errors: Vec<&str> =
        steps.iter().flat_map(|s| &s.actions).filter_map(|a| a.error.as_deref()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    gone(run);
}
