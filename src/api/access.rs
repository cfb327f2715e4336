//! Coming in over TCP: for whom a request is meant, and who sends it.
//!
//! In this order, so that nothing is said to who should not be here: the `Host` must be ours, or a page
//! of the web could speak to the daemon under a name that it makes resolve to us (421); then a token must
//! be good (401). That a page of another site may not change anything is [`cross_site`]'s. What a known
//! caller may do is the business of [`Caller`].
//!
//! A bad token costs its sender: from one address [`FAILED_MAX`] in [`FAILED_WINDOW_MS`] are answered, then
//! 429. A good token is always taken, so nobody is locked out by a neighbour behind the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, HeaderName, Response};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::caller::OPEN;
use super::{ApiError, Because, Caller, Guarded};
use crate::engine::Core;

/// Bad tokens from one address that are answered as such in one window.
pub const FAILED_MAX: u32 = 10;
/// Length of that window, ms.
pub const FAILED_WINDOW_MS: i64 = 60_000;
/// Most addresses that are remembered for their bad tokens.
const FAILED_PEERS_MAX: usize = 4_096;
/// Most requests of one token that are answered at once, also those that are followed or waited for: nobody takes all
/// places of the listener.
pub const ANSWERS_MAX: usize = 64;
/// Where a token may stand beside `Authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The two ends of a connection over TCP; the listener puts it among the extensions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other end.
    pub address: IpAddr,
    /// This end.
    pub local: IpAddr,
}

/// The name of the caller, for the log of who asked.
#[derive(Debug, Clone)]
pub(super) struct AskedBy(pub Arc<str>);

/// What lets requests in.
#[derive(Debug)]
pub(super) struct Gate {
    core: Arc<Core>,
    failed: Failed,
    shares: Arc<Shares>,
}

impl Gate {
    pub fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, failed: Failed::default(), shares: Arc::default() })
    }

    /// Who sends this; `None` where nobody has to be known.
    fn examine(&self, peer: Peer, request: &Request) -> Result<Option<Caller>, ApiError> {
        self.check_host(peer, request)?;
        if OPEN.contains(&request.uri().path()) {
            return Ok(None);
        }
        let Some(token) = token(request.headers()) else { return Err(ApiError::no_token()) };
        let now_ms = self.core.clock.now_ms();
        if let Some(grant) = token.and_then(|text| self.core.tokens.login(text, now_ms)) {
            return Ok(Some(Caller::of_token(&grant)));
        }
        Err(self
            .failed
            .count(peer.address, now_ms)
            .map_or_else(ApiError::bad_token, ApiError::too_many_logins))
    }

    /// The target of a request counts before its `Host` where it names a host, as HTTP has it.
    fn check_host(&self, peer: Peer, request: &Request) -> Result<(), ApiError> {
        let mut said = request.headers().get_all(HOST).iter();
        let (first, second) = (said.next(), said.next());
        let host = match (request.uri().authority(), first, second) {
            (_, _, Some(_)) => return Err(ApiError::malformed("the header Host is given twice")),
            (Some(authority), ..) => authority.as_str(),
            (None, Some(host), None) => {
                host.to_str().map_err(|_| ApiError::malformed("the header Host is not plain text"))?
            }
            (None, None, None) => return Err(ApiError::malformed("the header Host is missing")),
        };
        let name = without_port(host);
        let settings = self.core.settings();
        let known = is_ours(name, peer.local)
            || settings
                .listen
                .allowed_hosts
                .iter()
                .any(|a| [name, host].iter().any(|h| a.eq_ignore_ascii_case(h)));
        if known { Ok(()) } else { Err(ApiError::foreign_host(host)) }
    }
}

/// A loopback name, or the address that was connected to.
fn is_ours(name: &str, local: IpAddr) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.is_loopback() || address.to_canonical() == local.to_canonical(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// A host without its port and without the dot that ends a full name.
fn without_port(host: &str) -> &str {
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// The token of a request: `None` where there is none, `Some(None)` where there is something else.
#[expect(clippy::option_option, reason = "no token and no usable token are answered differently")]
fn token(headers: &HeaderMap) -> Option<Option<&str>> {
    let Some(said) = headers.get(AUTHORIZATION) else {
        return headers.get(API_KEY).map(|key| key.to_str().ok().map(str::trim));
    };
    let parts = said.to_str().ok().and_then(|text| text.trim().split_once(' '));
    let scheme = |s: &str| s.eq_ignore_ascii_case("bearer") || s.eq_ignore_ascii_case("token");
    Some(parts.filter(|(s, _)| scheme(s)).map(|(_, token)| token.trim()))
}

/// Lets a request over TCP in, or answers why not. On the control socket the caller is known already.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response<Body> {
    let mut share = None;
    if let Some(peer) = request.extensions().get::<Peer>().copied() {
        match gate.examine(peer, &request) {
            Ok(Some(caller)) => {
                if let Because::Token(name) = &caller.because {
                    share = Shares::take(&gate.shares, name);
                    if share.is_none() {
                        let why = format!(
                            "{ANSWERS_MAX} requests of token {name:?} are under way; let some of them end"
                        );
                        return ApiError::busy(&why).into_response();
                    }
                }
                request.extensions_mut().insert(caller);
            }
            Ok(None) => {}
            Err(refused) => return refused.into_response(),
        }
    }
    let caller = request.extensions().get::<Caller>().map(|caller| Arc::clone(&caller.name));
    let mut answer = next.run(request).await;
    if let Some(name) = caller {
        answer.extensions_mut().insert(AskedBy(name));
    }
    match share {
        Some(share) => answer.map(|body| Body::new(Guarded::new(body, share))),
        None => answer,
    }
}

/// How many requests of each token are being answered.
#[derive(Debug, Default)]
struct Shares(Mutex<HashMap<Arc<str>, usize>>);

/// One of the requests of a token; given back when this is dropped.
#[derive(Debug)]
struct Share {
    of: Arc<Shares>,
    name: Arc<str>,
}

impl Shares {
    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where the token has as many as it may.
    fn take(shares: &Arc<Self>, name: &Arc<str>) -> Option<Share> {
        let mut held = shares.held();
        let count = held.entry(Arc::clone(name)).or_default();
        if *count >= ANSWERS_MAX {
            return None;
        }
        *count += 1;
        Some(Share { of: Arc::clone(shares), name: Arc::clone(name) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

/// Refuses writes that a page of another site sends.
pub(super) fn cross_site() -> CsrfLayer<fn(ProtectionError) -> Response<Body>> {
    CsrfLayer::new().with_rejection_response(refuse_cross_site)
}

fn refuse_cross_site(_: ProtectionError) -> Response<Body> {
    ApiError::cross_site().into_response()
}

/// Bad tokens by the address that they came from.
#[derive(Debug, Default)]
struct Failed {
    peers: Mutex<HashMap<IpAddr, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since_ms: i64,
    count: u32,
}

impl Failed {
    /// Counts a bad token; where there were too many, after how many ms the next one is answered.
    fn count(&self, address: IpAddr, now_ms: i64) -> Option<i64> {
        let over = |w: &Window| now_ms.saturating_sub(w.since_ms) >= FAILED_WINDOW_MS || now_ms < w.since_ms;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network(address);
        if peers.len() >= FAILED_PEERS_MAX && !peers.contains_key(&key) {
            peers.retain(|_, window| !over(window));
            if peers.len() >= FAILED_PEERS_MAX {
                // So many at once guess from everywhere; what is remembered stays bounded.
                return Some(FAILED_WINDOW_MS);
            }
        }
        let window = peers.entry(key).or_insert(Window { since_ms: now_ms, count: 0 });
        if over(window) {
            *window = Window { since_ms: now_ms, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        (window.count > FAILED_MAX).then(|| window.since_ms + FAILED_WINDOW_MS - now_ms)
    }
}

/// What one sender is likely to have: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            Ipv6Addr::from(segments).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_ours_by_a_loopback_name_or_the_address_that_was_asked() {
        let local: IpAddr = "192.0.2.7".parse().unwrap();
        for ours in [
            "localhost",
            "LOCALHOST:7700",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:7700",
            "192.0.2.7:80",
            "localhost.",
        ] {
            assert!(is_ours(without_port(ours), local), "{ours}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "192.0.2.8",
            "127.0.0.1.evil.example:7700",
            "[::2]",
            "::",
        ] {
            assert!(!is_ours(without_port(foreign), local), "{foreign}");
        }
        assert!(is_ours("192.0.2.7", "::ffff:192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn a_token_stands_in_one_of_three_places() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            token(&headers).map(|found| found.map(str::to_owned))
        };
        for (name, value) in [
            ("authorization", "Bearer t"),
            ("authorization", "bearer  t "),
            ("authorization", "Token t"),
            ("x-api-key", "t"),
        ] {
            assert_eq!(of(name, value), Some(Some("t".to_owned())), "{name}: {value}");
        }
        for value in ["Basic t", "t", "Bearer", ""] {
            assert_eq!(of("authorization", value), Some(None), "{value}");
        }
        assert_eq!(of("cookie", "t"), None);
    }

    #[test]
    fn bad_tokens_are_counted_by_address_and_forgotten() {
        let failed = Failed::default();
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..FAILED_MAX {
            assert_eq!(failed.count(a, 1_000), None);
        }
        assert_eq!(failed.count(a, 2_000), Some(FAILED_WINDOW_MS - 1_000));
        assert_eq!(failed.count("192.0.2.2".parse().unwrap(), 2_000), None, "another is another");
        assert_eq!(failed.count(a, 1_000 + FAILED_WINDOW_MS), None, "later it may again");
        let six = |text: &str| failed.count(text.parse().unwrap(), 5_000);
        assert!((0..FAILED_MAX).all(|n| six(&format!("2001:db8::{n:x}")).is_none()));
        assert!(six("2001:db8::ffff").is_some(), "one network");
        assert!(six("2001:db8:0:1::1").is_none());
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let failed = Failed::default();
        for n in 0..u32::try_from(FAILED_PEERS_MAX + 100).unwrap() {
            let _ = failed.count(IpAddr::from(n.to_be_bytes()), 0);
        }
        assert_eq!(failed.peers.lock().unwrap().len(), FAILED_PEERS_MAX);
        assert_eq!(failed.count("203.0.113.1".parse().unwrap(), FAILED_WINDOW_MS), None, "the old ones went");
    }
}
