//! Router and wire types.
