//! The only place where the layer below meets.
