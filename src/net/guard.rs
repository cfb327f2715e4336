//! Which addresses may be dialled.
//!
//! Two lists, by meaning: what is public is what the registries call globally reachable, minus what
//! hides another address; what answers with the machine's own credentials (metadata services of
//! clouds, and every link-local address) is never allowed, not even for endpoints that an operator
//! wrote into a file. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Which addresses a request may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Only addresses of the public internet: for URLs from callers.
    PublicOnly,
    /// Private networks and this machine too, metadata services never: for URLs from files.
    PrivateToo,
}

/// Why a URL may not be requested. The sentences name the host, never path or query: these may
/// hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no URL.
    #[error("not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    /// Its scheme is another one.
    #[error("the URL begins with {0}:, but only http: and https: are allowed")]
    Scheme(String),
    /// It holds a user or a password, which would end up in logs.
    #[error("the URL holds a user name or a password; sign messages with a secret instead")]
    UserInfo,
    /// It names no host.
    #[error("the URL names no host")]
    NoHost,
    /// Its host is, or resolves to, an address outside the public internet.
    #[error("{host} is {addr}, which is not a public address")]
    NotPublic {
        /// The host as the URL names it.
        host: String,
        /// The address.
        addr: IpAddr,
    },
    /// Its host is, or resolves to, an address that may give out credentials.
    #[error("{host} is {addr}, a link-local or metadata address, which is never allowed")]
    Metadata {
        /// The host as the URL names it.
        host: String,
        /// The address.
        addr: IpAddr,
    },
}

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

const fn v6(a: u16, b: u16, c: u16, len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), len)
}

/// IPv4 networks that are not part of the public internet.
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),       // this network
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carrier-grade NAT
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local, metadata
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 31, 196, 0, 24), // AS112
    v4(192, 52, 193, 0, 24), // AMT
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

/// IPv6: the public internet is one block, and these are its exceptions.
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 0, 3);
const NOT_PUBLIC_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 0, 23),         // protocol assignments: Teredo, benchmarks, ORCHID
    v6(0x2001, 0xdb8, 0, 32),     // documentation
    v6(0x2002, 0, 0, 16),         // 6to4
    v6(0x2620, 0x4f, 0x8000, 48), // AS112
    v6(0x3fff, 0, 0, 20),         // documentation
];

const LINK_LOCAL_V4: Ipv4Net = v4(169, 254, 0, 0, 16);
const LINK_LOCAL_V6: Ipv6Net = v6(0xfe80, 0, 0, 10);
/// Metadata services outside the link-local networks: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The same in IPv6: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const NAT64_LOCAL: Ipv6Net = v6(0x64, 0xff9b, 1, 48);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);
const V4_COMPATIBLE: Ipv6Net = v6(0, 0, 0, 96);

/// Whether the address is one of the public internet.
#[must_use]
pub fn is_public(addr: IpAddr) -> bool {
    !is_metadata(addr)
        && match addr.to_canonical() {
            IpAddr::V4(addr) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&addr)),
            IpAddr::V6(addr) => {
                PUBLIC_V6.contains(&addr) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&addr))
            }
        }
}

/// Whether the address is link-local or belongs to a cloud's metadata service: never allowed.
#[must_use]
pub fn is_metadata(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(addr) => LINK_LOCAL_V4.contains(&addr) || METADATA_V4.contains(&addr),
        IpAddr::V6(addr) => {
            LINK_LOCAL_V6.contains(&addr)
                || METADATA_V6.contains(&addr)
                || embedded_v4(addr).is_some_and(|addr| is_metadata(IpAddr::V4(addr)))
        }
    }
}

/// The IPv4 address that a translator on the way would make of an IPv6 one.
fn embedded_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = addr.octets();
    let at = |start: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| octets[start + i]);
        Ipv4Addr::new(a, b, c, d)
    };
    if SIX_TO_FOUR.contains(&addr) {
        return Some(at(2));
    }
    [NAT64, NAT64_LOCAL, V4_COMPATIBLE].iter().any(|net| net.contains(&addr)).then(|| at(12))
}

impl Reach {
    /// Refuses an address that may not be dialled; `host` is named in the refusal.
    ///
    /// # Errors
    /// [`Refused::Metadata`], [`Refused::NotPublic`].
    pub fn check(self, host: &str, addr: IpAddr) -> Result<(), Refused> {
        let host = host.to_owned();
        let addr = addr.to_canonical();
        if is_metadata(addr) {
            return Err(Refused::Metadata { host, addr });
        }
        match self {
            Self::PublicOnly if !is_public(addr) => Err(Refused::NotPublic { host, addr }),
            Self::PublicOnly | Self::PrivateToo => Ok(()),
        }
    }
}

/// Reads a URL that is to be requested and refuses it where its text alone shows that it may not
/// be. Literal addresses are checked in every spelling (`http://2130706433/` is 127.0.0.1); names
/// are checked when they are resolved.
///
/// # Errors
/// [`Refused`].
pub fn check_url(text: &str, reach: Reach) -> Result<Url, Refused> {
    let url = Url::parse(text)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refused::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::UserInfo);
    }
    check(&url.host().ok_or(Refused::NoHost)?, reach)?;
    Ok(url)
}

/// Refuses a host where its text alone shows that it may not be reached, in every spelling of an address.
///
/// # Errors
/// [`Refused`].
pub fn check_host(host: &str, reach: Reach) -> Result<(), Refused> {
    // A name is one in any spelling; only an IPv6 address takes brackets.
    let host = if host.contains(':') { Host::parse(&format!("[{host}]"))? } else { Host::parse(host)? };
    check(&host, reach)
}

fn check<S: AsRef<str>>(host: &Host<S>, reach: Reach) -> Result<(), Refused> {
    match host {
        Host::Ipv4(addr) => reach.check(&addr.to_string(), (*addr).into()),
        Host::Ipv6(addr) => reach.check(&format!("[{addr}]"), (*addr).into()),
        // Reserved to mean this machine, wherever it is resolved.
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.');
            if name == "localhost" || name.ends_with(".localhost") {
                return reach.check(name, Ipv4Addr::LOCALHOST.into());
            }
            Ok(())
        }
    }
}

/// Why a connection does not stand.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// It may not be made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody answers, or there is no such name.
    #[error("it cannot be reached")]
    Failed(#[from] std::io::Error),
}

/// Connects to a host by its name or address: to one of the very addresses that were checked. The time it takes is up
/// to the caller.
///
/// # Errors
/// [`NotConnected`].
pub async fn connect(host: &str, port: u16, reach: Reach) -> Result<tokio::net::TcpStream, NotConnected> {
    check_host(host, reach)?;
    let found = tokio::net::lookup_host((host, port)).await?;
    let addrs = checked(reach, host, found)?;
    Ok(tokio::net::TcpStream::connect(addrs.as_slice()).await?)
}

/// A resolver that answers only if every address of a name is allowed.
pub(super) struct Guarded {
    reach: Reach,
}

impl Guarded {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addrs = checked(reach, name.as_str(), found)?;
            let addrs: Addrs = Box::new(addrs.into_iter());
            Ok(addrs)
        })
    }
}

/// The addresses of a name, if all of them are allowed: one forbidden address among public ones is
/// how a name is made to point inside.
fn checked(
    reach: Reach,
    host: &str,
    addrs: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, Refused> {
    addrs.map(|addr| reach.check(host, addr.ip()).map(|()| addr)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn public_addresses_are_told_from_others() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2a00::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(ip(public)), "{public}");
        }
        for other in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::101:101",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:101:101::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(other)), "{other}");
        }
    }

    #[test]
    fn metadata_is_found_in_every_dress() {
        for metadata in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_metadata(ip(metadata)), "{metadata}");
            for reach in [Reach::PublicOnly, Reach::PrivateToo] {
                assert!(reach.check("h", ip(metadata)).is_err(), "{metadata} {reach:?}");
            }
        }
        for private in ["127.0.0.1", "::1", "10.0.0.1", "192.168.0.1", "fd00::1", "100.64.0.1"] {
            assert!(!is_metadata(ip(private)), "{private}");
            assert_eq!(Reach::PrivateToo.check("h", ip(private)), Ok(()), "{private}");
            assert!(Reach::PublicOnly.check("h", ip(private)).is_err(), "{private}");
        }
    }

    #[test]
    fn a_url_is_refused_by_its_text_where_that_is_enough() {
        let sentence = |url: &str, reach| match check_url(url, reach) {
            Ok(url) => panic!("{url} was allowed"),
            Err(e) => e.to_string(),
        };
        for (url, expected) in [
            ("hooks.example", "not a URL: relative URL without a base"),
            ("ftp://h.example/", "the URL begins with ftp:, but only http: and https: are allowed"),
            (
                "https://user@h.example/",
                "the URL holds a user name or a password; sign messages with a secret instead",
            ),
            (
                "https://:pw@h.example/",
                "the URL holds a user name or a password; sign messages with a secret instead",
            ),
            ("http://127.0.0.1/", "127.0.0.1 is 127.0.0.1, which is not a public address"),
            ("http://localhost:80/", "localhost is 127.0.0.1, which is not a public address"),
            ("http://a.LOCALHOST./", "a.localhost is 127.0.0.1, which is not a public address"),
            ("http://[::1]/", "[::1] is ::1, which is not a public address"),
            ("http://[::ffff:10.0.0.1]/", "[::ffff:10.0.0.1] is 10.0.0.1, which is not a public address"),
        ] {
            assert_eq!(sentence(url, Reach::PublicOnly), expected, "{url}");
        }
        // Spellings that mean 127.0.0.1.
        for url in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        ] {
            assert!(sentence(url, Reach::PublicOnly).contains("127.0.0.1"), "{url}");
            assert!(check_url(url, Reach::PrivateToo).is_ok(), "{url}");
        }
        for url in ["http://169.254.169.254/latest", "http://2852039166/", "http://[fe80::1]/"] {
            assert!(sentence(url, Reach::PrivateToo).contains("never allowed"), "{url}");
        }
        assert!(check_url("https://hooks.example/x?y=z", Reach::PublicOnly).is_ok());
    }

    #[test]
    fn a_name_with_one_forbidden_address_is_refused() {
        let addrs = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| SocketAddr::new(ip(text), 0)).collect()
        };
        let good = addrs(&["1.1.1.1", "2606:4700::1111"]);
        assert_eq!(checked(Reach::PublicOnly, "h", good.iter().copied()), Ok(good));
        for bad in ["127.0.0.1", "::ffff:169.254.169.254", "10.1.1.1"] {
            let mixed = addrs(&["1.1.1.1", bad]);
            assert!(checked(Reach::PublicOnly, "h", mixed.into_iter()).is_err(), "{bad}");
        }
    }
}
