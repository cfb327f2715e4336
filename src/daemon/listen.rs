//! Listening: the control socket, accepted by a loop of our own.
//!
//! `axum::serve` arms no timer, so a client that sends its header byte by byte would hold its place
//! for ever, and it has no bound on connections. This loop gives every connection a header timeout,
//! takes at most [`CONNECTIONS_MAX`] (the others wait in the kernel's queue, they are not refused),
//! and ends them in two steps: what is being answered is finished, then, after [`CLOSE_GRACE`], cut.
//! How long a body may take is up to the router (`api::BODY_DEADLINE`), which alone reads bodies.
//!
//! The socket's mode is set between `bind` and `listen`. Until `listen` the kernel refuses every
//! connection, so nobody gets in by the mode that the umask happened to leave; the umask itself
//! belongs to the whole process and is not touched.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use super::activation::GivenSocket;
use crate::api::{Caller, Callers};
use crate::task::{OnEnd, Tasks};

/// Most connections of one listener at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest time that a request's head may take to arrive; an idle connection is closed after it too.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers that are under way may go on after the listener was told to close.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// As [`CLOSE_GRACE`], where a successor answers soon: who follows something comes back to it.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(1);
/// Longest path of a Unix socket, bytes.
pub const SOCKET_PATH_MAX: usize = 107;
/// Mode of the control socket: its user and its group.
const SOCKET_MODE: u32 = 0o660;
/// Mode of a directory that is made for it.
const DIR_MODE: u32 = 0o750;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// How long a socket that is in the way is asked whether anybody answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Rest after a failed accept, mostly a lack of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why the daemon does not listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not fit into a socket address.
    #[error(
        "the path of the control socket is {} bytes long, the system allows {SOCKET_PATH_MAX}: {}; set listen.socket to a shorter one",
        path.as_os_str().len(),
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers on the socket.
    #[error("another process answers on {}; stop it, or set listen.socket to another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else lies at the path; it is not ours to remove.
    #[error("{} exists and is no socket; remove it, or set listen.socket to another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A bound control socket. Clients may connect from now on; they are answered by [`serve_unix`].
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    /// None where it is somebody else's to remove.
    file: Option<SocketFile>,
    kept: Arc<AtomicBool>,
}

/// The socket's file, removed with this value if it is still the one that was made, and nobody keeps it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
    kept: Arc<AtomicBool>,
}

/// A control socket that outlives the one who answers on it.
#[derive(Debug)]
pub struct Kept {
    /// The socket, which listens.
    pub listener: std::os::unix::net::UnixListener,
    /// Whether its file is the daemon's to remove.
    pub own: bool,
    file_stays: Arc<AtomicBool>,
}

impl Kept {
    /// What makes its file stay.
    pub fn keeper(&self) -> impl Fn() + Send + use<> {
        let file_stays = Arc::clone(&self.file_stays);
        move || file_stays.store(true, Ordering::SeqCst)
    }
}

impl ControlSocket {
    /// A second hold on the socket; clients may connect as long as there is one.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn kept(&self) -> io::Result<Kept> {
        let listener = self.listener.as_fd().try_clone_to_owned()?.into();
        Ok(Kept { listener, own: self.file.is_some(), file_stays: Arc::clone(&self.kept) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.kept.load(Ordering::SeqCst) {
            return;
        }
        let same =
            std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.device_and_inode);
        if same {
            // One that stays is taken for stale by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds the control socket at `path`. A socket that nobody answers on is replaced.
///
/// # Errors
/// [`Error`] says what is in the way and what to do.
pub async fn bind_unix(path: &Path) -> Result<ControlSocket, Error> {
    let system = |what| {
        let path = path.to_owned();
        move |source: io::Error| Error::System { what, path, source }
    };
    let errno = |what| {
        let fail = system(what);
        move |e: rustix::io::Errno| fail(e.into())
    };
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    if let Some(dir) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        made.map_err(system("create the directory of"))?;
    }
    clear(path).await?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(errno("make a socket for"))?;
    let address = SocketAddrUnix::new(path).map_err(errno("use the path"))?;
    rustix::net::bind(&socket, &address).map_err(errno("bind"))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(SOCKET_MODE)).map_err(errno("set the mode of"))?;
    let meta = std::fs::symlink_metadata(path).map_err(system("look at"))?;
    let kept = Arc::default();
    let file = Some(SocketFile::of(path, &meta, &kept));
    rustix::net::listen(&socket, BACKLOG).map_err(errno("listen on"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(system("watch"))?;
    Ok(ControlSocket { listener, file, kept })
}

/// Takes over a control socket that was there before this daemon. Needs a runtime.
///
/// # Errors
/// Where it cannot be watched.
pub fn adopt_unix(given: GivenSocket) -> Result<ControlSocket, Error> {
    let path = given.listener.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_owned));
    let path = path.unwrap_or_default();
    let fail =
        |source| Error::System { what: "watch the socket that was handed over", path: path.clone(), source };
    let meta = std::fs::symlink_metadata(&path).ok().filter(|_| given.own);
    given.listener.set_nonblocking(true).map_err(fail)?;
    let listener = UnixListener::from_std(given.listener).map_err(fail)?;
    let kept = Arc::default();
    let file = meta.map(|meta| SocketFile::of(&path, &meta, &kept));
    Ok(ControlSocket { listener, file, kept })
}

impl SocketFile {
    fn of(path: &Path, meta: &std::fs::Metadata, kept: &Arc<AtomicBool>) -> Self {
        let device_and_inode = (meta.dev(), meta.ino());
        Self { path: path.to_owned(), device_and_inode, kept: Arc::clone(kept) }
    }
}

/// Removes a socket that nobody answers on.
async fn clear(path: &Path) -> Result<(), Error> {
    let system = |what, source| Error::System { what, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("look at", e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "removing a socket that nobody answers on: {}", path.display());
            std::fs::remove_file(path).map_err(|e| system("remove the stale socket", e))
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue is an answer too, and so is one that takes too long.
        Ok(Ok(_)) | Err(_) => Err(Error::InUse { path: path.to_owned() }),
        Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::InUse { path: path.to_owned() }),
        Ok(Err(e)) => Err(system("ask who answers on", e)),
    }
}

/// Answers on a bound socket until `closing` ends or the stop is hard. Then the socket's file is
/// removed, answers under way are finished within [`CLOSE_GRACE`], and the rest is cut.
///
/// `closing` is not the soft stop: a daemon that drains still answers, so that people can look and
/// cancel; what it no longer takes is refused by the engine.
pub async fn serve_unix(
    socket: ControlSocket,
    router: Router,
    callers: Callers,
    tasks: Tasks,
    closing: impl Future<Output = ()> + Send,
) {
    serve(socket, Server::new(router, callers, tasks), closing).await;
}

async fn serve(socket: ControlSocket, server: Server, closing: impl Future<Output = ()> + Send) {
    let ControlSocket { listener, file, kept } = socket;
    let stop = server.tasks.stop().clone();
    tokio::select! {
        () = server.accept_all(&listener) => {}
        () = closing => {}
        () = stop.hardened() => {}
    }
    drop(file);
    drop(listener);
    server.close(if kept.load(Ordering::SeqCst) { HANDOVER_GRACE } else { CLOSE_GRACE }).await;
}

/// What the connections of one listener share.
struct Server {
    router: Router,
    tasks: Tasks,
    callers: Callers,
    header_timeout: Duration,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
    cut: CancellationToken,
}

impl Server {
    fn new(router: Router, callers: Callers, tasks: Tasks) -> Self {
        Self {
            router,
            tasks,
            callers,
            header_timeout: HEADER_TIMEOUT,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            graceful: GracefulShutdown::new(),
            cut: CancellationToken::new(),
        }
    }

    async fn accept_all(&self, listener: &UnixListener) {
        loop {
            // A place first: without one nothing is accepted and the kernel's queue holds the rest.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => self.take(stream, place),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted: {e}");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Answers a connection in a task of its own, which gives its place back.
    fn take(&self, stream: UnixStream, place: OwnedSemaphorePermit) {
        let Some(caller) = self.caller(&stream) else {
            return;
        };
        let service = TowerToHyperService::new(Extension(caller).layer(self.router.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let (answer, cut) = (self.graceful.watch(connection), self.cut.clone());
        self.tasks.spawn("connection", OnEnd::Logged, async move {
            tokio::select! {
                ended = answer => log_end(ended),
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Who connected; a peer that the kernel does not know is not answered.
    fn caller(&self, stream: &UnixStream) -> Option<Caller> {
        match stream.peer_cred() {
            Ok(peer) => Some(self.callers.identify(stream, peer.uid(), peer.pid())),
            Err(e) => {
                tracing::warn!(error = %e, "a connection without credentials was closed: {e}");
                None
            }
        }
    }

    async fn close(self, grace: Duration) {
        let stop = self.tasks.stop().clone();
        tokio::select! {
            () = self.graceful.shutdown() => {}
            () = tokio::time::sleep(grace) => {}
            () = stop.hardened() => {}
        }
        self.cut.cancel();
    }
}

/// A connection that ends early is its peer's doing: it left in the middle, was too slow, or spoke
/// something else.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended early: {e}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::task::Stop;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/matins.sock");
        (dir, path)
    }

    /// A served router; cancel the token to close it.
    async fn served(path: &Path, router: Router) -> (Tasks, CancellationToken) {
        let tasks = Tasks::new(Stop::new());
        let closing = CancellationToken::new();
        let socket = bind_unix(path).await.unwrap();
        let serving =
            serve_unix(socket, router, Callers::default(), tasks.clone(), closing.clone().cancelled_owned());
        tasks.spawn("listener", OnEnd::Logged, serving);
        (tasks, closing)
    }

    async fn ask(stream: &mut UnixStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn the_socket_is_for_user_and_group_and_goes_with_the_listener() {
        let (_dir, path) = path();
        let socket = bind_unix(&path).await.unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()) & !0o750, 0);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_any_more_stays() {
        let (_dir, path) = path();
        let socket = bind_unix(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(socket);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let (_dir, path) = path();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "it is stale");
        let first = bind_unix(&path).await.unwrap();
        assert!(matches!(bind_unix(&path).await, Err(Error::InUse { .. })));
        assert!(path.exists());
        drop(first);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(bind_unix(&path).await, Err(Error::NotASocket { .. })));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(bind_unix(&path).await, Err(Error::NotASocket { .. })));
    }

    #[tokio::test]
    async fn a_path_has_at_most_107_bytes() {
        let dir = tempfile::Builder::new().prefix("m").tempdir_in("/tmp").unwrap();
        let room = SOCKET_PATH_MAX - dir.path().as_os_str().len() - 1;
        bind_unix(&dir.path().join("x".repeat(room))).await.unwrap();
        let long = bind_unix(&dir.path().join("x".repeat(room + 1))).await;
        assert!(matches!(long, Err(Error::TooLong { .. })));
    }

    #[tokio::test]
    async fn the_peer_is_known_and_panics_and_ends_are_its_own() {
        let (_dir, path) = path();
        let who = |Extension(c): Extension<Caller>| async move { format!("{} {:?}", c.uid, c.pid) };
        let (tasks, closing) = served(&path, Router::new().route("/", get(who))).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        let me = format!("{} Some({})", rustix::process::getuid().as_raw(), std::process::id());
        assert!(answer.ends_with(&me), "{answer}");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        assert!(ask(&mut stream, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        closing.cancel();
        tasks.join().await;
        assert!(UnixStream::connect(&path).await.is_err());
    }

    #[tokio::test]
    async fn closing_finishes_what_is_being_answered() {
        let (_dir, path) = path();
        let begun = Arc::new(Semaphore::new(0));
        let go = Arc::new(Semaphore::new(0));
        let (begin, wait) = (Arc::clone(&begun), Arc::clone(&go));
        let slow = move || async move {
            begin.add_permits(1);
            let _permit = wait.acquire().await.unwrap();
            "done"
        };
        let (tasks, closing) = served(&path, Router::new().route("/", get(slow))).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let idle = UnixStream::connect(&path).await.unwrap();
        let _permit = begun.acquire().await.unwrap();
        closing.cancel();
        go.add_permits(1);
        tasks.join().await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        drop(idle);
    }

    #[tokio::test]
    async fn a_slow_head_is_cut() {
        let (_dir, path) = path();
        let tasks = Tasks::new(Stop::new());
        let header_timeout = Duration::from_millis(50);
        let server =
            Server { header_timeout, ..Server::new(Router::new(), Callers::default(), tasks.clone()) };
        let socket = bind_unix(&path).await.unwrap();
        tasks.spawn("listener", OnEnd::Logged, serve(socket, server, std::future::pending()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let begun = std::time::Instant::now();
        let answer = ask(&mut stream, "GET / HTTP/1.1\r\nHost:").await;
        assert_eq!(answer, "", "it is closed without an answer");
        assert!(begun.elapsed() >= header_timeout);
        tasks.stop().hard();
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_hard_stop_cuts_what_hangs() {
        let (_dir, path) = path();
        let begun = Arc::new(Semaphore::new(0));
        let begin = Arc::clone(&begun);
        let hang = move || async move {
            begin.add_permits(1);
            std::future::pending::<()>().await;
        };
        let (tasks, _closing) = served(&path, Router::new().route("/", get(hang))).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let _permit = begun.acquire().await.unwrap();
        tasks.stop().hard();
        tasks.join().await;
        let mut answer = String::new();
        assert_eq!(stream.read_to_string(&mut answer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_beyond_the_cap_wait_for_a_place() {
        let (_dir, path) = path();
        let (tasks, closing) = served(&path, Router::new().route("/", get(|| async { "ok" }))).await;
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        // The last of them is answered only after all before it were accepted.
        let mut last = held.pop().unwrap();
        assert!(ask(&mut last, GET).await.ends_with("ok"));
        held.push(UnixStream::connect(&path).await.unwrap());
        let mut extra = UnixStream::connect(&path).await.unwrap();
        extra.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let early = tokio::time::timeout(Duration::from_millis(200), extra.read_to_string(&mut answer)).await;
        assert!(early.is_err(), "it has no place yet");
        held.clear();
        extra.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
        closing.cancel();
        tasks.join().await;
    }
}
