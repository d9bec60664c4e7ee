//! The command `pillion convert`: a configuration of another proxy as a file for Pillion. What has no equivalent becomes
//! a comment with its place.

mod nginx;

use std::path::PathBuf;

use clap::Subcommand;

use super::generate::write;
use super::output::{PROBLEMS, fail};

/// The proxies whose configuration is converted.
#[derive(Debug, Subcommand)]
pub(super) enum Convert {
    /// Convert an nginx configuration to pillion.toml on standard output
    ///
    /// Read are server and location blocks, proxy_pass, proxy_cache_valid, limit_req, gzip, add_header, timeouts,
    /// redirects and relative includes. Every other directive becomes a comment with its file and line, so read the
    /// result, and then run `pillion check`.
    Nginx {
        /// The configuration file
        #[arg(default_value = "/etc/nginx/nginx.conf")]
        file: PathBuf,
    },
}

/// Converts a configuration.
pub(super) fn run(convert: Convert) -> u8 {
    let Convert::Nginx { file } = convert;
    match nginx::convert(&file) {
        Ok(text) => write(text.as_bytes()),
        Err(error) => fail(PROBLEMS, &error),
    }
}
