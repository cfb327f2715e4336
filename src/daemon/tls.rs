//! The certificate of the HTTP listener, and its key.
//!
//! Certificates are renewed while a daemon runs, by programs that know nothing of it. So the files are
//! looked at when somebody connects, at most every [`LOOK_EVERY`], and read again when one has changed. What
//! cannot be read leaves the certificate before in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or holds no such thing.
    #[error("cannot read {what} of the HTTP listener from {} ({key})", path.display())]
    File {
        /// What was wanted.
        what: &'static str,
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} (listen.tls.cert) holds no certificate; it is a chain in PEM, the server's own first", .0.display())]
    Empty(PathBuf),
    /// Certificate and key are not a pair, or are of no use.
    #[error("the certificate {} (listen.tls) and its key cannot be used together", cert.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// A certificate with its key, as they are on disk.
#[derive(Debug)]
pub struct Certificate {
    files: Tls,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    config: Arc<ServerConfig>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Certificate {
    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(files: &Tls) -> Result<Self, Error> {
        let changed = changed(files);
        let read = Read { config: config(files)?, changed, looked: Instant::now() };
        Ok(Self { files: files.clone(), read: Mutex::new(read) })
    }

    /// What makes TLS of a connection, with the certificate as it is now.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked.elapsed() >= LOOK_EVERY {
            read.looked = Instant::now();
            self.look(&mut read);
        }
        TlsAcceptor::from(Arc::clone(&read.config))
    }

    fn look(&self, read: &mut Read) {
        let changed = changed(&self.files);
        if changed == read.changed {
            return;
        }
        read.changed = changed;
        match config(&self.files) {
            Ok(config) => {
                tracing::info!("the certificate {} was read anew", self.files.cert.display());
                read.config = config;
            }
            Err(e) => {
                let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
                tracing::error!("the certificate of the HTTP listener stays as it was: {e}{cause}");
            }
        }
    }
}

fn changed(files: &Tls) -> [Option<SystemTime>; 2] {
    [&files.cert, &files.key].map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
}

fn config(files: &Tls) -> Result<Arc<ServerConfig>, Error> {
    let fail = |what, key, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { what, key, path, source }
    };
    let certs = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(fail("the certificate", "listen.tls.cert", &files.cert))?;
    if certs.is_empty() {
        return Err(Error::Empty(files.cert.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(fail("the private key", "listen.tls.key", &files.key))?;
    let pair = |source| Error::Pair { cert: files.cert.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
    let mut config = builder.with_no_client_auth().with_single_cert(certs, key).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
