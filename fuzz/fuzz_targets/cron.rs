//! Any text as a cron pattern: read or refused, and what is read comes back from its text.
#![no_main]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use matins::model::Cron;

fuzz_target!(|text: &str| {
    if let Ok(cron) = Cron::parse_for("agent", text) {
        assert_eq!(Cron::parse(cron.text()).expect("its own text"), cron);
        if let Some(next) = cron.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            assert_eq!(cron.last_at_or_before(next, &TimeZone::UTC), Some(next));
        }
    }
});
