//! The integration tests: one binary. In-process tests use `support::TestDaemon`, black-box tests
//! the built program.

#![expect(clippy::disallowed_methods, reason = "tests start programs and read the environment")]
#![expect(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod against;
mod agent;
mod answers;
mod attempts;
mod backfill;
mod backup;
mod blackbox;
mod breaker;
mod browser;
mod budgets;
mod clock;
mod crash;
mod definitions;
mod disk;
mod examples;
mod faults;
mod foresight;
mod gate;
mod ground;
mod hands;
mod http;
mod import;
mod isolation;
mod launcher;
mod mistakes;
mod models;
mod newcomer;
mod notify;
mod overlap;
mod presets;
mod release;
mod reload;
mod retention;
mod runs;
mod schedules;
mod sessions;
mod sim;
mod stumbles;
mod support;
mod systemd;
mod tidy;
mod waiting;
mod webhooks;
mod words;
mod zones;
