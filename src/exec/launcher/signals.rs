//! What the launcher is told by signals.
//!
//! TERM and INT ask it to end its run, a second one or QUIT to kill it at once (QUIT, because two TERMs that
//! arrive together are one). HUP, USR1, USR2, ALRM and XFSZ mean nothing: a launcher that one of them ended would take its run
//! with it. Each wakes the poll through one socket; the handlers
//! are not inherited by the program, which starts with the defaults.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::{flag, low_level::pipe};

/// The installed handlers.
#[derive(Debug)]
pub(super) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    kill: Arc<AtomicBool>,
    /// How often it was asked to end.
    stops: Cell<u32>,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (stop, kill) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let unheard = Arc::new(AtomicBool::new(false));
        for (signal, seen) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGQUIT, &kill)] {
            flag::register(signal, Arc::clone(seen))?;
        }
        for signal in [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ] {
            flag::register(signal, Arc::clone(&unheard))?;
        }
        // Registered after the flags: when the socket is readable, the flag is set.
        for signal in [SIGTERM, SIGINT, SIGQUIT, SIGCHLD] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { wake, stop, kill, stops: Cell::new(0) })
    }

    /// What becomes readable with every signal.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Forgets the wake-ups so far; the flags stay.
    pub(super) fn settle(&self) {
        let mut buffer = [0; 256];
        while matches!((&self.wake).read(&mut buffer), Ok(n) if n > 0) {}
    }

    /// Whether an end was asked for, now or before.
    pub(super) fn asked_to_end(&self) -> bool {
        if self.stop.swap(false, Ordering::SeqCst) {
            self.stops.set(self.stops.get() + 1);
        }
        self.stops.get() > 0 || self.asked_to_kill()
    }

    /// Whether the end is to be at once.
    pub(super) fn asked_to_kill(&self) -> bool {
        self.stops.get() > 1 || self.kill.load(Ordering::SeqCst)
    }

    /// stdin that ends when the launcher is asked to end.
    pub(super) fn interruptible_stdin(&self) -> impl Read {
        InterruptibleStdin(self)
    }
}

struct InterruptibleStdin<'a>(&'a Signals);

impl Read for InterruptibleStdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.0.wake, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let [from_stdin, woken] = fds.map(|fd| !fd.revents().is_empty());
            if woken {
                self.0.settle();
                if self.0.asked_to_end() {
                    return Ok(0);
                }
            }
            if from_stdin {
                return Ok(rustix::io::read(stdin, buffer)?);
            }
        }
    }
}
