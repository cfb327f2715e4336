//! `kill -9` in the middle of a run with a browser: of the daemon, of the launcher, of the agent, of the browser itself.
//! Whoever dies, nothing is left when the run is settled: no process, no temporary file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use matins::ids::RunId;
use matins::model::RunState;
use serde_json::json;

use super::cases;
use super::many::temporary;
use crate::blackbox::launchers_of;
use crate::support::daemon::processes_of;
use crate::support::{ModelServer, Reply, Site, TestDaemon, eventually_sync};

/// A daemon with a run whose page is open.
struct Open {
    daemon: TestDaemon,
    run: RunId,
    /// The temporary files that were there before.
    before: BTreeSet<PathBuf>,
}

impl Open {
    /// Its model takes its time, and then says `then`.
    fn start(server: &ModelServer, site: &Site, then: Vec<Reply>) -> Self {
        let home = cases::home(server, site, "", "");
        let before = temporary(home.path());
        let daemon = TestDaemon::start(home);
        let mut script =
            vec![Reply::call("browser_navigate", &json!({"url": format!("{}/prices", site.url)}))];
        let mut then = then.into_iter();
        script.extend(then.next().map(|reply| reply.after(Duration::from_secs(3))));
        script.extend(then);
        server.script(script);
        let run = daemon.trigger("prices");
        eventually_sync("the page is open", || (server.asked().len() == 2).then_some(()));
        let open = Self { daemon, run, before };
        assert!(!open.folders().is_empty(), "the browser has a folder");
        open
    }

    /// The folders of this run's browsers.
    fn folders(&self) -> Vec<PathBuf> {
        let attempts = self.daemon.home.run_file(&self.run.to_string(), "attempts");
        temporary(self.daemon.home.path()).into_iter().filter(|path| path.starts_with(&attempts)).collect()
    }

    /// Looks at what is left once the run is settled. Processes end and files go before that, but for what browsers of
    /// other tests make meanwhile.
    fn nothing_is_left(&self) {
        assert_eq!(self.folders(), Vec::<PathBuf>::new());
        eventually_sync("nothing of it lives", || processes_of(self.run).is_empty().then_some(()));
        let left = || temporary(self.daemon.home.path()).is_subset(&self.before).then_some(());
        eventually_sync("no temporary file is left", left);
    }
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

/// The rest of the errand, from the page on.
fn rest(site: &Site) -> (Vec<Reply>, serde_json::Value) {
    let case = cases::prices(site);
    (case.script[1..].to_vec(), case.result)
}

#[test]
fn a_daemon_that_is_killed_leaves_the_browser_to_its_run() {
    let (server, site) = (ModelServer::start(), Site::start());
    let (script, result) = rest(&site);
    let mut open = Open::start(&server, &site, script);
    let Open { daemon, run, .. } = &mut open;
    let run = *run;
    let browser = those(run, "--remote-debugging-pipe");
    daemon.crash();
    daemon.restart();
    assert_eq!(those(run, "--remote-debugging-pipe"), browser, "it is the same one");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!((event.result, event.attempt), (Some(result), 1));
    assert_eq!(server.complaints(), Vec::<String>::new());
    open.nothing_is_left();
}

#[test]
fn an_agent_that_is_killed_takes_its_browser_with_it() {
    let (server, site) = (ModelServer::start(), Site::start());
    let open = Open::start(&server, &site, vec![Reply::finish(&json!({"goods": []}))]);
    kill(&those(open.run, "__agent"));
    let event = open.daemon.wait_end(open.run).event;
    assert_eq!((event.status, event.signal), (RunState::Failed, Some(9)), "{event:#?}");
    open.nothing_is_left();
}

#[test]
fn a_launcher_that_is_killed_leaves_nothing_of_its_run() {
    let (server, site) = (ModelServer::start(), Site::start());
    let open = Open::start(&server, &site, vec![Reply::finish(&json!({"goods": []}))]);
    kill(&launchers_of(open.daemon.home.path()));
    let event = open.daemon.wait_end(open.run).event;
    let ended = (event.status, event.failure_code.as_deref());
    assert_eq!(ended, (RunState::Failed, Some("interrupted")), "{event:#?}");
    open.nothing_is_left();
}

#[test]
fn a_launcher_that_is_killed_while_no_daemon_is_there_leaves_nothing_either() {
    let (server, site) = (ModelServer::start(), Site::start());
    let mut open = Open::start(&server, &site, vec![Reply::finish(&json!({"goods": []}))]);
    open.daemon.crash();
    kill(&launchers_of(open.daemon.home.path()));
    open.daemon.restart();
    let event = open.daemon.wait_end(open.run).event;
    let ended = (event.status, event.failure_code.as_deref());
    assert_eq!(ended, (RunState::Failed, Some("interrupted")), "{event:#?}");
    open.nothing_is_left();
}

#[test]
fn a_browser_that_is_killed_is_told_and_the_next_call_starts_another() {
    let (server, site) = (ModelServer::start(), Site::start());
    let (mut script, result) = rest(&site);
    let again = Reply::call("browser_navigate", &json!({"url": format!("{}/prices", site.url)}));
    script.splice(0..0, [Reply::call("browser_snapshot", &json!({})), again]);
    let open = Open::start(&server, &site, script);
    let Open { daemon, run, .. } = &open;
    let run = *run;
    kill(&those(run, "--remote-debugging-pipe"));
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(event.result, Some(result));
    let steps = daemon.block_on(daemon.core().steps(event.number)).unwrap();
    let errors: Vec<&str> =
        steps.iter().flat_map(|s| &s.actions).filter_map(|a| a.error.as_deref()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    open.nothing_is_left();
}
