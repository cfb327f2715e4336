//! Secrets: where their values come from, and how they are kept out of what is stored.
//!
//! A value is read when an attempt starts and lives in memory only: never in a definition, a row, a file
//! of ours, on a command line or in a log. What a program prints passes a [`Redactor`] before it reaches
//! disk. Every error names the place and the remedy, never the value.

mod redact;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use redact::Redactor;
pub use secrecy::{ExposeSecret, SecretString};

/// Largest secret, bytes.
pub const SECRET_MAX: u64 = 64 << 10;

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable is not set.
    #[error(
        "the environment variable {0} is not set; set it for the daemon (systemd: Environment= or EnvironmentFile=)"
    )]
    NoVariable(String),
    /// The daemon was given no credentials at all.
    #[error(
        "there is no credential {0:?}: the daemon has no credentials directory; add LoadCredential={0}:/path/to/file to its unit"
    )]
    NoCredentials(String),
    /// No credential of that name.
    #[error("there is no credential {name:?} in {dir}; add LoadCredential={name}:/path/to/file to the unit", dir = dir.display())]
    NoCredential {
        /// The name asked for.
        name: String,
        /// The credentials directory.
        dir: PathBuf,
    },
    /// A name that would leave the credentials directory.
    #[error("{0:?} is not the name of a credential; write a plain file name")]
    BadCredentialName(String),
    /// The file cannot be read.
    #[error("the secret file {path} cannot be read; check that it exists and that the daemon's user may read it", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More than [`SECRET_MAX`].
    #[error("the secret {place} is larger than 64 KiB; it is probably not the file that was meant")]
    TooLarge {
        /// Where it was read.
        place: String,
    },
    /// Environment variables are text without NUL.
    #[error(
        "the secret {place} is not UTF-8 text without NUL bytes; store it in base64 and let the program decode it"
    )]
    NotText {
        /// Where it was read.
        place: String,
    },
    /// Nothing is there.
    #[error("the secret {place} is empty; write its value there")]
    Empty {
        /// Where it was read.
        place: String,
    },
}

/// The value of an environment variable of the daemon.
#[expect(clippy::disallowed_methods, reason = "secrets may come from the environment")]
pub fn read_env(name: &str) -> Result<SecretString, Error> {
    let place = || format!("in the environment variable {name}");
    // A name that cannot be a variable's makes var_os panic on some platforms.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Error::NoVariable(name.to_owned()));
    }
    let value = std::env::var_os(name).ok_or_else(|| Error::NoVariable(name.to_owned()))?;
    let value = value.into_string().map_err(|_| Error::NotText { place: place() })?;
    checked(value, &place)
}

/// The environment of this process but the variables of these names, for programs that it starts. What is no text is
/// left out.
#[must_use]
pub fn environment_without(names: &[&str]) -> BTreeMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| !names.contains(&name.as_str())).collect()
}

/// The content of a file; one trailing newline (`\n` or `\r\n`) is cut.
pub fn read_file(path: &Path) -> Result<SecretString, Error> {
    let place = || format!("in {}", path.display());
    let bytes = read_capped(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > SECRET_MAX {
        return Err(Error::TooLarge { place: place() });
    }
    let mut text = String::from_utf8(bytes).map_err(|_| Error::NotText { place: place() })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    checked(text, &place)
}

/// The systemd credential `name`; `dir` is the daemon's `CREDENTIALS_DIRECTORY`, where it has one.
pub fn read_credential(name: &str, dir: Option<&Path>) -> Result<SecretString, Error> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(Error::BadCredentialName(name.to_owned()));
    }
    let dir = dir.ok_or_else(|| Error::NoCredentials(name.to_owned()))?;
    read_file(&dir.join(name)).map_err(|e| match e {
        Error::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NoCredential { name: name.to_owned(), dir: dir.to_owned() }
        }
        e => e,
    })
}

fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SECRET_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checked(value: String, place: &dyn Fn() -> String) -> Result<SecretString, Error> {
    if value.len() as u64 > SECRET_MAX {
        return Err(Error::TooLarge { place: place() });
    }
    if value.contains('\0') {
        return Err(Error::NotText { place: place() });
    }
    if value.is_empty() {
        return Err(Error::Empty { place: place() });
    }
    Ok(SecretString::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn one_trailing_newline_is_cut() {
        for (content, value) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b"hunter2\r\n", "hunter2"),
            (b"hunter2\n\n", "hunter2\n"),
            (b"a\nb\n", "a\nb"),
            (b" x ", " x "),
        ] {
            let (_dir, path) = file(content);
            assert_eq!(read_file(&path).unwrap().expose_secret(), value, "{content:?}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let refused = |bytes: &[u8]| {
            let (_dir, path) = file(bytes);
            read_file(&path).unwrap_err()
        };
        assert!(matches!(refused(b""), Error::Empty { .. }));
        assert!(matches!(refused(b"\n"), Error::Empty { .. }));
        assert!(matches!(refused(b"a\0b"), Error::NotText { .. }));
        assert!(matches!(refused(b"\xff\xfe"), Error::NotText { .. }));
        assert!(matches!(refused(&vec![b'x'; 65_537]), Error::TooLarge { .. }));
        let (_dir, path) = file(&vec![b'x'; 65_536]);
        assert_eq!(read_file(&path).unwrap().expose_secret().len(), 65_536, "the cap itself fits");
    }

    #[test]
    fn errors_name_place_and_remedy() {
        let said = read_env("MATINS_TEST_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(said.contains("MATINS_TEST_NO_SUCH_VARIABLE") && said.contains("set it"), "{said}");
        let said = read_file(Path::new("/nonexistent/token")).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/token") && said.contains("check"), "{said}");
        let said = read_credential("hook", None).unwrap_err().to_string();
        assert!(said.contains("hook") && said.contains("LoadCredential="), "{said}");
        let (dir, _) = file(b"v\n");
        let said = read_credential("hook", Some(dir.path())).unwrap_err().to_string();
        assert!(said.contains("hook") && said.contains("LoadCredential="), "{said}");
        assert_eq!(read_credential("token", Some(dir.path())).unwrap().expose_secret(), "v");
    }

    #[test]
    fn a_credential_stays_in_its_directory() {
        let (dir, _) = file(b"v");
        for name in ["", ".", "..", "../token", "a/b", "/etc/hostname"] {
            assert!(
                matches!(read_credential(name, Some(dir.path())), Err(Error::BadCredentialName(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn a_variable_is_read() {
        assert!(!read_env("PATH").unwrap().expose_secret().is_empty());
        assert!(environment_without(&[]).contains_key("PATH"));
        assert!(!environment_without(&["PATH"]).contains_key("PATH"));
        assert!(matches!(read_env("A=B"), Err(Error::NoVariable(_))));
        assert!(matches!(read_env(""), Err(Error::NoVariable(_))));
    }
}
