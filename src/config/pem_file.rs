//! PEM files of certificates and private keys, read so that what a parser would pass over in silence is an error that
//! says what it is.

use std::path::Path;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::runtime::file_access;

/// UTF-8's byte order mark. The line it stands in front of is no BEGIN line: its section would be passed over.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BEGIN: &[u8] = b"-----BEGIN ";
/// How an encrypted private key begins, by RFC 5958 and by RFC 1421 4.6.1.1.
const ENCRYPTED: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let content = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{shown} contains no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{shown} is not a PEM file: {error}")),
    }
}

/// The private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    let content = read(path)?;
    if ENCRYPTED.iter().any(|begin| contains(&content, begin)) {
        return Err(format!(
            "the private key in {shown} is encrypted, and Pillion cannot ask for its password; \
            decrypt it: openssl pkey -in {shown} -out plain.key"
        ));
    }
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        Error::NoItemsFound => format!("{shown} contains no private key"),
        error => format!("cannot read a private key from {shown}: {error}"),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let content = std::fs::read(path)
        .map_err(|error| format!("cannot read {shown}: {error}{}", file_access::after(path, &error)))?;
    match odd(&content) {
        Some(what) => Err(format!("{shown} {what}")),
        None => Ok(content),
    }
}

/// Names the form of a file that is not plain PEM, with the remedy.
fn odd(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        Some("is UTF-16, as its byte order mark says; save it as UTF-8 without one")
    } else if contains(content, BYTE_ORDER_MARK) {
        // Also between two files that were put together.
        Some("has a byte order mark (U+FEFF); save it as UTF-8 without one")
    } else if content.first() == Some(&0x30) && !contains(content, BEGIN) {
        Some("looks like DER; convert it to PEM: openssl x509 or openssl pkey, with -inform DER")
    } else {
        None
    }
}

fn contains(content: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(content, what).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_11_files_say_what_they_are() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (content, expected) in [
            (pem.as_bytes().to_vec(), None),
            (Vec::new(), None),
            (b"said before\n".to_vec(), None),
            ([BYTE_ORDER_MARK, pem.as_bytes()].concat(), Some("byte order mark")),
            ([pem.as_bytes(), BYTE_ORDER_MARK, pem.as_bytes()].concat(), Some("byte order mark")),
            ([&b"\xff\xfe"[..], b"-\0-\0"].concat(), Some("UTF-16")),
            (vec![0x30, 0x82, 1, 2], Some("DER")),
            ([&b"0 text before\n"[..], pem.as_bytes()].concat(), None),
        ] {
            let said = odd(&content);
            let fits = match (said, expected) {
                (Some(said), Some(word)) => said.contains(word),
                (said, expected) => said == expected,
            };
            assert!(fits, "{content:?}: {said:?}");
        }
    }
}
