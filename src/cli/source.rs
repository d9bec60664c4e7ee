//! The source of a command's configuration: its arguments, else variables of the environment, else one of the default
//! files.

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::config::Source;

/// The configuration files to look for if none is named, in this order.
const DEFAULT_FILES: [&str; 2] = ["pillion.toml", "/etc/pillion/pillion.toml"];

/// The message where neither of them exists.
pub(super) const NO_FILE: &str =
    "no configuration: neither ./pillion.toml nor /etc/pillion/pillion.toml exists";

/// The source of the configuration.
#[derive(Clone, Debug, Args)]
pub(super) struct Where {
    /// The file [default: pillion.toml here, else /etc/pillion/pillion.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "PILLION_CONFIG", hide_env_values = true, value_parser = maybe_empty())]
    config: Option<PathBuf>,
    /// The app, in place of upstream.url; with it no file is needed
    #[arg(short, long, value_name = "URL", value_hint = ValueHint::Url, env = "PILLION_UPSTREAM", hide_env_values = true)]
    upstream: Option<String>,
    /// The address to listen on, in place of server.listen
    #[arg(short, long, value_name = "ADDR", value_hint = ValueHint::Other, env = "PILLION_LISTEN", hide_env_values = true)]
    listen: Option<String>,
    /// The admin address, in place of server.admin; "" turns it off
    #[arg(short, long, value_name = "ADDR", value_hint = ValueHint::Other, env = "PILLION_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// The address for probes and metrics, read only, in place of server.probes
    #[arg(short, long, value_name = "ADDR", value_hint = ValueHint::Other, env = "PILLION_PROBES", hide_env_values = true)]
    probes: Option<String>,
    /// Say all there is to say of each request in lines for people
    #[arg(short, long, env = "PILLION_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    verbose: bool,
}

/// Takes an empty value too: a variable that is set and empty.
fn maybe_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Where {
    /// Converts to a configuration source. The error says which option is missing.
    pub(super) fn source(self) -> Result<Source, String> {
        // A variable that is set and empty is one that is not set; --admin "" turns the listener off.
        let upstream = self.upstream.filter(|url| !url.is_empty());
        let named = self.config.filter(|file| !file.as_os_str().is_empty());
        let file = match (named, &upstream) {
            (Some(file), _) => Some(file),
            (None, Some(_)) => None,
            (None, None) => Some(default_or_hidden_file().ok_or_else(|| {
                format!(
                    "{NO_FILE}: give --config FILE, or --upstream URL to run without a file, or make a file with \
                     `pillion init`"
                )
            })?),
        };
        let listen = self.listen.filter(|address| !address.is_empty());
        let probes = self.probes.filter(|address| !address.is_empty());
        let (admin, verbose) = (self.admin, self.verbose);
        Ok(Source { file, upstream, listen, admin, probes, verbose, ..Source::default() })
    }
}

/// Returns the first default file that exists.
pub(super) fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Returns the first default file that exists, else the first that may be there: in a folder that may not be searched. The
/// error of its reader says why.
pub(super) fn default_or_hidden_file() -> Option<PathBuf> {
    let is_hidden = |path: &PathBuf| {
        std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    default_file().or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).find(is_hidden))
}
