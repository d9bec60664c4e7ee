//! The entry points of the fuzz targets for keys and tokens.

use crate::identity::jwt::Verifier;
use crate::identity::{der, jwk, keys, pem};

/// Reads `data` as a key in each supported format.
///
/// # Panics
///
/// Panics if a key verifies a signature it did not make, or a rejected key gives no reason.
pub fn read_keys(data: &[u8]) {
    for key in keys::parse(data).unwrap_or_default() {
        assert!(!key.verifies(b"a message", b"no signature"), "{:?}", key.algorithm());
    }
    if let Err(error) = keys::parse(data) {
        assert!(!error.to_string().is_empty());
    }
    let _ = (keys::shared_secret(data), jwk::keys(data).map_err(|error| error.to_string()));
    let _ = (der::public_key_info(data), der::rsa_public_key(data), der::certified_key(data));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = pem::sections(text);
    }
}

/// A verifier for tokens signed with one shared secret.
pub struct Tokens(Verifier);

impl Tokens {
    /// Creates the verifier; `None` if `secret` is too short.
    pub fn new(secret: &[u8]) -> Option<Tokens> {
        Some(Tokens(Verifier::new(vec![keys::shared_secret(secret).ok()?], None, None)))
    }

    /// Returns whether `token` verifies at `now`, in seconds since 1970.
    pub fn verify(&self, token: &[u8], now: u64) -> bool {
        self.0.verify(token, now).is_ok()
    }
}
