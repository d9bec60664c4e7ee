//! `[server]` and `[server.tls]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::underscores::Underscores;
use crate::http1::head::HeadLimits;
use crate::http1::server::Settings;
use crate::rendering::secret::Secret;

/// `[server]`.
#[derive(Debug)]
pub(crate) struct ServerPolicy {
    pub listen: Vec<SocketAddr>,
    /// The TLS listeners and what they present.
    pub tls: Option<TlsPolicy>,
    pub admin: Option<SocketAddr>,
    /// The read-only listener for probes.
    pub probes: Option<SocketAddr>,
    pub admin_token: Option<Secret<String>>,
    /// Names under which the admin listener is asked, in lower case.
    pub admin_hosts: Vec<String>,
    pub workers: usize,
    /// Client connections served at once.
    pub max_connections: usize,
    /// Connections served at once by each of the admin listener and the one for probes.
    pub admin_connections: usize,
    /// Time and size limits of client connections.
    pub settings: Settings,
    pub max_body_size: u64,
    /// Request bodies up to this are whole before they hold a place of the upstream; bytes.
    pub buffer_request: usize,
    /// Maximum memory of all buffered bodies; bytes.
    pub buffer_memory: usize,
    /// Slowest pace of a request body, bytes a second; zero allows any.
    pub min_body_rate: u64,
    /// HTTP/2 streams at once on one connection.
    pub h2_max_streams: u32,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What becomes of fields with underscores in their names.
    pub underscores: Underscores,
    /// Whether trusted peers begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether cleartext requests are sent to https.
    pub redirect_https: bool,
    /// Between SIGTERM and the end of accepting.
    pub drain_delay: Duration,
    /// For requests in flight after that.
    pub drain_timeout: Duration,
    /// Whether the files are watched.
    pub watch: bool,
}

impl ServerPolicy {
    /// Whether `address` is one of the trusted proxies.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        !self.trusted_proxies.is_empty() && self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Bounds on heads of requests and answers.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        self.settings.limits
    }
}

/// `[server.tls]`.
#[derive(Clone, Debug)]
pub(crate) struct TlsPolicy {
    pub listen: Vec<SocketAddr>,
    pub config: Arc<rustls::ServerConfig>,
    /// Each certificate's file and when it expires.
    pub expiries: Vec<(PathBuf, SystemTime)>,
}
