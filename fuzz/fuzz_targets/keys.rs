//! Keys: PEM, DER and JWKS files are read or refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::internals::credentials::read_keys;

fuzz_target!(|data: &[u8]| read_keys(data));
