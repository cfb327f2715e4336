//! `matins schema agent|daemon`: the JSON Schema of a file, for editors.

use super::Done;
use super::args::SchemaOf;
use super::output::Output;
use crate::config::keys;

/// Prints a schema.
pub fn schema(of: SchemaOf) -> Done {
    let schema = match of {
        SchemaOf::Agent => keys::json_schema(&keys::AGENT, "matins agent file"),
        SchemaOf::Daemon => keys::json_schema(&keys::SETTINGS, "matins.yaml"),
    };
    Output::of_process(true).document(&schema)?;
    Ok(0)
}
