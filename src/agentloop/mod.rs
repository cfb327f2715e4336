//! The built-in agent: a model, its tools and a loop, run as a program in a process of its own.
//!
//! The launcher starts it as it starts every other program (`matins __agent BRIEF`), so limits, cancel, logs and
//! re-attaching are not its business. It reads its [`brief::Brief`], asks a [`model::Model`], lets it call tools, and tells what it
//! does in the events file, as any program of the protocol `matins` does: its last line is a result or an error.
//!
//! It never waits for a person. Nothing that a model says is trusted: arguments are parsed and checked, paths are
//! confined, addresses are guarded, and what one answer can cost is bounded before the call.

mod act;
pub mod brief;
pub mod browser;
mod candidates;
mod complaints;
mod context;
mod conversation;
mod guard;
pub mod hands;
pub mod judges;
pub mod model;
mod process;
pub mod providers;
mod record;
pub mod replay;
mod results;
pub mod retry;
mod run;
mod spent;
pub mod tools;
mod words;
pub mod workflow;

pub use conversation::Task;
pub use process::main;
pub use run::End;

/// Version of the lines of a transcript.
pub const TRANSCRIPT_VERSION: u32 = 1;
