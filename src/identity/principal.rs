//! The principal of a request: a keyed hash of everything that distinguishes its sender. Listed credentials and the
//! fields of `unlisted` identify a principal. Every further cookie that counts only distinguishes: an app may recognize
//! its users by a cookie that the configuration does not list, but such a cookie alone is no login.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::credential::{Hash, Hasher, Source, Tokens, Unverified, is_empty, short};
use super::jwt::Claims;
use super::unlisted::{self, Unlisted};
use crate::fields::cookie::{self, Ignored};
use crate::rendering::digest::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The hash of everything that distinguishes the principal, which separates its stored responses.
    pub partition: Hash,
    /// The hash of each credential that identifies the principal, for invalidation.
    pub credentials: Vec<Hash>,
}

/// One credential of a request.
struct Credential<'a> {
    /// The kind of source, `header:` or `cookie:`, or a whole source name.
    kind: &'a str,
    name: &'a [u8],
    values: SmallVec<[Cow<'a, [u8]>; 1]>,
}

/// Returns whether a source `cookie:PATTERN` matches a cookie.
fn covers(pattern: &str, name: &[u8]) -> bool {
    // A pattern may also match an anti-forgery cookie, which identifies no user.
    cookie::is_named(pattern, name) && (!pattern.contains('*') || !unlisted::is_anti_forgery(name))
}

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The sources in the configured order, each with its name.
    sources: Vec<(Source, String)>,
    /// The fields among the sources, except for `Authorization`.
    fields: Vec<HeaderName>,
    has_claims: bool,
    /// Patterns of cookies that never count, whatever the sources list.
    ignored: Ignored,
    hasher: Hasher,
    tokens: Option<Tokens>,
}

impl Identity {
    pub(crate) fn new(sources: Vec<Source>, hasher: Hasher, tokens: Option<Tokens>) -> Identity {
        let place = tokens.as_ref().map(|tokens| &tokens.place);
        let fields = sources.iter().chain(place).filter_map(|source| match source {
            Source::Header(name) if *name != header::AUTHORIZATION => Some(name.clone()),
            _ => None,
        });
        let fields = fields.collect();
        let has_claims = sources.iter().any(|source| matches!(source, Source::Claim(_)));
        let sources = sources.into_iter().map(|source| (source.clone(), source.name())).collect();
        Identity { sources, fields, has_claims, ignored: Ignored::default(), hasher, tokens }
    }

    /// Adds a field that identifies the sender, although it has another purpose too.
    pub(crate) fn also_told_by(mut self, field: HeaderName) -> Identity {
        if field != header::AUTHORIZATION && !self.fields.contains(&field) {
            self.fields.push(field);
        }
        self
    }

    /// Sets the cookies that are ignored.
    pub(crate) fn ignoring(mut self, ignored: Ignored) -> Identity {
        self.ignored = ignored;
        self
    }

    /// Returns the hasher for credentials of requests.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Returns whether a source is listed, by its name. A cookie counts by its own name or by a pattern that matches
    /// it.
    pub(crate) fn lists(&self, name: &str) -> bool {
        match name.strip_prefix("cookie:") {
            Some(cookie) => self.lists_cookie(cookie.as_bytes()),
            None => self.sources.iter().any(|(_, known)| known == name),
        }
    }

    /// Returns whether a cookie is a listed credential.
    pub(crate) fn lists_cookie(&self, name: &[u8]) -> bool {
        let listed = self
            .sources
            .iter()
            .any(|(source, _)| matches!(source, Source::Cookie(pattern) if covers(pattern, name)));
        listed && !self.ignored.covers(name)
    }

    /// Returns whether a listed field of this name may identify the sender.
    pub(crate) fn tells_by(&self, name: &str) -> bool {
        self.fields.iter().any(|known| known == name)
    }

    /// Returns whether a cookie is a credential: a listed one, or the one with the token.
    pub(crate) fn is_credential_cookie(&self, name: &[u8]) -> bool {
        let place = self.tokens.as_ref().map(|tokens| &tokens.place);
        let is_token = matches!(place, Some(Source::Cookie(token)) if token.as_bytes() == name);
        is_token || self.lists_cookie(name)
    }

    /// Returns whether a request has one of the listed fields that identify the sender.
    pub(crate) fn names_field(&self, headers: &HeaderMap) -> bool {
        // Comparing names is far faster than looking them up.
        headers.keys().any(|name| self.fields.contains(name))
    }

    /// Returns whether a field may identify the sender: `Authorization`, `Cookie`, a listed one, or one named like a
    /// credential.
    pub(crate) fn may_tell(&self, name: &HeaderName) -> bool {
        matches!(*name, header::AUTHORIZATION | header::COOKIE)
            || self.fields.contains(name)
            || unlisted::field(name.as_str()).is_some()
    }

    /// Returns the sources, as they are written.
    pub(crate) fn source_names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(_, name)| name.as_str())
    }

    /// Returns where a token is looked for, as it is written.
    pub(crate) fn token_place(&self) -> Option<String> {
        self.tokens.as_ref().map(|tokens| tokens.place.name())
    }

    /// Returns a digest of everything that is configured of it; keys that verify tokens come from elsewhere.
    pub(crate) fn settings(&self) -> u128 {
        let mut digest = Digest::new("identity", 1);
        digest.list("principal", self.source_names());
        digest.list("token", self.token_place());
        digest.list("hash_key", self.hasher.quick());
        if let Some((issuer, audience, requires_expiry)) =
            self.tokens.as_ref().map(|tokens| tokens.verifier.load().expected())
        {
            digest.list("issuer", issuer);
            digest.list("audience", audience);
            digest.number("require_exp", requires_expiry);
        }
        digest.finish_wide()
    }

    /// Returns whether a source is a claim.
    pub(crate) fn has_claims(&self) -> bool {
        self.has_claims
    }

    /// Returns the field that carries `token` where tokens are read; `None` if none are read.
    pub(crate) fn token_field(&self, token: &str) -> Option<(HeaderName, String)> {
        match &self.tokens.as_ref()?.place {
            Source::Header(name) if *name == header::AUTHORIZATION => {
                Some((name.clone(), format!("Bearer {token}")))
            }
            Source::Header(name) => Some((name.clone(), token.to_owned())),
            Source::Cookie(name) => Some((header::COOKIE, format!("{name}={token}"))),
            Source::Basic | Source::Claim(_) | Source::Ip => None,
        }
    }

    /// Returns whether tokens are verified.
    pub(crate) fn proves(&self) -> bool {
        self.tokens.is_some()
    }

    /// Returns the claims of a request's token, if it has one. A token must verify even if the request has other
    /// credentials.
    pub(crate) fn verified_claims(
        &self,
        headers: &HeaderMap,
        now: u64,
    ) -> Result<Option<Claims>, Unverified> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let Some(token) = tokens.find(headers)? else { return Ok(None) };
        tokens.verifier.load().verify(token, now).map(Some).map_err(|_| Unverified)
    }

    /// Returns the partition key of the first claim source that the verified claims contain. Credentials that anybody
    /// can invent do not count.
    pub(crate) fn verified_principal(&self, claims: &Claims) -> Option<u128> {
        self.sources.iter().find_map(|(source, name)| match source {
            Source::Claim(claim) => {
                Some(short(self.hasher.credential(name, [claimed(claims, claim)?.as_bytes()])))
            }
            _ => None,
        })
    }

    /// Returns the names of the credentials that identify the sender of a request.
    pub(crate) fn present(&self, headers: &HeaderMap, claims: Option<&Claims>) -> Vec<String> {
        let mut found = Vec::new();
        self.naming(headers, claims, |credential| {
            found.push(format!("{}{}", credential.kind, String::from_utf8_lossy(credential.name)));
        });
        found
    }

    /// Returns the principal of a request with these verified claims; `None` if no credential identifies its sender.
    pub(crate) fn principal(&self, headers: &HeaderMap, claims: Option<&Claims>) -> Option<Principal> {
        let mut credentials = Vec::new();
        self.naming(headers, claims, |credential| {
            let values = credential.values.iter().map(|value| &**value);
            credentials.push(self.hasher.named_credential(credential.kind, credential.name, values));
        });
        if credentials.is_empty() {
            return None;
        }
        let further = self.further(headers);
        let partition = match (credentials.as_slice(), further) {
            ([one], None) => *one,
            (all, None) => self.hasher.all(all),
            (all, Some(further)) => {
                let all: Vec<Hash> = all.iter().copied().chain([further]).collect();
                self.hasher.all(&all)
            }
        };
        Some(Principal { partition, credentials })
    }

    /// Iterates over the cookies that count and are not listed. Anti-forgery cookies are left out, because they change
    /// with each page and distinguish no user.
    pub(crate) fn further_cookies<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        cookie::counted(headers, &self.ignored).filter(|(name, value)| {
            !self.lists_cookie(name)
                && (!unlisted::is_anti_forgery(name) || cookie::is_odd(name) || cookie::is_odd(value))
        })
    }

    fn further(&self, headers: &HeaderMap) -> Option<Hash> {
        let mut cookies: SmallVec<[(&[u8], &[u8]); 8]> = self.further_cookies(headers).collect();
        if cookies.is_empty() {
            return None;
        }
        // Clients send cookies in any order. The stable sort keeps the order of cookies with equal names.
        cookies.sort_by_key(|(name, _)| *name);
        let parts = cookies.iter().flat_map(|(name, value)| [*name, *value]);
        Some(self.hasher.credential("further cookies", parts))
    }

    /// Visits the credentials that identify the sender: listed ones in configured order, then others.
    fn naming<'a>(
        &'a self,
        headers: &'a HeaderMap,
        claims: Option<&Claims>,
        mut each: impl FnMut(Credential<'a>),
    ) {
        let mut claimed_any = false;
        for (source, name) in &self.sources {
            let values: SmallVec<[Cow<'a, [u8]>; 1]> = match source {
                Source::Claim(claim) => {
                    let value = claims.and_then(|claims| claimed(claims, claim));
                    claimed_any |= value.is_some();
                    value.map(|value| Cow::Owned(value.into_bytes())).into_iter().collect()
                }
                Source::Cookie(_) => {
                    continue;
                }
                source => source.values(headers).into_iter().map(Cow::Borrowed).collect(),
            };
            let field = match source {
                Source::Header(name) => Some(name),
                _ => None,
            };
            if values.iter().any(|value| !is_empty(field, value)) {
                each(Credential { kind: name, name: b"", values });
            }
        }
        self.listed_cookies(headers, &mut each);
        self.other_fields(headers, claimed_any, &mut each);
    }

    fn listed_cookies<'a>(&'a self, headers: &'a HeaderMap, each: &mut impl FnMut(Credential<'a>)) {
        let lists_any = self.sources.iter().any(|(source, _)| matches!(source, Source::Cookie(_)));
        if !lists_any {
            return;
        }
        let listed = cookie::pairs(headers).filter(|(name, _)| self.lists_cookie(name));
        let mut listed: SmallVec<[(&[u8], &[u8]); 4]> = listed.collect();
        listed.sort_by_key(|(name, _)| *name);
        // All values of a name count together, because apps differ in which of them they use.
        for of_name in listed.chunk_by(|(one, _), (other, _)| one == other) {
            let values: SmallVec<[Cow<'a, [u8]>; 1]> =
                of_name.iter().map(|(_, value)| Cow::Borrowed(*value)).collect();
            if let Some((name, _)) = of_name.first()
                && values.iter().any(|value| !is_empty(None, value))
            {
                each(Credential { kind: "cookie:", name, values });
            }
        }
    }

    /// Visits unlisted fields that identify the sender. A token whose claims already identify the principal is skipped:
    /// the token changes, but the claims stay.
    fn other_fields<'a>(
        &'a self,
        headers: &'a HeaderMap,
        claimed: bool,
        each: &mut impl FnMut(Credential<'a>),
    ) {
        let token = match self.tokens.as_ref().filter(|_| claimed).map(|tokens| &tokens.place) {
            Some(Source::Header(name)) => Some(name),
            _ => None,
        };
        let listed = |name: &HeaderName| {
            let is = |source: &Source| match source {
                Source::Header(known) => known == name,
                // With several lines it is unknown which of them the app uses.
                Source::Basic => {
                    *name == header::AUTHORIZATION
                        && headers.get_all(name).iter().count() == 1
                        && !Source::Basic.values(headers).is_empty()
                }
                _ => false,
            };
            self.sources.iter().any(|(source, _)| is(source))
        };
        for name in headers.keys() {
            let says =
                self.fields.contains(name) || unlisted::field(name.as_str()) == Some(Unlisted::Credential);
            if !says || Some(name) == token || listed(name) {
                continue;
            }
            let values: SmallVec<[Cow<'a, [u8]>; 1]> =
                headers.get_all(name).iter().map(|value| Cow::Borrowed(value.as_bytes())).collect();
            if values.iter().any(|value| !is_empty(Some(name), value)) {
                each(Credential { kind: "header:", name: name.as_str().as_bytes(), values });
            }
        }
    }
}

/// Returns a claim that is not blank, with its type.
fn claimed(claims: &Claims, claim: &str) -> Option<String> {
    claims.text(claim).filter(|text| !text.trim().is_empty())?;
    claims.typed(claim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jwt::Verifier;
    use arc_swap::ArcSwap;
    use std::sync::Arc;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn cookie(name: &str) -> Source {
        Source::Cookie(name.to_owned())
    }

    #[test]
    fn of_two_tokens_none_is_believed() {
        let verifier = Verifier::new(Vec::new(), None, None);
        let of = |place: Source, lines: &[(&'static str, &str)]| {
            let verifier = Arc::new(ArcSwap::from_pointee(verifier.clone()));
            let tokens = Some(Tokens { place, verifier });
            let sources = vec![Source::Claim("sub".to_owned()), cookie("session")];
            let identity = Identity::new(sources, Hasher::new(b"secret"), tokens);
            identity
                .verified_claims(&fields(lines), 0)
                .map(|claims| identity.principal(&fields(lines), claims.as_ref()))
        };
        let bearer = || Source::Header(header::AUTHORIZATION);
        assert_eq!(of(cookie("jwt"), &[("cookie", "jwt=a; jwt=b")]), Err(Unverified));
        assert_eq!(of(cookie("jwt"), &[("cookie", "jwt=a")]), Err(Unverified), "no key verifies it");
        assert_eq!(of(bearer(), &[("authorization", "Bearer\ta")]), Err(Unverified));
        let two = [("authorization", "Basic a"), ("authorization", "Bearer a")];
        assert_eq!(of(bearer(), &two), Err(Unverified));
        assert!(of(bearer(), &[("authorization", "Basic a"), ("cookie", "session=s")]).unwrap().is_some());
        assert_eq!(of(bearer(), &[("authorization", "Bearer")]), Ok(None), "an empty one is none");
        assert_eq!(of(cookie("jwt"), &[("cookie", "jwt=")]), Ok(None));
    }

    #[test]
    fn n1_5_a_second_line_of_authorization_tells_apart_also_beside_basic() {
        let identity = Identity::new(vec![Source::Basic], Hasher::new(b"secret"), None);
        let of = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("authorization", *line)).collect();
            identity.principal(&fields(&lines), None).map(|found| found.partition)
        };
        let all = [
            of(&["Basic YTpi"]),
            of(&["Basic YTpi", "Bearer a"]),
            of(&["Basic YTpi", "Bearer b"]),
            of(&["Basic YTpi", "Basic YTpj"]),
            of(&["Bearer a"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn n1_5_principals_differ_by_every_credential_and_further_cookie() {
        let sources = vec![Source::Header(header::AUTHORIZATION), cookie("session"), cookie("*.sid")];
        let identity = Identity::new(sources, Hasher::new(b"secret"), None).ignoring(Ignored::new(
            vec!["_ga*".to_owned()],
            |_| false,
            Vec::new(),
        ));
        let of = |lines: &[(&'static str, &str)]| identity.principal(&fields(lines), None);
        for nobody in [
            &[][..],
            &[("cookie", "other=1")],
            &[("cookie", "session=")],
            &[("authorization", "Bearer")],
            &[("x-csrf-token", "1")],
            &[("cookie", "csrftoken=1")],
            &[("x-auth-token", "")],
        ] {
            assert_eq!(of(nobody), None, "{nobody:?}");
        }
        let all = [
            of(&[("authorization", "Bearer a")]),
            of(&[("authorization", "Bearer b")]),
            of(&[("authorization", "Basic YTpi")]),
            of(&[("cookie", "session=a")]),
            of(&[("cookie", "session=b")]),
            of(&[("cookie", "SESSION=a")]),
            of(&[("cookie", "__Host-session=a")]),
            of(&[("cookie", "connect.sid=a")]),
            of(&[("cookie", "session=a; session=b")]),
            of(&[("cookie", "session=b; session=a")]),
            of(&[("authorization", "Bearer a"), ("cookie", "session=a")]),
            of(&[("authorization", "Bearer a"), ("cookie", "session=b")]),
            of(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
            of(&[("authorization", "Bearer a"), ("cookie", "unlisted=a")]),
            of(&[("authorization", "Bearer a"), ("cookie", "unlisted=b")]),
            of(&[("authorization", "Bearer a"), ("cookie", "_ga=1 session=b")]),
            of(&[("authorization", "Bearer a"), ("cookie", "csrftoken=\"1; session=c\"")]),
            of(&[("authorization", "Bearer a"), ("x-remote-user", "a")]),
            of(&[("x-remote-user", "a")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some(), "{at}");
            assert!(!all[..at].contains(one), "{at}: no two of these are one principal");
        }
        for same in [
            &[("authorization", "Bearer a"), ("cookie", "_ga=1")][..],
            &[("authorization", "Bearer a"), ("cookie", "session=")],
            &[("authorization", "Bearer a"), ("x-csrf-token", "1")],
            &[("authorization", "Bearer a"), ("cookie", "csrftoken=1; XSRF-TOKEN=2")],
        ] {
            assert_eq!(
                of(same).map(|found| found.partition),
                all[0].as_ref().map(|a| a.partition),
                "{same:?}"
            );
        }
        let (one, other) = ("b=1; session=a; a=2", "a=2; b=1; session=a");
        assert_eq!(of(&[("cookie", one)]), of(&[("cookie", other)]), "order does not matter");
        let other =
            Identity::new(vec![Source::Header(header::AUTHORIZATION)], Hasher::new(b"another secret"), None);
        assert_ne!(other.principal(&fields(&[("authorization", "Bearer a")]), None), all[0]);
        assert!(identity.lists("cookie:connect.sid") && !identity.lists("cookie:other"));
    }
}
