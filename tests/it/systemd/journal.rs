//! The journal's fields, as a journal hears them: a socket of the test's own in its place.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::disk::{may_mount, mount};
use crate::support::{Binary, Home, eventually_sync};

/// The fields of one entry of the journal's native protocol.
fn fields(mut entry: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(end) = entry.iter().position(|b| *b == b'\n') {
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (name, value) = if let Some(at) = line.iter().position(|b| *b == b'=') {
            entry = rest;
            (text(&line[..at]), text(&line[at + 1..]))
        } else {
            let (length, rest) = rest.split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            entry = &rest[length + 1..];
            (text(line), text(&rest[..length]))
        };
        found.entry(name).or_default().push(value);
    }
    found
}

#[test]
fn every_line_about_a_run_has_its_id_and_its_agent() {
    if !may_mount("systemd::journal::every_line_about_a_run_has_its_id_and_its_agent") {
        return;
    }
    mount(&["-t", "tmpfs", "tmpfs"], Path::new("/run"));
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    // Read all the while: its queue takes about ten entries, and who writes an eleventh waits.
    let (tell, entries) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n) = journal.recv(&mut buffer) {
            if tell.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let home = Home::new();
    home.agent("good", "true", "");
    home.agent("bad", "exit 3", "retry: { max: 2, initial: 1s }\n");
    home.agent("orphan", "kill -9 $PPID; sleep 600", "sandbox: off\n");
    let mut daemon = Binary::unstarted(home);
    daemon.env.push(("MATINS_LOG_FORMAT".to_owned(), "journal".to_owned()));
    daemon.restart();
    for agent in ["good", "bad", "orphan"] {
        daemon.post(&format!("/v1/agents/{agent}/execute"), &json!({}));
    }
    let runs = daemon.settled();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    eventually_sync("the journal has heard of each of them", || {
        let entry = fields(&entries.recv_timeout(Duration::from_secs(30)).unwrap());
        let message = entry.get("MESSAGE")?;
        assert!(!entry.contains_key("AGENT_ID"), "{entry:?}");
        for run in &runs {
            let (id, agent) = (run["id"].as_str().unwrap(), run["agentId"].as_str().unwrap());
            if message[0].contains(id) {
                assert_eq!(entry.get("RUN_ID").map(Vec::as_slice), Some(&[id.to_owned()][..]), "{entry:?}");
                assert_eq!(entry.get("AGENT").map(Vec::as_slice), Some(&[agent.to_owned()][..]), "{entry:?}");
                *seen.entry(agent.to_owned()).or_default() += 1;
            }
        }
        let heard = |agent: &str, lines| seen.get(agent).is_some_and(|n| *n >= lines);
        // Its end; the next attempt and its end; the launcher that is gone and its end.
        (heard("good", 1) && heard("bad", 2) && heard("orphan", 2)).then_some(())
    });
}
