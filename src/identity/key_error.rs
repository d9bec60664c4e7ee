//! What may be wrong with a key file: each fault once, with its remedy. No key material in any of them.

use std::fmt;

/// Keys of one file at most: each may have to be tried for a token without a `kid`.
pub(crate) const MAX_KEYS: usize = 64;
/// RFC 7518 3.3.
pub(crate) const RSA_MIN_BITS: usize = 2048;
/// What ring verifies; a longer key is slow for everybody.
pub(crate) const RSA_MAX_BITS: usize = 8192;
/// As long as the hash (RFC 7518 3.2).
pub(crate) const SECRET_MIN_BYTES: usize = 32;

/// A key file that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyError {
    /// Which key of the file, counted from 1; `None` where it is the file.
    pub key: Option<usize>,
    /// What is wrong with it.
    pub fault: KeyFault,
}

impl KeyError {
    /// Of one key of the file, counted from 0.
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
    /// Neither of the two formats.
    Format,
    /// A byte order mark, which hides the line it stands in front of.
    ByteOrderMark,
    PemUnfinished,
    /// PEM, its base64 damaged.
    PemDamaged,
    /// A PEM section that is no key.
    PemLabel,
    /// What a PEM section holds is not what its label says.
    Der,
    /// Looks like JSON, and is not.
    Json,
    /// A name twice in one JSON object.
    JsonDuplicate,
    /// JSON, but neither a JWKS nor a JWK.
    JsonShape,
    /// A member of a JWK is missing or not what RFC 7518 6 wants.
    JwkMember(&'static str),
    Private,
    /// A symmetric key among public ones.
    Symmetric,
    /// A key of another algorithm.
    Unsupported,
    /// An RSA key whose modulus has too few or too many bits.
    RsaSize(usize),
    /// RSA numbers that are no key.
    RsaNumbers,
    /// Not an uncompressed point of P-256.
    Point,
    /// Not 32 bytes of Ed25519.
    Ed25519Size(usize),
    /// No key at all, or none that can be used.
    NoKeys,
    /// More keys than are tried.
    TooMany(usize),
    /// A shared secret of too few bytes.
    SecretSize(usize),
    /// A key file where a shared secret is wanted.
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
