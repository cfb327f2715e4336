//! Waiting on state: the one place in the tests that sleeps, between two looks.

use std::time::{Duration, Instant};

/// Longest wait of any test for a state that must come.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` gives a value. Panics with `what` where it never does.
pub fn eventually_sync<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to be: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// As [`eventually_sync`], but gives up after `limit`.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begun.elapsed() >= limit {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Lets real time pass where a test needs load to last, not where it waits for something.
pub fn pace(d: Duration) {
    std::thread::sleep(d);
}

/// As [`eventually_sync`], for a task.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to be: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
