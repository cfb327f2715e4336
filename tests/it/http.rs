//! The HTTP API over TCP, by plain HTTP from outside.

mod access;
mod native;
