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

/// Settings of the table `[server]`.
#[derive(Debug)]
pub(crate) struct ServerPolicy {
    pub listen: Vec<SocketAddr>,
    /// The TLS listeners and their certificates.
    pub tls: Option<TlsPolicy>,
    /// The admin listener: none, one address, or both loopbacks.
    pub admin: Vec<SocketAddr>,
    /// The read-only listener for probes, likewise.
    pub probes: Vec<SocketAddr>,
    pub admin_token: Option<Secret<String>>,
    /// Host names that the admin listener accepts, in lower case.
    pub admin_hosts: Vec<String>,
    pub workers: usize,
    /// Maximum concurrent client connections, over all workers.
    pub max_connections: usize,
    /// Maximum concurrent connections to the admin listener, and equally to the probes listener.
    pub admin_connections: usize,
    /// Time and size limits of client connections.
    pub settings: Settings,
    pub max_body_size: u64,
    /// Maximum bytes of a request body that is buffered before the request takes an upstream slot.
    pub buffer_request: usize,
    /// Maximum memory of all buffered bodies, in bytes.
    pub buffer_memory: usize,
    /// Minimum rate of a request body in bytes a second; zero allows any rate.
    pub min_body_rate: u64,
    /// Maximum concurrent HTTP/2 streams on one connection.
    pub h2_max_streams: u32,
    /// Networks whose forwarding fields are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The treatment of fields with underscores in their names.
    pub underscores: Underscores,
    /// Whether trusted peers start connections with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether cleartext requests are redirected to https.
    pub redirect_https: bool,
    /// Time between SIGTERM and the end of accepting connections.
    pub drain_delay: Duration,
    /// Maximum time for requests in flight after `drain_delay`.
    pub drain_timeout: Duration,
    /// Whether a change of the configuration files causes a reload.
    pub watch: bool,
}

impl ServerPolicy {
    /// Returns whether `address` is a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        !self.trusted_proxies.is_empty() && self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Returns the limits on the heads of requests and responses.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        self.settings.limits
    }
}

/// Settings of the table `[server.tls]`.
#[derive(Clone, Debug)]
pub(crate) struct TlsPolicy {
    pub listen: Vec<SocketAddr>,
    pub config: Arc<rustls::ServerConfig>,
    /// The file and the expiry of each certificate.
    pub expiries: Vec<(PathBuf, SystemTime)>,
}
