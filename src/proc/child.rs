//! Programs that the built-in agent starts beside its conversation: commands, judges of results, servers of tools.
//!
//! Such a program is ended with everything that it started, whether it comes to its end, is given up or merely
//! forgotten: dropping a [`Child`] kills it. Its tree is found by three marks: its process group, descent from it, and
//! a variable of its environment, which also an orphan in a session of its own still carries. Who sheds all three falls
//! to the launcher, which ends the whole tree of the run.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::identity::open_pidfd;
use super::{
    Ending, Member, Program, Signal, Status, all, descendants, environ_holds, member, own_pid, signal_group,
    signal_member, wait_gone,
};

/// Variable that marks what belongs to one program.
const MARK: &str = "MATINS_TOOL_CALL";
/// How often a tree is looked at again until nothing of it lives.
const PASSES_MAX: u32 = 10;
/// How long one look waits for those that it has hit; no longer, for nothing else goes on meanwhile.
const PASS_PATIENCE: Duration = Duration::from_millis(20);
/// How long what a program left in its pipe is read.
const REST_PATIENCE: Duration = Duration::from_millis(200);
/// How much of an output is read at once, bytes.
const CHUNK: usize = 16 << 10;

/// A program that was started, and everything that it starts.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: i32,
    mark: String,
    /// When it started, clock ticks since boot: what is older is not of its tree.
    since: u64,
    /// Its pid may be another's by now.
    reaped: bool,
}

/// How a program is connected.
#[derive(Debug)]
pub enum Pipes {
    /// Nothing to read; stdout and stderr go into this.
    Output(OwnedFd),
    /// stdin and stdout are pipes to us; stderr is ours.
    Both,
    /// stdin, stdout and stderr are pipes to us.
    All,
}

impl Child {
    /// Starts a program in a process group of its own. Needs a runtime.
    pub fn start(program: &Program<'_>, pipes: Pipes) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let started = member(own_pid()).map_or(0, |own| own.start_ticks);
        let mark = format!("{}-{started}-{}", own_pid(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut env: BTreeMap<String, String> = program.env.clone();
        env.insert(MARK.to_owned(), mark.clone());
        let (stdin, stdout, stderr) = match pipes {
            Pipes::Output(end) => (Stdio::null(), Stdio::from(end.try_clone()?), Stdio::from(end)),
            Pipes::Both => (Stdio::piped(), Stdio::piped(), Stdio::inherit()),
            Pipes::All => (Stdio::piped(), Stdio::piped(), Stdio::piped()),
        };
        let command = Program { env: &env, ..*program }.grouped(stdin, stdout, stderr)?;
        let inner = tokio::process::Command::from(command).spawn()?;
        let pid = inner.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        let since = member(pid).map_or(0, |own| own.start_ticks);
        Ok(Self { inner, pid, mark, since, reaped: false })
    }

    /// The pid of the program itself. Another's where the program has ended and [`Self::ended`] has told so.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The pipes of [`Pipes::Both`] and [`Pipes::All`], once.
    pub fn pipes(&mut self) -> Option<(ChildStdout, ChildStdin)> {
        Some((self.inner.stdout.take()?, self.inner.stdin.take()?))
    }

    /// What it writes to stderr, with [`Pipes::All`], once.
    pub fn errors(&mut self) -> Option<ChildStderr> {
        self.inner.stderr.take()
    }

    /// Waits until the program has ended, and ends what it left behind.
    pub async fn ended(&mut self) -> io::Result<Status> {
        if !self.reaped {
            let pidfd = open_pidfd(self.pid).map_err(io::Error::other)?;
            Ending::watch(&pidfd).map_err(io::Error::other)?.reached().await;
            // Not reaped yet, so its group cannot be another's.
            self.kill();
        }
        let status = self.inner.wait().await?;
        self.reaped = true;
        let code = status.code().map(Status::Code).or_else(|| status.signal().map(Status::Signal));
        code.ok_or_else(|| io::Error::other("it neither exited nor was killed"))
    }

    /// Kills the program and everything that it started.
    pub fn kill(&self) {
        for pass in 0..PASSES_MAX {
            let found = self.alive();
            // The program itself is waited for too; one that has ended is there at once.
            let mut hit: Vec<OwnedFd> = Vec::new();
            if !self.reaped {
                hit.extend(open_pidfd(self.pid).ok().filter(|_| pass == 0));
                signal_group(self.pid, Signal::KILL);
            }
            hit.extend(found.iter().filter_map(|m| signal_member(m, Signal::KILL)));
            if hit.is_empty() {
                break;
            }
            // One that is held up in the kernel is not waited for: it is dead to everybody else.
            let _ = wait_gone(&hit, PASS_PATIENCE);
        }
    }

    /// What lives of its tree.
    fn alive(&self) -> Vec<Member> {
        let mut found = if self.reaped { Vec::new() } else { descendants(self.pid) };
        let marked = |m: &Member| environ_holds(m.pid, MARK, &self.mark) == Some(true);
        let mut known: Vec<i32> = found.iter().map(|m| m.pid).collect();
        known.extend([self.pid, own_pid()]);
        let others = all().into_iter().filter(|m| m.start_ticks >= self.since && !known.contains(&m.pid));
        found.extend(others.filter(marked));
        found.retain(|m| !m.zombie);
        found
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}

/// How a program came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended; `None`: it was killed when its time was over.
    pub status: Option<Status>,
    /// What it wrote, stdout and stderr as they came; the middle is left out where it is too long.
    pub output: Vec<u8>,
    /// How many bytes were left out.
    pub dropped: u64,
}

/// Starts a program without input, waits for its end at most so long, and tells what it wrote: of each end of it at
/// most half of `keep` bytes. Dropping the future kills it.
pub async fn run_to_end(program: &Program<'_>, timeout: Duration, keep: usize) -> io::Result<Finished> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // A program that meets a full pipe must wait, not fail; only our end is asked without waiting.
    let flags = rustix::fs::fcntl_getfl(&writer)?;
    rustix::fs::fcntl_setfl(&writer, flags - rustix::fs::OFlags::NONBLOCK)?;
    let mut child = Child::start(program, Pipes::Output(writer))?;
    let mut output = Receiver::from_owned_fd(reader)?;
    let mut kept = Kept::new(keep);
    let drain = async {
        read_on(&mut output, &mut kept).await?;
        std::future::pending().await
    };
    let status = within(&mut child, timeout, drain).await?;
    read_rest(&mut output, &mut kept).await;
    Ok(kept.finish(status))
}

/// How a program ended, while `beside` speaks with it and ends only where that fails; `None`: it took longer and was
/// killed.
async fn within(
    child: &mut Child,
    timeout: Duration,
    beside: impl Future<Output = io::Result<Status>>,
) -> io::Result<Option<Status>> {
    let whole = async {
        tokio::select! { status = child.ended() => status, e = beside => e }
    };
    if let Ok(status) = tokio::time::timeout(timeout, whole).await {
        return status.map(Some);
    }
    child.kill();
    let _ = child.ended().await;
    Ok(None)
}

/// Reads until everybody has closed the pipe. It lets others go on in between, however fast the pipe is filled.
async fn read_on(output: &mut (impl AsyncRead + Unpin), kept: &mut Kept) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match output.read(&mut chunk).await? {
            0 => return Ok(()),
            n => kept.push(chunk.get(..n).unwrap_or_default()),
        }
    }
}

/// Reads what a program that has ended left in the pipe. Everything that held the pipe was killed, unless it escaped:
/// then it may fill it without end.
async fn read_rest(output: &mut (impl AsyncRead + Unpin), kept: &mut Kept) {
    let _ = tokio::time::timeout(REST_PATIENCE, read_on(output, kept)).await;
}

/// Gives a program its input, closes it, waits for its end at most so long, and tells what it wrote to stdout, of which
/// at most `keep` bytes are kept. Dropping the future kills it.
pub async fn run_with_input(
    program: &Program<'_>,
    input: &[u8],
    timeout: Duration,
    keep: usize,
) -> io::Result<Finished> {
    let mut child = Child::start(program, Pipes::Both)?;
    let (mut stdout, mut stdin) = child.pipes().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut kept = Kept::new(keep);
    let talk = async {
        let write = async {
            // A program that does not care for its input may close it.
            let _ = stdin.write_all(input).await;
            drop(stdin);
            std::future::pending::<io::Result<Status>>().await
        };
        let read = async {
            read_on(&mut stdout, &mut kept).await?;
            std::future::pending().await
        };
        tokio::select! { e = write => e, e = read => e }
    };
    let status = within(&mut child, timeout, talk).await?;
    read_rest(&mut stdout, &mut kept).await;
    Ok(kept.finish(status))
}

/// The two ends of an output.
struct Kept {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn new(keep: usize) -> Self {
        Self { half: keep / 2, head: Vec::new(), tail: VecDeque::new(), dropped: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    fn finish(self, status: Option<Status>) -> Finished {
        let mut output = self.head;
        if self.dropped > 0 {
            output.extend_from_slice(format!("\n[{} bytes are left out]\n", self.dropped).as_bytes());
        }
        output.extend(self.tail);
        Finished { status, output, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_escapes_and_writes_without_end_is_not_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        // It has shed group, descent and environment, and is in full flow, before the program ends.
        let script = "mkfifo f; setsid env -i sh -c 'echo $$ > f; exec cat /dev/zero' & read pid < f; \
                      until [ \"$(sed -n 's/^wchar: //p' /proc/$pid/io)\" -gt 10000000 ]; do :; done";
        let argv = ["sh", "-c", script].map(ToOwned::to_owned);
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let (tell, told) = channel();
        let cwd = dir.path().to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let program = Program { file: Path::new("/bin/sh"), argv: &argv, env: &env, cwd: &cwd };
            let ended = runtime.block_on(run_to_end(&program, Duration::from_secs(60), 4 << 10));
            tell.send(ended).unwrap();
        });
        let ended = told.recv_timeout(Duration::from_secs(90)).expect("it comes to its end").unwrap();
        assert_eq!(ended.status, Some(Status::Code(0)));
        assert!(ended.output.len() < 5 << 10, "{}", ended.output.len());
    }
}
