//! Trusted roots, and TLS initialised before the first request.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The trusted roots could not be loaded.
#[derive(Debug)]
pub struct RootsError {
    /// The configured file.
    pub file: PathBuf,
    /// Why it cannot be used.
    pub reason: String,
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream.extra_ca_file {}: {}", self.file.display(), self.reason)
    }
}

impl Error for RootsError {}

/// The TLS configuration for providers, without ALPN.
pub(super) fn client_config(extra: Option<&Path>) -> Result<ClientConfig, RootsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(machine_roots());
    if added == 0 {
        // A minimal image has no CA bundle: Mozilla's list is compiled in.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = extra {
        let fault = |reason: String| RootsError { file: file.to_owned(), reason };
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| fault(format!("cannot be read as PEM certificates ({error})")))?;
        if certificates.is_empty() {
            return Err(fault("holds no certificate".to_owned()));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| fault(format!("holds a certificate that cannot be used ({error})")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3, which is all that this can fail on")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Creates and discards a ClientHello: aws-lc-rs seeds its generator with the first key share, which takes tens of milliseconds
/// that would otherwise delay the first request.
pub(super) fn warm_up(config: &ClientConfig) {
    let name = ServerName::try_from("warm-up.invalid").expect("RFC 2606 §2 reserves this name");
    let hello = ClientConnection::new(Arc::new(config.clone()), name).map(|mut connection| {
        let mut sent = Vec::new();
        connection.write_tls(&mut sent)
    });
    if let Err(error) = hello {
        tracing::warn!(%error, "TLS could not be warmed up; the first request will report why");
    }
}

/// The machine's roots, from the paths of the distributions. Ignores `SSL_CERT_FILE` and `SSL_CERT_DIR`: the environment
/// must not choose the trusted roots.
#[cfg(target_os = "linux")]
fn machine_roots() -> Vec<CertificateDer<'static>> {
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch, distroless
        "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
        "/etc/ssl/ca-bundle.pem",             // openSUSE
        "/etc/ssl/cert.pem",                  // Alpine, others
    ];
    BUNDLES
        .iter()
        .map(Path::new)
        .find(|bundle| bundle.exists())
        .map(|bundle| rustls_native_certs::load_certs_from_paths(Some(bundle), None).certs)
        .unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn machine_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}
