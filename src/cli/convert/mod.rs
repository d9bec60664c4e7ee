//! The command `pillion convert`: a configuration of another proxy as a file for Pillion. What has no equivalent becomes
//! a comment with its place.

mod ingress;
mod nginx;
mod output;
mod values;

use std::path::PathBuf;

use clap::Subcommand;

use super::generate::write;
use super::output::{FAILED, PROBLEMS, complain, fail};

/// The proxies whose configuration is converted.
#[derive(Debug, Subcommand)]
pub(super) enum Convert {
    /// Convert an nginx configuration to pillion.toml on standard output
    ///
    /// Read are server and location blocks, proxy_pass, proxy_cache_valid, limit_req, gzip, add_header, timeouts,
    /// redirects, allow, deny and relative includes. Every other directive becomes a comment with its file and line, so
    /// read the result, and then run `pillion check`. Where a guard has no equivalent (auth_basic, auth_request), the
    /// route is denied. The exit status is 1 if a guard is lost, which standard error names.
    Nginx {
        /// The configuration file
        #[arg(default_value = "/etc/nginx/nginx.conf")]
        file: PathBuf,
    },
    /// Convert Kubernetes Ingresses, with the annotations of ingress-nginx, to pillion.toml on standard output
    ///
    /// Read are hosts, paths, services, and annotations for limits, bodies, timeouts, redirects, allowed addresses and
    /// rewrites. Every other annotation becomes a comment. Where one that keeps clients out has no equivalent, the routes
    /// are denied.
    Ingress {
        /// File with one or more documents, "-" for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
}

/// Converts a configuration.
pub(super) fn run(convert: Convert) -> u8 {
    let converted = match convert {
        Convert::Nginx { file } => nginx::convert(&file).map_err(|error| error.to_string()),
        Convert::Ingress { file } => ingress::convert(&file),
    };
    match converted {
        Ok(converted) => tell(&converted),
        Err(error) => fail(PROBLEMS, &error),
    }
}

/// Prints a converted configuration, and tells what became of its guards.
fn tell(converted: &output::Converted) -> u8 {
    let code = write(converted.text.as_bytes());
    for place in &converted.closed {
        complain(&format_args!(
            "{place}: nobody may come, because a guard has no equivalent; the comments say which"
        ));
    }
    for guard in &converted.open {
        complain(&format_args!("{guard}"));
    }
    match converted.open.len() {
        0 => code,
        1 => fail(FAILED, &"1 guard is lost: see above"),
        some => fail(FAILED, &format_args!("{some} guards are lost: see above")),
    }
}
