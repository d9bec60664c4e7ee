//! Parsers of field values: they end, and what they give back is part of what they were given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::internals::fields::read;

fuzz_target!(|data: &[u8]| read(data));
