//! Tiers: the limits of callers of one kind.

use http::HeaderValue;

use super::gcra::Quota;
use crate::rendering::digest::Digest;
use crate::rendering::json_text::EscapedText;

/// Version of the digests by which cells know limits; other replicas share it.
const VERSION: u8 = 1;

/// Bit that is set in the rules of requests in flight, and never in those of quotas.
pub(crate) const IN_FLIGHT: u64 = 1 << 63;

/// The name of every limit of requests in flight.
pub(crate) const CONCURRENCY: &str = "concurrency";

/// A limit's name as a number, which is the same in all tiers of one policy.
pub(crate) type NameId = u16;

/// One limit of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Its name in the configuration file and in response fields.
    pub name: String,
    /// Its name as routes refer to it.
    pub id: NameId,
    pub quota: Quota,
    /// Whether it applies only on routes that name it.
    pub named: bool,
    /// Whether each request asks Redis, where limits are shared.
    pub exact: bool,
    /// Hash of everything that defines the limit, by which cells remember it: an edited limit starts anew and an
    /// unchanged one goes on.
    pub rule: u64,
    pub series: usize,
    /// Its element of the `RateLimit-Policy` field.
    pub policy: String,
}

impl Limit {
    /// Returns the rule of a limit.
    pub(crate) fn rule_id(tier: &str, name: &str, quota: &Quota) -> u64 {
        let Quota { count, period, burst, .. } = quota;
        let mut digest = Digest::new("limit", VERSION);
        digest.text("tier", tier);
        digest.text("name", name);
        digest.number("count", *count);
        digest.number("period", period.as_nanos());
        digest.number("burst", burst.get());
        digest.finish() & !IN_FLIGHT
    }
}

/// A limit of requests in flight, for each key on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concurrency {
    pub max: u32,
    /// Hash of the route, by which cells remember the limit.
    pub rule: u64,
}

impl Concurrency {
    pub(crate) fn new(route: &str, max: u32) -> Concurrency {
        let mut digest = Digest::new("in flight", VERSION);
        digest.text("route", route);
        Concurrency { max, rule: digest.finish() | IN_FLIGHT }
    }
}

/// A tier of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    pub name: EscapedText,
    /// The priority under overload: a higher rank is served longer. Tiers rank in the order of the configuration file.
    pub rank: usize,
    /// Whether refusals are only counted and not enforced.
    pub shadow: bool,
    /// URL where the client can get a better tier.
    pub upgrade: Option<String>,
    pub limits: Vec<Limit>,
    /// The counter series of refusals for requests in flight.
    pub concurrency_series: usize,
    /// The `RateLimit-Policy` value on routes that name no limits, rendered once.
    pub policies: Option<HeaderValue>,
    /// The key of the cell that callers of the tier share if they find no cell of their own.
    pub overflow: u128,
}

impl Tier {
    pub(crate) fn new(
        name: &str,
        rank: usize,
        shadow: bool,
        upgrade: Option<String>,
        limits: Vec<Limit>,
        concurrency_series: usize,
    ) -> Tier {
        let mut overflow = Digest::new("overflow", VERSION);
        overflow.text("tier", name);
        let overflow = overflow.finish_wide();
        let policies = joined(limits.iter().filter(|limit| !limit.named).map(|limit| limit.policy.as_str()));
        let name = EscapedText::new(name);
        Tier { name, rank, shadow, upgrade, limits, concurrency_series, policies, overflow }
    }

    /// Returns the limits that apply on a route which names `named`, each with its index.
    pub(crate) fn limits_on<'a>(&'a self, named: &'a [NameId]) -> impl Iterator<Item = (usize, &'a Limit)> {
        let limits = self.limits.iter().enumerate();
        limits.filter(|(_, limit)| !limit.named || named.contains(&limit.id))
    }
}

pub(crate) fn joined<'a>(policies: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let policies: Vec<&str> = policies.collect();
    HeaderValue::from_str(&policies.join(", ")).ok()
}
