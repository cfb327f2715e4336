//! Sockets that systemd holds, and the daemon's log as systemd wants it.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Binary, Home, Http, eventually_sync};

/// Starts the daemon as systemd does for `matins.socket`: the socket is descriptor 3, an HTTP port descriptor 4.
fn activated(daemon: &Binary, unix: &UnixListener, tcp: Option<&TcpListener>) -> Child {
    // A shell moves the sockets to their places and names its own pid, which it then gives to the daemon.
    let (moved, fds, names) = match tcp {
        Some(_) => ("3<&0 4>&1", "2", "control:control"),
        None => ("3<&0", "1", "control"),
    };
    let script = format!("exec {moved} </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"");
    let serve = daemon.command(&["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(serve.get_program()).args(serve.get_args());
    shell.env("LISTEN_FDS", fds).env("LISTEN_FDNAMES", names).env_remove("MATINS_SOCKET");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(daemon.log_file()).unwrap();
    let unix = Stdio::from(OwnedFd::from(unix.try_clone().unwrap()));
    let tcp = tcp.map_or_else(Stdio::null, |tcp| OwnedFd::from(tcp.try_clone().unwrap()).into());
    shell.stdin(unix).stdout(tcp).stderr(log).spawn().unwrap()
}

#[test]
fn a_port_that_systemd_holds_is_answered_at_and_kept_over_a_replacement() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let home = Home::new();
    let text = format!("state_dir: var\nlisten: {{ socket: var/matins.sock, http: '{address}' }}\n");
    home.write("matins.yaml", &text);
    let daemon = Binary::unstarted(home);
    std::fs::create_dir_all(daemon.home.state()).unwrap();
    let unix = UnixListener::bind(daemon.home.socket()).unwrap();
    let child = activated(&daemon, &unix, Some(&tcp));
    let http = Http { address, token: String::new() };
    // It waits in the queue of a port at which nobody answers yet.
    assert_eq!(http.get("/healthz").status, 200, "{}", daemon.log());
    let replaced = daemon.cli(&["reexec"]);
    assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    assert_eq!(http.get("/healthz").status, 200, "{}", daemon.log());
    end(child);
    assert!(!daemon.log().contains("left alone"), "{}", daemon.log());
}

fn end(mut child: Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_client_that_comes_first_waits_and_is_answered() {
    let daemon = Binary::unstarted(Home::new());
    std::fs::create_dir_all(daemon.home.state()).unwrap();
    let listener = UnixListener::bind(daemon.home.socket()).unwrap();
    assert!(listener.as_raw_fd() > 0);
    let status = |daemon: &Binary| {
        let mut client = daemon.command(&["status", "--json"]);
        client.stdout(Stdio::piped()).spawn().unwrap()
    };
    // It connects to a socket of which nobody answers yet.
    let early = status(&daemon);
    let first = activated(&daemon, &listener, None);
    let said = early.wait_with_output().unwrap();
    assert!(said.status.success());
    let status_of: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(status_of["pid"], first.id());
    end(first);
    assert!(daemon.home.socket().exists(), "the socket is systemd's");
    // Between two daemons nobody is refused.
    let between = status(&daemon);
    let second = activated(&daemon, &listener, None);
    assert!(between.wait_with_output().unwrap().status.success());
    eventually_sync("it answers", || daemon.try_get("/healthz"));
    end(second);
}

#[test]
fn the_log_is_json_on_request() {
    let home = Home::new();
    home.agent("hello", "true", "");
    let mut daemon = Binary::unstarted(home);
    daemon.env.push(("MATINS_LOG_FORMAT".to_owned(), "json".to_owned()));
    daemon.restart();
    daemon.post("/v1/agents/hello/execute", &serde_json::json!({}));
    let run = daemon.settled().remove(0);
    assert_eq!(daemon.terminate(), Some(0));
    let lines: Vec<Value> = daemon.log().lines().map(|l| serde_json::from_str(l).expect(l)).collect();
    let about = lines.iter().find(|l| l["run.id"] == run["id"]).expect("a line about the run");
    assert_eq!((about["level"].as_str(), about["agent"].as_str()), (Some("INFO"), Some("hello")));
    let mut serve = daemon.command(&["serve", "--log-format", "xml"]);
    let refused = serve.output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("human, json, journal"), "{said}");
}

#[test]
fn without_a_journal_the_log_goes_to_stderr() {
    let daemon = Binary::unstarted(Home::new());
    let mut serve = daemon.command(&["serve", "--log-format", "journal"]);
    let mut child = serve.stderr(Stdio::piped()).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    eventually_sync("it answers", || daemon.try_get("/healthz"));
    let mut stderr = child.stderr.take().unwrap();
    end(child);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    // Where there is a journal, the lines are there instead.
    let journal = std::path::Path::new("/run/systemd/journal/socket").exists();
    assert!(journal || said.contains("the journal cannot be reached"), "{said}");
    assert!(journal || said.contains("is ready"), "{said}");
}
