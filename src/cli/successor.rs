//! `matins __successor`: what a daemon asks the program that is to take its place.
//!
//! That it answers shows that it runs here at all; that it reads the settings and the certificate that they
//! name, that it would start.

use super::Done;
use super::args::Global;
use super::failure::{CONFIG, Failure};
use super::output::Output;
use crate::config::{self, Env};
use crate::daemon::reexec::SelfReport;
use crate::daemon::tcp;

/// Says who it is, if it could take over with these settings.
pub fn successor(global: &Global, env: &Env) -> Done {
    let location = config::locate(global.config.as_deref(), env);
    let (settings, problems) = config::load_settings(&location, env);
    if problems.has_errors() {
        return Err(Failure::new(CONFIG, format!("the settings have errors: {}", problems.render(false))));
    }
    tcp::check(&settings.listen)
        .map_err(|e| Failure::new(CONFIG, format!("HTTP could not be answered: {e:#}")))?;
    Output::of_process(true).document(&SelfReport::own()).map(|()| 0)
}
