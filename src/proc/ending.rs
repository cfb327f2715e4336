//! Waiting for the end of a process that is not our child, without a thread.
//!
//! A pidfd becomes readable when its process ends, and the runtime can watch it like a socket. That is how a
//! daemon that was restarted waits for the launchers of its predecessor. Where the predecessor was another
//! program in the same process, they are its children nevertheless: then they are reaped here.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::own::reap_known;
use super::{Error, Status};

/// The end of one process, to be awaited.
#[derive(Debug)]
pub struct Ending(AsyncFd<OwnedFd>);

impl Ending {
    /// Watches the process of this pidfd. Needs a runtime.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe fn; what that demands (one open file for as long as it is watched) \
                  holds for every OwnedFd, and this one is never taken out"
    )]
    pub fn watch(pidfd: &OwnedFd) -> Result<Self, Error> {
        let fail = |source| Error::System { what: "watch a pidfd".to_owned(), source };
        let own = pidfd.try_clone().map_err(fail)?;
        AsyncFd::with_interest(own, Interest::READABLE).map(Self).map_err(fail)
    }

    /// Reaps the process, which must have ended, if it is a child of this one; how it ended.
    #[must_use]
    pub fn reap(&self) -> Option<Status> {
        reap_known(self.0.get_ref())
    }

    /// Ends when the process has ended, reaped or not. May be dropped and called again.
    pub async fn reached(&self) {
        // The readiness is not cleared: it stays true. An error means that the runtime is going down, and
        // then nobody waits any more.
        if self.0.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
