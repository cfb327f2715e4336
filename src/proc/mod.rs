//! Processes: the only user of `Command`.
