//! The table `[rate_limit]`: partition keys of callers, tiers, and limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

use crate::identity::credential;
use crate::limit::tier::{Concurrency, NameId, Tier};

/// The kind of a partition key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// An API key: a listed one, or any if unlisted keys get limits of their own.
    ApiKey,
    /// A principal from the verified claims of a token.
    Principal,
    Ip,
}

/// The treatment of API keys that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// The key is ignored; another kind of partition key counts.
    Ip,
    /// The key gets limits of its own.
    Own,
    /// The request is rejected with 401.
    Reject,
}

/// The place of the API key in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiKeyPlace {
    /// A header field. In `Authorization` the key follows the scheme.
    Header(HeaderName),
    /// A parameter of the query.
    Query(String),
    /// A claim of a verified token.
    Claim(String),
}

/// The source of a tier's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TierSource {
    Keys,
    /// A claim of a verified token.
    Claim(String),
    /// A field set by a trusted proxy.
    Header(HeaderName),
}

/// A key of the key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedKey {
    pub name: Option<String>,
    /// The tier of the key, with the key's own limits if it has any.
    pub tier: Arc<Tier>,
    pub partition: u128,
}

/// The fields that tell clients about limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    /// Whether to send `RateLimit` and `RateLimit-Policy`.
    pub ratelimit: bool,
    /// Whether to send the older `X-RateLimit-*` fields.
    pub legacy: bool,
}

/// The settings of `[rate_limit]`: partition keys, tiers and limits.
#[derive(Debug)]
pub(crate) struct LimitPolicy {
    pub enabled: bool,
    /// Kinds of partition keys. The first that is present and proven counts.
    pub key: Vec<KeyKind>,
    /// The place of API keys, from `identity.api_key`.
    pub api_key: ApiKeyPlace,
    /// The treatment of API keys that are not listed.
    pub unlisted: Unlisted,
    /// Sources of the tier. The first that names a tier counts.
    pub tier_from: Vec<TierSource>,
    /// The tiers in configured order, at least one. Without a configured tier, it is one without limits.
    pub tiers: Vec<Arc<Tier>>,
    /// The tier of callers for whom no source names a tier.
    pub default: Arc<Tier>,
    /// The listed keys, by the SHA-256 of the key.
    pub listed: HashMap<[u8; 32], Arc<ListedKey>>,
    pub tell: Tell,
    pub max_keys: usize,
    /// Number of bits of an IPv6 address that count.
    pub ipv6_prefix: u8,
    /// The tier and the limit of every counter, by its index.
    pub series: Vec<(String, String)>,
}

impl LimitPolicy {
    /// Returns a tier by its name.
    pub(crate) fn tier(&self, name: &str) -> Option<&Arc<Tier>> {
        self.tiers.iter().find(|tier| tier.name.as_str() == name)
    }

    /// Returns the entry of an API key in the key file.
    pub(crate) fn listed(&self, key: &[u8]) -> Option<&Arc<ListedKey>> {
        if self.listed.is_empty() { None } else { self.listed.get(&credential::sha256(key)) }
    }

    /// Returns whether API keys matter at all: as partition key, as source of the tier, or for admission.
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

    /// Returns the part of an address that counts: all of IPv4, the prefix of IPv6.
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

/// The limits of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteLimits {
    /// Whether the route is exempt from quotas.
    pub exempt: bool,
    /// Limits that apply only on routes that name them.
    pub named: Vec<NameId>,
    /// Number of quota units that a request costs.
    pub cost: NonZeroU32,
    /// Limit on concurrent requests of one key.
    pub concurrency: Option<Concurrency>,
}

impl Default for RouteLimits {
    fn default() -> RouteLimits {
        RouteLimits { exempt: false, named: Vec::new(), cost: NonZeroU32::MIN, concurrency: None }
    }
}
