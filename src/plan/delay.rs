//! By how much the start of a slot's run is delayed on purpose: `jitter` and `spread`.
//!
//! The slot keeps its nominal instant and is decided there; only its run waits. Both delays are
//! hashes, so a restart, a second look and the forecast find the same ones. Together they end before
//! the next slot: what is due first starts first.

use sha2::{Digest as _, Sha256};

use crate::model::Schedule;
use crate::time::millis;

/// The delay of the slot of `nominal_ms`, milliseconds; 0 where the schedule asks for none. `next_ms`
/// is the nominal instant that follows.
#[must_use]
pub fn start_delay_ms(agent: &str, schedule: &Schedule, nominal_ms: i64, next_ms: Option<i64>) -> i64 {
    if schedule.jitter.is_none() && schedule.spread.is_none() {
        return 0;
    }
    let gap_ms = next_ms.map_or(i64::MAX, |next| next.saturating_sub(nominal_ms).max(1));
    let part = |longest: Option<std::time::Duration>, of: &str| {
        let longest_ms = longest.map_or(0, millis).min(gap_ms);
        if longest_ms > 0 { hash(agent, of).checked_rem(longest_ms.unsigned_abs()).unwrap_or(0) } else { 0 }
    };
    let delay = part(schedule.jitter, &nominal_ms.to_string()) + part(schedule.spread, "spread");
    i64::try_from(delay).unwrap_or(i64::MAX).min(gap_ms - 1)
}

/// The first bytes of a digest: a hash that no release changes.
fn hash(agent: &str, of: &str) -> u64 {
    let digest = Sha256::digest(format!("{agent}\0{of}"));
    digest.iter().take(7).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::ScheduleId;
    use crate::model::Timing;

    fn schedule(jitter: Option<u64>, spread: Option<u64>) -> Schedule {
        let timing = Timing::Every { period: Duration::from_hours(1), phase: Duration::ZERO };
        let seconds = |s: Option<u64>| s.map(Duration::from_secs);
        Schedule {
            jitter: seconds(jitter),
            spread: seconds(spread),
            ..Schedule::plain(ScheduleId::from("x".to_owned()), timing)
        }
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn jitter_differs_by_slot_and_spread_by_agent() {
        let delays = |schedule: &Schedule, agent: &str| -> Vec<i64> {
            (0..50).map(|n| start_delay_ms(agent, schedule, n * HOUR, Some((n + 1) * HOUR))).collect()
        };
        let jitter = schedule(Some(300), None);
        let found = delays(&jitter, "a");
        assert_eq!(found, delays(&jitter, "a"));
        assert!(found.iter().all(|d| (0..300_000).contains(d)), "{found:?}");
        assert!(found.iter().collect::<std::collections::BTreeSet<_>>().len() > 40);
        let spread = schedule(None, Some(1800));
        let found = delays(&spread, "a");
        assert!(found.iter().all(|d| *d == found[0] && *d < 1_800_000), "{found:?}");
        assert_ne!(found[0], delays(&spread, "b")[0]);
        assert_eq!(delays(&schedule(None, None), "a"), [0; 50]);
    }

    #[test]
    fn a_delay_ends_before_the_next_slot() {
        let wide = schedule(Some(36_000), Some(36_000));
        for n in 0..500 {
            let delay = start_delay_ms(&format!("a{n}"), &wide, 7, Some(7 + 60_000));
            assert!((0..60_000).contains(&delay), "{delay}");
        }
        assert!((0..72_000_000).contains(&start_delay_ms("a", &wide, 7, None)));
        assert_eq!(start_delay_ms("a", &wide, 7, Some(8)), 0);
    }
}
