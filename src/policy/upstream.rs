//! `[upstream]`, `[upstreams.*]` and their health checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;

/// How an app is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 or HTTP/2 by ALPN, over TLS.
    Https {
        tls: Arc<rustls::ClientConfig>,
        /// With HTTP/1.1 alone, for upgrades.
        tls_http1: Arc<rustls::ClientConfig>,
        /// The name the certificate must have, where it is not the host.
        server_name: Option<String>,
    },
    /// HTTP/2 with prior knowledge.
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
    /// A host to resolve, and a port.
    Host(String, u16),
    Unix(PathBuf),
}

/// One `url` or one of `replicas`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointPolicy {
    pub url: String,
    pub place: Place,
    pub scheme: Scheme,
    /// The Host where the client's is not kept.
    pub authority: Authority,
}

/// `[upstream]` or one of `[upstreams.*]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpstreamPolicy {
    /// `upstream`, or the name in the file.
    pub name: String,
    /// The `url` first, then the replicas.
    pub endpoints: Vec<EndpointPolicy>,
    /// Whether writes go to any endpoint.
    pub writes_to_any: bool,
    /// For a TCP or TLS connection to be made.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the answer.
    pub response_timeout: Duration,
    /// Longest silence in an answer's body.
    pub body_timeout: Duration,
    /// Connections in use at once to each address.
    pub max_connections: usize,
    /// Streams without an expected end at once to each address.
    pub max_streams: usize,
    /// Idle connections that each worker keeps to each address.
    pub max_idle: usize,
    /// Connections to each address that wait, each for the client connection they belong to. They hold descriptors here
    /// and there although they hold no place. One client has its share of them.
    pub max_pinned: usize,
    /// Requests that may wait for a connection to one address.
    pub max_waiting: usize,
    /// For how long they wait.
    pub queue_timeout: Duration,
    /// Idle connections are closed after this.
    pub keep_alive: Duration,
    /// Further tries of one request.
    pub retries: u32,
    /// Whether the client's Host goes to the app.
    pub preserve_host: bool,
    /// Whether requests in flight follow the app's latency.
    pub adaptive_concurrency: bool,
    pub health: ProbePolicy,
}

/// `[upstream.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbePolicy {
    /// The path to ask for; `None`: passive only.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that eject.
    pub unhealthy_after: u32,
    /// Successes in a row that bring back.
    pub healthy_after: u32,
}
