//! A real browser as the agent's tool: Chromium, driven over a pipe.
//!
//! Everything that speaks to the browser is here, in the agent's process; the daemon never does. The browser is a
//! child of the run: it dies with it, keeps nothing outside of the run's folders, and reaches no address that the
//! agent itself may not reach. What a page says is data, never an instruction to this program.

pub mod extract;
mod numbers;
mod reading;
pub mod snapshot;
pub mod state;
mod table;
pub mod target;

pub use snapshot::{Node, Ref, Snapshot, States};

#[cfg(test)]
pub(in crate::agentloop) mod testing;
