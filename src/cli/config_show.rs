//! `matins config show`: the settings in force and where each is from.

use serde_json::{Value, json};

use super::Done;
use super::args::Global;
use super::client::settings_meant;
use super::failure::{CONFIG, Failure};
use super::output::{Cell, Output, say};
use crate::config::{self, Env, Settings};

/// Prints every setting. With a mistake in the settings those that are right are shown all the same,
/// and the exit code is that of a check.
pub fn show(global: &Global, env: &Env) -> Done {
    let mut location = settings_meant(global, env);
    if let Some(socket) = &global.socket {
        location = location.with_flag("listen.socket", "--socket", &socket.to_string_lossy());
    }
    let (settings, problems) = config::load_settings(&location, env);
    let out = Output::of_process(global.json);
    if out.json {
        out.document(&document(&settings))?;
    } else {
        out.table(&["KEY", "VALUE", "SOURCE"], &rows(&settings))?;
    }
    say(&problems.render(false));
    if problems.has_errors() { Err(Failure::quiet(CONFIG)) } else { Ok(0) }
}

fn rows(settings: &Settings) -> Vec<Vec<Cell>> {
    let row = |(key, value, source): (String, Value, config::ValueSource)| {
        vec![Cell::text(key), Cell::text(plain(&value)), Cell::text(source.to_string())]
    };
    settings.entries().into_iter().map(row).collect()
}

/// A value as it would be written.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn document(settings: &Settings) -> Value {
    let entry = |(key, value, source): (String, Value, config::ValueSource)| json!({ "key": key, "value": value, "source": source.to_string() });
    settings.entries().into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;

    #[test]
    fn every_setting_is_shown_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("matins.yaml");
        std::fs::write(&file, "timezone: Europe/Berlin\nwebhook_secret: { env: S }\n").unwrap();
        let env = Env::from_iter([("MATINS_CONFIG_MAX_RUNNING", "9")]);
        let (settings, problems) = config::load_settings(&Location::of_file(&file), &env);
        assert!(problems.is_empty());
        let shown = document(&settings);
        let of = |key: &str| shown.as_array().unwrap().iter().find(|e| e["key"] == key).unwrap().clone();
        assert_eq!(of("timezone")["source"], format!("{}:1", file.display()));
        assert_eq!(
            (&of("max_running")["value"], &of("max_running")["source"]),
            (&json!(9), &json!("MATINS_CONFIG_MAX_RUNNING"))
        );
        assert_eq!(
            of("listen.http"),
            json!({ "key": "listen.http", "value": "127.0.0.1:7700", "source": "default" })
        );
        assert_eq!(of("webhook_secret")["value"], json!({ "env": "S" }));
        assert_eq!(rows(&settings).len(), shown.as_array().unwrap().len());
        assert_eq!(
            (plain(&json!("1m")), plain(&json!(null)), plain(&json!({}))),
            ("1m".into(), "null".into(), "{}".into())
        );
    }
}
