//! Whoever follows a run reads what a follower of an undisturbed one reads, byte for byte, whatever becomes of the
//! daemon meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::chronos::prove;
use crate::support::{Binary, Home, eventually_sync};

/// Writes on both streams, some of it without an end of line and some of it no text. At three lines it waits for
/// the test, so that what happens to the daemon happens while it has more to say, however slow the machine is.
const SCRIPT: &str = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; echo err $i >&2; printf 'part '; \
                      case $i in 20|50|80) until [ -e $MATINS_FILES_DIR/$i ]; do sleep 0.02; done;; \
                      2?|5?|8?) sleep 0.02;; esac; done; \
                      head -c 5000 /dev/zero; printf '\\377\\376 the end'";

/// A run that waits at one of its lines.
struct Pause {
    files: PathBuf,
    log: PathBuf,
    line: usize,
}

impl Pause {
    /// Waits until it has come to its `line`.
    fn reached(&self, line: usize) {
        let said = format!("err {line}\n");
        eventually_sync(&said, || {
            std::fs::read_to_string(&self.log).is_ok_and(|text| text.contains(&said)).then_some(())
        });
    }

    /// Lets it go on.
    fn end(&self) {
        std::fs::write(self.files.join(self.line.to_string()), "").unwrap();
    }
}

fn home() -> Home {
    let home = Home::new();
    home.settings("watch: false\n");
    home.agent("talk", SCRIPT, "");
    home
}

/// A follower whose output goes to a file, so that one sees that it follows.
fn beside(daemon: &Binary, file: &Path, args: &[&str]) -> Child {
    let mut client = daemon.command(args);
    let file = std::fs::File::create(file).unwrap();
    client.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped()).spawn().unwrap()
}

/// What three followers read of one run: `run --follow`, `logs --follow` of both streams. `disturb` is called each
/// time the run pauses, and ends the pause.
fn followed(daemon: &mut Binary, mut disturb: impl FnMut(&mut Binary, &Pause)) -> [Vec<u8>; 3] {
    let files = ["run", "stdout", "stderr"].map(|name| daemon.home.path().join(format!("read-{name}")));
    let run = beside(daemon, &files[0], &["run", "talk", "--follow"]);
    let id = eventually_sync("it runs", || {
        let events = daemon.events();
        let event = events.first().filter(|e| e["status"] == "RUNNING")?;
        Some(event["id"].as_str().unwrap().to_owned())
    });
    let stdout = beside(daemon, &files[1], &["logs", "--follow", &id]);
    let stderr = beside(daemon, &files[2], &["logs", "--follow", "--stderr", &id]);
    let read = || files.each_ref().map(|file| std::fs::read(file).unwrap());
    eventually_sync("all of them follow", || read().iter().all(|bytes| !bytes.is_empty()).then_some(()));
    let [given, log] = ["files", "attempts/1/stderr.log"].map(|name| daemon.home.run_file(&id, name));
    for line in [20, 50, 80] {
        let pause = Pause { files: given.clone(), log: log.clone(), line };
        pause.reached(line);
        disturb(daemon, &pause);
    }
    for client in [run, stdout, stderr] {
        let done = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{said}\n{}", daemon.log());
    }
    read()
}

#[test]
fn followers_of_a_run_read_the_same_whatever_becomes_of_the_daemon() {
    let begun = Instant::now();
    let plain = std::thread::spawn(|| followed(&mut Binary::start(home()), |_, pause| pause.end()));
    let killed = std::thread::spawn(|| {
        followed(&mut Binary::start(home()), |daemon, pause| {
            daemon.kill();
            pause.end();
            pause.reached(pause.line + 5);
            daemon.restart();
        })
    });
    let replaced = std::thread::spawn(|| {
        followed(&mut Binary::start(home()), |daemon, pause| {
            pause.end();
            let done = daemon.cli(&["reexec"]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        })
    });
    let [plain, killed, replaced] = [plain, killed, replaced].map(|t| t.join().unwrap());
    assert_eq!(plain[0], plain[1], "run --follow and logs --follow");
    assert!(plain[0].ends_with(b"\xff\xfe the end") && plain[2].ends_with(b"err 100\n"));
    let hash = |bytes: &[u8]| json!(Sha256::digest(bytes).to_vec()).to_string();
    for (stream, plain) in plain.iter().enumerate() {
        assert_eq!(hash(&killed[stream]), hash(plain), "follower {stream} after three kills");
        assert_eq!(hash(&replaced[stream]), hash(plain), "follower {stream} after three replacements");
    }
    let bytes = plain.iter().map(Vec::len).sum::<usize>();
    let figures = [
        ("count", "6".to_owned()),
        ("bytes", bytes.to_string()),
        ("seconds", begun.elapsed().as_secs().to_string()),
        ("verdict", "ok".to_owned()),
    ];
    prove("follow-identical", &figures);
}
