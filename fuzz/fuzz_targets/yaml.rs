//! Any text as a definition's YAML: a tree or mistakes, each at a place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matins::config::yaml;

fuzz_target!(|text: &str| {
    if let Ok(root) = yaml::parse(text, 0) {
        let _ = yaml::to_json(&root.value);
    }
});
