//! placeholder

pub mod ids;
pub mod task;
pub mod time;

pub mod model;
pub mod net;
pub mod proc;
pub mod schema;
pub mod secret;
pub mod template;

pub mod config;
pub mod exec;
pub mod plan;
pub mod store;
pub mod webhook;

pub mod engine;

pub mod api;

pub mod daemon;

pub mod cli;
