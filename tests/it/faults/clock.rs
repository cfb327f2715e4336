//! A wall clock that is set while the daemon runs: an hour forward, an hour and a day back, 72 years forward.
//!
//! `libfaketime` answers the daemon's questions for the wall time from a file that the test writes; launchers start
//! with an empty environment and keep the true time, as a machine's other clocks would. The monotonic clock
//! goes on as it is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::peak_kib;
use crate::support::chronos::{check, proven, slots_of};
use crate::support::wait::pace;
use crate::support::witness::{Witness, this_second};

const HOUR: i64 = 3600;
/// As `libfaketime` counts years.
const YEAR: i64 = 365 * 24 * HOUR;
/// How long the ledger may take to come to a new time.
const SOON: Duration = Duration::from_secs(20);
/// How much memory a step may cost, KiB.
const MEMORY_KIB: u64 = 32 << 10;

/// The library that sets clocks; where it is not installed a test says so and is over.
#[expect(clippy::print_stdout, reason = "a test that is left out says why")]
fn library() -> Option<PathBuf> {
    let by_architecture = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|e| e.path().join("faketime"));
    let places =
        by_architecture.chain([PathBuf::from("/usr/lib/faketime"), PathBuf::from("/usr/lib64/faketime")]);
    let found = places.map(|p| p.join("libfaketimeMT.so.1")).find(|p| p.exists());
    if found.is_none() {
        println!("skipped: libfaketime is not installed (Debian: apt-get install faketime)");
    }
    found
}

/// A daemon whose wall clock is set by [`set`].
fn clocked() -> Option<Witness> {
    let library = library()?.display().to_string();
    let mut seen = Witness::new();
    set(&seen, 0);
    let file = seen.daemon.home.path().join("clock").display().to_string();
    let env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    seen.daemon.env.extend(env.map(|(n, v)| (n.to_owned(), v.to_owned())));
    seen.daemon.restart();
    seen.ledger_reaches(this_second());
    Some(seen)
}

/// Sets the clock of the daemon to the true time and so many seconds.
fn set(seen: &Witness, seconds: i64) {
    // By a rename: the daemon must not read half a file.
    let new = seen.daemon.home.write("clock.new", &format!("{seconds:+}\n"));
    std::fs::rename(new, seen.daemon.home.path().join("clock")).unwrap();
}

/// Sets the clock forward and waits for the ledger; how long that took, and how much memory.
fn forward(seen: &Witness, seconds: i64) -> [(&'static str, String); 2] {
    let before = peak_kib(seen.daemon.pid());
    set(seen, seconds);
    let begun = Instant::now();
    seen.ledger_reaches(this_second() + seconds);
    let took = begun.elapsed();
    assert!(took < SOON, "the ledger came to the new time after {took:?}");
    pace(Duration::from_secs(2));
    let grown = peak_kib(seen.daemon.pid()).saturating_sub(before);
    assert!(grown < MEMORY_KIB, "{grown} KiB more than before");
    [("caught_up_ms", took.as_millis().to_string()), ("grown_kib", grown.to_string())]
}

fn a_step_forward(name: &str, seconds: i64) {
    let begun = Instant::now();
    let Some(mut seen) = clocked() else { return };
    seen.trigger("manual");
    let mut more = forward(&seen, seconds).to_vec();
    seen.trigger("manual");
    seen.trigger("flaky");
    seen.ask_again(false);
    let history = seen.history(this_second() + seconds);
    assert!(history.slots.len() < 100, "a long stretch is one row: {} rows", history.slots.len());
    more.push(("rows", history.slots.len().to_string()));
    let slots = history.slots.iter().map(|s| s.until - s.nominal + 1).sum::<i64>();
    assert!(slots >= seconds, "{slots} slots are accounted for");
    proven(name, usize::try_from(slots).unwrap(), begun, &check(&history), &more);
}

#[test]
fn an_hour_forward_is_a_downtime_of_an_hour() {
    a_step_forward("clock+1h", HOUR);
}

#[test]
fn seventy_two_years_forward_cost_nothing() {
    a_step_forward("clock+72y", 72 * YEAR);
}

#[test]
fn an_hour_back_fires_nothing_twice_and_triggers_go_on() {
    let begun = Instant::now();
    let Some(mut seen) = clocked() else { return };
    set(&seen, -HOUR);
    let before = slots_of(&seen.daemon).len();
    seen.trigger("manual");
    seen.trigger("flaky");
    pace(Duration::from_secs(3));
    let during = slots_of(&seen.daemon).len();
    assert!(during <= before + 1, "the hour has had its slots: {before} rows, then {during}");
    let back = Instant::now();
    set(&seen, 0);
    // Nothing was due for an hour, so the scheduler may sleep up to half a minute; the short test wakes it.
    if std::env::var_os("MATINS_PATIENT").is_none() {
        seen.daemon.post("/v1/reload", &serde_json::json!({}));
    }
    seen.ledger_reaches(this_second());
    let took = back.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    seen.trigger("manual");
    seen.ask_again(false);
    let history = seen.history(this_second());
    let more = [("caught_up_ms", took.as_millis().to_string())];
    proven("clock-1h", history.slots.len(), begun, &check(&history), &more);
}
