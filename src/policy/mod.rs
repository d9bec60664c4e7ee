//! What the configuration decided, compiled: immutable, complete, impossible to hold a wrong value.
//!
//! A [`Policy`] is made by `config::compile` alone and swapped whole by `reload`. Nothing here has an
//! opinion about files, and nothing here changes while requests run.

pub(crate) mod cache;
pub(crate) mod descriptors;
mod health;
pub(crate) mod limits;
pub(crate) mod loose;
pub(crate) mod path;
pub(crate) mod redirect;
pub(crate) mod secrets;
pub(crate) mod source_file;
pub(crate) mod table;
pub(crate) mod template;
mod tokens;
pub(crate) mod underscores;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::cache::settings::{CacheSettings, Scope};
use crate::http1::head::HeadLimits;
use crate::http1::server::Settings;
use crate::identity::principal::Identity;
use crate::rendering::json_text::EscapedText;
use crate::rendering::secret::Secret;
use crate::represent::coding::{Coding, Effort};
use crate::represent::media::MediaPattern;
use cache::{InvalidateRule, RouteCache};
use limits::{LimitPolicy, RouteLimits};
use loose::LooseRoutes;
use secrets::SecretSegments;
pub(crate) use source_file::SourceFile;
use table::RouteTable;
use template::{Pattern, Template};
pub(crate) use tokens::{Checks, KeySource};
use underscores::Underscores;

pub(crate) use health::{Awaited, Check, HealthPolicy, Requirement, Webhook};

#[derive(Debug)]
pub(crate) struct Policy {
    /// `[server]`.
    pub server: ServerPolicy,
    /// `[upstream]` first, then `[upstreams.*]` in their order.
    pub upstreams: Vec<UpstreamPolicy>,
    /// `[[routes]]`.
    pub routes: Routes,
    /// `[compression]`.
    pub compression: CompressionPolicy,
    /// `[etag]`.
    pub etag: EtagPolicy,
    /// `[identity]`.
    pub identity: Identity,
    /// Whether `identity.hash_key` is written: else each process makes keyed hashes of its own.
    pub hashes_are_shared: bool,
    /// `identity.jwt.jwks_url`.
    pub keys: Option<KeySource>,
    /// `[cache]`.
    pub cache: CacheSettings,
    /// Whether there is a copy for each user under some route.
    pub keeps_users: bool,
    /// Clients whose `PURGE` Pillion answers.
    pub purge_from: Vec<IpNet>,
    /// `[[invalidate]]`.
    pub invalidate: Vec<Arc<InvalidateRule>>,
    /// `[rate_limit]`.
    pub limits: LimitPolicy,
    /// `[health]`.
    pub health: HealthPolicy,
    /// `[log]`.
    pub log: LogPolicy,
    /// `[metrics]`.
    pub metrics: MetricsPolicy,
    /// `[tracing]`.
    pub tracing: TracingPolicy,
    /// Every file that was read, the configuration itself first: what `watch` watches.
    pub sources: Vec<SourceFile>,
    /// Things that work but were probably not meant.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Whether requests are told of one by one: to a receiver of traces, or by lines of the log.
    pub(crate) fn tells_of_requests(&self) -> bool {
        self.tracing.receiver.is_some() || self.log.access != AccessLog::Off
    }
}

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

/// Certificates and authorities are compared as the files they came from ([`Policy::sources`]).
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

#[derive(Debug)]
pub(crate) struct Routes {
    pub table: RouteTable,
    /// The index for loose readings of paths.
    pub loose: LooseRoutes,
    /// By order; one more at the end for requests that match none.
    pub routes: Vec<Arc<RoutePolicy>>,
}

impl Routes {
    /// Whether there is a copy for each user under some route.
    pub(crate) fn keep_users(&self) -> bool {
        self.routes.iter().any(|route| route.cache.route_settings.scope == Scope::User)
    }

    /// What holds for requests that match no route.
    pub(crate) fn unmatched(&self) -> &Arc<RoutePolicy> {
        // The compiler puts it there whatever the file holds.
        self.routes.last().expect("the last route is the one for requests that match none")
    }
}

/// One of `[[routes]]`.
#[derive(Debug, PartialEq)]
pub(crate) struct RoutePolicy {
    /// The label in metrics and logs: the path template.
    pub label: EscapedText,
    /// What of its paths is not written.
    pub secrets: SecretSegments,
    /// What it matches; `None` for the route of unmatched requests.
    pub pattern: Option<Pattern>,
    /// What becomes of the request.
    pub action: Action,
    /// The index of the upstream, where the route names one.
    pub upstream: Option<usize>,
    /// Instead of `response_timeout`.
    pub timeout: Option<Duration>,
    /// Whether its requests are streams from their start.
    pub stream: bool,
    /// Instead of `server.max_body_size`.
    pub max_body_size: Option<u64>,
    /// Whether answers may be coded.
    pub compress: bool,
    /// Whether answers without a tag get one.
    pub etag: bool,
    /// How long the client is told to keep answers.
    pub browser_ttl: Option<Duration>,
    pub cache: RouteCache,
    /// What its callers may do.
    pub limits: RouteLimits,
    /// Edits of the request's fields.
    pub request: FieldEdits,
    /// Edits of the answer's fields, with those of `deprecated`.
    pub response: FieldEdits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Forward,
    /// Rewrites the path; matching goes on with the routes below.
    Rewrite(Template),
    Deny(StatusCode),
    Redirect {
        /// What stands before the path: scheme and authority, or nothing.
        base: String,
        /// The path, filled from the match.
        to: Template,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
}

/// Changes to the fields of a message: removals first, then what is set or added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldEdits {
    pub remove: Vec<HeaderName>,
    /// Set, replacing what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added beside what is there.
    pub append: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }

    pub(crate) fn apply(&self, headers: &mut http::HeaderMap) {
        self.apply_where(headers, |_| true);
    }

    /// Applies them to a response of Pillion's own, but for the fields that say what that is and how long it holds.
    pub(crate) fn apply_to_own(&self, headers: &mut http::HeaderMap) {
        self.apply_where(headers, |name| !belongs_to_own(name.as_str()));
    }

    fn apply_where(&self, headers: &mut http::HeaderMap, applies: impl Fn(&HeaderName) -> bool) {
        for name in self.remove.iter().filter(|name| applies(name)) {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().filter(|(name, _)| applies(name)) {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in self.append.iter().filter(|(name, _)| applies(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Fields of a response of Pillion's own that no route edits: a 429 that is cacheable, or whose Retry-After is the
/// app's, would be wrong.
fn belongs_to_own(name: &str) -> bool {
    matches!(name, "cache-control" | "expires" | "etag" | "last-modified" | "vary" | "retry-after")
        || name.starts_with("content-")
        || name.starts_with("ratelimit")
        || name.ends_with("-cache-control")
}

/// `[compression]`. Whether a request's answer may be coded is its route's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompressionPolicy {
    /// The codings made, the most liked first.
    pub codings: Vec<Coding>,
    /// Less content than this is not worth it; bytes.
    pub min_size: u64,
    pub types: Vec<MediaPattern>,
    pub effort: Effort,
    /// Whether the app is asked for its content as it is, and not for what the client takes.
    pub ask_identity: bool,
    /// Whether answers that set a cookie and echo the request are left as they are.
    pub breach_guard: bool,
}

/// `[etag]`. Whether a request's answer gets a tag is its route's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtagPolicy {
    /// The longest content that gets one; bytes.
    pub max_size: u64,
}

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracingPolicy {
    /// Who is told of spans.
    pub receiver: Option<OtlpReceiver>,
    /// A trace that begins here is recorded by its id: from this number on, of its last 56 bits.
    pub threshold: u64,
}

/// `tracing.otlp_endpoint`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtlpReceiver {
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    /// What Pillion is called there: `$OTEL_SERVICE_NAME`, or its own name.
    pub service: String,
    /// Fields of every message: `$OTEL_EXPORTER_OTLP_TRACES_HEADERS`, or `$OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: HeaderMap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Json,
    Pretty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    All,
    Errors,
    /// Those that failed or took longer than `slow`.
    Slow,
    Off,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogPolicy {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub access: AccessLog,
    /// The share of ordinary ones.
    pub sample: f64,
    /// From this duration on a request is slow.
    pub slow: Duration,
    /// Names, in lower case without what is neither letter nor digit, whose values never appear.
    pub mask: Vec<String>,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsPolicy {
    /// Upper bounds of the latency histograms, seconds.
    pub buckets: Vec<f64>,
    /// Route labels before the rest folds into one.
    pub max_routes: usize,
}
