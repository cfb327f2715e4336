//! Whose connection to the gate one is: the browser's, or that of somebody else on this machine.
//!
//! The gate listens on loopback, where every local process reaches it, and behind it may be a proxy with a password. A
//! connection is the browser's where its socket is of our own user and is held open by the browser or a process below
//! it. What cannot be read weakens this and never the browser: where no process of it was ever seen to hold a
//! connection and some do not show theirs, the user alone is held against it; where `/proc` shows no connections at
//! all, nothing is. Once a connection was found in a process, none counts that is in no process.

use std::net::SocketAddrV4;

use crate::proc::{Member, descendants, holds_socket, member, tcp_socket};

/// The processes of a browser.
#[derive(Debug)]
pub(super) struct Peers {
    /// The one that all others descend from.
    main: i32,
    /// The one that was last seen to hold a connection; browsers have one process for all of them.
    network: Option<Member>,
}

impl Peers {
    pub(super) fn below(main: i32) -> Self {
        Self { main, network: None }
    }

    /// Whether the connection from `peer` to `gate` is the browser's. Blocking.
    pub(super) fn own(&mut self, peer: SocketAddrV4, gate: SocketAddrV4) -> bool {
        match tcp_socket(peer, gate) {
            Err(_) => true,
            Ok(None) => false,
            Ok(Some(socket)) => socket.uid == rustix::process::geteuid().as_raw() && self.hold(socket.inode),
        }
    }

    fn hold(&mut self, inode: u64) -> bool {
        let still =
            |known: &Member| member(known.pid).is_some_and(|now| now.start_ticks == known.start_ticks);
        let holds = |known: &Member| holds_socket(known.pid, inode) == Some(true) && still(known);
        if self.network.as_ref().is_some_and(holds) {
            return true;
        }
        let mut hidden = false;
        for process in member(self.main).into_iter().chain(descendants(self.main)) {
            match holds_socket(process.pid, inode) {
                Some(true) => {
                    self.network = Some(process);
                    return true;
                }
                Some(false) => {}
                None => hidden = true,
            }
        }
        hidden && self.network.is_none()
    }
}
