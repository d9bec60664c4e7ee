//! `[rate_limit]`: who is limited as whom, and by what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

use crate::identity::credential;
use crate::limit::tier::{Concurrency, NameId, Tier};

/// What a partition key can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// A listed API key, or any where they may be their own.
    ApiKey,
    /// Verified claims of a token.
    Principal,
    Ip,
}

/// What becomes of an API key that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// It is as if there were none.
    Ip,
    /// It is a key of its own.
    Own,
    /// 401.
    Reject,
}

/// Where an API key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiKeyPlace {
    /// A field. In Authorization it follows the scheme.
    Header(HeaderName),
    /// A parameter of the query.
    Query(String),
    /// A claim of a verified token.
    Claim(String),
}

/// Where the name of a tier stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TierSource {
    Keys,
    /// A claim of a verified token.
    Claim(String),
    /// A field of a trusted proxy.
    Header(HeaderName),
}

/// A key of the file of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedKey {
    pub name: Option<String>,
    /// Its tier, with limits of its own where it has them.
    pub tier: Arc<Tier>,
    pub partition: u128,
}

/// Which fields tell clients about limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    /// `RateLimit` and `RateLimit-Policy`.
    pub ratelimit: bool,
    /// `X-RateLimit-*`.
    pub legacy: bool,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct LimitPolicy {
    pub enabled: bool,
    /// The first of these that is present and proven.
    pub key: Vec<KeyKind>,
    /// `identity.api_key`.
    pub api_key: ApiKeyPlace,
    /// API keys that are not listed.
    pub unlisted: Unlisted,
    /// The first of these that names a tier.
    pub tier_from: Vec<TierSource>,
    /// In the order they are written. At least one: without any, that of nobody's limits.
    pub tiers: Vec<Arc<Tier>>,
    /// That of whoever names none.
    pub default: Arc<Tier>,
    /// By the SHA-256 of the key.
    pub listed: HashMap<[u8; 32], Arc<ListedKey>>,
    pub tell: Tell,
    pub max_keys: usize,
    /// Bits of an IPv6 address that count.
    pub ipv6_prefix: u8,
    /// Tier and limit of everything that is counted, by its index.
    pub series: Vec<(String, String)>,
}

impl LimitPolicy {
    /// A tier by its name.
    pub(crate) fn tier(&self, name: &str) -> Option<&Arc<Tier>> {
        self.tiers.iter().find(|tier| tier.name.as_str() == name)
    }

    /// What the file of keys says of an API key.
    pub(crate) fn listed(&self, key: &[u8]) -> Option<&Arc<ListedKey>> {
        if self.listed.is_empty() { None } else { self.listed.get(&credential::sha256(key)) }
    }

    /// Whether an API key says anything: who somebody is, what they may do, or whether they may come at all.
    pub(crate) fn asks_key(&self) -> bool {
        self.unlisted == Unlisted::Reject
            || self.key.contains(&KeyKind::ApiKey)
            || self.tier_from.contains(&TierSource::Keys)
    }

    /// Whether all but the listed keys is equal.
    pub(crate) fn is_as_but_for_keys(&self, other: &LimitPolicy) -> bool {
        let rest = |policy: &LimitPolicy| {
            (policy.enabled, policy.unlisted, policy.tell, policy.max_keys, policy.ipv6_prefix)
        };
        rest(self) == rest(other)
            && (&self.key, &self.api_key, &self.tier_from) == (&other.key, &other.api_key, &other.tier_from)
            && (&self.tiers, &self.default) == (&other.tiers, &other.default)
    }

    /// What counts of an address: all of IPv4, the prefix of IPv6.
    pub(crate) fn network(&self, client: IpAddr) -> [u8; 16] {
        match client.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => {
                let host = 128u32.saturating_sub(u32::from(self.ipv6_prefix));
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                (u128::from(address) & mask).to_be_bytes()
            }
        }
    }
}

/// The limits of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteLimits {
    /// Whether no quota holds here.
    pub exempt: bool,
    /// Limits that hold only where they are named.
    pub named: Vec<NameId>,
    /// As how many requests one counts.
    pub cost: NonZeroU32,
    /// How many may be in flight for one key.
    pub concurrency: Option<Concurrency>,
}

impl Default for RouteLimits {
    fn default() -> RouteLimits {
        RouteLimits { exempt: false, named: Vec::new(), cost: NonZeroU32::MIN, concurrency: None }
    }
}
