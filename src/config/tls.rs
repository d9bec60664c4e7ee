//! Certificates and keys from PEM files to rustls configurations.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::pem_file;
use super::validity::validity;
use super::verifier::{ClientByFile, ServerByFile};

/// Which of two files is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Certificate,
    Key,
}

/// TLS sessions remembered for resumption by id; tickets need no memory.
const SESSIONS: usize = 4096;

/// A certificate chain with its key, which are checked to belong together.
pub(crate) fn certified_key(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, (Part, String)> {
    let chain = pem_file::certificates(cert).map_err(|message| (Part::Certificate, message))?;
    let key_der = pem_file::private_key(key).map_err(|message| (Part::Key, message))?;
    let certified = CertifiedKey::from_der(chain, key_der, &ring::default_provider()).map_err(|error| {
        (Part::Key, format!("{} does not match {}: {error}", key.display(), cert.display()))
    })?;
    Ok(Arc::new(certified))
}

/// Chooses by SNI: the first certificate that is valid for the name, else the first of all.
#[derive(Debug)]
struct BySni(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let (Some(name), Some(certificate)) = (&name, key.cert.first()) else { return false };
            ParsedCertificate::try_from(certificate)
                .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
        };
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

fn roots(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("{} contains no CA certificate: {error}", path.display()))?;
    }
    Ok(roots)
}

/// The certificates that the TLS listeners present, and those that they ask for.
pub(crate) fn server_config(
    certificates: Vec<Arc<CertifiedKey>>,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let named = pem_file::certificates(path)?;
            let roots = Arc::new(roots(path, &named)?);
            let chain = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(Arc::new(ClientByFile { chain, named }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni(certificates)));
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
    // Sessions live and die with this configuration: a reload that tightens client_ca must not be
    // walked around by resuming an older session.
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

/// How an https app is verified, and who we are to it.
pub(crate) fn client_config(
    ca: Option<&Path>,
    client: Option<(&Path, &Path)>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match ca {
        Some(path) => {
            let named = pem_file::certificates(path)?;
            let roots = Arc::new(roots(path, &named)?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| error.to_string())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ServerByFile { chain, named }))
        }
        None => {
            let mut roots = RootCertStore::empty();
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err(
                    "the system has no root certificates; install ca-certificates or set tls.ca".to_owned()
                );
            }
            builder.with_root_certificates(roots)
        }
    };
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => builder
            .with_client_auth_cert(pem_file::certificates(cert)?, pem_file::private_key(key)?)
            .map_err(|error| error.to_string()),
    }
}

/// When a certificate expires; see [`validity`].
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    validity(certificate).map(|(_, end)| UNIX_EPOCH + end)
}
