//! The environment as an argument: taken once, passed down, never read again.
//!
//! So a test sets a variable without touching the process, and a variable that is changed while the
//! daemon runs cannot make two reloads disagree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// The environment of this process; the only place that reads it.
    #[must_use]
    pub fn from_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The value of a variable; `None` where it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable whose name starts with `prefix`, by name.
    pub fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
            .filter(move |(name, _)| name.starts_with(prefix))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        Self(vars.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_unset_and_values_are_not_shown() {
        let env = Env::from_iter([("A", ""), ("B", "hunter2"), ("BC", "x")]);
        assert_eq!(env.get("A"), None);
        assert_eq!(env.get("B"), Some(OsStr::new("hunter2")));
        assert_eq!(env.with_prefix("B").map(|(n, _)| n).collect::<Vec<_>>(), ["B", "BC"]);
        assert!(!format!("{env:?}").contains("hunter2"));
        assert!(Env::from_process().get("PATH").is_some());
    }
}
