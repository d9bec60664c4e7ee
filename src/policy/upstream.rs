//! `[upstream]`, `[upstreams.*]` and their health checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;

/// The protocol of connections to an upstream address.
#[derive(Clone, Debug)]
pub(crate) enum Scheme {
    /// HTTP/1.1 over TCP or a Unix socket, without TLS.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS, chosen by ALPN.
    Https {
        tls: Arc<rustls::ClientConfig>,
        /// The TLS settings that offer only HTTP/1.1, for upgrades.
        tls_http1: Arc<rustls::ClientConfig>,
        /// The name that the certificate must have, if it is not the host.
        server_name: Option<String>,
    },
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// Certificates and authorities are compared as the files they came from ([`crate::policy::Policy::sources`]).
impl PartialEq for Scheme {
    fn eq(&self, other: &Scheme) -> bool {
        match (self, other) {
            (Scheme::Https { server_name: one, .. }, Scheme::Https { server_name: other, .. }) => {
                one == other
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A host to resolve, and its port.
    Host(String, u16),
    Unix(PathBuf),
}

/// An upstream endpoint: the `url`, or one of `replicas`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointPolicy {
    pub url: String,
    pub place: Place,
    pub scheme: Scheme,
    /// The value of `Host` if the client's is not preserved.
    pub authority: Authority,
}

/// Settings of the table `[upstream]`, or of one of `[upstreams.*]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpstreamPolicy {
    /// Either `upstream`, or the name in `[upstreams.*]`.
    pub name: String,
    /// The `url` first, then the replicas.
    pub endpoints: Vec<EndpointPolicy>,
    /// Whether writes go to any endpoint, not only to the first.
    pub writes_to_any: bool,
    /// Timeout for opening a TCP or TLS connection.
    pub connect_timeout: Duration,
    /// Timeout from the last byte of the request to the head of the response.
    pub response_timeout: Duration,
    /// Maximum time without data in the body of a response.
    pub body_timeout: Duration,
    /// Maximum concurrent connections in use to each address.
    pub max_connections: usize,
    /// Maximum concurrent streams without an expected end to each address.
    pub max_streams: usize,
    /// Maximum idle connections that each worker keeps to each address.
    pub max_idle: usize,
    /// Maximum idle connections to each address that are pinned to one client connection each. They hold descriptors on
    /// both sides, although they hold no slot. One client gets only a share of them.
    pub max_pinned: usize,
    /// Maximum requests that wait for a connection to one address.
    pub max_waiting: usize,
    /// Maximum time that a request waits in the queue.
    pub queue_timeout: Duration,
    /// Time after which an idle connection is closed.
    pub keep_alive: Duration,
    /// Maximum retries of one request.
    pub retries: u32,
    /// Whether the client's `Host` is sent to the upstream.
    pub preserve_host: bool,
    /// Whether the limit on concurrent requests adapts to the upstream's latency.
    pub adaptive_concurrency: bool,
    pub health: ProbePolicy,
}

/// Settings of the table `[upstream.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbePolicy {
    /// The path to probe; `None` for passive checks only.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Number of consecutive failures that eject an address.
    pub unhealthy_after: u32,
    /// Number of consecutive successes that restore an address.
    pub healthy_after: u32,
}
