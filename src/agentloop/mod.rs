//! The built-in agent: a model, its tools and a loop, run as a program in a process of its own.
//!
//! The launcher starts it as it starts every other program (`matins __agent BRIEF`), so limits, cancel, logs and
//! re-attaching are not its business. It reads its [`brief::Brief`], asks a [`model::Model`], lets it call tools, and tells what it
//! does in the events file, as any program of the protocol `matins` does: its last line is a result or an error.
//!
//! It never waits for a person. Nothing that a model says is trusted: arguments are parsed and checked, paths are
//! confined, addresses are guarded, and what one answer can cost is bounded before the call.

pub mod brief;
pub mod model;
pub mod providers;
pub mod retry;
pub mod tools;
