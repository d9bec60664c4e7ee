//! The `pillion` command. The library has all of its code.

use std::ffi::{c_int, c_long};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`.
const PURGE_DELAY: c_int = 15;
/// How long free memory stays resident; ms. The allocator's own second is long enough to be killed in: what an attack made
/// it hold counts against a container's limit until then.
const KEPT_FOR: c_long = 10;

#[allow(unsafe_code, reason = "the allocator's settings have no other interface; the library forbids it")]
fn return_free_memory_soon() {
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // SAFETY: it checks the option's number and stores the value; no other thread runs yet. `MIMALLOC_PURGE_DELAY` goes before.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT_FOR) }
}

fn main() -> ExitCode {
    return_free_memory_soon();
    pillion::main()
}
