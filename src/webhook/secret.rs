//! Signing secrets, `whsec_` and base64, and the signature of a message.
//!
//! A source may hold several, separated by white space: while a secret is exchanged every message is
//! signed with the old and the new one, so a receiver verifies with whichever it has.
//!
//! The signing crate takes any key, an empty one too, so the least length is held here: a value of
//! [`Secret`] is long enough to be one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use standardwebhooks::Webhook;

use crate::ids::{DeliveryId, Entropy};

/// Least length of a secret, bytes behind the base64.
pub const MIN_SECRET_BYTES: usize = 24;
/// Length of the secrets that are generated here, bytes.
const NEW_SECRET_BYTES: usize = 32;
const PREFIX: &str = "whsec_";

/// Most secrets of one endpoint.
pub const SECRETS_MAX: usize = 4;

/// A signing secret. It is never shown.
struct Secret(Webhook);

/// The signing secrets of one endpoint, at least one. They are never shown.
pub struct Secrets(Vec<Secret>);

/// Why a text is not a signing secret. The text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It has another form.
    #[error("a webhook secret begins with whsec_ and goes on in base64")]
    Prefix,
    /// What follows the prefix cannot be decoded.
    #[error("what follows whsec_ is not base64")]
    Base64,
    /// There are more than [`SECRETS_MAX`].
    #[error("there are {0} webhook secrets; at most {SECRETS_MAX} sign a message")]
    Many(usize),
    /// It is too short.
    #[error("the webhook secret has {0} bytes; at least {MIN_SECRET_BYTES} are needed")]
    Short(usize),
}

impl Secrets {
    /// Reads secrets that are separated by white space: `whsec_` and base64 of at least
    /// [`MIN_SECRET_BYTES`] each.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let secrets = text.split_whitespace().map(Secret::parse).collect::<Result<Vec<_>, _>>()?;
        match secrets.len() {
            0 => Err(SecretError::Prefix),
            1..=SECRETS_MAX => Ok(Self(secrets)),
            many => Err(SecretError::Many(many)),
        }
    }

    /// The `webhook-signature` of a message sent at `timestamp_s` (Unix seconds): one of each secret,
    /// separated by blanks.
    #[must_use]
    pub fn sign(&self, id: &DeliveryId, timestamp_s: i64, body: &str) -> String {
        // The crate refuses only a body that is not UTF-8, which text always is.
        let sign = |s: &Secret| s.0.sign(id.as_str(), timestamp_s, body.as_bytes()).unwrap_or_default();
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

impl Secret {
    fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        if key.len() < MIN_SECRET_BYTES {
            return Err(SecretError::Short(key.len()));
        }
        Webhook::from_bytes(key).map(Self).map_err(|_| SecretError::Base64)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_[redacted]")
    }
}

/// A new secret, in the form that is shown once and given to the receiver.
#[must_use]
pub fn generate_secret(entropy: &dyn Entropy) -> String {
    let mut key = [0; NEW_SECRET_BYTES];
    entropy.fill(&mut key);
    format!("{PREFIX}{}", STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededEntropy;

    fn refused(text: &str) -> String {
        Secrets::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn only_long_enough_secrets_are_read() {
        assert!(Secrets::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").is_ok());
        assert!(Secrets::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").is_ok());
        assert_eq!(refused("whsec_"), "the webhook secret has 0 bytes; at least 24 are needed");
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        assert_eq!(refused(&short), "the webhook secret has 23 bytes; at least 24 are needed");
        assert_eq!(refused("whsec_not base64!"), "what follows whsec_ is not base64");
        for other in ["", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "a long enough passphrase, in clear"] {
            assert_eq!(refused(other), "a webhook secret begins with whsec_ and goes on in base64");
        }
    }

    #[test]
    fn a_generated_secret_is_read_and_hidden() {
        let text = generate_secret(&SeededEntropy::new(1));
        let secret = Secrets::parse(&text).unwrap();
        assert_eq!(format!("{secret:?}"), "whsec_[redacted]");
        assert_ne!(text, generate_secret(&SeededEntropy::new(2)));
    }

    #[test]
    fn the_signature_is_the_standard_one() {
        // The crate's own example, with an id of ours: what is signed is `id.timestamp.body`.
        let text = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let id: DeliveryId = "msg_0192e4a1b2c37d4e8f90a1b2c3d4e5f6".parse().unwrap();
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let expected = Webhook::new(text).unwrap().sign(id.as_str(), 1_649_367_553, body.as_bytes()).unwrap();
        let signature = Secrets::parse(text).unwrap().sign(&id, 1_649_367_553, body);
        assert_eq!(signature, expected);
        assert!(signature.starts_with("v1,") && signature.len() > 40);
    }

    #[test]
    fn several_secrets_sign_side_by_side() {
        let (old, new) = (generate_secret(&SeededEntropy::new(1)), generate_secret(&SeededEntropy::new(2)));
        let id: DeliveryId = "msg_0192e4a1b2c37d4e8f90a1b2c3d4e5f6".parse().unwrap();
        let both = Secrets::parse(&format!("{new}\n {old}\n")).unwrap().sign(&id, 1, "{}");
        let each: Vec<String> =
            [&new, &old].map(|s| Secrets::parse(s).unwrap().sign(&id, 1, "{}")).into_iter().collect();
        assert_eq!(both, each.join(" "));
        assert_eq!(
            refused(&[old.as_str(); 5].join(" ")),
            "there are 5 webhook secrets; at most 4 sign a message"
        );
        assert_eq!(
            refused(&format!("{old} nonsense")),
            "a webhook secret begins with whsec_ and goes on in base64"
        );
    }
}
