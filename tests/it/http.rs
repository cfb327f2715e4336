//! The HTTP API from outside of the process, by plain HTTP.

mod access;
mod files;
mod native;
mod openapi;
