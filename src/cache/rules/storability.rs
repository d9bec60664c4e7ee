//! Decides whether a response may be stored, and which of its fields (RFC 9111 3, 3.1, 3.5, 5.2).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::freshness::{Freshness, Source};
use crate::cache::settings::{CacheSettings, Override, RouteCacheSettings, Scope};
use crate::fields::cache_control::{Listed, ResponseDirectives};
use crate::fields::media_type::MediaKind;
use crate::fields::{cookie, list};
use crate::rendering::words::words;

/// The kind of credentials that a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Personal {
    #[default]
    No,
    /// Authorization alone (RFC 9111 3.5).
    Authorization,
    /// A cookie that counts, or a field that identifies the user: stricter rules apply to these.
    Otherwise,
}

/// The requests that may get a response of which one copy serves all (scope "auto").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Audience {
    /// Only requests that carry no credentials.
    #[default]
    Anonymous,
    /// Also requests with Authorization: must-revalidate allows that, and for Authorization alone (RFC 9111 3.5).
    Authorized,
    /// All requests: public or s-maxage allows that (RFC 9111 3.5, applied to cookies too).
    Everyone,
}

impl Audience {
    /// Returns the audience that the response directives allow.
    pub(crate) fn from_directives(says: &ResponseDirectives) -> Audience {
        if says.public || says.s_maxage.is_some() {
            Audience::Everyone
        } else if says.must_revalidate {
            Audience::Authorized
        } else {
            Audience::Anonymous
        }
    }

    /// Returns whether it includes requests with such credentials.
    pub(crate) fn includes(self, personal: Personal) -> bool {
        match personal {
            Personal::No => true,
            Personal::Authorization => self >= Audience::Authorized,
            Personal::Otherwise => self == Audience::Everyone,
        }
    }

    /// Returns whether a request with such credentials may use the response on a route with `scope`. With scope "auto"
    /// the audience decides (RFC 9111 3.5).
    pub(crate) fn admits(self, personal: Personal, scope: Scope) -> bool {
        scope != Scope::Auto || self.includes(personal)
    }
}

/// The traits of a request that matter for storing its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestTraits {
    /// Whether it has no-store (5.2.1.5).
    pub no_store: bool,
    /// The kind of its credentials.
    pub personal: Personal,
    /// Whether it was forwarded with its own conditions or Range: unless its response is a whole 200, it fits no other
    /// request.
    pub conditional: bool,
}

words! {
    /// Reasons why a response is not stored.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum NotStorable {
        RequestNoStore => "request-no-store",
        NoStore => "no-store",
        /// Its Cache-Control has the directive private.
        Private => "private",
        /// Its request carries credentials, and no directive allows it for all.
        Credentials => "credentials",
        /// It sets a cookie that no directive excludes.
        SetCookie => "set-cookie",
        Varies => "vary",
        /// A stream of events or gRPC messages, which are of use only at the moment.
        Stream => "endless",
        /// Its status cannot be stored as it is.
        Status => "status",
        /// It has no freshness lifetime, or one of zero.
        NoLifetime => "no-lifetime",
    }
}

impl NotStorable {
    /// Returns the reason as a sentence.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            NotStorable::RequestNoStore => "the request has Cache-Control: no-store",
            NotStorable::NoStore => "the response has Cache-Control: no-store",
            NotStorable::Private => {
                "the response has Cache-Control: private, and the route's scope is not \"user\""
            }
            NotStorable::Credentials => {
                "the request carries credentials, and no directive of the response allows it for all"
            }
            NotStorable::SetCookie => "the response sets a cookie that no directive excludes",
            NotStorable::Varies => {
                "the response varies with everything, or with a field that differs in each request"
            }
            NotStorable::Stream => "the response is a stream of events or gRPC messages",
            NotStorable::Status => "a response with this status cannot be stored as it is",
            NotStorable::NoLifetime => "neither the response nor the route gives it a freshness lifetime",
        }
    }
}

/// The way in which a response is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Storable {
    pub freshness: Freshness,
    /// The requests that may get it, on routes where one copy serves all (3.5).
    pub audience: Audience,
    /// Fields that are not stored with it.
    pub excluded: Vec<HeaderName>,
}

/// Fields about one exchange or one connection; some of them are removed before they arrive here.
static NEVER: [HeaderName; 23] = [
    HeaderName::from_static("age"),
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("trailer"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    // Fields older than the draft, which some upstreams still send.
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
    HeaderName::from_static("x-rate-limit-limit"),
    HeaderName::from_static("x-rate-limit-remaining"),
    HeaderName::from_static("x-rate-limit-reset"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("x-request-id"),
];

/// Decides about a response; see the head of the file.
pub(crate) fn evaluate(
    traits: RequestTraits,
    (status, headers): (StatusCode, &HeaderMap),
    says: &ResponseDirectives,
    (route_settings, settings): (&RouteCacheSettings, &CacheSettings),
    wall: SystemTime,
) -> Result<Storable, NotStorable> {
    if traits.no_store {
        return Err(NotStorable::RequestNoStore);
    }
    // 206 and 304 are about another response; 412, 416 and 417 are about request fields that are not part of the cache
    // key, so a stored copy would serve requests it does not fit. All other statuses are final (3).
    let of_request_alone = matches!(status.as_u16(), 206 | 304 | 412 | 416 | 417)
        || (traits.conditional && status != StatusCode::OK);
    if status.is_informational() || of_request_alone {
        return Err(NotStorable::Status);
    }
    if MediaKind::from_headers(headers).is_live() {
        return Err(NotStorable::Stream);
    }
    let understood = status.canonical_reason().is_some();
    if says.must_understand && !understood {
        return Err(NotStorable::Status);
    }
    // 5.2.2.3: no-store is addressed to caches that do not know must-understand.
    let no_store = says.no_store && !says.must_understand;
    let wins = route_settings.overrides == Override::NoStore && route_settings.ttl(status).is_some();
    if no_store && !wins {
        return Err(NotStorable::NoStore);
    }
    if says.private.is_all() && route_settings.scope != Scope::User {
        return Err(NotStorable::Private);
    }
    let audience = Audience::from_directives(says);
    if !audience.admits(traits.personal, route_settings.scope) {
        return Err(NotStorable::Credentials);
    }
    let mut excluded: Vec<HeaderName> = says.no_cache.fields().to_vec();
    if route_settings.scope != Scope::User {
        excluded.extend_from_slice(says.private.fields());
    }
    let excludes = |listed: &Listed, name| listed.fields().contains(name);
    let sets_cookie = cookie::SETTING.iter().any(|name| {
        headers.contains_key(name) && !excludes(&says.no_cache, name) && !excludes(&says.private, name)
    });
    if sets_cookie {
        return Err(NotStorable::SetCookie);
    }
    if list::elements_in_field(headers, &header::VARY).any(|name| name == b"*") {
        return Err(NotStorable::Varies);
    }
    let freshness = Freshness::evaluate(status, headers, says, route_settings, settings, wall);
    if !is_worth_it(&freshness, headers) {
        return Err(NotStorable::NoLifetime);
    }
    excluded.extend(NEVER.iter().cloned());
    excluded.extend(cookie::SETTING.iter().cloned());
    Ok(Storable { freshness, audience, excluded })
}

/// Returns whether a status may be about its request and not about the resource: redirects (above all to a login),
/// client errors other than 404 and 410, and server errors (RFC 9110 15.4 to 15.6).
pub(crate) fn is_of_request_alone(status: StatusCode) -> bool {
    let gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    status == StatusCode::PARTIAL_CONTENT
        || status.is_redirection()
        || status.is_server_error()
        || (status.is_client_error() && !gone)
}

/// Returns whether storing pays off. A response that is stale at once is worth storing only if the upstream or the
/// route intends its revalidation: that saves the content of an unchanged response, or serves it if the upstream fails.
fn is_worth_it(freshness: &Freshness, headers: &HeaderMap) -> bool {
    if !freshness.lifetime.is_zero() && !freshness.no_cache {
        return true;
    }
    let validator = headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED);
    let meant = matches!(freshness.source, Source::App | Source::Route);
    meant && (validator || !freshness.max_stale().is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::freshness::tests::settings;
    use crate::runtime::clock;
    use std::time::Duration;

    fn found(
        traits: RequestTraits,
        route_settings: &RouteCacheSettings,
        status: u16,
        lines: &[(&'static str, &str)],
    ) -> Result<Storable, NotStorable> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let says = ResponseDirectives::from_headers(&headers, &[]);
        let status = StatusCode::from_u16(status).unwrap();
        evaluate(traits, (status, &headers), &says, (route_settings, &settings()), clock::wall())
    }

    #[test]
    fn what_is_stored() {
        use Audience::{Anonymous, Authorized, Everyone};
        use NotStorable::{
            Credentials, NoLifetime, NoStore, Private, RequestNoStore, SetCookie, Status, Varies,
        };
        let anybody = RequestTraits::default();
        let user = RequestTraits { personal: Personal::Authorization, ..anybody };
        let cookie = RequestTraits { personal: Personal::Otherwise, ..anybody };
        let silent = RequestTraits { no_store: true, ..anybody };
        let conditional = RequestTraits { conditional: true, ..anybody };
        let auto = RouteCacheSettings::default();
        let ttl = Some(Duration::from_secs(60));
        let shared = RouteCacheSettings { scope: Scope::Shared, ttl, ..RouteCacheSettings::default() };
        let own = RouteCacheSettings { scope: Scope::User, ttl, ..RouteCacheSettings::default() };
        let over = |overrides| RouteCacheSettings { overrides, ..shared.clone() };
        let (lifetime, no_store) = (over(Override::Lifetime), over(Override::NoStore));
        for (traits, route_settings, status, lines, wanted) in [
            (anybody, &auto, 200, &[("cache-control", "max-age=5")][..], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "public, max-age=5")], Ok(Everyone)),
            (anybody, &auto, 200, &[], Err(NoLifetime)),
            (anybody, &auto, 200, &[("etag", "\"x\"")], Err(NoLifetime)),
            (anybody, &auto, 200, &[("cache-control", "no-cache"), ("etag", "\"x\"")], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "no-cache")], Err(NoLifetime)),
            (anybody, &auto, 200, &[("cache-control", "max-age=0"), ("etag", "\"x\"")], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "max-age=0, stale-if-error=9")], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "max-age=0")], Err(NoLifetime)),
            (anybody, &auto, 200, &[("cache-control", "no-store, max-age=5")], Err(NoStore)),
            (
                anybody,
                &auto,
                200,
                &[("cache-control", "no-store, must-understand, max-age=5")],
                Ok(Anonymous),
            ),
            (anybody, &auto, 299, &[("cache-control", "no-store, must-understand, max-age=5")], Err(Status)),
            (anybody, &auto, 299, &[("cache-control", "max-age=5")], Ok(Anonymous)),
            (anybody, &auto, 302, &[("cache-control", "max-age=5")], Ok(Anonymous)),
            (anybody, &auto, 500, &[("cache-control", "max-age=5")], Ok(Anonymous)),
            (anybody, &auto, 206, &[("cache-control", "max-age=5")], Err(Status)),
            (anybody, &auto, 304, &[("cache-control", "max-age=5")], Err(Status)),
            (anybody, &auto, 412, &[("cache-control", "max-age=5")], Err(Status)),
            (anybody, &auto, 416, &[("cache-control", "max-age=5")], Err(Status)),
            (conditional, &auto, 404, &[("cache-control", "max-age=5")], Err(Status)),
            (conditional, &auto, 200, &[("cache-control", "max-age=5")], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "private, max-age=5")], Err(Private)),
            (anybody, &auto, 200, &[("cache-control", "private=\"x-a\", max-age=5")], Ok(Anonymous)),
            (anybody, &auto, 200, &[("cache-control", "max-age=5"), ("vary", "*")], Err(Varies)),
            (anybody, &auto, 200, &[("cache-control", "max-age=5"), ("vary", " , Accept, *")], Err(Varies)),
            (anybody, &auto, 200, &[("cache-control", "max-age=5"), ("set-cookie", "a=b")], Err(SetCookie)),
            (
                anybody,
                &auto,
                200,
                &[("cache-control", "max-age=5, no-cache=\"set-cookie\""), ("set-cookie", "a=b")],
                Ok(Anonymous),
            ),
            (
                anybody,
                &auto,
                200,
                &[("cache-control", "max-age=5, private=\"Set-Cookie\""), ("set-cookie", "a=b")],
                Ok(Anonymous),
            ),
            (silent, &auto, 200, &[("cache-control", "max-age=5")], Err(RequestNoStore)),
            (user, &auto, 200, &[("cache-control", "max-age=5")], Err(Credentials)),
            (user, &auto, 200, &[("cache-control", "public, max-age=5")], Ok(Everyone)),
            (user, &auto, 200, &[("cache-control", "s-maxage=5")], Ok(Everyone)),
            (user, &auto, 200, &[("cache-control", "must-revalidate, max-age=5")], Ok(Authorized)),
            (cookie, &auto, 200, &[("cache-control", "must-revalidate, max-age=5")], Err(Credentials)),
            (cookie, &auto, 200, &[("cache-control", "public, max-age=5")], Ok(Everyone)),
            (cookie, &auto, 200, &[("cache-control", "s-maxage=5")], Ok(Everyone)),
            (user, &shared, 200, &[], Ok(Anonymous)),
            (user, &shared, 200, &[("cache-control", "private")], Err(Private)),
            (user, &no_store, 200, &[("cache-control", "private, no-store")], Err(Private)),
            (user, &own, 200, &[("cache-control", "private")], Ok(Anonymous)),
            (user, &own, 200, &[("cache-control", "no-store")], Err(NoStore)),
            (user, &own, 200, &[("set-cookie", "a=b")], Err(SetCookie)),
            (anybody, &lifetime, 200, &[("cache-control", "no-store")], Err(NoStore)),
            (anybody, &no_store, 200, &[("cache-control", "no-store")], Ok(Anonymous)),
            (anybody, &no_store, 404, &[("cache-control", "no-store")], Err(NoStore)),
            (anybody, &shared, 404, &[], Err(NoLifetime)),
        ] {
            let found = found(traits, route_settings, status, lines).map(|storable| storable.audience);
            assert_eq!(found, wanted, "{status} {lines:?} {:?} {traits:?}", route_settings.scope);
        }
    }

    #[test]
    fn fields_that_stay_out() {
        let lines = [("cache-control", "max-age=5, private=\"x-a\", no-cache=\"x-b, set-cookie\"")];
        let shared = found(RequestTraits::default(), &RouteCacheSettings::default(), 200, &lines).unwrap();
        let own = RouteCacheSettings { scope: Scope::User, ..RouteCacheSettings::default() };
        let own = found(RequestTraits::default(), &own, 200, &lines).unwrap();
        for name in ["x-b", "set-cookie", "ratelimit", "age"] {
            assert!(shared.excluded.iter().any(|known| known == name), "{name}");
            assert!(own.excluded.iter().any(|known| known == name), "{name}");
        }
        assert!(shared.excluded.iter().any(|known| known == "x-a"));
        assert!(!own.excluded.iter().any(|known| known == "x-a"), "it is for this user");
    }
}
