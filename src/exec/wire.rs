//! The release message: what the daemon writes to a held launcher's stdin, once.
//!
//! A line `matins-release VERSION LENGTH`, then that many bytes of JSON. The version stands before the JSON,
//! so a launcher of another version refuses in words instead of misreading. The length tells a message that
//! was cut off (the daemon died while writing: nothing started, nothing is wrong) from one that is broken.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::{Error, Spec};
use crate::ids::Epoch;

/// Version of the message.
pub const RELEASE_VERSION: u32 = 1;
/// Largest JSON of a release, bytes: an environment and arguments fit many times.
pub const RELEASE_MAX: usize = 16 << 20;

const MAGIC: &str = "matins-release";
/// Longest first line, bytes.
const LINE_MAX: u64 = 64;

/// Everything a launcher needs; secrets travel only here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`RELEASE_VERSION`].
    pub version: u32,
    /// The claim in whose name the attempt runs; it comes back in the report.
    pub epoch: Epoch,
    /// What to do.
    pub spec: Spec,
    /// Secret variables of the program, name to value.
    pub secrets: BTreeMap<String, String>,
    /// Secret variables of the program alone, which its gate and its verifier do not see.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("version", &self.version)
            .field("epoch", &self.epoch)
            .field("spec", &self.spec)
            .field("secrets", &self.secrets.keys())
            .field("keys", &self.keys.keys())
            .finish()
    }
}

/// What a launcher read from its stdin.
#[derive(Debug)]
pub(super) enum Received {
    /// The whole message.
    Release(Box<Release>),
    /// The daemon went away before it had written all of it.
    Nothing,
    /// Something else; why, in one sentence.
    Garbage(String),
}

impl Release {
    /// The message as it is written to the launcher.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let json = serde_json::to_vec(self).map_err(|source| Error::Json { what: "the release", source })?;
        if json.len() > RELEASE_MAX {
            return Err(Error::ReleaseTooLarge { bytes: json.len() });
        }
        let mut message = format!("{MAGIC} {} {}\n", self.version, json.len()).into_bytes();
        message.extend_from_slice(&json);
        Ok(message)
    }
}

/// Reads one message. Blocks until it is whole or the writer is gone.
pub(super) fn receive(from: &mut impl Read) -> Received {
    match read_message(from) {
        Ok(Some(release)) => Received::Release(Box::new(release)),
        Ok(None) => Received::Nothing,
        Err(why) => Received::Garbage(format!("the launcher was not given a release: {why}")),
    }
}

fn read_message(from: &mut impl Read) -> Result<Option<Release>, String> {
    let unreadable = |e: io::Error| format!("its stdin cannot be read: {e}");
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        if line.len() as u64 >= LINE_MAX {
            return Err("the first line is too long".to_owned());
        }
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => line.extend_from_slice(&byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(e)),
        }
    }
    let length = length_of(&line)?;
    let mut json = Vec::with_capacity(length);
    from.take(length as u64).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() < length {
        return Ok(None);
    }
    // serde_json's messages quote no values of strings, so no secret can show here.
    let release: Release = serde_json::from_slice(&json).map_err(|e| {
        format!(
            "its JSON does not fit ({:?} error at line {}, column {})",
            e.classify(),
            e.line(),
            e.column()
        )
    })?;
    Ok(Some(release))
}

fn length_of(line: &[u8]) -> Result<usize, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the first line is not text".to_owned())?;
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some(MAGIC) {
        return Err("the first line is another".to_owned());
    }
    let version: Option<u32> = words.next().and_then(|word| word.parse().ok());
    if version != Some(RELEASE_VERSION) {
        let found = version.map_or_else(|| "none".to_owned(), |v| v.to_string());
        return Err(format!("its version is {found}, this launcher understands {RELEASE_VERSION}"));
    }
    let length = words.next().and_then(|word| word.parse().ok()).filter(|n| *n <= RELEASE_MAX);
    length.ok_or_else(|| "the first line gives no length within bounds".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{RunId, SeededEntropy};

    fn release() -> Release {
        Release {
            version: RELEASE_VERSION,
            keys: BTreeMap::from([("K".to_owned(), "v".to_owned())]),
            epoch: Epoch(7),
            spec: Spec {
                listen: None,
                version: super::super::SPEC_VERSION,
                run: RunId::generate(0, &SeededEntropy::new(1)),
                attempt: 1,
                agent: "a".parse().unwrap(),
                argv: vec!["true".to_owned()],
                cwd: "/".into(),
                env: BTreeMap::new(),
                stdin: "/dev/null".into(),
                timeout_ms: None,
                idle_timeout_ms: None,
                output_limit: 1,
                kill_signal: 15,
                kill_grace_ms: 1,
                orphan_grace_ms: 1,
                state_lock: None,
                confine: super::super::Confine::default(),
                total_ms: None,
                gate: None,
                verify: None,
            },
            secrets: BTreeMap::from([("KEY".to_owned(), "hunter2".to_owned())]),
        }
    }

    fn said(bytes: &[u8]) -> String {
        match receive(&mut &bytes[..]) {
            Received::Garbage(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_arrives_whole_or_not_at_all() {
        let sent = release();
        let bytes = sent.encode().unwrap();
        for n in 0..bytes.len() {
            assert!(matches!(receive(&mut &bytes[..n]), Received::Nothing), "cut at {n}");
        }
        let Received::Release(got) = receive(&mut bytes.as_slice()) else {
            panic!("a whole message");
        };
        assert_eq!(*got, sent);
    }

    /// A message as version 0.1.0 wrote it. It is never edited: launchers outlive the daemon that sent it.
    const OF_0_1_0: &str = r#"{"version":1,"epoch":7,"spec":{"version":1,"run":"019cadc6-9a80-7873-b70d-977a3b8316c7","attempt":1,"agent":"a","argv":["true"],"cwd":"/","env":{"MATINS_ATTEMPT":"1"},"stdin":"/dev/null","timeout_ms":3600000,"idle_timeout_ms":null,"output_limit":67108864,"kill_signal":15,"kill_grace_ms":10000,"orphan_grace_ms":3600000,"state_lock":"/s/lock"},"secrets":{"KEY":"hunter2"}}"#;

    #[test]
    fn the_message_of_the_version_before_is_read() {
        let message = format!("matins-release 1 {}\n{OF_0_1_0}", OF_0_1_0.len());
        let Received::Release(got) = receive(&mut message.as_bytes()) else {
            panic!("it is a release");
        };
        assert_eq!((got.epoch, got.spec.timeout_ms, got.spec.argv.len()), (Epoch(7), Some(3_600_000), 1));
        assert_eq!((got.spec.gate, got.spec.verify, got.spec.total_ms), (None, None, None));
    }

    #[test]
    fn the_version_before_finds_all_it_needs_in_a_message_of_now() {
        let before: serde_json::Value = serde_json::from_str(OF_0_1_0).unwrap();
        let now = serde_json::to_value(release()).unwrap();
        let names = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        for (before, now) in [(&before, &now), (&before["spec"], &now["spec"])] {
            let missing: Vec<_> = names(before).into_iter().filter(|name| now.get(name).is_none()).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
        let hooked = release();
        let hook = super::super::HookSpec { argv: vec!["g".to_owned()], timeout_ms: 1 };
        let spec = Spec { gate: Some(hook), ..hooked.spec };
        let bytes = Release { spec, ..hooked }.encode().unwrap();
        assert!(bytes.starts_with(b"matins-release 1 "), "the version is still the one that both know");
    }

    #[test]
    fn what_is_no_release_is_refused_in_words() {
        assert!(said(b"GET / HTTP/1.1\r\n\r\n").contains("another"));
        assert!(said(&[b'x'; 100]).contains("too long"));
        assert!(said(b"\xff\xfe\n").contains("not text"));
        assert!(said(b"matins-release 2 10\n0123456789").contains("version is 2"));
        assert!(said(b"matins-release 1 99999999999\n").contains("length"));
        let wrong = br#"{"version":1,"epoch":1,"spec":"hunter2"}"#;
        let message = [format!("matins-release 1 {}\n", wrong.len()).as_bytes(), wrong].concat();
        let why = said(&message);
        assert!(why.contains("JSON") && !why.contains("hunter2"), "{why}");
    }

    #[test]
    fn secrets_show_in_no_debug_form_and_no_spec() {
        let release = release();
        let shown = format!("{release:?}");
        assert!(shown.contains("KEY") && !shown.contains("hunter2"), "{shown}");
        assert!(!serde_json::to_string(&release.spec).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_release_has_a_largest_size() {
        let mut release = release();
        release.spec.argv.push("x".repeat(RELEASE_MAX));
        assert!(matches!(release.encode(), Err(Error::ReleaseTooLarge { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is on stdin, it is a release, nothing, or told in words without a value of it.
        #[test]
        fn damaged_messages_are_told_and_never_a_crash(
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..30_usize, proptest::collection::vec(any::<u8>(), 0..8)), 0..4),
        ) {
            let mut bytes = release().encode().unwrap();
            for (at, length, with) in cuts {
                let from = at.index(bytes.len());
                let to = (from + length).min(bytes.len());
                bytes.splice(from..to, with);
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            if let Received::Garbage(why) = receive(&mut &bytes[..]) {
                prop_assert!(why.len() < 300 && !why.contains("hunter"), "{why}");
            }
        }

        #[test]
        fn a_release_comes_back_as_it_was(
            argv in proptest::collection::vec(any::<String>(), 1..4),
            env in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
            secrets in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
            epoch in any::<i64>(),
            timeout_ms in any::<Option<u64>>(),
        ) {
            let sent = Release { epoch: Epoch(epoch), secrets, spec: Spec { argv, env, timeout_ms, ..release().spec }, ..release() };
            let bytes = sent.encode().unwrap();
            match receive(&mut &bytes[..]) {
                Received::Release(got) => {
                    prop_assert_eq!((&got.spec, &got.secrets, got.epoch), (&sent.spec, &sent.secrets, sent.epoch));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
