//! Configuration text: a policy, or problems that name their place.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pillion::internals::configuration;

/// A file in memory that is written anew for each input, in an empty folder of this process.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let shared = PathBuf::from("/dev/shm");
        let folder = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let folder = folder.join(format!("pillion-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder.join("pillion.toml")
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A file of the machine that never ends must not be read.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    if std::fs::write(file(), text).is_ok() {
        configuration::read(file(), text);
    }
});
