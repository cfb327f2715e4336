//! Plain HTTP/1.1 over TCP from outside of the daemon: what is sent is what the test writes, so it can be
//! wrong as well.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for a byte of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a daemon answers HTTP over TCP, and the token that is sent with every request.
#[derive(Debug, Clone)]
pub struct Http {
    /// Its address.
    pub address: SocketAddr,
    /// Sent as `Authorization: Bearer`, unless the request says something else or this is empty.
    pub token: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The code of an error of /v1.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Http {
    /// The same place with another token; empty: none.
    pub fn with(&self, token: &str) -> Self {
        Self { address: self.address, token: token.to_owned() }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Any request. `Host`, `Authorization`, `Content-Length` and `Connection: close` are added where
    /// `headers` do not have them.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).expect("an answer")
    }

    /// As [`Self::send`]; `None` where no whole answer comes.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let mut add = |name: &str, value: &str| {
            for text in [name, ": ", value, "\r\n"] {
                request.push_str(text);
            }
        };
        if !given("host") {
            add("Host", &self.address.to_string());
        }
        if !given("authorization") && !given("x-api-key") && !self.token.is_empty() {
            add("Authorization", &format!("Bearer {}", self.token));
        }
        if !given("content-length") && !given("transfer-encoding") && !body.is_empty() {
            add("Content-Length", &body.len().to_string());
        }
        for (name, value) in headers {
            add(name, value);
        }
        let mut request = format!("{request}\r\n").into_bytes();
        request.extend_from_slice(body);
        let mut stream = self.connect()?;
        // Who is refused early is answered before all is sent.
        let _ = stream.write_all(&request);
        read_answer(&mut stream)
    }

    /// A connection over which the test speaks itself.
    pub fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }
}

/// Reads to the end of the connection; `None` where that was no whole answer.
pub fn read_answer(stream: &mut impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A reset behind a whole answer takes nothing from it.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

/// A part of a form: its name, file name and type, content.
pub type Part<'a> = (&'a str, Option<(&'a str, &'a str)>, &'a str);

/// The header of a [`form`].
pub const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=b");

/// The body of a form.
pub fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let text = |(name, file, content): &Part<'_>| {
        let file = file.map(|(file, kind)| format!("; filename=\"{file}\"\r\nContent-Type: {kind}"));
        let head =
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{}", file.unwrap_or_default());
        format!("{head}\r\n\r\n{content}\r\n")
    };
    let body: String = parts.iter().map(text).collect();
    format!("{body}--b--\r\n").into_bytes()
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
    let rest = &bytes[end + 4..];
    let of = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let body = match (of("transfer-encoding"), of("content-length")) {
        (Some("chunked"), _) => unchunked(rest)?,
        (_, Some(length)) => rest.get(..length.parse().ok()?)?.to_vec(),
        _ => rest.to_vec(),
    };
    Some(Answer { status, headers, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
