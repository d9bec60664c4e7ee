//! Paths and templates: one normal form, in which nothing changes any more, and templates that take what they fill.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion::internals::paths::read;

fuzz_target!(|data: &[u8]| read(data));
