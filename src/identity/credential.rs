//! Credentials: where they stand in a request, which of them say nothing, and their keyed hashes.

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
    /// A cookie; as a source of principals its name may hold `*`, and is compared without regard to case.
    Cookie(String),
    /// The user of Basic authentication (RFC 7617).
    Basic,
    /// A claim of a token that was verified.
    Claim(String),
    /// The client's address; for limits alone.
    Ip,
}

impl Source {
    /// As it is written in the configuration; no two sources are written alike.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::Header(name) => format!("header:{name}"),
            Source::Cookie(name) => format!("cookie:{name}"),
            Source::Basic => "basic".to_owned(),
            Source::Claim(name) => format!("jwt:{name}"),
            Source::Ip => "ip".to_owned(),
        }
    }

    /// What a request says there; a cookie by exactly this name.
    pub(super) fn values<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a [u8]> {
        match self {
            Source::Header(name) => headers.get_all(name).iter().map(HeaderValue::as_bytes).collect(),
            Source::Cookie(name) => {
                // All of that name: which one an app takes is not for us to say.
                let of_name = cookie::pairs(headers).filter(|(known, _)| *known == name.as_bytes());
                of_name.map(|(_, value)| value).collect()
            }
            Source::Basic => basic(headers).into_iter().collect(),
            Source::Claim(_) | Source::Ip => Vec::new(),
        }
    }
}

/// Schemes of Authorization that prove nothing without what follows them (RFC 9110 11.4, the IANA registry, and what
/// frameworks add).
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

/// Whether a value names nobody: it is empty, two quotes, a scheme of Authorization alone, or an empty user with an
/// empty password (RFC 7617 2).
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
    // Without a scheme that is known it is a credential of the app's own kind.
    let known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
    known && (blank(rest) || (scheme.eq_ignore_ascii_case(b"basic") && rest.trim_ascii() == b"Og=="))
}

/// The credentials of Basic authentication, whole: whoever knows the user alone is not the user.
fn basic(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| rest.trim_ascii())
}

#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    key: hmac::Key,
    /// For what is hashed at every request: listed API keys, and others.
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

    /// The secrets of the quick hashes, to be compared and not to be shown.
    pub(super) fn quick(&self) -> [[u8; 16]; 2] {
        self.quick
    }

    /// Of one credential: where it stands, and what it says.
    pub(crate) fn credential<'a>(&self, source: &str, values: impl IntoIterator<Item = &'a [u8]>) -> Hash {
        self.named_credential(source, b"", values)
    }

    /// The same, for a source that is written in two parts: `cookie:` and its name.
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

    /// The partition key of a listed API key, of its SHA-256: a file of keys has no more than that.
    pub(crate) fn listed_key(&self, digest: &Hash) -> u128 {
        SipHasher24::new_with_key(&self.quick[0]).hash(digest).as_u128()
    }

    /// The partition key of any other API key, by a secret of its own: no key that is made up is the digest of a listed
    /// one. By SipHash, a keyed hash that takes a tenth of the time of HMAC.
    pub(crate) fn unlisted_key(&self, key: &[u8]) -> u128 {
        SipHasher24::new_with_key(&self.quick[1]).hash(key).as_u128()
    }

    /// The partition key of an address, or of the network of one.
    pub(crate) fn network(&self, network: &[u8; 16]) -> u128 {
        short(self.credential("ip", [&network[..]]))
    }

    pub(crate) fn all(&self, credentials: &[Hash]) -> Hash {
        let mut hash = hmac::Context::with_key(&self.key);
        credentials.iter().for_each(|credential| hash.update(credential));
        digest(&hash.sign())
    }
}

/// The SHA-256 of a key, which is what a file of keys has of it.
pub(crate) fn sha256(key: &[u8]) -> Hash {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, key).as_ref());
    digest
}

/// As many bits of it as tell keys apart.
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

/// Where tokens stand, and what verifies them.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// A field or a cookie.
    pub place: Source,
    /// Replaced as a whole when keys are fetched anew.
    pub verifier: Arc<ArcSwap<Verifier>>,
}

impl Tokens {
    /// The token of a request. In Authorization it follows the scheme Bearer (RFC 6750 2.1). Of two, nobody knows
    /// which one the app takes.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Unverified> {
        let values = self.place.values(headers);
        let value = match values[..] {
            [] => return Ok(None),
            [value] => value,
            _ => return Err(Unverified),
        };
        // An empty one is none.
        if self.place != Source::Header(header::AUTHORIZATION) {
            return Ok(Some(value).filter(|value| !is_empty(None, value)));
        }
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, token) = value.split_at(end);
        let token = scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii());
        Ok(token.filter(|token| !is_empty(None, token)))
    }
}

/// A token was there that does not verify: who is asking is not known.
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
