//! The one integration-test binary.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic like the test itself"
)]

mod launcher;
