//! Sockets that are there before the daemon: from systemd's `matins.socket`, or from the program
//! that this one replaced in place.
//!
//! Both come by `LISTEN_FDS`, and both mean the same promise: a client that connects in between waits
//! in the kernel's queue and is never refused. They differ in whose the file of the socket is. The one
//! of systemd stays when the daemon ends; one that a daemon bound itself is its successor's to remove,
//! which the name [`OWN`] in `LISTEN_FDNAMES` says.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;

use crate::config::Env;

/// Name of a control socket that a daemon bound by itself.
pub const OWN: &str = "matins-own";
/// Name of a socket that systemd bound.
pub const GIVEN: &str = "control";

/// Name of the HTTP listener that a daemon hands over.
pub const HTTP: &str = "http";

/// Most sockets that are taken over.
const SOCKETS_MAX: usize = 64;

/// A Unix socket that was there.
#[derive(Debug)]
pub struct GivenSocket {
    /// The socket, which listens.
    pub listener: UnixListener,
    /// Whether its file is the daemon's to remove.
    pub own: bool,
}

/// The sockets that were there.
#[derive(Debug, Default)]
pub struct Inherited {
    unix: Vec<GivenSocket>,
    tcp: Vec<TcpListener>,
}

impl Inherited {
    /// Takes over what `LISTEN_FDS` names. To be called before the process has a second thread, because
    /// the variables are removed.
    #[must_use]
    pub fn take(env: &Env) -> Self {
        let mut found = Self::default();
        if env.get("LISTEN_FDS").is_none() {
            return found;
        }
        let names = env.get("LISTEN_FDNAMES").and_then(|v| v.to_str()).unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        for index in 0..sockets.len().min(SOCKETS_MAX) {
            let own = names.next() == Some(OWN);
            if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
                found.unix.push(GivenSocket { listener, own });
            } else if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
                found.tcp.push(listener);
            } else {
                tracing::warn!(
                    "socket {index} of LISTEN_FDS is neither a Unix nor a TCP stream socket; it is left alone"
                );
            }
        }
        found
    }

    /// Sockets that are handed on within one process.
    #[must_use]
    pub fn kept(listener: UnixListener, own: bool, tcp: Option<TcpListener>) -> Self {
        Self { unix: vec![GivenSocket { listener, own }], tcp: tcp.into_iter().collect() }
    }

    /// The control socket: the one at `path`, else the only one there is.
    pub fn control(&mut self, path: &Path) -> Option<GivenSocket> {
        let at =
            |s: &GivenSocket| s.listener.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_owned));
        let exact = self.unix.iter().position(|s| at(s).as_deref() == Some(path));
        let index = exact.or_else(|| (self.unix.len() == 1).then_some(0))?;
        let socket = self.unix.swap_remove(index);
        if exact.is_none() {
            let there =
                at(&socket).map_or_else(|| "a socket without a path".to_owned(), |p| p.display().to_string());
            tracing::warn!(
                "systemd listens on {there}, the settings name {}: the daemon answers on the former; make them agree",
                path.display()
            );
        }
        Some(socket)
    }

    /// The TCP listener at `address`; where any port will do, one at that host. All others are closed: at a
    /// port that stays open and is not answered clients hang, and it may be the very port that is asked for
    /// at another address.
    pub fn tcp(&mut self, address: Option<SocketAddr>) -> Option<TcpListener> {
        let is_wanted =
            |at: SocketAddr| address.is_some_and(|a| a == at || (a.port() == 0 && a.ip() == at.ip()));
        let mut wanted = None;
        for listener in self.tcp.drain(..) {
            let at = listener.local_addr();
            if wanted.is_none() && at.as_ref().is_ok_and(|at| is_wanted(*at)) {
                wanted = Some(listener);
            } else if let Ok(at) = at {
                tracing::info!(
                    "the listener at {at} is closed: the settings do not name this address (listen.http)"
                );
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_listeners_that_were_there_one_is_kept_and_the_others_are_closed() {
        let free = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
        let two = [free, free].map(|at| TcpListener::bind(at).unwrap());
        let [kept, closed] = two.each_ref().map(|l| l.local_addr().unwrap());
        let inherited = |tcp| Inherited { unix: Vec::new(), tcp };
        let mut all = inherited(two.into_iter().rev().collect());
        assert_eq!(all.tcp(Some(kept)).unwrap().local_addr().unwrap(), kept);
        assert!(all.tcp.is_empty());
        assert!(std::net::TcpStream::connect(closed).is_err(), "nobody waits at a port that is not answered");
        let listener = TcpListener::bind(free).unwrap();
        let at = listener.local_addr().unwrap();
        assert!(inherited(vec![listener]).tcp(None).is_none());
        assert!(std::net::TcpStream::connect(at).is_err());
        let listener = TcpListener::bind(free).unwrap();
        assert!(inherited(vec![listener]).tcp(Some(free)).is_some(), "any port of that host");
    }
}
