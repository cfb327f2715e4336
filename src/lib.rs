//! `matins`: a scheduled-run daemon for agents.
//!
//! It reads agents from YAML files, fires their schedules and manual triggers, carries runs out in
//! processes that outlive it, keeps every slot and every run in `SQLite`, and tells webhooks how runs
//! ended. This page is the architecture; each module's header gives its invariant.
//!
//! # Layers
//!
//! Modules of one layer are blind to each other; a module imports lower layers only. A test
//! (`tests/it/tidy.rs`) holds the table, so a new edge is a conscious change.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`ids`] typed ids and entropy, [`time`] the clock, [`task`] named tasks and stopping |
//! | 1 | [`model`] the words as data, [`schema`] JSON Schema, [`template`] prompts, [`secret`] values and redaction, [`net`] address guard and HTTP clients, [`proc`] processes |
//! | 2 | [`config`] text to model, [`plan`] timing to due slots, [`store`] `SQLite`, [`exec`] one attempt, [`webhook`] one HTTP attempt, [`agentloop`] the built-in agent in its own process |
//! | 3 | [`engine`] where layer 2 meets |
//! | 4 | [`api`] the router and its wire types |
//! | 5 | [`daemon`] composition, listeners, signals |
//! | 6 | [`cli`] the command line |
//!
//! # The walk of one run
//!
//! 1. The scheduler's tick plans a schedule ([`plan::due`]), or somebody triggers ([`engine::Core::trigger`]).
//! 2. Both become an admission ([`engine::submit`]): the only place where a run is born.
//! 3. The store writes slot, PENDING run, transition and watermark in one transaction
//!    ([`store::Store::admit_passes`]). From here on nothing can be lost.
//! 4. The dispatcher claims it ([`store::Store::claim_next`]); the epoch grows.
//! 5. The run directory is prepared and the launcher started and held ([`exec::hold`]). RUNNING is
//!    committed with the launcher's identity ([`store::Store::start`]); then the launcher is released.
//! 6. The launcher carries the program out, alone; the run's task only waits for it ([`exec::Live`]).
//! 7. Final state, transition, result and one delivery row a webhook are one transaction
//!    ([`store::Store::finish`]).
//! 8. The deliverer sends what is due and records each attempt ([`webhook::Sender`]).
//! 9. Readers read rows and a feed of hints; nobody calls upward.
//!
//! A crash between any two steps is repaired by one pass at start ([`engine::Core::settle`]): runs
//! are settled by the identity of their launcher, and never COMPLETED by guess.
//!
//! # Invariants
//!
//! - Every due slot is one row, and it is decided in one transaction.
//! - Every write to a run names the epoch it holds; a stale one changes nothing.
//! - What was answered to a caller is on disk at `synchronous=FULL`.
//! - A launcher is released only after its identity is on disk, and ends its whole tree before it
//!   writes how the program ended.
//! - Loops take no input: rows are the truth, signals are hints.

pub mod ids;
pub mod task;
pub mod time;

pub mod model;
pub mod net;
pub mod proc;
pub mod schema;
pub mod secret;
pub mod template;

pub mod agentloop;
pub mod config;
pub mod exec;
pub mod plan;
pub mod store;
pub mod webhook;

pub mod engine;

pub mod api;

pub mod daemon;

pub mod cli;
