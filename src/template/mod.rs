//! Templates: the one user of `minijinja`.
