//! The source of a command's configuration: its arguments, else one of the default files.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::config::Source;

/// The configuration files to look for if none is named, in this order.
const DEFAULT_FILES: [&str; 2] = ["pillion.toml", "/etc/pillion/pillion.toml"];

/// The source of the configuration.
#[derive(Clone, Debug, Args)]
pub(super) struct Where {
    /// The file [default: pillion.toml here, else /etc/pillion/pillion.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The app, in place of upstream.url; with it no file is needed
    #[arg(short, long, value_name = "URL", value_hint = ValueHint::Url)]
    upstream: Option<String>,
    /// The address to listen on, in place of server.listen
    #[arg(short, long, value_name = "ADDR", value_hint = ValueHint::Other)]
    listen: Option<String>,
    /// The admin address, in place of server.admin; "" turns it off
    #[arg(short, long, value_name = "ADDR", value_hint = ValueHint::Other)]
    admin: Option<String>,
    /// The address for probes and metrics, read only, in place of server.probes
    #[arg(short, long, value_name = "ADDR")]
    probes: Option<String>,
}

impl Where {
    /// Converts to a configuration source. The error says which option is missing.
    pub(super) fn source(self) -> Result<Source, String> {
        let file = match (self.config, &self.upstream) {
            (Some(file), _) => Some(file),
            (None, Some(_)) => None,
            (None, None) => Some(
                default_file()
                    .ok_or("no configuration: give --config FILE, or --upstream URL to run without a file")?,
            ),
        };
        let Where { upstream, listen, admin, probes, .. } = self;
        Ok(Source { file, embedded: None, upstream, listen, admin, probes })
    }
}

pub(super) fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}
