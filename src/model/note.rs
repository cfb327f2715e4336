//! The bounds of notes: short texts that an agent keeps for its later runs.
//!
//! The agent's tools refuse what is beyond them while the model can still say it otherwise, and the store leaves it
//! out, for a program may write what it likes into its events file. Lengths are in characters, as the database counts.

/// Longest key of a note, characters.
pub const NOTE_KEY_MAX: usize = 128;
/// Longest note, characters.
pub const NOTE_MAX: usize = 16 << 10;
/// Most notes of one agent; beyond it the oldest go.
pub const NOTES_MAX: usize = 200;
