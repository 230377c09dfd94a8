//! Whom we trust, and TLS made ready before the first request.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The roots could not be set up.
#[derive(Debug)]
pub struct RootsError {
    /// The file that was asked for.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream.extra_ca_file {}: {}", self.file.display(), self.reason)
    }
}

impl Error for RootsError {}

/// TLS towards providers, no protocol named yet.
pub(super) fn client_config(extra: Option<&Path>) -> Result<ClientConfig, RootsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(machine_roots());
    if added == 0 {
        // A bare image has no CA bundle: Mozilla's list is compiled in.
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

/// Makes a first ClientHello for nobody: aws-lc-rs gathers its seed with the first key share, which takes tens of
/// milliseconds that the first request would otherwise wait for.
pub(super) fn warm_up(config: &ClientConfig) {
    let nobody = ServerName::try_from("warm-up.invalid").expect("RFC 2606 §2 keeps this name");
    let hello = ClientConnection::new(Arc::new(config.clone()), nobody).map(|mut connection| {
        let mut sent = Vec::new();
        connection.write_tls(&mut sent)
    });
    if let Err(error) = hello {
        tracing::warn!(%error, "TLS could not be warmed up; the first request will say more");
    }
}

/// The machine's own roots, from the places where distributions keep them. `SSL_CERT_FILE` and its kin are not asked: who can
/// set a variable must not choose whom we trust.
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
