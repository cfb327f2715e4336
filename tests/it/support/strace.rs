//! Faults from outside the program: `strace` stops it before a system call and kills it, or lets the call fail.
//!
//! The product has no hooks for it; what is tried is the binary that users run. The daemon is traced, its
//! launchers are let go at their `execve`. `strace` counts the calls of each thread apart, so a count names a
//! moment only where one thread makes the calls: the writer its commits, the one worker of
//! `TOKIO_WORKER_THREADS=1` everything on sockets and processes.

use std::path::Path;
use std::process::Command;

use super::Home;

/// A set of system calls, of one file or of any.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// Names as `strace` takes them; `?` before a name that not every architecture has.
    pub names: &'static str,
    /// The file in the state directory that they must concern.
    pub file: Option<&'static str>,
}

/// Whether processes can be traced here; where not, a proof says so and is over.
#[expect(clippy::print_stdout, reason = "a test that is left out says why")]
pub fn can_trace() -> bool {
    let probe = Command::new("strace").args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]).output();
    let can = probe.as_ref().is_ok_and(|out| out.status.success());
    if !can {
        println!("skipped: strace is missing or may not trace here: {probe:?}");
    }
    can
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// What a daemon on `home` is started through, so that `fault` (in the words of `strace`'s `inject`) befalls
/// `calls`; `trace` gets what was called.
pub fn under(home: &Home, calls: Calls, fault: &str, trace: &Path) -> Vec<String> {
    let names = calls.names;
    let mut prefix = words(&["strace", "-D", "-f", "-b", "execve", "-qq", "-yy", "-s", "0"]);
    prefix.extend(words(&["-e", "signal=none", "-e", &format!("trace={names}"), "-o"]));
    prefix.push(trace.display().to_string());
    if !fault.is_empty() {
        prefix.extend(words(&["-e", &format!("inject={names}:{fault}")]));
    }
    if let Some(file) = calls.file {
        prefix.extend(["-P".to_owned(), home.state().join(file).display().to_string()]);
    }
    prefix
}

/// One call of a trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The thread.
    pub thread: &'a str,
    /// The call's name.
    pub name: &'a str,
    /// Its arguments, as far as they are shown.
    pub arguments: &'a str,
}

/// The calls of a trace in their order; the second halves of interrupted lines are none.
pub fn calls(trace: &str) -> impl Iterator<Item = Call<'_>> {
    trace.lines().filter_map(|line| {
        let (thread, rest) = line.split_once(' ')?;
        let (name, arguments) = rest.trim_start().split_once('(')?;
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        named.then_some(Call { thread, name, arguments })
    })
}

/// What a file descriptor stands for that is a call's first argument.
pub fn about(call: &Call<'_>) -> &'static str {
    let Some((_, what)) = call.arguments.split_once('<') else { return "" };
    let kinds = [
        ("pipe:", "a launcher's release"),
        ("UNIX", "an answer to a client"),
        ("TCP", "a message to a receiver"),
        ("anon_inode:", "a wake-up"),
        ("pid:", "a process"),
    ];
    let kind = kinds.iter().find(|(start, _)| what.starts_with(start)).map(|(_, kind)| *kind);
    kind.unwrap_or(if what.contains("/runs/") { "a file of a run" } else { "another file" })
}

#[test]
fn a_trace_is_read() {
    let trace = "12 pwrite64(9</s/matins.db-wal>, \"\"..., 24, 0) = 24\n\
                 13 write(24<pipe:[77]>, \"\"..., 18 <unfinished ...>\n\
                 12 <... pwrite64 resumed>) = ?\n\
                 13 +++ killed by SIGKILL +++\n";
    let read: Vec<_> = calls(trace).map(|c| (c.thread, c.name, about(&c))).collect();
    assert_eq!(read, [("12", "pwrite64", "another file"), ("13", "write", "a launcher's release")]);
}
