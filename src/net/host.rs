//! An entry of a list of hosts: a name, all names below one, or an address, with or without a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::Reach;

/// Whom an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Lower case; of a pattern what stands behind `*`, with its point.
    name: String,
    pattern: bool,
    /// Only this port.
    port: Option<u16>,
}

impl Host {
    /// Reads `shop.example`, `*.shop.example`, `192.0.2.7`, `2001:db8::1` or `[2001:db8::1]`, each but the address
    /// without brackets also with `:port`; `None`: it is none of these.
    #[must_use]
    pub fn read(entry: &str) -> Option<Self> {
        let entry = entry.to_ascii_lowercase();
        // `::1` is an address, not a name with a port.
        let split = entry.rsplit_once(':').filter(|(head, _)| !head.contains(':') || head.ends_with(']'));
        let (head, port) = split.map_or((entry.as_str(), None), |(head, port)| (head, Some(port)));
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        };
        let (name, pattern) = match head.strip_prefix('*') {
            Some(rest) => (rest.strip_prefix('.').filter(|rest| is_name(rest)).map(|_| rest)?, true),
            None => (head, false),
        };
        let bare = name.strip_prefix('[').map_or(Some(name), |rest| rest.strip_suffix(']'))?;
        let address = bare.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
        if address.is_none() && (bare.len() < name.len() || !pattern && !is_name(name)) {
            return None;
        }
        Some(Self { name: address.unwrap_or_else(|| name.to_owned()), pattern, port })
    }

    /// Whether it is `*.name`, which nobody has named in full.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.pattern
    }

    /// Whether it names this host of a URL, which is lower case and without brackets, at this port.
    #[must_use]
    pub fn fits(&self, host: &str, port: Option<u16>) -> bool {
        let same_address = || host.parse::<IpAddr>().is_ok_and(|address| self.name.parse() == Ok(address));
        let name = if self.pattern {
            host.len() > self.name.len() && host.ends_with(&self.name)
        } else {
            host == self.name || same_address()
        };
        name && self.port.is_none_or(|own| port == Some(own))
    }
}

/// Hosts that may be reached; none: every public one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

/// A host that is not among those that may be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is not among the hosts that this agent may reach: {listed}")]
pub struct NotListed {
    host: String,
    listed: String,
}

impl Hosts {
    /// Entries that the definition's check has read; what is none is left out.
    #[must_use]
    pub fn read(entries: &[String]) -> Self {
        Self(entries.iter().filter_map(|entry| Host::read(entry)).collect())
    }

    /// Whether every public host may be reached.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.0.is_empty()
    }

    /// How far a connection to this host of a URL may reach: one that is named in full may be a private one, one that
    /// merely fits a pattern may not.
    ///
    /// # Errors
    /// It is not among them.
    pub fn reach(&self, host: &str, port: Option<u16>) -> Result<Reach, NotListed> {
        if self.is_public() {
            return Ok(Reach::PublicOnly);
        }
        let fitting = self.0.iter().filter(|own| own.fits(host, port)).map(Host::is_pattern);
        match fitting.reduce(|a, b| a && b) {
            Some(true) => Ok(Reach::PublicOnly),
            Some(false) => Ok(Reach::PrivateToo),
            None => Err(NotListed { host: host.to_owned(), listed: self.to_string() }),
        }
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.pattern { "*" } else { "" };
        let address = self.name.contains(':');
        match (self.port, address) {
            (Some(port), true) => write!(f, "[{}]:{port}", self.name),
            (Some(port), false) => write!(f, "{star}{}:{port}", self.name),
            (None, _) => write!(f, "{star}{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fit_whom_they_name() {
        let fits = |entry: &str, host: &str, port| Host::read(entry).unwrap().fits(host, Some(port));
        assert!(fits("Shop.Example", "shop.example", 443) && !fits("shop.example", "a.shop.example", 443));
        assert!(fits("*.shop.example", "a.b.shop.example", 443));
        assert!(!fits("*.shop.example", "shop.example", 443));
        assert!(!fits("*.shop.example", "evilshop.example", 443));
        let with_port = |port| fits("shop.example:8080", "shop.example", port);
        assert!(with_port(8080) && !with_port(443));
        assert!(fits("*.shop.example:8080", "a.shop.example", 8080));
        assert!(fits("::1", "::1", 80) && fits("[::1]:80", "::1", 80) && !fits("[::1]:80", "::1", 81));
        assert!(
            fits("[2001:DB8:0::1]", "2001:db8::1", 443) && fits("::ffff:192.0.2.7", "::ffff:c000:207", 443)
        );
        assert!(fits("192.0.2.7:8080", "192.0.2.7", 8080));
    }

    #[test]
    fn what_names_nobody_is_told() {
        for bad in [
            "",
            "*",
            "*.",
            "*shop",
            "https://shop.example",
            "shop.example/x",
            "shop.example:",
            "shop.example:0",
            "shop.example:99999",
            "a b",
            ".shop",
            "[::1",
            "[shop]",
            "::1::",
            "user@shop",
            "a.*.shop",
        ] {
            assert_eq!(Host::read(bad), None, "{bad:?}");
        }
        for good in ["shop.example", "*.shop.example:8443", "[::1]:80", "::1", "127.0.0.1"] {
            assert_eq!(Host::read(good).unwrap().to_string(), good);
        }
    }
}
