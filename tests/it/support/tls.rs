//! Certificates for fake servers.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate authority for one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// The ALPN protocols that the server offers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocols {
    /// Only `http/1.1`.
    Http1,
    /// Only `h2`.
    Http2,
    /// Both.
    Both,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Validity {
    /// Now.
    Now,
    /// It expired in 2001.
    Expired,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system has random numbers");
        let certificate = params.self_signed(&key).expect("the parameters are good");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The PEM text for `extra_ca_file`.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The certificate for a client in the test.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The server side of TLS with a certificate for these names.
    pub(crate) fn acceptor(&self, protocols: Protocols, names: &[&str], validity: Validity) -> TlsAcceptor {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("the names are good");
        if let Validity::Expired = validity {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("the system has random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are good");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is PKCS #8");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("key and certificate belong together");
        let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = match protocols {
            Protocols::Http1 => vec![h1],
            Protocols::Http2 => vec![h2],
            Protocols::Both => vec![h2, h1],
        };
        TlsAcceptor::from(Arc::new(config))
    }
}
