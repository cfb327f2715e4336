//! Keys by their names, as `KeyboardEvent.key` has them, and chords of them: `Enter`, `Control+a`, `Shift+Tab`.

use serde_json::{Value, json};

/// Keys that are not a character: name, code, number.
const NAMED: [(&str, &str, u32); 26] = [
    ("Enter", "Enter", 13),
    ("Tab", "Tab", 9),
    ("Escape", "Escape", 27),
    ("Backspace", "Backspace", 8),
    ("Delete", "Delete", 46),
    ("Insert", "Insert", 45),
    ("Home", "Home", 36),
    ("End", "End", 35),
    ("PageUp", "PageUp", 33),
    ("PageDown", "PageDown", 34),
    ("ArrowLeft", "ArrowLeft", 37),
    ("ArrowUp", "ArrowUp", 38),
    ("ArrowRight", "ArrowRight", 39),
    ("ArrowDown", "ArrowDown", 40),
    ("F1", "F1", 112),
    ("F2", "F2", 113),
    ("F3", "F3", 114),
    ("F4", "F4", 115),
    ("F5", "F5", 116),
    ("F6", "F6", 117),
    ("F7", "F7", 118),
    ("F8", "F8", 119),
    ("F9", "F9", 120),
    ("F10", "F10", 121),
    ("F11", "F11", 122),
    ("F12", "F12", 123),
];
/// Keys that change others: name, code, number, bit.
const MODIFIERS: [(&str, &str, u32, u32); 4] = [
    ("Alt", "AltLeft", 18, 1),
    ("Control", "ControlLeft", 17, 2),
    ("Meta", "MetaLeft", 91, 4),
    ("Shift", "ShiftLeft", 16, 8),
];

/// The events of pressing and releasing a chord, in order; each the parameters of `Input.dispatchKeyEvent`.
///
/// # Errors
/// A sentence that names the key that there is not.
pub(super) fn events(chord: &str) -> Result<Vec<Value>, String> {
    // The plus sign itself is a key.
    let (held, key) = match chord.strip_suffix('+') {
        Some(held) => (held.strip_suffix('+').unwrap_or(held), "+"),
        None => chord.rsplit_once('+').unwrap_or(("", chord)),
    };
    let (mut bits, mut events, mut after) = (0, Vec::new(), Vec::new());
    for name in held.split('+').filter(|name| !name.is_empty()) {
        let found = MODIFIERS
            .iter()
            .find(|(own, ..)| own.eq_ignore_ascii_case(name) || (name == "Ctrl" && *own == "Control"));
        let (own, code, number, bit) = found.ok_or_else(|| {
            format!("there is no key {name:?} to be held; there are Alt, Control, Meta and Shift")
        })?;
        bits |= bit;
        let event = |kind, bits: u32| json!({"type": kind, "key": own, "code": code, "windowsVirtualKeyCode": number, "modifiers": bits});
        events.push(event("rawKeyDown", bits));
        after.insert(0, event("keyUp", bits & !bit));
    }
    let mut event = key_of(key)?;
    event["modifiers"] = json!(bits);
    // A chord writes nothing, except with Shift alone.
    let writes = bits & !8 == 0 && event["text"].is_string();
    if !writes {
        event["text"] = Value::Null;
    }
    let mut up = event.clone();
    event["type"] = json!(if writes { "keyDown" } else { "rawKeyDown" });
    up["type"] = json!("keyUp");
    for event in [&mut event, &mut up] {
        if let Value::Object(fields) = event {
            fields.retain(|_, value| !value.is_null());
        }
    }
    if let Value::Object(fields) = &mut up {
        fields.remove("text");
    }
    events.extend([event, up]);
    events.extend(after);
    Ok(events)
}

fn key_of(key: &str) -> Result<Value, String> {
    if let Some((name, code, number)) = NAMED.iter().find(|(name, ..)| name.eq_ignore_ascii_case(key)) {
        let text = (*name == "Enter").then_some("\r");
        return Ok(json!({"key": name, "code": code, "windowsVirtualKeyCode": number, "text": text}));
    }
    let key = if key.eq_ignore_ascii_case("space") { " " } else { key };
    let mut chars = key.chars();
    let (Some(c), None) = (chars.next(), chars.next()) else {
        return Err(format!(
            "there is no key {key:?}; a key is one character or one of {}",
            NAMED.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
        ));
    };
    let (code, number) = match c.to_ascii_uppercase() {
        letter @ 'A'..='Z' => (format!("Key{letter}"), u32::from(letter)),
        digit @ '0'..='9' => (format!("Digit{digit}"), u32::from(digit)),
        ' ' => ("Space".to_owned(), 32),
        _ => (String::new(), 0),
    };
    Ok(json!({"key": key, "code": code, "windowsVirtualKeyCode": number, "text": key}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chord_is_pressed_and_released_in_order() {
        let told = |chord| -> Vec<String> {
            let events = events(chord).unwrap();
            events
                .iter()
                .map(|e| format!("{} {} {} {}", e["type"], e["key"], e["modifiers"], e["text"]))
                .collect()
        };
        assert_eq!(told("Enter"), [r#""keyDown" "Enter" 0 "\r""#, r#""keyUp" "Enter" 0 null"#]);
        let select_all = [
            r#""rawKeyDown" "Control" 2 null"#,
            r#""rawKeyDown" "a" 2 null"#,
            r#""keyUp" "a" 2 null"#,
            r#""keyUp" "Control" 0 null"#,
        ];
        assert_eq!(told("Control+a"), select_all);
        assert_eq!(told("Ctrl+a"), select_all);
        assert_eq!(told("+")[0], r#""keyDown" "+" 0 "+""#);
        assert_eq!(told("Shift++")[1], r#""keyDown" "+" 8 "+""#);
        assert_eq!(told("space")[0], r#""keyDown" " " 0 " ""#);
        assert!(events("Hyper+x").unwrap_err().contains("Hyper"));
        assert!(events("Entre").unwrap_err().contains("Enter"));
    }
}
