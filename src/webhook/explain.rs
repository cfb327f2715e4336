//! A failed request as one sentence for people. It names host and port, never path or query, where
//! receivers keep tokens.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::{StatusCode, Url};

use crate::net::Refused;
use crate::time::human_duration;

/// `host:port` of a URL.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the host");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Why no answer came.
pub(super) fn request(e: &reqwest::Error, url: &Url, connect: Duration) -> String {
    let place = place(url);
    if let Some(refused) = chain(e).find_map(|e| e.downcast_ref::<Refused>()) {
        return refused.to_string();
    }
    if let Some(tls) = chain(e).find_map(tls_error) {
        return format!("TLS with {place} failed: {tls}");
    }
    if e.is_timeout() && e.is_connect() {
        return format!("no connection to {place} within {}", human_duration(connect));
    }
    if e.is_dns() {
        let host = url.host_str().unwrap_or_default();
        return format!("the name {host} could not be resolved: {}", root(e));
    }
    let closed =
        chain(e).filter_map(|e| e.downcast_ref::<hyper::Error>()).any(hyper::Error::is_incomplete_message);
    match chain(e).find_map(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!("{place} refused the connection"),
        _ if closed => format!("{place} closed the connection without an answer"),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
            format!("{place} closed the connection without an answer")
        }
        _ if e.is_connect() => format!("no connection to {place}: {}", root(e)),
        _ => format!("the request to {place} failed: {}", root(e)),
    }
}

/// Why an answer is a failure.
pub(super) fn status(status: StatusCode, location: Option<&str>) -> String {
    let answer = format!("the receiver answered {status}");
    match location {
        Some(_) if status.is_redirection() => {
            format!("{answer}, a redirect; redirects are not followed, give the final URL")
        }
        _ => answer,
    }
}

fn chain<'a>(e: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(e);
    std::iter::from_fn(move || {
        let e = next?;
        next = e.source();
        Some(e)
    })
}

fn root(e: &(dyn Error + 'static)) -> String {
    chain(e).last().map_or_else(String::new, ToString::to_string)
}

/// The TLS error of this link. An I/O error hides the one it wraps from `source`, and is wrapped in
/// another one itself.
fn tls_error<'a>(e: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match e.downcast_ref::<io::Error>() {
        Some(io) => tls_error(io.get_ref()?),
        None => e.downcast_ref(),
    }
}
