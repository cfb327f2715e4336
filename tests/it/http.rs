//! The HTTP API from outside of the process, by plain HTTP.

mod access;
mod enthusiast;
mod files;
mod hostile;
mod kaizen;
mod native;
mod openapi;
mod runs;
