//! Keys: PEM, DER and JWKS files are read or refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::identity::{der, jwk, keys, pem};

fuzz_target!(|data: &[u8]| {
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
});
