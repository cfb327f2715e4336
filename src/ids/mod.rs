//! Typed identifiers. An id of one kind cannot be passed for another, and every id is made from
//! its arguments: the time and the entropy come in from outside, so a test replays to the same ids.
//!
//! Run and delivery ids are UUID version 7 (RFC 9562): they sort by creation time, which keeps the
//! unique index append-only. The order of runs is nevertheless the store's integer `number`; an id
//! is a name, never a clock.

mod glob;

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use glob::{AgentGlob, InvalidGlob};

/// Source of randomness for ids and jitter; an argument everywhere, so that a seed replays.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A number in `0.0..1.0`.
    fn unit(&self) -> f64 {
        let mut bytes = [0_u8; 4];
        self.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Bytes as hexadecimal digits, two each: how a digest is written.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the kernel")]
    fn fill(&self, out: &mut [u8]) {
        // The kernel's generator fails only before it is seeded, in early boot; then nothing of
        // ours may run: an id that is not unique would join two runs into one.
        if let Err(e) = getrandom::fill(out) {
            panic!("the kernel gives no random bytes: {e}");
        }
    }
}

/// A seeded generator (splitmix64) for tests: the same seed gives the same ids.
#[derive(Debug)]
pub struct SeededEntropy(std::sync::atomic::AtomicU64);

impl SeededEntropy {
    /// A generator whose whole output follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let state = self
                .0
                .fetch_add(0x9E37_79B9_7F4A_7C15, std::sync::atomic::Ordering::Relaxed)
                .wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let bytes = z.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

fn uuid_v7(at_ms: i64, entropy: &dyn Entropy) -> Uuid {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(at_ms).unwrap_or(0), &random).into_uuid()
}

/// Names one run for ever. Shown in hyphenated lower case; any unique prefix names it to people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A new id for a run made at `at_ms` (Unix milliseconds).
    #[must_use]
    pub fn generate(at_ms: i64, entropy: &dyn Entropy) -> Self {
        Self(uuid_v7(at_ms, entropy))
    }

    /// The 16 bytes as they are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id of stored bytes; `None` unless there are 16 of them.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(s).map(Self).map_err(|_| InvalidId::Run)
    }
}

/// Names one delivery; it is the `webhook-id` header of every attempt, so it holds no `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(String);

impl DeliveryId {
    /// A new id for a delivery made at `at_ms` (Unix milliseconds).
    #[must_use]
    pub fn generate(at_ms: i64, entropy: &dyn Entropy) -> Self {
        Self(format!("msg_{}", uuid_v7(at_ms, entropy).as_simple()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let hex = s.strip_prefix("msg_").ok_or(InvalidId::Delivery)?;
        Uuid::try_parse(hex).map_err(|_| InvalidId::Delivery)?;
        Ok(Self(s.to_owned()))
    }
}

/// Names one uploaded file. Nobody finds it by guessing, and it is no path: only these characters are in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(String);

impl FileId {
    /// A new id for a file that comes at `at_ms` (Unix milliseconds).
    #[must_use]
    pub fn generate(at_ms: i64, entropy: &dyn Entropy) -> Self {
        Self(format!("file_{}", uuid_v7(at_ms, entropy).as_simple()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let hex = s.strip_prefix("file_").ok_or(InvalidId::File)?;
        let plain = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if plain { Ok(Self(s.to_owned())) } else { Err(InvalidId::File) }
    }
}

/// Names an agent: `[a-z0-9][a-z0-9-]{0,62}`, by default the stem of its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AgentId(String);

impl AgentId {
    /// Longest id in bytes.
    pub const MAX_LEN: usize = 63;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AgentId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let head_ok = s.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest_ok = s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if head_ok && rest_ok && s.len() <= Self::MAX_LEN {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidId::Agent)
        }
    }
}

impl<'de> Deserialize<'de> for AgentId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Names a schedule inside its agent: the fingerprint of its timing fields and its ordinal among
/// equal fingerprints, so that a changed timing is a new schedule and a moved one is the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScheduleId(String);

impl ScheduleId {
    /// The id of the `ordinal`-th schedule (from 0) of one agent with this `fingerprint`.
    #[must_use]
    pub fn new(fingerprint: &str, ordinal: usize) -> Self {
        Self(format!("{fingerprint}-{ordinal}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for ScheduleId {
    fn from(s: String) -> Self {
        Self(s)
    }
}

/// One nominal instant (Unix milliseconds) of one schedule of one agent: what may run once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SlotKey {
    /// The agent.
    pub agent: AgentId,
    /// The schedule of that agent.
    pub schedule: ScheduleId,
    /// The nominal instant, Unix milliseconds.
    pub nominal_ms: i64,
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.agent, self.schedule, self.nominal_ms)
    }
}

/// Names one boot of the machine (`/proc/sys/kernel/random/boot_id`); a process of another boot is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The id as the kernel prints it, without the newline.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Counts the claims of a run. A write that names an older epoch changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not an agent id.
    #[error("an agent id is 1 to 63 characters of a-z, 0-9 and -, and does not start with -")]
    Agent,
    /// Not a run id.
    #[error("a run id is a UUID")]
    Run,
    /// Not a delivery id.
    #[error("a delivery id is msg_ and 32 hexadecimal digits")]
    Delivery,
    /// Not a file id.
    #[error("a file id is file_ and 32 hexadecimal digits")]
    File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_is_checked() {
        for good in ["a", "0", "price-watch", "a-", &"x".repeat(63)] {
            assert!(good.parse::<AgentId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "..", "a.b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_follow_from_time_and_seed() {
        let make = || RunId::generate(1_700_000_000_000, &SeededEntropy::new(7));
        assert_eq!(make(), make());
        let e = SeededEntropy::new(7);
        let (a, b) = (RunId::generate(1000, &e), RunId::generate(1001, &e));
        assert!(a < b, "later runs sort later");
        assert_eq!(a.to_string().parse::<RunId>(), Ok(a));
    }

    #[test]
    fn a_delivery_id_fits_a_signature() {
        let id = DeliveryId::generate(1, &SeededEntropy::new(1));
        assert!(!id.as_str().contains('.'));
        assert_eq!(id.as_str().parse::<DeliveryId>(), Ok(id));
    }
}
