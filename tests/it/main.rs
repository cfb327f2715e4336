//! The integration tests: one binary. In-process tests use `support::TestDaemon`, black-box tests
//! the built program.

mod runs;
mod support;
mod tidy;
mod webhooks;
