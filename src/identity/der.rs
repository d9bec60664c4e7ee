//! A strict parser for the DER (X.690) of public keys: SubjectPublicKeyInfo (RFC 5280 4.1.2.7), PKCS#1 public keys (RFC
//! 8017 A.1.1), and the key inside a certificate (RFC 5280 4.1). Lengths must be minimal, integers positive and
//! minimal, and no bytes may be left over. It does not validate certificates: their dates and signatures are ignored.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The tag `[0] EXPLICIT` of a certificate's version.
const VERSION: u8 = 0xa0;

/// The algorithm 1.2.840.113549.1.1.1, rsaEncryption, with its NULL parameters (RFC 3279 2.3.1).
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// The algorithm 1.2.840.10045.2.1, id-ecPublicKey, with the curve 1.2.840.10045.3.1.7, secp256r1 (RFC 5480 2.1.1).
const P256: &[u8] =
    &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// The algorithm 1.3.101.112, id-Ed25519, which has no parameters (RFC 8410 3).
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

/// A public key by its algorithm. Its numbers are not validated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey<'a> {
    Rsa {
        n: &'a [u8],
        e: &'a [u8],
    },
    /// An encoded point of P-256 (SEC 1, 2.3.3).
    P256(&'a [u8]),
    /// An encoded point of Ed25519 (RFC 8032 5.1.2).
    Ed25519(&'a [u8]),
    /// A well-formed key of another algorithm.
    Other,
}

/// Parses a SubjectPublicKeyInfo with no bytes after it.
pub(crate) fn public_key_info(der: &[u8]) -> Option<PublicKey<'_>> {
    let mut info = whole(der, SEQUENCE)?;
    let algorithm = info.take(SEQUENCE)?;
    let key = info.take(BIT_STRING)?;
    info.end()?;
    // The first byte counts the unused bits of the last byte.
    let key = key.strip_prefix(&[0])?;
    match algorithm {
        RSA => rsa_public_key(key),
        P256 => Some(PublicKey::P256(key)),
        ED25519 => Some(PublicKey::Ed25519(key)),
        _ => {
            Reader(algorithm).take(OBJECT_IDENTIFIER)?;
            Some(PublicKey::Other)
        }
    }
}

/// Parses an RSAPublicKey of PKCS#1 with no bytes after it.
pub(crate) fn rsa_public_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let mut key = whole(der, SEQUENCE)?;
    let n = key.positive()?;
    let e = key.positive()?;
    key.end()?;
    Some(PublicKey::Rsa { n, e })
}

/// Returns the subject's public key of a certificate.
pub(crate) fn certified_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let mut certificate = whole(der, SEQUENCE)?;
    let mut content = Reader(certificate.take(SEQUENCE)?);
    certificate.take(SEQUENCE)?;
    certificate.take(BIT_STRING)?;
    certificate.end()?;
    if content.0.first() == Some(&VERSION) {
        content.take(VERSION)?;
    }
    content.take(INTEGER)?;
    // Skips the signature algorithm, the issuer, the validity and the subject.
    for _ in 0..4 {
        content.take(SEQUENCE)?;
    }
    let before = content.0;
    content.take(SEQUENCE)?;
    public_key_info(&before[..before.len() - content.0.len()])
}

/// The bytes that are left to parse.
struct Reader<'a>(&'a [u8]);

/// Returns the content of the only element.
fn whole(der: &[u8], tag: u8) -> Option<Reader<'_>> {
    let mut reader = Reader(der);
    let content = reader.take(tag)?;
    reader.end()?;
    Some(Reader(content))
}

impl<'a> Reader<'a> {
    /// Returns the content of the next element, which must have this tag. Of the long lengths (X.690 8.1.3.5) only one
    /// and two bytes are accepted, since no key or certificate is longer than 64 KiB.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (length, rest) = match *rest {
            [length @ ..=0x7f, ref rest @ ..] => (usize::from(length), rest),
            [0x81, length @ 0x80..=0xff, ref rest @ ..] => (usize::from(length), rest),
            [0x82, high @ 1..=0xff, low, ref rest @ ..] => {
                (usize::from(u16::from_be_bytes([high, low])), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Returns a positive integer, without the leading zero that keeps its first bit from being a sign (X.690 8.3).
    fn positive(&mut self) -> Option<&'a [u8]> {
        let number = self.take(INTEGER)?;
        match number {
            [0, 0x80..=0xff, ..] => Some(&number[1..]),
            [1..=0x7f, ..] => Some(number),
            _ => None,
        }
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{fixtures, pem};
    use proptest::prelude::*;

    fn der(text: &str) -> Vec<u8> {
        pem::sections(text).unwrap().remove(0).content.unwrap()
    }

    #[test]
    fn one_key_in_three_wrappings() {
        let info = der(fixtures::RSA_PUBLIC);
        let wanted = public_key_info(&info);
        assert!(matches!(wanted, Some(PublicKey::Rsa { n, e: [1, 0, 1] }) if n.len() == 256));
        assert_eq!(rsa_public_key(&der(fixtures::RSA_PKCS1)), wanted);
        assert_eq!(certified_key(&der(fixtures::RSA_CERTIFICATE)), wanted);
        let info = der(fixtures::ED25519_PUBLIC);
        let wanted = public_key_info(&info);
        assert!(matches!(wanted, Some(PublicKey::Ed25519(point)) if point.len() == 32));
        assert_eq!(certified_key(&der(fixtures::ED25519_CERTIFICATE)), wanted);
        assert_eq!(public_key_info(&der(fixtures::P384_PUBLIC)), Some(PublicKey::Other));
        assert_eq!(public_key_info(&der(fixtures::RSA_CERTIFICATE)), None);
    }

    #[test]
    fn lengths() {
        for (bytes, wanted) in [
            (&[0x30, 0][..], Some(&[][..])),
            (&[0x30, 1, 7], Some(&[7])),
            (&[0x30, 2, 7], None),
            (&[0x31, 1, 7], None),
            (&[0x30, 0x81, 1, 7], None),
            (&[0x30, 0x82, 0, 1, 7], None),
            (&[0x30, 0x80, 7, 0, 0], None),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 7], None),
            (&[0x30, 0x81], None),
            (&[0x30], None),
            (&[], None),
        ] {
            assert_eq!(Reader(bytes).take(SEQUENCE), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn integers() {
        for (bytes, wanted) in [
            (&[2, 1, 1][..], Some(&[1][..])),
            (&[2, 2, 0, 0x80], Some(&[0x80])),
            (&[2, 2, 0, 0x7f], None),
            (&[2, 1, 0x80], None),
            (&[2, 1, 0], None),
            (&[2, 0], None),
        ] {
            assert_eq!(Reader(bytes).positive(), wanted, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_no_panic(
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            for text in [fixtures::RSA_PUBLIC, fixtures::RSA_PKCS1, fixtures::ED25519_CERTIFICATE] {
                let mut bytes = der(text);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.truncate(cut.index(bytes.len()) + 1);
                let _ = (public_key_info(&bytes), rsa_public_key(&bytes), certified_key(&bytes));
            }
        }

        #[test]
        fn nothing_may_be_left_over(extra in prop::collection::vec(any::<u8>(), 1..4)) {
            for (text, read) in [
                (fixtures::RSA_PUBLIC, public_key_info as fn(&[u8]) -> Option<PublicKey<'_>>),
                (fixtures::RSA_PKCS1, rsa_public_key),
                (fixtures::ED25519_CERTIFICATE, certified_key),
            ] {
                let mut bytes = der(text);
                prop_assert!(read(&bytes).is_some());
                bytes.extend_from_slice(&extra);
                prop_assert_eq!(read(&bytes), None);
            }
        }
    }
}
