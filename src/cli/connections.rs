//! Attempts to connect to what a configuration names, for `pillion check --connect`.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::policy::Place;
use crate::policy::Policy;
use crate::policy::notice::Notice;
use crate::redis::link;

/// How long an upstream may take to accept a connection.
const TIMEOUT: Duration = Duration::from_secs(3);

/// An attempt to connect.
pub(super) struct Attempt {
    /// The part of the configuration, with its URL.
    pub target: String,
    /// The description of the other end, or the reason why there is no connection.
    pub result: Result<String, String>,
}

impl Attempt {
    /// The failure as a problem of the file.
    pub(super) fn notice(&self, file: &Path) -> Option<Notice> {
        let error = self.result.as_ref().err()?;
        Some(Notice::error(file, format!("{}: {error}", self.target)))
    }
}

/// Connects to every upstream address, and to Redis.
pub(super) fn attempts(policy: &Policy) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for upstream in &policy.upstreams {
        for endpoint in &upstream.endpoints {
            let accepts = || "it accepts connections".to_owned();
            let result = connect(&endpoint.place).map(|()| accepts()).map_err(|error| error.to_string());
            attempts.push(Attempt { target: format!("upstream {}", endpoint.url), result });
        }
    }
    if let Some(fleet) = &policy.fleet {
        let settings = &fleet.settings;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => {
                let tried = runtime.block_on(link::try_once(settings));
                tried.map(|server| {
                    let warnings = server.warnings.iter().map(|warning| format!("; {warning}"));
                    format!(
                        "version {} at {}{}",
                        server.version,
                        server.address,
                        warnings.collect::<String>()
                    )
                })
            }
            Err(error) => Err(error.to_string()),
        };
        attempts.push(Attempt { target: format!("redis {}", settings.url), result });
    }
    attempts
}

fn connect(place: &Place) -> std::io::Result<()> {
    match place {
        Place::Unix(path) => UnixStream::connect(path).map(drop),
        Place::Host(host, port) => {
            let mut last = std::io::Error::other("the name has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, TIMEOUT) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}
