//! HTTP over TCP: bound at the start, kept over a replacement of the program, answered by the loop of
//! [`listen`](mod@super::listen).
//!
//! Who reaches the port needs a token; that is all that stands between the network and the agents. So an
//! address other than loopback is bound only once there is a token, or TLS is set: before that the daemon
//! runs and waits for `matins token create`, which the control socket takes.
//!
//! A port that another process has keeps the daemon from starting where the settings ask for it. Where they
//! do not - the address is the default, and two daemons on one machine are nothing unusual - the daemon says
//! so, goes on, and looks again every [`LOOK_AGAIN`]: what is scheduled runs without HTTP. So does one that
//! takes the place of another: a replacement never ends what was running.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::activation::Inherited;
use super::listen::{CLOSE_GRACE, Door, HANDOVER_GRACE, Who, serve_door};
use super::tls::Certificate;
use crate::api::Peer;
use crate::config::{Listen, ValueSource};
use crate::engine::Core;
use crate::task::OnEnd;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;
/// Time between two looks whether a port has become free.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The setting that names the address.
const KEY: &str = "listen.http";

/// A second hold on the listener, for the program that takes this one's place.
#[derive(Debug, Clone, Default)]
pub struct HeldTcp(Arc<Mutex<Option<std::net::TcpListener>>>);

impl HeldTcp {
    fn hold(&self, listener: &TcpListener) -> io::Result<()> {
        let copy = listener.as_fd().try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy.into());
        Ok(())
    }

    /// The listener, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<std::net::TcpListener> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Says whether HTTP could be answered with these settings, as far as that can be told beside the daemon that
/// has the port.
///
/// # Errors
/// A certificate that cannot be used.
pub fn check(listen: &Listen) -> anyhow::Result<()> {
    certificate(listen).map(drop)
}

fn certificate(listen: &Listen) -> anyhow::Result<Option<Arc<Certificate>>> {
    let files = listen.tls.as_ref().filter(|_| listen.http.is_some());
    Ok(files.map(Certificate::load).transpose()?.map(Arc::new))
}

/// Starts to answer HTTP over TCP, where the settings say so; now, or as soon as that may be. With
/// `replaces` this daemon takes the place of another.
///
/// # Errors
/// A certificate that cannot be used, or an address that the settings ask for and that cannot be bound. None
/// of a daemon that replaces another.
pub fn start(core: &Arc<Core>, inherited: &mut Inherited, replaces: bool) -> anyhow::Result<HeldTcp> {
    let held = HeldTcp::default();
    let listen = core.settings().listen.clone();
    let given = inherited.tcp(listen.http);
    let Some(address) = listen.http else { return Ok(held) };
    let certificate = match certificate(&listen) {
        Ok(certificate) => certificate,
        // The program was asked before, so the files have changed in this moment.
        Err(e) if replaces => {
            tracing::error!(error = %e, "HTTP is not answered: {e:#}; mend that, then `matins reexec`");
            return Ok(held);
        }
        Err(e) => return Err(e),
    };
    let asked_for = core.settings().source(KEY) != ValueSource::Default && !replaces;
    let bound = match given {
        Some(given) => Some(adopt(given).context("cannot watch the HTTP listener that was handed over")?),
        None if !address.ip().is_loopback() && certificate.is_none() && no_token(core) => {
            tracing::warn!(
                "{address} ({KEY}) is not bound yet: it can be reached from elsewhere and there is no token; \
                 `matins token create NAME` makes one"
            );
            None
        }
        None => match bind(address) {
            Ok(listener) => Some(listener),
            Err(e) if asked_for => {
                anyhow::bail!(
                    "cannot listen on {address} ({KEY} of {}): {}",
                    core.settings().source(KEY),
                    why(&e)
                )
            }
            // Said where it is tried again.
            Err(_) => None,
        },
    };
    if let Some(listener) = &bound {
        held.hold(listener).context("cannot hold the HTTP listener")?;
        tell(core, listener, certificate.is_some());
    }
    answer(core, bound, address, certificate, held.clone());
    Ok(held)
}

/// What is wrong with an address, and what helps.
fn why(e: &io::Error) -> String {
    let remedy = "set listen.http to another address and port, or to null for none";
    match e.kind() {
        io::ErrorKind::AddrInUse => format!("another process has this port; stop it, or {remedy}"),
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; {remedy}"),
        io::ErrorKind::PermissionDenied => format!("the port is for privileged programs ({e}); {remedy}"),
        _ => format!("{e}; {remedy}"),
    }
}

fn no_token(core: &Core) -> bool {
    *core.tokens.count().borrow() == 0
}

/// Says where HTTP is answered, in the log and in the status.
fn tell(core: &Core, listener: &TcpListener, tls: bool) {
    let Ok(address) = listener.local_addr() else { return };
    let url = format!("{}://{address}", if tls { "https" } else { "http" });
    tracing::info!(http = url, "HTTP is answered at {url}");
    if !tls && !address.ip().is_loopback() {
        tracing::warn!(
            "{address} can be reached from elsewhere and is not encrypted: tokens and results can be read on the \
             way; set listen.tls, or put a proxy with TLS before it"
        );
    }
    let _ = core.http.set(url);
}

/// Answers until the daemon has drained or hands over.
fn answer(
    core: &Arc<Core>,
    bound: Option<TcpListener>,
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    held: HeldTcp,
) {
    let (acting, tasks) = (Arc::clone(core), core.tasks.clone());
    let counted = core.handover.enter_listener();
    tasks.spawn("HTTP listener", OnEnd::Fatal, async move {
        let core = acting;
        let over = closing(&core);
        let listener = match bound {
            Some(listener) => Some(listener),
            None => {
                tokio::select! {
                    listener = later(&core, address, certificate.is_some(), &held) => Some(listener),
                    _ = over => None,
                }
            }
        };
        let (router, tasks, stop) =
            (crate::api::router(Arc::clone(&core)), core.tasks.clone(), core.tasks.stop().clone());
        let over = closing(&core);
        // The store closes when its last handle goes.
        drop(core);
        if let Some(listener) = listener {
            serve_door(TcpDoor { listener, certificate }, router, tasks, over).await;
        }
        drop(counted);
        stop.softened().await;
    });
}

/// Ends when no more is answered; how long answers under way may go on.
fn closing(core: &Core) -> impl Future<Output = Duration> + Send + use<> {
    let (drained, begun) = (core.drained(), core.handover.begun().clone());
    async move {
        tokio::select! {
            () = drained.cancelled() => CLOSE_GRACE,
            () = begun.cancelled() => HANDOVER_GRACE,
        }
    }
}

/// The listener once it may be bound and can be.
async fn later(core: &Core, address: SocketAddr, tls: bool, held: &HeldTcp) -> TcpListener {
    if !address.ip().is_loopback() && !tls {
        // The sender lives as long as the core.
        let _ = core.tokens.count().wait_for(|count| *count > 0).await;
    }
    let mut told = None;
    loop {
        let bound = bind(address).and_then(|listener| held.hold(&listener).map(|()| listener));
        match bound {
            Ok(listener) => {
                tell(core, &listener, tls);
                return listener;
            }
            Err(e) => {
                let said = why(&e);
                if told.as_ref() != Some(&said) {
                    let source = core.settings().source(KEY);
                    tracing::warn!(
                        "HTTP is not answered yet, cannot listen on {address} ({KEY}, {source}): {said}"
                    );
                }
                told = Some(said);
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What a daemon before has left in TIME_WAIT must not keep this one from its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn adopt(given: std::net::TcpListener) -> io::Result<TcpListener> {
    given.set_nonblocking(true)?;
    TcpListener::from_std(given)
}

/// A TCP listener, with TLS where there is a certificate.
pub(super) struct TcpDoor {
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
}

impl Door for TcpDoor {
    type Stream = TcpStream;
    type Io = Either<TcpStream, TlsStream<TcpStream>>;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(self.listener.accept().await?.0)
    }

    fn who(&self, stream: &TcpStream) -> Option<Who> {
        // A peer that has gone already has no address any more.
        let (address, local) = (stream.peer_addr().ok()?.ip(), stream.local_addr().ok()?.ip());
        Some(Who::Peer(Peer { address, local }))
    }

    fn open(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Io>> + Send + 'static {
        let tls = self.certificate.as_ref().map(|certificate| certificate.acceptor());
        async move {
            // An answer is written at once, not when the one before is acknowledged.
            stream.set_nodelay(true)?;
            match tls {
                Some(tls) => Ok(Either::Right(tls.accept(stream).await?)),
                None => Ok(Either::Left(stream)),
            }
        }
    }
}

/// Answers the API on `listener` as long as the daemon of `core` lives: for daemons that are part of another
/// program, such as a test.
///
/// # Errors
/// Where the listener cannot be watched.
pub fn serve(core: &Arc<Core>, listener: std::net::TcpListener) -> io::Result<()> {
    let listener = adopt(listener)?;
    let address = listener.local_addr()?;
    answer(core, Some(listener), address, None, HeldTcp::default());
    Ok(())
}
