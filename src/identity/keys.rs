//! Keys that verify tokens, and the formats of their files: PEM or JWKS for public keys, plain bytes for a shared
//! secret. Keys that are too short, damaged, private or of an unknown kind are rejected on loading, so verification
//! needs no further checks. Not here: signing, fetching of keys, and file access.

use super::key_error::{KeyError, KeyFault, MAX_KEYS, SECRET_MIN_BYTES};
use super::verifying_key::VerifyingKey;
use super::{der, json, jwk, pem};

/// Parses the public keys of a file: one or more in PEM, or a JWKS or JWK.
pub(crate) fn parse(content: &[u8]) -> Result<Vec<VerifyingKey>, KeyError> {
    if has_byte_order_mark(content) {
        return Err(KeyFault::ByteOrderMark.into());
    }
    let keys = if content.trim_ascii_start().starts_with(b"{") {
        jwk::keys(content)?
    } else {
        pem_keys(&String::from_utf8_lossy(content))?
    };
    match keys.len() {
        0 => Err(KeyFault::NoKeys.into()),
        1..=MAX_KEYS => Ok(keys),
        count => Err(KeyFault::TooMany(count).into()),
    }
}

/// Returns whether the file has a byte order mark anywhere, since files may be concatenated.
fn has_byte_order_mark(content: &[u8]) -> bool {
    content.starts_with(b"\xff\xfe") || content.windows(3).any(|bytes| bytes == b"\xef\xbb\xbf")
}

fn pem_keys(text: &str) -> Result<Vec<VerifyingKey>, KeyError> {
    if !text.contains(pem::BEGIN) {
        return Err(KeyFault::Format.into());
    }
    let sections = pem::sections(text).ok_or(KeyFault::PemUnfinished)?;
    let keys = sections.iter().enumerate();
    keys.map(|(index, section)| pem_key(section).map_err(|fault| KeyError::at(index, fault))).collect()
}

fn pem_key(section: &pem::Section<'_>) -> Result<VerifyingKey, KeyFault> {
    // The label tells this even if the content is encrypted or damaged.
    if section.label.ends_with("PRIVATE KEY") {
        return Err(KeyFault::Private);
    }
    let read = match section.label {
        "PUBLIC KEY" => der::public_key_info,
        "RSA PUBLIC KEY" => der::rsa_public_key,
        "CERTIFICATE" => der::certified_key,
        _ => return Err(KeyFault::PemLabel),
    };
    match read(section.content.as_deref().ok_or(KeyFault::PemDamaged)?).ok_or(KeyFault::Der)? {
        der::PublicKey::Rsa { n, e } => VerifyingKey::rsa(n, e),
        der::PublicKey::P256(point) => VerifyingKey::p256(point),
        der::PublicKey::Ed25519(point) => VerifyingKey::ed25519(point),
        der::PublicKey::Other => Err(KeyFault::Unsupported),
    }
}

/// Reads a shared secret for HS256: the bytes of a file, without one line end after them.
pub(crate) fn shared_secret(content: &[u8]) -> Result<VerifyingKey, KeyError> {
    if has_byte_order_mark(content) {
        // The mark would become part of the secret, while the issuer's secret lacks it.
        return Err(KeyFault::ByteOrderMark.into());
    }
    let line = content.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let secret = line.unwrap_or(content);
    // A public key is known to everyone. As a secret it would let everyone sign (RFC 8725 2.1).
    let is_pem = String::from_utf8_lossy(secret).contains(pem::BEGIN);
    if is_pem || json::object(secret) != Err(json::Fault::NoObject) {
        return Err(KeyFault::SecretIsKey.into());
    }
    if secret.len() < SECRET_MIN_BYTES {
        return Err(KeyFault::SecretSize(secret.len()).into());
    }
    Ok(VerifyingKey::secret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixtures::*;
    use crate::identity::verifying_key::Algorithm;
    use proptest::prelude::*;

    fn algorithms(content: &str) -> Result<Vec<Algorithm>, KeyError> {
        Ok(parse(content.as_bytes())?.iter().map(VerifyingKey::algorithm).collect())
    }

    #[test]
    fn pem_files() {
        let all = [RSA_PUBLIC, RSA_PKCS1, RSA_CERTIFICATE, P256_PUBLIC, "a note", ED25519_PUBLIC].join("\n");
        use Algorithm::*;
        assert_eq!(algorithms(&all), Ok(vec![Rs256, Rs256, Rs256, Es256, EdDsa]));
        assert_eq!(algorithms(ED25519_CERTIFICATE), Ok(vec![EdDsa]));
        let relabelled = |from: &str, to: &str, pem: &str| pem.replace(from, to);
        let damaged = ED25519_PUBLIC.replace('M', "*");
        let crl = relabelled("PUBLIC KEY", "X509 CRL", ED25519_PUBLIC);
        let encrypted = relabelled("PUBLIC KEY", "ENCRYPTED PRIVATE KEY", &damaged);
        let cut = &ED25519_PUBLIC[..ED25519_PUBLIC.len() - 10];
        for (content, wanted) in [
            ("", KeyError::from(KeyFault::Format)),
            ("secret", KeyFault::Format.into()),
            (cut, KeyFault::PemUnfinished.into()),
            (&damaged, KeyError::at(0, KeyFault::PemDamaged)),
            (&crl, KeyError::at(0, KeyFault::PemLabel)),
            (&relabelled("PUBLIC KEY", "CERTIFICATE", RSA_PUBLIC), KeyError::at(0, KeyFault::Der)),
            (&relabelled("RSA PUBLIC", "PUBLIC", RSA_PKCS1), KeyError::at(0, KeyFault::Der)),
            (RSA_PRIVATE, KeyError::at(0, KeyFault::Private)),
            (P256_PRIVATE, KeyError::at(0, KeyFault::Private)),
            (P256_SEC1_PRIVATE, KeyError::at(0, KeyFault::Private)),
            (&encrypted, KeyError::at(0, KeyFault::Private)),
            (&[RSA_PUBLIC, ED25519_PRIVATE].join("\n"), KeyError::at(1, KeyFault::Private)),
            (RSA_1024_PUBLIC, KeyError::at(0, KeyFault::RsaSize(1024))),
            (P384_PUBLIC, KeyError::at(0, KeyFault::Unsupported)),
            (P256_COMPRESSED, KeyError::at(0, KeyFault::Point)),
            (&ED25519_PUBLIC.repeat(MAX_KEYS + 1), KeyFault::TooMany(65).into()),
        ] {
            assert_eq!(algorithms(content), Err(wanted), "{content}");
        }
    }

    #[test]
    fn secrets() {
        let secret =
            |length: usize, end: &str| shared_secret(["s".repeat(length).as_str(), end].concat().as_bytes());
        for (length, end, wanted) in [
            (32, "", None),
            (32, "\n", None),
            (32, "\r\n", None),
            (31, "", Some(31)),
            (31, "\n", Some(31)),
            (30, "\r\n", Some(30)),
            (30, "\n\n", Some(31)),
            (0, "", Some(0)),
        ] {
            let fault = wanted.map(|bytes| KeyFault::SecretSize(bytes).into());
            assert_eq!(secret(length, end).err(), fault, "{length} {end:?}");
        }
        for key in [RSA_PUBLIC, RSA_PRIVATE, r#"{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}"#] {
            assert_eq!(shared_secret(key.as_bytes()).err(), Some(KeyFault::SecretIsKey.into()), "{key}");
        }
        let shown = format!("{:?}", secret(32, "").unwrap());
        assert!(!shown.contains("ss") && !shown.contains("115, 115"), "{shown}");
    }

    #[test]
    fn messages() {
        for (error, wanted) in [
            (
                parse(RSA_1024_PUBLIC.as_bytes()).err(),
                "key 1: an RSA key of 1024 bits; RS256 takes 2048 to 8192",
            ),
            (parse(RSA_PRIVATE.as_bytes()).err(), "key 1: a private key"),
            (parse(b"7").err(), "neither PEM nor JSON; give"),
            (shared_secret(b"7").err(), "a secret of 1 bytes; HS256 takes 32 or more"),
        ] {
            let message = error.unwrap().to_string();
            assert!(message.starts_with(wanted), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse(&content), shared_secret(&content));
            let _ = parse(&[b"{\"keys\": [", &content[..], b"]}"].concat());
        }

        #[test]
        fn a_damaged_file_is_read_or_refused(at in any::<prop::sample::Index>(), byte: u8) {
            for file in [RSA_PKCS1, RSA_CERTIFICATE, P256_PUBLIC, ED25519_PUBLIC] {
                let mut content = file.as_bytes().to_vec();
                let at = at.index(content.len());
                content[at] = byte;
                let _ = parse(&content);
            }
        }
    }
}
