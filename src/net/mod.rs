//! Outgoing HTTP: which addresses may be reached, and the one place that builds clients.
//!
//! A URL may come from a stranger (a webhook given with a request), and the machine stands inside
//! somebody's network. So every client resolves names itself, refuses a name if any of its
//! addresses is forbidden, and connects to exactly the addresses it has checked: a name that
//! changes between check and connection gains nothing. A literal address in a URL is never
//! resolved, hence [`check_url`] before every request. No client follows a redirect, reads a proxy
//! from the environment or repeats a request on its own.

mod guard;
mod host;

use std::path::Path;
use std::time::Duration;

pub use guard::{NotConnected, Reach, Refused, check_host, check_url, connect, is_metadata, is_public};
pub use host::{Host, Hosts, NotListed};

/// How clients name themselves.
pub const USER_AGENT: &str = concat!("matins/", env!("CARGO_PKG_VERSION"));
/// How long a connection without a request is kept.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Most connections without a request that are kept to one host.
const POOL_PER_HOST: usize = 4;

/// Why a client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS could not be set up; mostly the machine has no CA certificates (package
    /// `ca-certificates`).
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}

/// Makes ring the provider of cryptography for TLS in this process. May be called any number of
/// times; the first provider stays.
pub fn install_crypto_provider() {
    // An error says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for addresses that are not ours. `connect_timeout` covers the name, the connection and
/// the TLS handshake; the time of the whole request is up to the caller.
///
/// # Errors
/// [`Error::Client`].
pub fn client(reach: Reach, connect_timeout: Duration) -> Result<reqwest::Client, Error> {
    builder()
        .dns_resolver(guard::Guarded::new(reach))
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_PER_HOST)
        .build()
        .map_err(Error::Client)
}

/// A client that speaks to the daemon on its control socket, whatever host the URL names. Without a
/// timeout: it also follows runs.
///
/// # Errors
/// [`Error::Client`].
pub fn unix_client(socket: &Path) -> Result<reqwest::Client, Error> {
    builder()
        .unix_socket(socket)
        // No TLS there: spare every command the reading of the CA certificates.
        .tls_certs_only([])
        .build()
        .map_err(Error::Client)
}

/// The body of an answer, at most `max` bytes of it, and whether there was more.
///
/// # Errors
/// It breaks off.
pub async fn body(mut response: reqwest::Response, max: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let left = max - bytes.len();
        bytes.extend_from_slice(chunk.get(..left.min(chunk.len())).unwrap_or_default());
        if chunk.len() > left {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}

#[expect(clippy::disallowed_methods, reason = "the one place that builds HTTP clients")]
fn builder() -> reqwest::ClientBuilder {
    install_crypto_provider();
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        // Others of this program's libraries bring these; what we ask for is small, and what comes is bounded as it is.
        .no_gzip()
        .http1_only()
}

#[cfg(test)]
mod tests;
