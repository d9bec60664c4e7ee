//! Identifies the caller that a request is limited as: the first of the configured kinds that is present and verified.
//! A value that a client can invent never gives it a fresh quota.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue, Uri, header};

use smallvec::SmallVec;

use crate::fields::query;
use crate::identity::jwt::Claims;
use crate::layer::routed::Routed;
use crate::limit::cells::{Key, Kind};
use crate::limit::tier::Tier;
use crate::policy::limits::{ApiKeyPlace, KeyKind, LimitPolicy, ListedKey, TierSource, Unlisted};

/// The caller of a request, with its tier.
pub(crate) struct Caller<'a> {
    pub key: Key,
    pub tier: &'a Arc<Tier>,
    /// Whether it has an API key that is not listed, and such keys are refused.
    pub rejected: bool,
}

/// Maximum number of API keys of one request that are read.
const MAX_KEYS: usize = 4;

impl<'a> Caller<'a> {
    pub(crate) fn identify(routed: &'a Routed, policy: &'a LimitPolicy) -> Caller<'a> {
        let headers = routed.request.headers();
        // Verified only when it is needed. A token that does not verify proves nothing.
        let claims = || routed.record.verified_claims(headers).as_ref().ok().and_then(Option::as_ref);
        let given = if policy.asks_key() {
            api_keys(policy, headers, routed.request.uri(), claims)
        } else {
            SmallVec::new()
        };
        // The upstream may use any of several keys: the first listed one is charged, and all must be listed.
        let found: SmallVec<[Option<&Arc<ListedKey>>; 1]> =
            given.iter().map(|key| policy.listed(key)).collect();
        let listed = found.iter().copied().flatten().next();
        let unlisted = found.contains(&None);
        let identity = &routed.record.info.snapshot.policy.identity;
        let own = policy.unlisted == Unlisted::Own || matches!(policy.api_key, ApiKeyPlace::Claim(_));
        let of_kind = |kind: &KeyKind| match kind {
            KeyKind::ApiKey => match listed {
                Some(listed) => Some(Key { hash: listed.partition, kind: Kind::Listed }),
                None => {
                    let hash = identity.hasher().unlisted_key(given.first().filter(|_| own)?);
                    Some(Key { hash, kind: Kind::ApiKey })
                }
            },
            KeyKind::Principal if identity.has_claims() => {
                let hash = identity.verified_principal(claims()?)?;
                Some(Key { hash, kind: Kind::Principal })
            }
            KeyKind::Principal => None,
            KeyKind::Ip => Some(of_address(routed, policy)),
        };
        // A caller of none of the configured kinds is limited by its address.
        let key = policy.key.iter().find_map(of_kind).unwrap_or_else(|| of_address(routed, policy));
        let tier = tier(policy, routed, listed, claims).unwrap_or(&policy.default);
        Caller { key, tier, rejected: unlisted && policy.unlisted == Unlisted::Reject }
    }
}

/// Returns the key of an address. Its hash is computed once for each connection and client, until the policy changes.
fn of_address(routed: &Routed, policy: &LimitPolicy) -> Key {
    let snapshot = &routed.record.info.snapshot;
    let network = policy.network(routed.record.info.client);
    let hash = match routed.peer.partition.get() {
        Some((generation, known, hash)) if generation == snapshot.generation && known == network => hash,
        _ => {
            let hash = snapshot.policy.identity.hasher().network(&network);
            routed.peer.partition.set(Some((snapshot.generation, network, hash)));
            hash
        }
    };
    Key { hash, kind: Kind::Ip }
}

fn api_keys<'a>(
    policy: &LimitPolicy,
    headers: &'a HeaderMap,
    uri: &'a Uri,
    claims: impl Fn() -> Option<&'a Claims>,
) -> SmallVec<[Cow<'a, [u8]>; 1]> {
    match &policy.api_key {
        // Comparing names is far faster than looking them up.
        ApiKeyPlace::Header(name) if !headers.keys().any(|known| known == name) => SmallVec::new(),
        ApiKeyPlace::Header(name) => {
            let authorization = *name == header::AUTHORIZATION;
            let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            let values =
                values.filter_map(|value| if authorization { after_scheme(value) } else { Some(value) });
            values.filter(|value| !value.is_empty()).take(MAX_KEYS).map(Cow::Borrowed).collect()
        }
        ApiKeyPlace::Query(name) => {
            let pairs = query::pairs(uri.query().unwrap_or(""));
            let values = pairs.filter(|(known, _)| **known == *name.as_bytes()).map(|(_, value)| value);
            values.filter(|value| !value.is_empty()).take(MAX_KEYS).collect()
        }
        ApiKeyPlace::Claim(claim) => {
            let key = claims().and_then(|claims| claims.text(claim));
            key.map(|key| Cow::Owned(key.into_bytes())).into_iter().collect()
        }
    }
}

/// Returns the credentials after the scheme (RFC 9110 11.4).
fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let at = value.iter().position(u8::is_ascii_whitespace)?;
    Some(value.get(at..)?.trim_ascii())
}

/// Returns the tier of the first source that names an existing one.
fn tier<'a>(
    policy: &'a LimitPolicy,
    routed: &Routed,
    listed: Option<&'a Arc<ListedKey>>,
    claims: impl Fn() -> Option<&'a Claims>,
) -> Option<&'a Arc<Tier>> {
    policy.tier_from.iter().find_map(|source| match source {
        TierSource::Keys => listed.map(|listed| &listed.tier),
        TierSource::Claim(claim) => named(policy, &claims()?.text(claim)?),
        TierSource::Header(name) => {
            if !routed.record.info.snapshot.policy.server.trusts(routed.peer.address.ip()) {
                return None;
            }
            named(policy, routed.request.headers().get(name)?.to_str().ok()?.trim())
        }
    })
}

fn named<'a>(policy: &'a LimitPolicy, name: &str) -> Option<&'a Arc<Tier>> {
    let found = policy.tier(name);
    if found.is_none() {
        static WARNED: AtomicBool = AtomicBool::new(false);
        if !WARNED.swap(true, Ordering::Relaxed) {
            let name: String = name.chars().take(64).collect();
            let default = policy.default.name.as_str();
            tracing::warn!(
                name,
                default,
                "a caller named an unknown tier and got the default tier; logged once"
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_authorization() {
        assert_eq!(after_scheme(b"Bearer  x "), Some(&b"x"[..]));
        assert_eq!(after_scheme(b"x"), None);
    }
}
