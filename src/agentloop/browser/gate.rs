//! The only way from the browser to the network: a SOCKS server on loopback, in the agent's process.
//!
//! The browser resolves no name and opens no connection but to it. So what an agent may reach is decided where a
//! connection is made, for pages, their redirects and resources, frames, workers and sockets alike: the name must be
//! among `hosts:`, every address that it has must be allowed, and one of these very addresses is connected to. What
//! was refused is kept for a while, so that the model can be told why a page did not come.
//!
//! It serves the one browser that it was opened for, and hangs up on everybody else; [`peer`](super::peer) says how
//! that is known.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::peer::Peers;
use crate::net::{self, Hosts, Reach};
use crate::task::{self, OnEnd, Stop, Tasks};

/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 512;
/// Longest time until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Most refusals that are kept.
const REFUSALS_MAX: usize = 20;
/// Longest answer of a proxy before its connection stands, bytes.
const PROXY_HEAD_MAX: usize = 8 << 10;

/// Answers of SOCKS, version 5.
const DONE: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const UNREACHABLE: u8 = 4;
const NO_SUCH_COMMAND: u8 = 7;

/// The server. Dropping it ends it and every connection through it.
#[derive(Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Shared {
    hosts: Hosts,
    proxy: Option<Proxy>,
    refused: Mutex<VecDeque<Refusal>>,
    open: AtomicUsize,
    /// Who is served; `None`: nobody yet.
    peers: Mutex<Option<Peers>>,
}

/// A connection that was not made because it is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) host: String,
    pub(super) why: String,
}

/// A proxy behind the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proxy {
    socks: bool,
    host: String,
    port: u16,
    /// User and password, for `http://`.
    authorization: Option<String>,
}

impl Proxy {
    fn read(text: &str, password: Option<&str>) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|e| format!("the proxy is no address: {e}"))?;
        let (socks, default) = match url.scheme() {
            "http" => (false, 80),
            "socks5" => (true, 1080),
            other => {
                return Err(format!("the proxy begins with {other}:, but only http: and socks5: are known"));
            }
        };
        let host = url.host_str().ok_or("the proxy names no host")?.trim_matches(['[', ']']).to_owned();
        let user = format!("{}:{}", url.username(), password.unwrap_or_default());
        let authorization = (user.len() > 1).then(|| base64::engine::general_purpose::STANDARD.encode(user));
        Ok(Self { socks, host, port: url.port().unwrap_or(default), authorization })
    }
}

/// Why a connection does not stand.
enum NotMade {
    Refused(String),
    Failed,
}

impl Gate {
    /// Opens it for these hosts; behind it a proxy, where one is named.
    pub(super) async fn open(
        hosts: &[String],
        proxy: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, String> {
        let proxy = proxy.map(|proxy| Proxy::read(proxy, password)).transpose()?;
        let cannot = |e: io::Error| format!("the browser's way to the network cannot be opened: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (hosts, refused) = (Hosts::read(hosts), Mutex::default());
        let shared =
            Arc::new(Shared { hosts, proxy, refused, open: AtomicUsize::new(0), peers: Mutex::default() });
        let tasks = Tasks::new(Stop::new());
        let (own, all) = (Arc::clone(&shared), tasks.clone());
        tasks.spawn("browser gate", OnEnd::Logged, async move {
            let stop = all.stop().clone();
            loop {
                let accepted = tokio::select! { accepted = listener.accept() => accepted, () = stop.hardened() => return };
                let Ok((stream, _)) = accepted else { continue };
                if own.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                    continue;
                }
                own.open.fetch_add(1, Ordering::Relaxed);
                let (own, stop) = (Arc::clone(&own), stop.clone());
                all.spawn("browser connection", OnEnd::Logged, async move {
                    // How it ends is the browser's to tell.
                    tokio::select! { _ = own.serve(stream) => {}, () = stop.hardened() => {} }
                    own.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, shared, tasks })
    }

    /// Serves this process and all below it from now on, and nobody else.
    pub(super) fn serve_only(&self, process: i32) {
        *self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Peers::below(process));
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was refused of a host; where a way led on elsewhere is told as what the page does not reach.
    pub(super) fn take_refusal(&self, host: &str) -> Option<Refusal> {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let at = refused.iter().position(|refusal| refusal.host == host)?;
        refused.remove(at)
    }

    /// What was refused since it was last asked, each host once.
    pub(super) fn take_refusals(&self) -> Vec<Refusal> {
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *refused).into()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.tasks.stop().hard();
    }
}

impl Shared {
    async fn serve(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        if !self.is_own(&stream).await? {
            return Ok(());
        }
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, asked(&mut stream)).await??;
        let Some((host, port)) = asked else {
            return answer(&mut stream, NO_SUCH_COMMAND).await;
        };
        let made = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&host, port)).await;
        let mut outward = match made.unwrap_or(Err(NotMade::Failed)) {
            Ok(outward) => outward,
            Err(NotMade::Failed) => return answer(&mut stream, UNREACHABLE).await,
            Err(NotMade::Refused(why)) => {
                self.refuse(host, why);
                return answer(&mut stream, NOT_ALLOWED).await;
            }
        };
        answer(&mut stream, DONE).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut outward).await.map(drop)
    }

    /// Whether it is one of the browser's.
    async fn is_own(self: &Arc<Self>, stream: &TcpStream) -> io::Result<bool> {
        let (SocketAddr::V4(peer), SocketAddr::V4(gate)) = (stream.peer_addr()?, stream.local_addr()?) else {
            return Ok(false);
        };
        let shared = Arc::clone(self);
        let own = task::blocking(move || {
            let mut peers = shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.as_mut().is_some_and(|peers| peers.own(peer, gate))
        });
        own.await.map_err(io::Error::other)
    }

    fn refuse(&self, host: String, why: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|before| before.host != host);
        if refused.len() == REFUSALS_MAX {
            refused.pop_front();
        }
        refused.push_back(Refusal { host, why });
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, NotMade> {
        let reach = self.hosts.reach(host, Some(port)).map_err(|e| NotMade::Refused(e.to_string()))?;
        let Some(proxy) = &self.proxy else { return dial(host, port, reach).await };
        // What a name means is the proxy's affair there; what its text shows is not.
        net::check_host(host, reach).map_err(|e| NotMade::Refused(e.to_string()))?;
        let mut stream = dial(&proxy.host, proxy.port, Reach::PrivateToo).await?;
        let through = if proxy.socks {
            through_socks(&mut stream, host, port).await
        } else {
            through_http(&mut stream, proxy, host, port).await
        };
        through.map(|()| stream).map_err(|_| NotMade::Failed)
    }
}

async fn dial(host: &str, port: u16, reach: Reach) -> Result<TcpStream, NotMade> {
    net::connect(host, port, reach).await.map_err(|e| match e {
        net::NotConnected::Refused(e) => NotMade::Refused(e.to_string()),
        net::NotConnected::Failed(_) => NotMade::Failed,
    })
}

/// What a client of SOCKS asks for: the host and port to connect to; `None`: something else.
async fn asked(stream: &mut TcpStream) -> io::Result<Option<(String, u16)>> {
    let [version, methods] = take(stream).await?;
    if version != 5 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered).await?;
    stream.write_all(&[5, 0]).await?;
    let [_, command, _, kind] = take(stream).await?;
    let host = match kind {
        1 => IpAddr::V4(Ipv4Addr::from(take::<4>(stream).await?)).to_string(),
        4 => IpAddr::V6(Ipv6Addr::from(take::<16>(stream).await?)).to_string(),
        3 => {
            let [length] = take(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            let name = String::from_utf8(name).map_err(io::Error::other)?;
            name.trim_end_matches('.').to_ascii_lowercase()
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let port = u16::from_be_bytes(take(stream).await?);
    Ok((command == 1).then_some((host, port)))
}

async fn take<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map(|_| bytes)
}

async fn answer(stream: &mut TcpStream, code: u8) -> io::Result<()> {
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

/// Asks an HTTP proxy for a connection.
async fn through_http(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let authorization = proxy.authorization.as_ref();
    let authorization =
        authorization.map(|own| format!("proxy-authorization: Basic {own}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what comes behind the head is the other side's.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend(take::<1>(stream).await?);
    }
    let accepted = head.starts_with(b"HTTP/1.") && head.get(9) == Some(&b'2');
    accepted.then_some(()).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// Asks a SOCKS proxy for a connection.
async fn through_socks(stream: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
    stream.write_all(&[5, 1, 0]).await?;
    if take(stream).await? != [5, 0] {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let length = u8::try_from(host.len()).map_err(io::Error::other)?;
    let mut request = vec![5, 1, 0, 3, length];
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    let [_, code, _, kind] = take(stream).await?;
    let rest = match kind {
        1 => 4,
        4 => 16,
        _ => usize::from(take::<1>(stream).await?[0]),
    };
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await?;
    (code == DONE).then_some(()).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::own_pid;

    /// A gate for the test itself.
    async fn open(hosts: &[String], proxy: Option<&str>, password: Option<&str>) -> Result<Gate, String> {
        let gate = Gate::open(hosts, proxy, password).await?;
        gate.serve_only(own_pid());
        Ok(gate)
    }

    /// What the gate answers to a request for this host, and what comes through.
    async fn ask(gate: &Gate, host: &str, port: u16) -> (u8, String) {
        let mut stream = TcpStream::connect(gate.address()).await.unwrap();
        stream.write_all(&[5, 1, 0]).await.unwrap();
        assert_eq!(take(&mut stream).await.unwrap(), [5, 0]);
        let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
        request.extend(host.as_bytes());
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await.unwrap();
        let head: [u8; 10] = take(&mut stream).await.unwrap();
        let mut text = String::new();
        if head[1] == DONE {
            stream.write_all(b"x").await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
        }
        (head[1], text)
    }

    /// Answers each connection with what it read first, and with `said`; its port.
    fn server(said: &'static str, reads: usize) -> u16 {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = vec![0; reads];
                if stream.read_exact(&mut buffer).is_ok() {
                    let _ = stream.write_all(said.as_bytes());
                }
            }
        });
        port
    }

    fn list(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[tokio::test]
    async fn only_what_is_allowed_is_connected_to() {
        let port = server("inside", 1);
        let named = open(&list(&["localhost", "*.example"]), None, None).await.unwrap();
        assert_eq!(ask(&named, "localhost", port).await, (DONE, "inside".to_owned()));
        assert_eq!(ask(&named, "LOCALHOST.", port).await.0, DONE);
        for other in ["127.0.0.1", "other.test", "example"] {
            assert_eq!(ask(&named, other, port).await.0, NOT_ALLOWED, "{other}");
        }
        let refused = named.take_refusals();
        assert_eq!(refused.len(), 3);
        assert!(refused[0].why.contains("not among the hosts"), "{refused:?}");
        assert!(named.take_refusals().is_empty());
        let public = open(&[], None, None).await.unwrap();
        for other in ["127.0.0.1", "localhost", "169.254.169.254", "2130706433", "::1"] {
            assert_eq!(ask(&public, other, port).await.0, NOT_ALLOWED, "{other}");
        }
        let everywhere = open(&list(&["169.254.169.254"]), None, None).await.unwrap();
        assert_eq!(ask(&everywhere, "169.254.169.254", 80).await.0, NOT_ALLOWED, "never");
        assert_eq!(ask(&named, "localhost", 1).await.0, UNREACHABLE);
    }

    #[tokio::test]
    async fn a_proxy_is_asked_by_name_after_the_check() {
        let request = "CONNECT shop.example:443 HTTP/1.1\r\nhost: shop.example:443\r\nproxy-authorization: Basic dTpw\r\n\r\n";
        let port = server("HTTP/1.1 200 OK\r\n\r\nthrough", request.len());
        let hosts = list(&["shop.example"]);
        let gate = open(&hosts, Some(&format!("http://u@127.0.0.1:{port}")), Some("p")).await.unwrap();
        let (code, text) = ask(&gate, "shop.example", 443).await;
        assert_eq!((code, text.as_str()), (DONE, "through"));
        assert_eq!(ask(&gate, "other.example", 443).await.0, NOT_ALLOWED);
        let inner = server("inside", 1);
        let first = open(&list(&["localhost"]), None, None).await.unwrap();
        let second =
            open(&list(&["localhost"]), Some(&format!("socks5://{}", first.address())), None).await.unwrap();
        assert_eq!(ask(&second, "localhost", inner).await, (DONE, "inside".to_owned()));
        let public = open(&[], Some(&format!("socks5://{}", first.address())), None).await.unwrap();
        assert_eq!(ask(&public, "localhost", inner).await.0, NOT_ALLOWED, "a proxy is no way around");
        assert!(Gate::open(&[], Some("ftp://x"), None).await.unwrap_err().contains("only http: and socks5:"));
    }

    #[tokio::test]
    async fn whoever_is_not_the_browser_is_hung_up_on() {
        let port = server("inside", 1);
        let gate = Gate::open(&list(&["localhost"]), None, None).await.unwrap();
        let greeted = async || {
            let mut stream = TcpStream::connect(gate.address()).await.unwrap();
            let _ = stream.write_all(&[5, 1, 0]).await;
            take::<2>(&mut stream).await.is_ok()
        };
        assert!(!greeted().await, "there is no browser yet");
        gate.serve_only(i32::MAX);
        assert!(!greeted().await, "the browser is another process");
        gate.serve_only(own_pid());
        assert!(greeted().await);
        assert_eq!(ask(&gate, "localhost", port).await, (DONE, "inside".to_owned()));
    }
}
