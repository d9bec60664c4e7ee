//! Credentials: where a request carries them, which values are empty, and their keyed hashes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::hmac;
use siphasher::sip128::SipHasher24;

use super::jwt::Verifier;
use crate::fields::cookie;

pub(crate) type Hash = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Header(HeaderName),
    /// A cookie. As a source of principals its name may contain `*`, and matching ignores case.
    Cookie(String),
    /// The credentials of Basic authentication (RFC 7617).
    Basic,
    /// A claim of a verified token.
    Claim(String),
    /// The client's address, used only for limits.
    Ip,
}

impl Source {
    /// Returns the source as written in the configuration. Names are unique.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::Header(name) => format!("header:{name}"),
            Source::Cookie(name) => format!("cookie:{name}"),
            Source::Basic => "basic".to_owned(),
            Source::Claim(name) => format!("jwt:{name}"),
            Source::Ip => "ip".to_owned(),
        }
    }

    /// Returns the values of the source in a request. A cookie must have exactly this name.
    pub(super) fn values<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a [u8]> {
        match self {
            Source::Header(name) => headers.get_all(name).iter().map(HeaderValue::as_bytes).collect(),
            Source::Cookie(name) => {
                // Returns all cookies of the name, because apps differ in which of them they use.
                let of_name = cookie::pairs(headers).filter(|(known, _)| *known == name.as_bytes());
                of_name.map(|(_, value)| value).collect()
            }
            Source::Basic => basic(headers).into_iter().collect(),
            Source::Claim(_) | Source::Ip => Vec::new(),
        }
    }
}

/// Schemes of `Authorization` that prove nothing without the credentials after them (RFC 9110 11.4, the IANA registry,
/// and additions of frameworks).
const SCHEMES: [&str; 14] = [
    "basic",
    "bearer",
    "digest",
    "negotiate",
    "ntlm",
    "token",
    "apikey",
    "jwt",
    "dpop",
    "gnap",
    "hoba",
    "mutual",
    "vapid",
    "privatetoken",
];

/// Returns whether a value identifies no user: it is empty, two quotes, an `Authorization` scheme alone, or an empty
/// user with an empty password (RFC 7617 2).
pub(crate) fn is_empty(field: Option<&HeaderName>, value: &[u8]) -> bool {
    let blank = |value: &[u8]| matches!(value.trim_ascii(), b"" | b"\"\"" | b"''");
    if blank(value) {
        return true;
    }
    if field != Some(&header::AUTHORIZATION) {
        return false;
    }
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    // An unknown scheme may be the start of a credential in an app's own format.
    let known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
    known && (blank(rest) || (scheme.eq_ignore_ascii_case(b"basic") && rest.trim_ascii() == b"Og=="))
}

/// Returns the whole credentials of Basic authentication. A principal by the user name alone would let anybody claim
/// that name.
fn basic(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| rest.trim_ascii())
}

#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    key: hmac::Key,
    /// The SipHash secrets for hashes needed at every request: for listed API keys, and for all other keys.
    quick: [[u8; 16]; 2],
}

impl Hasher {
    pub(crate) fn new(secret: &[u8]) -> Hasher {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut quick = [[0; 16]; 2];
        let made = hmac::sign(&key, b"quick");
        quick
            .iter_mut()
            .zip(made.as_ref().chunks_exact(16))
            .for_each(|(key, half)| key.copy_from_slice(half));
        Hasher { key, quick }
    }

    /// Returns the SipHash secrets, to compare configurations. They must never be shown.
    pub(super) fn quick(&self) -> [[u8; 16]; 2] {
        self.quick
    }

    /// Hashes one credential: its source and its values.
    pub(crate) fn credential<'a>(&self, source: &str, values: impl IntoIterator<Item = &'a [u8]>) -> Hash {
        self.named_credential(source, b"", values)
    }

    /// Hashes one credential whose source is given in two parts, such as `cookie:` and the cookie's name.
    pub(crate) fn named_credential<'a>(
        &self,
        kind: &str,
        name: &[u8],
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Hash {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(&((kind.len() + name.len()) as u64).to_be_bytes());
        hash.update(kind.as_bytes());
        hash.update(name);
        for value in values {
            hash.update(&(value.len() as u64).to_be_bytes());
            hash.update(value);
        }
        digest(&hash.sign())
    }

    /// Returns the partition key of a listed API key from its SHA-256, which is all that a key file contains.
    pub(crate) fn listed_key(&self, digest: &Hash) -> u128 {
        SipHasher24::new_with_key(&self.quick[0]).hash(digest).as_u128()
    }

    /// Returns the partition key of an unlisted API key. It has a secret of its own, so that no invented key can equal
    /// the digest of a listed one. SipHash, a keyed hash, takes a tenth of the time of HMAC.
    pub(crate) fn unlisted_key(&self, key: &[u8]) -> u128 {
        SipHasher24::new_with_key(&self.quick[1]).hash(key).as_u128()
    }

    /// Returns the partition key of an address or network.
    pub(crate) fn network(&self, network: &[u8; 16]) -> u128 {
        short(self.credential("ip", [&network[..]]))
    }

    pub(crate) fn all(&self, credentials: &[Hash]) -> Hash {
        let mut hash = hmac::Context::with_key(&self.key);
        credentials.iter().for_each(|credential| hash.update(credential));
        digest(&hash.sign())
    }
}

/// Returns the SHA-256 of a key, as a key file lists it.
pub(crate) fn sha256(key: &[u8]) -> Hash {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, key).as_ref());
    digest
}

/// Shortens a hash to 128 bits, which suffice to distinguish keys.
pub(super) fn short(hash: Hash) -> u128 {
    let mut head = [0; 16];
    head.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(head)
}

fn digest(tag: &hmac::Tag) -> Hash {
    let mut digest = [0; 32];
    digest.copy_from_slice(tag.as_ref());
    digest
}

/// Where requests carry tokens, and the verifier for them.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// The header field or cookie with the token.
    pub place: Source,
    /// The verifier; replaced as a whole when keys are fetched again.
    pub verifier: Arc<ArcSwap<Verifier>>,
}

impl Tokens {
    /// Returns the token of a request. In `Authorization` it follows the scheme Bearer (RFC 6750 2.1). Two tokens are
    /// an error, because it is unknown which of them the app uses.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Unverified> {
        let values = self.place.values(headers);
        let value = match values[..] {
            [] => return Ok(None),
            [value] => value,
            _ => return Err(Unverified),
        };
        // An empty value counts as no token.
        if self.place != Source::Header(header::AUTHORIZATION) {
            return Ok(Some(value).filter(|value| !is_empty(None, value)));
        }
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, token) = value.split_at(end);
        let token = scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii());
        Ok(token.filter(|token| !is_empty(None, token)))
    }
}

/// A request has a token that does not verify, so its sender is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unverified;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_3_values_that_name_nobody() {
        let authorization = Some(&header::AUTHORIZATION);
        for (field, value, wanted) in [
            (None, "", true),
            (None, " ", true),
            (None, "\"\"", true),
            (None, "Bearer", false),
            (None, "x", false),
            (authorization, "", true),
            (authorization, "Basic", true),
            (authorization, "basic ", true),
            (authorization, "Basic Og==", true),
            (authorization, "Basic YTpi", false),
            (authorization, "BEARER", true),
            (authorization, "Bearer \"\"", true),
            (authorization, "Bearer undefined", false),
            (authorization, "Negotiate", true),
            (authorization, "s3cret", false),
        ] {
            assert_eq!(is_empty(field, value.as_bytes()), wanted, "{field:?} {value:?}");
        }
    }
}
