//! Listening: the control socket and HTTP over TCP, accepted by one loop of our own.
//!
//! `axum::serve` arms no timer, so a client that sends its header byte by byte would hold its place
//! for ever, and it has no bound on connections. This loop gives every connection a header timeout and
//! takes at most [`CONNECTIONS_MAX`] at once. Where they are all taken, the one that has been idle for
//! longest makes room ([`Places`]): who only holds connections cannot keep others out. Where all are being
//! answered, the next waits in the kernel's queue. The end comes in two steps: what is being answered is
//! finished, then, after [`CLOSE_GRACE`], cut. How long a body may take is up to the router
//! (`api::BODY_DEADLINE`), which alone reads bodies.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub use super::control::{ControlSocket, Error, Kept, SOCKET_PATH_MAX, adopt_unix, bind_unix};
use super::places::{Place, Places};
use crate::api::{Caller, Callers, Peer};
use crate::task::{OnEnd, Tasks};

/// Most connections of one listener at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest time that a request's head may take to arrive; an idle connection is closed after it too.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers that are under way may go on after the listener was told to close.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// As [`CLOSE_GRACE`], where a successor answers soon: who follows something comes back to it.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(1);
/// Rest after a failed accept, mostly a lack of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Time between two looks whether the socket's file is still there.
const SOCKET_CHECK: Duration = Duration::from_secs(2);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// Somebody the kernel knows.
    Caller(Caller),
    /// Somebody a token will make known.
    Peer(Peer),
}

/// Where connections come from.
pub(super) trait Door: Sync {
    /// A connection as it comes.
    type Stream: Send + 'static;
    /// A connection that can be spoken over.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who is at its other end; one of nobody is not answered.
    fn who(&self, stream: &Self::Stream) -> Option<Who>;

    /// What has to happen before it can be spoken over. Its peer may be slow.
    fn open(&self, stream: Self::Stream) -> impl Future<Output = io::Result<Self::Io>> + Send + 'static;
}

/// The control socket, and what tells who connects there.
struct UnixDoor<'a> {
    listener: &'a UnixListener,
    callers: &'a Callers,
}

impl Door for UnixDoor<'_> {
    type Stream = UnixStream;
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    fn who(&self, stream: &UnixStream) -> Option<Who> {
        match stream.peer_cred() {
            Ok(peer) => Some(Who::Caller(self.callers.identify(stream, peer.uid(), peer.pid()))),
            Err(e) => {
                tracing::warn!(error = %e, "a connection without credentials was closed: {e}");
                None
            }
        }
    }

    fn open(&self, stream: UnixStream) -> impl Future<Output = io::Result<UnixStream>> + Send + 'static {
        std::future::ready(Ok(stream))
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
    serve(socket, &callers, Server::new(router, tasks), closing).await;
}

async fn serve(
    mut socket: ControlSocket,
    callers: &Callers,
    server: Server,
    closing: impl Future<Output = ()> + Send,
) {
    let stop = server.tasks.stop().clone();
    let mut closing = std::pin::pin!(closing);
    loop {
        let door = UnixDoor { listener: &socket.listener, callers };
        tokio::select! {
            () = server.accept_all(&door) => break,
            () = &mut closing => break,
            () = stop.hardened() => break,
            () = socket.lost(server.socket_check) => {}
        }
        socket.bind_again().await;
    }
    let kept = socket.is_kept();
    drop(socket);
    server.close(if kept { HANDOVER_GRACE } else { CLOSE_GRACE }).await;
}

/// Answers at a door until `closing` ends, which says how long answers under way may go on, or the stop is
/// hard.
pub(super) async fn serve_door(
    door: impl Door,
    router: Router,
    tasks: Tasks,
    closing: impl Future<Output = Duration> + Send,
) {
    let server = Server::new(router, tasks);
    let stop = server.tasks.stop().clone();
    let grace = tokio::select! {
        () = server.accept_all(&door) => CLOSE_GRACE,
        grace = closing => grace,
        () = stop.hardened() => Duration::ZERO,
    };
    drop(door);
    server.close(grace).await;
}

/// What the connections of one listener share.
struct Server {
    router: Router,
    tasks: Tasks,
    header_timeout: Duration,
    socket_check: Duration,
    places: Arc<Places>,
    graceful: GracefulShutdown,
    cut: CancellationToken,
}

impl Server {
    fn new(router: Router, tasks: Tasks) -> Self {
        Self {
            router,
            tasks,
            header_timeout: HEADER_TIMEOUT,
            socket_check: SOCKET_CHECK,
            places: Places::new(CONNECTIONS_MAX),
            graceful: GracefulShutdown::new(),
            cut: CancellationToken::new(),
        }
    }

    async fn accept_all(&self, door: &impl Door) {
        loop {
            match door.accept().await {
                Ok(stream) => {
                    let Some(who) = door.who(&stream) else { continue };
                    // Those who wait meanwhile wait in the kernel's queue.
                    let place = self.places.enter().await;
                    self.take(door.open(stream), who, place);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted: {e}");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Answers a connection in a task of its own, which gives its place back.
    fn take<Io>(&self, opening: impl Future<Output = io::Result<Io>> + Send + 'static, who: Who, place: Place)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = Arc::new(place);
        let (router, held) = (self.router.clone(), Arc::clone(&place));
        let service = service_fn(move |request| answer(router.clone(), who.clone(), &held, request));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.header_timeout);
        let (patience, graceful) = (self.header_timeout, self.graceful.watcher());
        let cut = self.cut.clone();
        self.tasks.spawn("connection", OnEnd::Logged, async move {
            let spoken = async {
                match tokio::time::timeout(patience, opening).await {
                    Ok(Ok(io)) => {
                        let served = graceful.watch(http.serve_connection(TokioIo::new(io), service));
                        log_end(served.await);
                    }
                    Ok(Err(e)) => tracing::debug!(error = %e, "a connection was not opened: {e}"),
                    Err(_) => tracing::debug!("a connection was not opened in time"),
                }
            };
            tokio::select! {
                () = spoken => {}
                () = place.taken() => {}
                () = cut.cancelled() => {}
            }
        });
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

/// Answers a request. As long as its answer is on the way, its connection is not idle.
fn answer(
    router: Router,
    who: Who,
    place: &Arc<Place>,
    mut request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<Response, io::Error>> + use<> {
    let busy = place.begin();
    match who {
        Who::Caller(caller) => drop(request.extensions_mut().insert(caller)),
        Who::Peer(peer) => drop(request.extensions_mut().insert(peer)),
    }
    async move {
        // Its place was given away in the moment in which it came: nothing of it is done.
        let busy = busy.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        let answered: Result<Response, Infallible> = router.oneshot(request.map(Body::new) as Request).await;
        match answered {
            Ok(answer) => Ok(answer.map(|body| Body::new(busy.until_sent(body)))),
            Err(never) => match never {},
        }
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
    use std::path::{Path, PathBuf};

    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

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
        let who = |Extension(c): Extension<Caller>| async move { format!("{} {:?}", c.name, c.pid) };
        let (tasks, closing) = served(&path, Router::new().route("/", get(who))).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        let name = crate::api::Users::default().name(rustix::process::getuid().as_raw());
        let me = format!("{name} Some({})", std::process::id());
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
        let server = Server { header_timeout, ..Server::new(Router::new(), tasks.clone()) };
        let socket = bind_unix(&path).await.unwrap();
        tasks.spawn("listener", OnEnd::Logged, async move {
            serve(socket, &Callers::default(), server, std::future::pending()).await;
        });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let begun = std::time::Instant::now();
        let answer = ask(&mut stream, "GET / HTTP/1.1\r\nHost:").await;
        assert_eq!(answer, "", "it is closed without an answer");
        assert!(begun.elapsed() >= header_timeout);
        tasks.stop().hard();
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_is_made_anew_and_nobody_is_cut() {
        let (_dir, path) = path();
        let tasks = Tasks::new(Stop::new());
        let app = Router::new().route("/", get(|| async { "ok" }));
        let socket_check = Duration::from_millis(10);
        let server = Server { socket_check, ..Server::new(app, tasks.clone()) };
        let mut socket = bind_unix(&path).await.unwrap();
        let kept = socket.kept().unwrap();
        tasks.spawn("listener", OnEnd::Logged, async move {
            serve(socket, &Callers::default(), server, std::future::pending()).await;
        });
        let mut before = UnixStream::connect(&path).await.unwrap();
        let again = async |what: &str| {
            let begun = std::time::Instant::now();
            loop {
                if let Ok(mut stream) = UnixStream::connect(&path).await {
                    assert!(ask(&mut stream, GET).await.ends_with("ok"), "{what}");
                    return;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
                tokio::task::yield_now().await;
            }
        };
        std::fs::remove_file(&path).unwrap();
        again("it was removed").await;
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        again("with its folder").await;
        assert!(ask(&mut before, GET).await.ends_with("ok"), "who was connected stays");
        let of_kept = kept.listener().local_addr().unwrap();
        assert_eq!(of_kept.as_pathname(), Some(path.as_path()));
        tasks.stop().hard();
        tasks.join().await;
        assert!(UnixStream::connect(&path).await.is_err(), "its file goes with it");
        assert!(!path.exists());
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
    async fn beyond_the_cap_the_longest_idle_makes_room() {
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
        assert!(ask(&mut extra, GET).await.ends_with("ok"));
        let mut first = held.remove(0);
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "it was idle for longest");
        let mut newest = held.pop().unwrap();
        assert!(ask(&mut newest, GET).await.ends_with("ok"), "who came later keeps its place");
        closing.cancel();
        tasks.join().await;
    }
}
