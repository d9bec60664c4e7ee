//! Tokens: none that was not signed with the key verifies, and their JSON is an object without doubled names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pillion::internals::credentials::Tokens;
use pillion::internals::json_object;

fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| Tokens::new(&[b's'; 48]).expect("a secret of 48 octets"))
}

fuzz_target!(|data: &[u8]| {
    // Nothing here knows how to sign: whatever verifies is forged.
    assert!(!tokens().verify(data, 1_700_000_000));
    if let Ok(object) = json_object(data) {
        let reference: serde_json::Value = serde_json::from_slice(data).expect("an object is JSON");
        assert_eq!(reference, serde_json::Value::Object(object), "serde_json reads another object");
    }
});
