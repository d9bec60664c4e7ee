//! Who a request is limited as: the first of the listed kinds that is present and proven. What anybody can make up
//! never gives a fresh allowance.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::identity::credential;
use crate::identity::jwt::Claims;
use crate::layer::Routed;
use crate::limit::cells::{Key, Kind};
use crate::limit::tier::Tier;
use crate::policy::limits::{ApiKeyPlace, KeyKind, LimitPolicy, ListedKey, TierSource, Unlisted};

/// See the head of the file.
pub struct Caller<'a> {
    /// The partition key.
    pub key: Key,
    /// What they may do.
    pub tier: &'a Arc<Tier>,
}

/// An API key that is not listed, where such keys are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

impl<'a> Caller<'a> {
    /// Of a request.
    pub fn of(routed: &'a Routed, policy: &'a LimitPolicy) -> Result<Caller<'a>, Rejected> {
        let headers = routed.request.headers();
        // A token that does not verify proves nothing.
        let claims = routed.record.proven(headers).as_ref().ok().and_then(Option::as_ref);
        let given = api_key(policy, headers, routed.request.uri(), claims);
        let digest = given.map(|given| credential::sha256(&given));
        let listed = digest.and_then(|digest| policy.listed.get(&digest));
        if digest.is_some() && listed.is_none() && policy.unlisted == Unlisted::Reject {
            return Err(Rejected);
        }
        let identity = &routed.record.snapshot.policy.identity;
        let own = policy.unlisted == Unlisted::Own || matches!(policy.api_key, ApiKeyPlace::Claim(_));
        let of_kind = |kind: &KeyKind| match kind {
            KeyKind::ApiKey => {
                let unlisted = || digest.filter(|_| own).map(|digest| identity.hasher().api_key(&digest));
                let hash = listed.map(|listed| listed.partition).or_else(unlisted)?;
                Some(Key { hash, kind: Kind::ApiKey })
            }
            KeyKind::Principal => {
                let hash = identity.proven_principal(claims?)?;
                Some(Key { hash, kind: Kind::Principal })
            }
            KeyKind::Ip => Some(of_address(routed, policy)),
        };
        // Whoever is none of what is listed is still somebody.
        let key = policy.key.iter().find_map(of_kind).unwrap_or_else(|| of_address(routed, policy));
        let tier = tier(policy, routed, listed, claims).unwrap_or_else(|| policy.default_tier());
        Ok(Caller { key, tier })
    }
}

fn of_address(routed: &Routed, policy: &LimitPolicy) -> Key {
    let hasher = routed.record.snapshot.policy.identity.hasher();
    Key { hash: hasher.network(&policy.network(routed.record.client)), kind: Kind::Ip }
}

/// The API key of a request. Of two, the first: whichever the app takes, this one has to be listed.
fn api_key<'a>(
    policy: &LimitPolicy,
    headers: &'a HeaderMap,
    uri: &'a Uri,
    claims: Option<&Claims>,
) -> Option<Cow<'a, [u8]>> {
    let found: Cow<'a, [u8]> = match &policy.api_key {
        ApiKeyPlace::Header(name) => {
            let value = headers.get(name).map(HeaderValue::as_bytes)?;
            Cow::Borrowed(if *name == header::AUTHORIZATION { after_scheme(value)? } else { value })
        }
        ApiKeyPlace::Query(name) => of_query(uri.query()?, name)?,
        ApiKeyPlace::Claim(claim) => Cow::Owned(claims?.text(claim)?.into_bytes()),
    };
    (!found.is_empty()).then_some(found)
}

/// What follows the scheme (RFC 9110 11.4).
fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let at = value.iter().position(u8::is_ascii_whitespace)?;
    Some(value.get(at..)?.trim_ascii())
}

fn of_query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.into_iter().find(|(known, _)| *known == name)?;
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value.as_bytes()));
    }
    Some(Cow::Owned(crate::fields::query::decoded(value)))
}

/// The first source that names a tier there is.
fn tier<'a>(
    policy: &'a LimitPolicy,
    routed: &Routed,
    listed: Option<&'a Arc<ListedKey>>,
    claims: Option<&Claims>,
) -> Option<&'a Arc<Tier>> {
    policy.tier_from.iter().find_map(|source| match source {
        TierSource::Keys => listed.map(|listed| &listed.tier),
        TierSource::Claim(claim) => named(policy, &claims?.text(claim)?),
        TierSource::Header(name) => {
            if !routed.record.snapshot.policy.server.trusts(routed.peer.address.ip()) {
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
            let default = &policy.default_tier().name;
            tracing::warn!(
                name,
                default,
                "a caller names a tier that is not there, and is given the default one; said once"
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_queries_and_fields() {
        let of = |query: &str| of_query(query, "key").map(|key| String::from_utf8_lossy(&key).into_owned());
        assert_eq!(of("a=1&key=x"), Some("x".to_owned()));
        assert_eq!(of("key=a%2Bb+c"), Some("a+b c".to_owned()));
        assert_eq!(of("monkey=x&keys=y"), None);
        assert_eq!(after_scheme(b"Bearer  x "), Some(&b"x"[..]));
        assert_eq!(after_scheme(b"x"), None);
    }
}
