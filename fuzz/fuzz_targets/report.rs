//! Any bytes as a launcher's report: one that is read comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matins::exec::ExitReport;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = serde_json::from_slice::<ExitReport>(bytes) {
        let again = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(serde_json::from_slice::<ExitReport>(&again).expect("it is read"), report);
    }
});
