//! The entry point of the fuzz target for configuration files.

use std::path::Path;

use crate::config::{Environment, Source, admin_place, keys, load};

/// Reads the file at `path`, which holds `text`, in each way that the commands read one.
///
/// # Panics
///
/// Panics if an accepted configuration has no upstream, or a rejected one gives no reason.
pub fn read(path: &Path, text: &str) {
    let environment = Environment { cores: 2, ..Environment::default() };
    let source = Source { file: Some(path.to_owned()), ..Source::default() };
    match load(&source, &environment) {
        Ok(policy) => assert!(!policy.upstreams.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = admin_place(path, &environment);
    let _ = keys(path, text, &environment).map_err(|problems| problems.to_string());
}
