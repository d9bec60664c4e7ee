//! What a request asks of the cache, and by which key.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, Method, header};

use crate::cache::Cache;
use crate::cache::fragment::is_fragment;
use crate::cache::hit_for_miss;
use crate::cache::key::{self, Partition, Uncounted};
use crate::cache::rules::eligibility::BypassReason;
use crate::cache::rules::storability::{Audience, Personal, RequestTraits};
use crate::cache::selecting_fields::SelectingFields;
use crate::cache::settings::Scope;
use crate::fields::cache_control::RequestDirectives;
use crate::fields::misleading::is_misleading;
use crate::fields::{cookie, forwarded, host};
use crate::identity::principal::Principal;
use crate::identity::unlisted;
use crate::layer::routed::Routed;
use crate::policy::Policy;
use crate::policy::cache::is_safe;

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

/// What decides which stored response fits a request.
pub(super) fn selecting<'a>(routed: &'a Routed, read: &'a Lookup) -> SelectingFields<'a> {
    let fields =
        SelectingFields::new(routed.request.headers(), &routed.record.cache_settings().ignore_cookies);
    SelectingFields { fragments: &read.fragments, ..fields }
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
    let names = headers.keys().filter(|name| is_fragment(name) && !keyed.contains(name));
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
                    seen.fragment |= is_fragment(name);
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
