//! Tiers: what callers of one kind may do.

use http::HeaderValue;

use super::quota::Quota;
use crate::rendering::digest::Digest;
use crate::rendering::json_text::EscapedText;

/// Version of the digests by which cells know limits; other replicas share it.
const VERSION: u8 = 1;

/// Set in the rules that count requests in flight; never in those of quotas.
pub(crate) const IN_FLIGHT: u64 = 1 << 63;

/// The name of every cap on requests in flight.
pub(crate) const CONCURRENCY: &str = "concurrency";

/// A limit's name, as a number: the same in all tiers of one policy.
pub(crate) type NameId = u16;

/// One limit of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Its name in the file, and in what clients are told.
    pub name: String,
    /// Its name as routes refer to it.
    pub id: NameId,
    pub quota: Quota,
    /// Whether it holds only on routes that name it.
    pub named: bool,
    /// Everything that makes it this one: a cell remembers by this, so that an edited limit starts anew and an
    /// untouched one goes on.
    pub rule: u64,
    pub series: usize,
    /// How it is told in `RateLimit-Policy`.
    pub policy: String,
}

impl Limit {
    /// The rule of a limit.
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

/// A cap on requests in flight, of each key, on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concurrency {
    pub max: u32,
    /// The route, as cells remember it.
    pub rule: u64,
}

impl Concurrency {
    pub(crate) fn new(route: &str, max: u32) -> Concurrency {
        let mut digest = Digest::new("in flight", VERSION);
        digest.text("route", route);
        Concurrency { max, rule: digest.finish() | IN_FLIGHT }
    }
}

/// See the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    pub name: EscapedText,
    /// The higher, the longer it is served when not all can be; tiers rank as they are written.
    pub rank: usize,
    /// Whether refusals are only counted.
    pub shadow: bool,
    /// Where a better one can be had.
    pub upgrade: Option<String>,
    pub limits: Vec<Limit>,
    /// Where refusals for requests in flight are counted.
    pub concurrency_series: usize,
    /// The policies of the limits that hold where none is named, ready to be told.
    pub policies: Option<HeaderValue>,
    /// The key under which those are counted together who found no cell of their own.
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

    /// The limits that hold on a route which names `named`, each with its index.
    pub(crate) fn limits_on<'a>(&'a self, named: &'a [NameId]) -> impl Iterator<Item = (usize, &'a Limit)> {
        let limits = self.limits.iter().enumerate();
        limits.filter(|(_, limit)| !limit.named || named.contains(&limit.id))
    }
}

pub(crate) fn joined<'a>(policies: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let policies: Vec<&str> = policies.collect();
    HeaderValue::from_str(&policies.join(", ")).ok()
}
