//! Writes YAML (the one user of `serde_yaml`, which is the YAML organisation's maintained fork).
//! Reading goes through [`super::yaml`]: only that knows places.

use serde::Serialize;

/// A value as YAML text. A value that YAML cannot hold gives a comment that says so: what is written
/// here is for people and is never read back.
#[must_use]
pub fn to_yaml<T: Serialize>(value: &T) -> String {
    // By way of JSON: YAML's own form of an enum is a tag, which no reader of ours takes.
    let plain = serde_json::to_value(value).map_err(|e| e.to_string());
    plain
        .and_then(|plain| serde_yaml::to_string(&plain).map_err(|e| e.to_string()))
        .unwrap_or_else(|e| format!("# it cannot be written as YAML: {e}\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_reads_as_the_same_value() {
        let value =
            serde_json::json!({"a": [1, "no", "1.0", null, true], "text": "two\nlines\n", "empty": {}});
        let text = super::to_yaml(&value);
        let read = super::super::yaml::parse(&text, 0).expect("it is YAML");
        assert_eq!(super::super::yaml::to_json(&read.value), value, "{text}");
    }
}
