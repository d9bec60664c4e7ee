//! What a request asks of the cache, and by which key.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, Method, header};

use crate::cache::Cache;
use crate::cache::hit_for_miss;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::key::{self, Partition, Uncounted};
use crate::cache::rules::storability::{Audience, Personal, RequestTraits};
use crate::cache::settings::Scope;
use crate::cache::variant;
use crate::fields::cache_control::RequestDirectives;
use crate::fields::misleading::is_misleading;
use crate::fields::{cookie, forwarded, host};
use crate::identity::principal::Principal;
use crate::identity::unlisted;
use crate::layer::routed::Routed;
use crate::policy::cache::is_safe;
use crate::policy::{Policy, RoutePolicy, loose, path};
use crate::rendering::words::words;

/// What a trusted proxy says about where the client thinks it is, and how it came there; apps make links of it. Who
/// the client is, is not among it.
fn told(headers: &HeaderMap) -> Vec<HeaderName> {
    let is_told = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") && name != "x-forwarded-for"
    };
    let mut told: Vec<HeaderName> = headers.keys().filter(is_told).cloned().collect();
    told.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    told
}

/// Longer keys are not worth their memory; bytes.
const MAX_KEY: usize = 8 * 1024;

/// Bytes of nearly every key.
const USUAL_KEY: usize = 192;

thread_local! {
    /// Keys are written here, and copied out only where they are needed for longer.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

words! {
    /// Why the app is asked, in the words of RFC 9211 2.2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum FwdReason {
        /// The cache is not used for such requests.
        Bypass => "bypass",
        /// The method is for the app to answer.
        Method => "method",
        /// Nothing is stored under the key.
        UriMiss => "uri-miss",
        /// Something is, but for requests that say something else.
        VaryMiss => "vary-miss",
        /// Something is that may not be used for this request.
        Miss => "miss",
        Request => "request",
        /// What is stored is stale.
        Stale => "stale",
        /// A part is asked for.
        Partial => "partial",
    }
}

words! {
    /// Why the cache has nothing to do with a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum BypassReason {
        Method => "method",
        /// `scope = "off"`.
        Scope => "scope-off",
        /// Users were given each other's answers under its route: it is not cached for an hour.
        Stopped => "stopped",
        /// It has content where none is part of a key, or more than can be.
        Content => "content",
        /// A field that apps may act on and no key tells apart, or a path that no key can be made of.
        Ambiguous => "ambiguous",
        /// A path that some apps read in another way, as one of another route.
        Path => "path",
        /// A field with an underscore in its name, which some apps take for another field.
        Underscore => "underscore",
        /// A parameter that is no part of the key and that some apps read as one that is.
        Parameter => "parameter",
        /// A token that does not verify.
        Token => "token",
        /// `scope = "user"`, and it is nobody's.
        Nobody => "nobody",
        /// A signature names fields of it, which the app verifies for each request.
        Signed => "signed",
        /// Its client connection was authenticated as a whole, so the request does not say who asks.
        Connection => "connection",
    }
}

impl BypassReason {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BypassReason::Method => "the method is for the app to answer",
            BypassReason::Scope => "the route has scope \"off\"",
            BypassReason::Stopped => {
                "two users got different answers under this route: it is not cached for an hour"
            }
            BypassReason::Content => "it has content that is no part of a key",
            BypassReason::Ambiguous => "it has a field that apps may act on and no key tells apart",
            BypassReason::Underscore => {
                "it has a field with an underscore in its name, which some apps take for another one"
            }
            BypassReason::Parameter => {
                "it has a parameter that does not count and that some apps read as one that does"
            }
            BypassReason::Path => "its path can be read in two ways, and each meets another route",
            BypassReason::Token => "its token does not verify",
            BypassReason::Nobody => "the route has scope \"user\", and it names none",
            BypassReason::Signed => "it is signed, and its signature names fields that the app verifies",
            BypassReason::Connection => "its connection is authenticated as a whole (NTLM or Negotiate)",
        }
    }

    /// As `Cache-Status` has it (RFC 9211 2.2).
    pub(crate) fn forwarded(self) -> FwdReason {
        match self {
            BypassReason::Method => FwdReason::Method,
            _ => FwdReason::Bypass,
        }
    }
}

/// See the head of the file.
pub(crate) enum RequestClass {
    /// Something is to be changed.
    Write,
    /// The cache has nothing to do with it.
    Pass(BypassReason),
    /// Its content has to be here first: it is part of the key.
    Content,
    Read(Box<Lookup>),
}

/// A request for what may be stored.
pub(crate) struct Lookup {
    pub key: Vec<u8>,
    /// The same with what it says in the fields that stored responses of that key vary with, where some do: under this
    /// is remembered what is not stored.
    pub variant_key: Option<Box<[u8]>>,
    /// What it says of caches.
    pub directives: RequestDirectives,
    /// What matters of it when its answer is judged.
    pub traits: RequestTraits,
    /// Who asks, where copies are one for each.
    pub principal: Option<Principal>,
    /// Whether it is HEAD, which is answered from what GET got.
    pub head: bool,
    /// Whether it has parameters that are no part of the key, which the app gets: what it says then is stored under no key.
    pub uncounted: bool,
    /// Whether it waited for a request that the app refused: where this one is refused too, so are all.
    pub follows_refused: bool,
    /// Fields by which apps give fragments and that no key tells apart: only a response fits whose Vary names them.
    pub fragments: Vec<HeaderName>,
}

impl Lookup {
    /// Whose answers they are, for the memory of what is not stored.
    pub(crate) fn passes(&self, scope: Scope) -> hit_for_miss::RequesterClass {
        match self.traits.personal {
            Personal::Authorization if scope == Scope::Auto => hit_for_miss::RequesterClass::Authorized,
            Personal::Otherwise if scope == Scope::Auto => hit_for_miss::RequesterClass::Personal,
            _ => hit_for_miss::RequesterClass::Any,
        }
    }

    /// The key under which is remembered that what it brings is not stored.
    pub(crate) fn memory_key(&self) -> &[u8] {
        self.variant_key.as_deref().unwrap_or(&self.key)
    }

    /// The same key, for a request that goes on without the rest.
    pub(crate) fn into_memory_key(self) -> Vec<u8> {
        self.variant_key.map_or(self.key, <[u8]>::into_vec)
    }

    /// Whether something stored may be used; in scope "auto" by those it is for (RFC 9111 3.5).
    pub(crate) fn may_use(&self, audience: Audience, scope: Scope) -> bool {
        scope != Scope::Auto || audience.includes(self.traits.personal)
    }
}

/// Gives the memory of a key back.
pub(crate) fn recycle(mut key: Vec<u8>) {
    key.clear();
    KEY.with_borrow_mut(|kept| {
        if kept.capacity() < key.capacity() {
            *kept = key;
        }
    });
}

impl RequestClass {
    /// Reads it. Content that has to be here and is not is asked for.
    pub(crate) fn classify(routed: &Routed, cache: &Cache) -> RequestClass {
        let method = routed.request.method();
        let route_settings = &routed.route.cache.route_settings;
        let reads = match *method {
            Method::GET | Method::HEAD => true,
            Method::POST if route_settings.key_body && route_settings.scope != Scope::Off => false,
            _ if method.as_str() == "QUERY" => false,
            _ if is_safe(method) => return RequestClass::Pass(BypassReason::Method),
            _ => return RequestClass::Write,
        };
        if route_settings.scope == Scope::Off {
            return RequestClass::Pass(BypassReason::Scope);
        }
        if routed.signed {
            return RequestClass::Pass(BypassReason::Signed);
        }
        if routed.peer.pinned.active.get() {
            return RequestClass::Pass(BypassReason::Connection);
        }
        if cache.is_stopped(&routed.route.label, routed.record.started) {
            return RequestClass::Pass(BypassReason::Stopped);
        }
        if routed.readings_differ {
            return RequestClass::Pass(BypassReason::Path);
        }
        if routed.underscored {
            return RequestClass::Pass(BypassReason::Underscore);
        }
        let headers = routed.request.headers();
        let seen = Seen::scan(headers);
        let content = routed.request.body().content();
        // Content of a GET is part of what it asks, and of no key (RFC 9110 9.3.1).
        if seen.misleading {
            return RequestClass::Pass(BypassReason::Ambiguous);
        }
        if reads && content.as_ref().is_none_or(|content| !content.is_empty()) {
            return RequestClass::Pass(BypassReason::Content);
        }
        let Some(content) = content else { return RequestClass::Content };
        let policy = &routed.record.snapshot.policy;
        let identity = &policy.identity;
        let mut principal = None;
        let Ok(claims) = routed.record.verified_claims(headers) else {
            return RequestClass::Pass(BypassReason::Token);
        };
        if route_settings.scope == Scope::User {
            principal = match identity.principal(headers, claims.as_ref()) {
                Some(found) => Some(found),
                None => return RequestClass::Pass(BypassReason::Nobody),
            };
            routed.record.asked_by(principal.as_ref());
        }
        let personal = seen.personal(headers, policy);
        let directives = if seen.directives {
            RequestDirectives::from_headers(headers)
        } else {
            RequestDirectives::default()
        };
        let traits = RequestTraits { no_store: directives.no_store, personal, conditional: false };
        let content = (!reads).then(|| {
            let transform = !crate::fields::cache_control::has(headers, "no-transform");
            key::content(method, headers, &content.joined(), transform)
        });
        let partition = principal.as_ref().map(|principal| &principal.partition);
        let Some((key, uncounted)) = write_key(routed, partition, content.as_ref()) else {
            return RequestClass::Pass(BypassReason::Ambiguous);
        };
        if uncounted == Uncounted::Confusable {
            return RequestClass::Pass(BypassReason::Parameter);
        }
        let uncounted = uncounted == Uncounted::Some;
        let head = *method == Method::HEAD;
        let fragments =
            if seen.fragment { fragments(headers, &route_settings.key_headers) } else { Vec::new() };
        let variant_key = None;
        RequestClass::Read(Box::new(Lookup {
            key,
            variant_key,
            directives,
            traits,
            principal,
            head,
            uncounted,
            follows_refused: false,
            fragments,
        }))
    }
}

fn write_key(
    routed: &Routed,
    partition: Option<&Partition>,
    content: Option<&[u8; 32]>,
) -> Option<(Vec<u8>, Uncounted)> {
    let policy = &routed.record.snapshot.policy;
    let route_settings = &routed.route.cache.route_settings;
    let headers = routed.request.headers();
    let target = routed.request.uri();
    let upstream = policy.upstreams.get(routed.route.upstream.unwrap_or(0))?;
    let host = host::from_headers(headers).map_or(&b""[..], |host| host.as_bytes());
    let trusted = policy.server.trusts(routed.peer.address.ip());
    let told_host = (trusted && headers.contains_key(header::FORWARDED))
        .then(|| forwarded::in_older_words(headers).1)
        .flatten();
    let hosts = told_host.map(|told| [host, b"\0", told.as_bytes()].concat());
    let told = if trusted { told(headers) } else { Vec::new() };
    let elements = if trusted { forwarded::without_addresses(headers) } else { Vec::new() };
    let mut key = KEY.take();
    // Of nearly every key; what is longer grows.
    key.reserve(USUAL_KEY);
    let parts = key::Parts {
        upstream: &upstream.name,
        rules: routed.record.rules(),
        https: routed.https,
        shared: route_settings.scope == Scope::Shared,
        host: hosts.as_deref().unwrap_or(host),
        path: target.path(),
        query: target.query(),
        only: route_settings.key_query.as_deref(),
        ignored: &policy.cache.ignore_query,
        partition,
        fields: &route_settings.key_headers,
        headers,
        told: &told,
        forwarded: &elements,
        content,
    };
    let uncounted = key::write(&parts, &mut key);
    if key.len() > MAX_KEY {
        return None;
    }
    Some((key, uncounted))
}

/// The fields by which apps give fragments, but for those that are part of the key.
fn fragments(headers: &HeaderMap, keyed: &[HeaderName]) -> Vec<HeaderName> {
    let names = headers.keys().filter(|name| variant::is_fragment(name) && !keyed.contains(name));
    names.cloned().collect()
}

/// Which of the fields that are asked for are there: the map is gone through once.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    authorization: bool,
    cookie: bool,
    /// A field by whose name somebody says who asks, although nobody listed it.
    unlisted: bool,
    directives: bool,
    misleading: bool,
    /// A field by which apps give fragments.
    fragment: bool,
}

impl Seen {
    fn scan(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for name in headers.keys() {
            match *name {
                header::AUTHORIZATION => seen.authorization = true,
                header::COOKIE => seen.cookie = true,
                header::CACHE_CONTROL | header::PRAGMA => seen.directives = true,
                // Most requests have no others; these are told apart without reading them.
                header::HOST
                | header::USER_AGENT
                | header::ACCEPT
                | header::ACCEPT_CHARSET
                | header::ACCEPT_ENCODING
                | header::ACCEPT_LANGUAGE
                | header::CONNECTION
                | header::CONTENT_ENCODING
                | header::CONTENT_LENGTH
                | header::CONTENT_TYPE
                | header::DNT
                | header::EXPECT
                | header::FORWARDED
                | header::IF_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_NONE_MATCH
                | header::IF_RANGE
                | header::IF_UNMODIFIED_SINCE
                | header::ORIGIN
                | header::RANGE
                | header::REFERER
                | header::TE
                | header::UPGRADE_INSECURE_REQUESTS
                | header::VIA => {}
                _ => {
                    seen.misleading |= is_misleading(name.as_str());
                    seen.fragment |= variant::is_fragment(name);
                    seen.unlisted |= unlisted::field(name.as_str()).is_some();
                }
            }
        }
        seen
    }

    /// How the request says who asks: by a field that is listed or named like a credential, or a cookie that counts,
    /// whether or not it says anything there; else by Authorization.
    fn personal(&self, headers: &HeaderMap, policy: &Policy) -> Personal {
        let otherwise = self.unlisted
            || (self.cookie && cookie::counts(headers, &policy.cache.ignore_cookies))
            || policy.identity.names_field(headers);
        match (otherwise, self.authorization) {
            (true, _) => Personal::Otherwise,
            (false, true) => Personal::Authorization,
            (false, false) => Personal::No,
        }
    }
}

/// Watches the path of a request that is about to fetch, of which no other marks are needed yet.
pub(crate) fn watch(routed: &Routed, cache: &Cache) -> WatchedPaths {
    let key_hasher = cache.invalidation.key_hasher;
    let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).unwrap_or_default();
    let written = key_hasher.path(&path);
    if path::is_odd(&path) {
        return cache.invalidation.watch(&[written, key_hasher.path(&loose::reading(&path))]);
    }
    cache.invalidation.watch(&[written])
}

/// What an answer to a request can be invalidated by, and its tags, as far as the request decides.
pub(crate) fn invalidation_keys(
    routed: &Routed,
    cache: &Cache,
    principal: Option<&Principal>,
) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
    keys_for_path(routed.request.uri().path(), &routed.route, cache, principal)
}

/// See [`invalidation_keys`].
pub(crate) fn keys_for_path(
    path: &str,
    route: &RoutePolicy,
    cache: &Cache,
    principal: Option<&Principal>,
) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
    let key_hasher = cache.invalidation.key_hasher;
    let path = path::normalise(path).map(|path| path.normal).unwrap_or_default();
    let tags: Vec<Box<str>> = route.cache.tags.iter().map(|tag| tag.fill(&path).into_boxed_str()).collect();
    let mut invalidation_keys =
        vec![key_hasher.everything(), key_hasher.path(&path), key_hasher.route(&route.label)];
    invalidation_keys.extend(key_hasher.prefixes(&path));
    if path::is_odd(&path) {
        // An app that reads it loosely gives the same as for that.
        let read = loose::reading(&path);
        invalidation_keys.push(key_hasher.path(&read));
        invalidation_keys.extend(key_hasher.prefixes(&read));
        invalidation_keys.extend(route.cache.tags.iter().map(|tag| key_hasher.tag(&tag.fill(&read))));
    }
    invalidation_keys.extend(tags.iter().map(|tag| key_hasher.tag(tag)));
    let credentials = principal.iter().flat_map(|principal| &principal.credentials);
    invalidation_keys.extend(credentials.map(|credential| key_hasher.credential(credential)));
    add_user_keys(&mut invalidation_keys, 0, route, cache, principal);
    (invalidation_keys, tags)
}

/// Adds what rules name that take tags and paths away from one user's copies alone: the marks from `first` on, for
/// each credential.
pub(crate) fn add_user_keys(
    invalidation_keys: &mut Vec<InvalidationKey>,
    first: usize,
    route: &RoutePolicy,
    cache: &Cache,
    principal: Option<&Principal>,
) {
    let Some(principal) = principal.filter(|_| route.cache.keys_by_user) else { return };
    let key_hasher = cache.invalidation.key_hasher;
    let of_all: Vec<InvalidationKey> = invalidation_keys.get(first..).unwrap_or_default().to_vec();
    for credential in &principal.credentials {
        invalidation_keys.extend(
            of_all.iter().map(|invalidation_key| key_hasher.of_credential(credential, *invalidation_key)),
        );
    }
}
