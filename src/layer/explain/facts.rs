//! Facts about one request: every decision that Pillion takes about it before an upstream responds. `render` puts them
//! into words, and `pillion test` compares them with expectations.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::cache::invalidation::Mode;
use crate::cache::key::{self, Partition};
use crate::cache::rules::eligibility::BypassReason;
use crate::cache::rules::storability::Personal;
use crate::cache::settings::{Override, Scope};
use crate::fields::cache_control::RequestDirectives;
use crate::identity::principal::Principal;
use crate::limit::cells::Kind;
use crate::policy::Policy;
use crate::policy::login_redirect::OnRedirect;
use crate::represent::coding::Coding;

/// The facts about a request; see the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The host, if neither the URL nor a field names one.
    pub assumed_host: Option<String>,
    /// The path; `None` if the request is refused before its path is read.
    pub path: Option<PathFacts>,
    /// The route; `None` if the request is refused before routes are compared.
    pub route: Option<RouteFacts>,
    pub fate: Fate,
}

/// The fate of a request as far as its route decides it.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Pillion refuses it, with this status and for this reason.
    Refused { status: StatusCode, detail: String },
    /// Pillion responds itself, for example with a redirect to this location.
    Responded { status: StatusCode, location: String },
    /// The limits, the cache and the upstream decide the rest.
    Forwarded(Box<Forwarded>),
}

/// The path of a request, as written and as it is matched.
#[derive(Clone, Debug)]
pub(crate) struct PathFacts {
    pub given: String,
    pub normal: String,
    /// The reading of lenient upstreams, if it differs.
    pub loose: Option<String>,
}

/// The route of a request, and the routes before it that do not match.
#[derive(Clone, Debug)]
pub(crate) struct RouteFacts {
    /// Number of the route in the configuration, from 1.
    pub position: usize,
    /// Number of routes in the configuration.
    pub total: usize,
    /// Methods and path template of the route; `None` if no route matches and the defaults apply.
    pub pattern: Option<String>,
    /// The conditions of its `when`, all of which hold.
    pub conditions: Vec<String>,
    pub skipped: Vec<SkippedRoute>,
}

/// A route that does not match although it comes first.
#[derive(Clone, Debug)]
pub(crate) struct SkippedRoute {
    pub position: usize,
    pub pattern: String,
    pub why: Mismatch,
}

/// The reason why a route does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Path,
    Host,
    Method,
    /// This condition of its `when` does not hold.
    Condition(String),
}

/// The facts about a request that passes its route.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    /// Fields that are dropped because some apps read them as others.
    pub dropped: Vec<HeaderName>,
    /// The label of the route that rewrote the target, and the new target.
    pub rewritten: Option<(String, String)>,
    pub upstream: Option<UpstreamFacts>,
    pub token: Token,
    /// The credentials that identify the sender.
    pub credentials: Vec<String>,
    pub principal: Option<Principal>,
    /// The hash of the principal, if it is the same in all processes.
    pub principal_hash: Option<String>,
    /// The path in its Destination field (RFC 4918 10.3).
    pub destination: Option<String>,
    /// The host of the request.
    pub host: String,
    /// The limits; `None` if none are configured for the route.
    pub limits: Option<LimitFacts>,
    pub coding: CodingFacts,
    pub cache: CacheFacts,
    pub invalidation: Option<InvalidationFacts>,
}

/// The upstream of a request.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamFacts {
    pub name: String,
    pub urls: Vec<String>,
    /// How long Pillion waits for a response; `None` for a stream, which has no such limit.
    pub timeout: Option<Duration>,
}

/// The state of a request's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Tokens are not verified by this configuration.
    NotConfigured,
    Absent,
    Verified,
    /// It proves nothing, and the cache is bypassed.
    Invalid,
}

/// The limits of a request's caller.
#[derive(Clone, Debug)]
pub(crate) struct LimitFacts {
    /// The name under which a running Pillion knows the caller.
    pub caller: AskedAs,
    pub kind: Kind,
    /// The name of the caller's API key.
    pub key_name: Option<String>,
    pub tier: String,
    /// Whether the tier only counts refusals.
    pub shadow: bool,
    /// Whether its API key is refused.
    pub rejected: bool,
    pub exemption: Exemption,
    /// The quotas that apply.
    pub quotas: Vec<QuotaFacts>,
    /// Number of quota units that the request costs.
    pub cost: u32,
    /// Maximum requests of the caller in flight on the route.
    pub max_in_flight: Option<u32>,
}

/// Whether a route exempts its requests from quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exemption {
    NotGiven,
    Given,
    /// It does not apply, because the path can be read in two ways.
    Withheld,
}

/// A quota that applies to a request.
#[derive(Clone, Debug)]
pub(crate) struct QuotaFacts {
    pub name: String,
    pub count: u32,
    pub period: Duration,
    pub burst: u32,
}

/// The coding of a response, as far as the request decides it.
#[derive(Clone, Debug)]
pub(crate) enum CodingFacts {
    /// The request is refused with this status, for this reason.
    Refused(StatusCode, String),
    /// Responses are not encoded on this route, or the request forbids it.
    Off,
    /// The client accepts no coding that Pillion makes.
    NotAccepted,
    /// The client accepts neither a coding nor unencoded content.
    NothingAccepted,
    /// This coding, for content of at least `min_size` bytes.
    Chosen { coding: Coding, min_size: u64 },
}

/// The treatment of a request by the cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheFacts {
    pub treatment: Treatment,
    pub scope: Scope,
    /// The lifetime of its response, as far as the route decides it.
    pub lifetime: LifetimeFacts,
}

/// The treatment of a request by the cache.
#[derive(Clone, Debug)]
pub(crate) enum Treatment {
    /// `cache.enabled` is false.
    Off,
    /// It asks for an upgrade to these protocols. `write`: its method is not safe.
    Upgrade {
        protocols: String,
        write: bool,
    },
    /// It is a gRPC call. `write`: its method is not safe.
    Grpc {
        write: bool,
    },
    /// Pillion purges the URL itself.
    Purge,
    Write,
    /// Its content, which is part of the cache key, is unknown.
    Content,
    Bypass(BypassReason),
    Read(Box<ReadFacts>),
}

/// A request whose response may be stored.
#[derive(Clone, Debug)]
pub(crate) struct ReadFacts {
    /// The cache key, equal for requests that share stored responses.
    pub key: Vec<u8>,
    /// The fields of the request as the cache sees them.
    pub fields: HeaderMap,
    /// The parts of the cache key that people know.
    pub stored: Option<StoredView>,
    /// The kind of credentials that count on a route with scope "auto".
    pub personal: Personal,
    /// Fields that select fragments.
    pub fragments: Vec<HeaderName>,
    /// Set if it has parameters outside the cache key: whether they are removed for the upstream.
    pub uncounted: Option<bool>,
    pub directives: RequestDirectives,
    /// The tags that the route gives to the response.
    pub tags: Vec<String>,
    /// The version of the app, as configured; empty if there is none.
    pub version: String,
}

/// The lifetime of a response, as far as the route decides it.
#[derive(Clone, Debug)]
pub(crate) struct LifetimeFacts {
    pub ttl: Option<Duration>,
    pub overrides: Override,
    pub heuristic_max: Duration,
    pub max_ttl: Duration,
    pub ttl_by_status: Vec<(StatusCode, Duration)>,
    pub stale_while_revalidate: Duration,
    pub stale_if_unreachable: Duration,
    pub stale_if_error: Duration,
}

/// The invalidation that a write to this URL causes.
#[derive(Clone, Debug)]
pub(crate) struct InvalidationFacts {
    /// Whether the request itself is a write.
    pub writes: bool,
    pub path: String,
    pub rules: Vec<RuleFacts>,
}

/// The invalidation by one rule, with its templates filled in.
#[derive(Clone, Debug)]
pub(crate) struct RuleFacts {
    pub label: String,
    pub tags: Vec<String>,
    /// The paths; `true`: everything below the path.
    pub paths: Vec<(String, bool)>,
    /// Whether only stored responses of the writer are invalidated.
    pub of_principal: bool,
    pub mode: Mode,
    pub on_redirect: OnRedirect,
}

/// The cache key of a response, in the form of cache lookups.
#[derive(Clone, Debug)]
pub(crate) struct StoredView {
    /// Whether the client uses https.
    pub https: bool,
    pub host: String,
    /// The host that a trusted proxy reported beside `host`.
    pub told_host: Option<String>,
    pub target: String,
    pub upstream: String,
    /// The audience of the stored response.
    pub whose: Whose,
}

/// The audience of the stored responses that a request may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Responses that are for everyone.
    All,
    /// Responses of one principal, with the hash that lookups and the access log show.
    Principal(String),
    /// Responses of one principal whose hash differs in each process.
    Unknown,
}

impl Whose {
    pub(super) fn new(principal: Option<&Partition>, policy: &Policy) -> Whose {
        match principal {
            None => Whose::All,
            Some(partition) if policy.hashes_are_shared => Whose::Principal(key::principal_hash(partition)),
            Some(_) => Whose::Unknown,
        }
    }
}

/// The name under which a running Pillion knows a caller.
#[derive(Clone, Debug)]
pub(crate) enum AskedAs {
    /// A name in the key file, or a partition key that is the same in all processes.
    Key(String),
    Address(IpAddr),
    /// None, because the partition key differs in each process.
    Unknown,
}

impl Facts {
    /// Returns the facts of a request that Pillion refuses.
    pub(super) fn refused(status: StatusCode, detail: String) -> Facts {
        Facts { assumed_host: None, path: None, route: None, fate: Fate::Refused { status, detail } }
    }

    /// Returns the facts of a request that passes its route.
    pub(crate) fn forwarded(&self) -> Option<&Forwarded> {
        match &self.fate {
            Fate::Forwarded(forwarded) => Some(forwarded),
            Fate::Refused { .. } | Fate::Responded { .. } => None,
        }
    }

    /// Returns the limits of the caller.
    pub(crate) fn limits(&self) -> Option<&LimitFacts> {
        self.forwarded()?.limits.as_ref()
    }

    /// Returns the facts of a request whose response may be stored.
    pub(crate) fn read(&self) -> Option<&ReadFacts> {
        match &self.forwarded()?.cache.treatment {
            Treatment::Read(read) => Some(read),
            _ => None,
        }
    }
}
