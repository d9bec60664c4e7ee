//! Tokens: none that was not signed with the key verifies, and their JSON is an object without doubled names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pillion::identity::jwt::Verifier;
use pillion::identity::{json, keys};

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let secret = keys::shared_secret(&[b's'; 48]).expect("a secret of 48 octets");
        Verifier::new(vec![secret], None, None)
    })
}

fuzz_target!(|data: &[u8]| {
    // Nothing here knows how to sign: whatever verifies is forged.
    assert!(verifier().verify(data, 1_700_000_000).is_err());
    if let Ok(object) = json::object(data) {
        let reference: serde_json::Value = serde_json::from_slice(data).expect("an object is JSON");
        assert_eq!(reference, serde_json::Value::Object(object), "serde_json reads another object");
    }
});
