//! The command `pillion check`, which validates a configuration file.

use std::path::PathBuf;

use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use super::source::default_file;
use crate::app;
use crate::config::{self, Source};

/// Reads and compiles a configuration file, and prints every problem in it.
pub(super) fn run(file: Option<PathBuf>) -> u8 {
    let Some(file) = file.or_else(default_file) else {
        return fail(FAILED, &"no configuration: give a FILE");
    };
    let source = Source { file: Some(file.clone()), ..Source::default() };
    match config::load(&source, &app::environment()) {
        Ok(policy) => {
            for warning in &policy.warnings {
                say(&format_args!("warning: {warning}"));
            }
            let routes = policy.routes.routes.len() - 1;
            let upstreams = policy.upstreams.len();
            say(&format_args!("{}: fine (routes: {routes}, upstreams: {upstreams})", file.display()));
            OK
        }
        Err(problems) => {
            complain(&problems);
            PROBLEMS
        }
    }
}
