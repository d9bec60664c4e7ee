//! Configuration text: a policy, or problems that name their place.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pillion::config::{self, Environment, Source};

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
    let environment = Environment { cores: 2, ..Environment::default() };
    if std::fs::write(file(), text).is_err() {
        return;
    }
    let source = Source { file: Some(file().clone()), ..Source::default() };
    match config::load(&source, &environment) {
        Ok(policy) => assert!(!policy.upstreams.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = config::admin_place(file(), &environment);
    let _ = config::keys(file(), text, &environment).map_err(|problems| problems.to_string());
});
