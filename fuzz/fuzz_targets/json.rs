//! Canonical JSON: its own canonical form, and the same value to serde_json.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::internals::canonical_json;

fuzz_target!(|data: &[u8]| {
    let Some(canonical) = canonical_json(data) else { return };
    assert_eq!(canonical_json(&canonical).as_ref(), Some(&canonical), "a canonical form is its own");
    assert!(canonical.len() <= data.len());
    let (before, after) = (serde_json::from_slice(data), serde_json::from_slice(&canonical));
    if let (Ok(before), Ok(after)) = (before, after) {
        let (before, after): (serde_json::Value, serde_json::Value) = (before, after);
        assert_eq!(before, after, "another value");
    }
});
