//! Right definitions.
