//! A key that verifies signatures, of one algorithm for life.

use std::fmt;

use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::key_error::{KeyFault, RSA_MAX_BITS, RSA_MIN_BITS};

/// The supported signature algorithms (RFC 7518 3.1, RFC 8037 3.1). The algorithm `none` is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The algorithm RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The algorithm ECDSA on P-256 with SHA-256.
    Es256,
    /// The algorithm EdDSA on Curve25519, that is Ed25519.
    EdDsa,
    /// The algorithm HMAC with SHA-256.
    Hs256,
}

impl Algorithm {
    /// Returns the value of `alg`, which is case-sensitive.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Hs256 => "HS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that is bound to one algorithm.
#[derive(Clone, Debug)]
pub(crate) struct VerifyingKey {
    kid: Option<String>,
    material: Material,
}

/// The key material. It determines the algorithm, so the two cannot disagree (RFC 8725 3.1). Debug output contains no
/// secret, because ring's HMAC key prints only its hash algorithm.
#[derive(Clone, Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(hmac::Key),
}

impl VerifyingKey {
    /// Returns the only algorithm that the key verifies.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa(_) => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::Secret(_) => Algorithm::Hs256,
        }
    }

    /// Returns the id that the issuer gave the key (RFC 7517 4.5).
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Returns whether the signature of the message is valid for this key and its algorithm.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        fn by(
            algorithm: &'static dyn VerificationAlgorithm,
            key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> bool {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        }
        match &self.material {
            Material::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok(),
            // JWS signatures are R and S side by side, 64 bytes, not DER (RFC 7518 3.4).
            Material::P256(point) => by(&ECDSA_P256_SHA256_FIXED, point, message, signature),
            Material::Ed25519(point) => by(&ED25519, point, message, signature),
            // The comparison takes constant time.
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    pub(super) fn named(self, kid: Option<String>) -> VerifyingKey {
        VerifyingKey { kid, ..self }
    }

    /// Creates a key from the big-endian modulus and exponent. Leading zeros are dropped: RFC 7518 6.3.1.1 forbids them
    /// but notes that they occur, and they do not change the number.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<VerifyingKey, KeyFault> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !(RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) {
            return Err(KeyFault::RsaSize(bits));
        }
        // ring requires this on verification. A check on loading gives a clear message instead of signatures that never
        // verify.
        let exponent = match e {
            [_, _, _, _, _, _, ..] => u64::MAX,
            _ => e.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !(odd(n) && odd(e) && (3..1 << 33).contains(&exponent)) {
            return Err(KeyFault::RsaNumbers);
        }
        Ok(Material::Rsa(RsaPublicKeyComponents { n: n.to_vec(), e: e.to_vec() }).into())
    }

    /// Creates a key from an uncompressed point (SEC 1, 2.3.3).
    pub(super) fn p256(point: &[u8]) -> Result<VerifyingKey, KeyFault> {
        // ring validates a point only when it is used. A key agreement with it is a use that needs no signature.
        let point_is_on_curve = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())
            .and_then(|own| {
                let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
                agreement::agree_ephemeral(own, &peer, |_| ())
            })
            .is_ok();
        if point_is_on_curve { Ok(Material::P256(point.to_vec()).into()) } else { Err(KeyFault::Point) }
    }

    /// Creates a key from an encoded point (RFC 8032 5.1.2).
    pub(super) fn ed25519(point: &[u8]) -> Result<VerifyingKey, KeyFault> {
        if point.len() != 32 {
            return Err(KeyFault::Ed25519Size(point.len()));
        }
        Ok(Material::Ed25519(point.to_vec()).into())
    }

    /// From the bytes of a shared secret.
    pub(super) fn secret(bytes: &[u8]) -> VerifyingKey {
        Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)).into()
    }
}

impl From<Material> for VerifyingKey {
    fn from(material: Material) -> VerifyingKey {
        VerifyingKey { kid: None, material }
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
