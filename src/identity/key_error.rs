//! Errors in key files, each with its remedy. No message contains key material.

use std::fmt;

/// Maximum keys in one file. A token without a `kid` may have to be tried with each of them.
pub(crate) const MAX_KEYS: usize = 64;
/// Minimum length of an RSA modulus in bits (RFC 7518 3.3).
pub(crate) const RSA_MIN_BITS: usize = 2048;
/// Maximum length of an RSA modulus in bits: the limit of ring. Longer keys would slow down every verification.
pub(crate) const RSA_MAX_BITS: usize = 8192;
/// Minimum length of a shared secret in bytes: that of the hash (RFC 7518 3.2).
pub(crate) const SECRET_MIN_BYTES: usize = 32;

/// The reason why a key file is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyError {
    /// The number of the faulty key in the file, from 1; `None` if the file itself is faulty.
    pub key: Option<usize>,
    /// The fault in the key or the file.
    pub fault: KeyFault,
}

impl KeyError {
    /// Creates the error of one key, with its index counted from 0.
    pub(super) fn at(index: usize, fault: KeyFault) -> KeyError {
        KeyError { key: Some(index + 1), fault }
    }
}

impl From<KeyFault> for KeyError {
    fn from(fault: KeyFault) -> KeyError {
        KeyError { key: None, fault }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(number) => write!(f, "key {number}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl std::error::Error for KeyError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// The file is neither PEM nor JSON.
    Format,
    /// The file has a byte order mark, which hides the line after it.
    ByteOrderMark,
    PemUnfinished,
    /// The base64 of a PEM section is damaged.
    PemDamaged,
    /// A PEM section is no public key.
    PemLabel,
    /// The content of a PEM section does not match its label.
    Der,
    /// The file starts like JSON but is malformed.
    Json,
    /// A name occurs twice in one JSON object.
    JsonDuplicate,
    /// The file is JSON, but neither a JWKS nor a JWK.
    JsonShape,
    /// A member of a JWK is missing, or violates RFC 7518 6.
    JwkMember(&'static str),
    Private,
    /// A symmetric key among public keys.
    Symmetric,
    /// A key of an unsupported algorithm.
    Unsupported,
    /// The modulus of an RSA key has too few or too many bits.
    RsaSize(usize),
    /// The numbers are no valid RSA key.
    RsaNumbers,
    /// The bytes are no uncompressed point of P-256.
    Point,
    /// An Ed25519 key without exactly 32 bytes.
    Ed25519Size(usize),
    /// The file has no usable key.
    NoKeys,
    /// The file has more keys than [`MAX_KEYS`].
    TooMany(usize),
    /// A shared secret has too few bytes.
    SecretSize(usize),
    /// A key file in place of a shared secret.
    SecretIsKey,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use KeyFault::*;
        match *self {
            Format => f.write_str(
                "neither PEM nor JSON; give public keys in PEM (-----BEGIN PUBLIC KEY-----) or as a \
                 JWKS ({\"keys\": [...]})",
            ),
            ByteOrderMark => {
                f.write_str("a byte order mark (U+FEFF) in it; save the file as UTF-8 without one")
            }
            PemUnfinished => f.write_str(
                "a PEM section without the END line of its label; copy the key again, its BEGIN and \
                 END lines included",
            ),
            PemDamaged => f.write_str("a PEM section that is not base64; copy the key again"),
            PemLabel => f.write_str(
                "a PEM section that is no public key; leave only PUBLIC KEY, RSA PUBLIC KEY and \
                 CERTIFICATE in the file",
            ),
            Der => f.write_str(
                "a PEM section whose content is not what its label says; export the key again \
                 (openssl pkey -pubout)",
            ),
            Json => f.write_str("starts as JSON does, but is not JSON; fetch the JWKS again"),
            JsonDuplicate => f.write_str("JSON with a name twice in one object; leave one of the two"),
            JsonShape => f.write_str(
                "JSON, but no keys; give a JWKS, an object with an array \"keys\" (RFC 7517 5), or \
                 one JWK, an object with \"kty\"",
            ),
            JwkMember(name) => write!(
                f,
                "\"{name}\" is missing or not what RFC 7517 4 and RFC 7518 6 want; fetch the key \
                 again from its issuer",
            ),
            Private => f.write_str(
                "a private key, which only the issuer of tokens may hold; give the public key \
                 (openssl pkey -pubout, or the JWK without \"d\"), and replace the pair if this file \
                 was shared",
            ),
            Symmetric => f.write_str(
                "a symmetric key (\"kty\": \"oct\") among public keys; put the secret itself into a \
                 file of its own, as the shared secret of HS256",
            ),
            Unsupported => f.write_str(
                "a key of an algorithm that is not verified here; give an RSA key (RS256), one of \
                 P-256 (ES256) or of Ed25519 (EdDSA)",
            ),
            RsaSize(bits) => write!(
                f,
                "an RSA key of {bits} bits; RS256 takes {} to {} (RFC 7518 3.3), so make a new pair",
                RSA_MIN_BITS, RSA_MAX_BITS,
            ),
            RsaNumbers => f.write_str(
                "numbers that are no RSA key (both odd, the exponent at least 3 and of at most 33 \
                 bits); export the key again",
            ),
            Point => f.write_str(
                "not an uncompressed point of P-256; export the key again (openssl pkey -pubin \
                 -pubout -ec_conv_form uncompressed)",
            ),
            Ed25519Size(bytes) => {
                write!(f, "an Ed25519 key of {bytes} bytes; it has 32, so export the key again")
            }
            NoKeys => f.write_str(
                "no key that can verify a token; give at least one of RSA, P-256 or Ed25519, its \
                 \"use\" \"sig\" or absent",
            ),
            TooMany(count) => write!(
                f,
                "{count} keys, and at most {} are read; leave out those that no longer sign",
                MAX_KEYS,
            ),
            SecretSize(bytes) => write!(
                f,
                "a secret of {bytes} bytes; HS256 takes {} or more (RFC 7518 3.2), such as openssl \
                 rand -base64 48 makes",
                SECRET_MIN_BYTES,
            ),
            SecretIsKey => f.write_str(
                "a PEM or JSON file where a shared secret is wanted; a public key is no secret: give \
                 it as a key, or write the secret itself",
            ),
        }
    }
}
