//! Classifies requests for the cache: how each is treated, and its cache key.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::cache::Cache;
use crate::cache::fragment::is_fragment;
use crate::cache::hit_for_miss::RequesterClass;
use crate::cache::key::{self, Partition, Uncounted};
use crate::cache::rules::eligibility::BypassReason;
use crate::cache::rules::forwarding::Unserved;
use crate::cache::rules::storability::{Personal, RequestTraits};
use crate::cache::selecting_fields::SelectingFields;
use crate::cache::selection::{Candidate, Requested};
use crate::cache::settings::Scope;
use crate::fields::cache_control::RequestDirectives;
use crate::fields::misleading::is_misleading;
use crate::fields::{cookie, forwarded, host};
use crate::identity::principal::Principal;
use crate::identity::unlisted;
use crate::layer::routed::Routed;
use crate::policy::Policy;
use crate::policy::cache::is_safe;
use crate::state::warming::Vantage;

/// Returns the fields in which a trusted proxy reports how the client reached it, which upstreams build links from. The
/// field with the client's address is not one of them.
fn told(headers: &HeaderMap) -> Vec<HeaderName> {
    let is_told = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") && name != "x-forwarded-for"
    };
    let mut told: Vec<HeaderName> = headers.keys().filter(is_told).cloned().collect();
    told.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    told
}

/// Returns how the client of a request reached this process.
pub(super) fn vantage(routed: &Routed) -> Vantage {
    let headers = routed.request.headers();
    let trusted = routed.record.info.snapshot.policy.server.trusts(routed.peer.address.ip());
    let mut fields = Vec::new();
    if trusted {
        for name in told(headers) {
            fields.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        }
        let elements = forwarded::without_addresses(headers);
        if let Ok(elements) = HeaderValue::from_bytes(&elements)
            && !elements.is_empty()
        {
            fields.push((header::FORWARDED, elements));
        }
    }
    Vantage {
        tls: routed.peer.tls,
        host: host::text(headers).to_owned(),
        proxy: trusted.then_some(routed.peer.address),
        told: fields,
    }
}

/// Maximum length of a cache key in bytes; longer keys are not worth their memory.
const MAX_KEY: usize = 8 * 1024;

/// Length in bytes that nearly no key exceeds.
const USUAL_KEY: usize = 192;

thread_local! {
    /// Buffer that keys are written to; it is copied only for keys that are kept longer.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The treatment of a request by the cache.
pub(crate) enum RequestClass {
    /// It may change something, so it can invalidate.
    Write,
    /// It bypasses the cache, for this reason.
    Pass(BypassReason),
    /// Its content must arrive first, because it is part of the cache key.
    Content,
    Read(Box<Lookup>),
}

/// A request whose response may be stored.
pub(crate) struct Lookup {
    pub key: Vec<u8>,
    /// The cache key plus the request's values of the fields that stored responses of that key vary with, if there are
    /// such fields: the key for hit-for-miss.
    pub variant_key: Option<Box<[u8]>>,
    /// The cache directives of the request.
    pub directives: RequestDirectives,
    /// The traits that matter for storing its response.
    pub traits: RequestTraits,
    /// Its principal, on routes where each has its own copy.
    pub principal: Option<Principal>,
    /// Whether it is HEAD, which is served from responses to GET.
    pub head: bool,
    /// Whether it has parameters outside the cache key, so that its response is not stored.
    pub uncounted: bool,
    /// Whether its response came from another process just now.
    pub received: bool,
    /// Whether it waited for a request that the upstream refused: if this one is refused too, all are expected to be.
    pub follows_refused: bool,
    /// Fields that select fragments and are not part of the key: only a response whose Vary names them fits.
    pub fragments: Vec<HeaderName>,
}

impl Lookup {
    /// Returns the class of the request for hit-for-miss.
    pub(crate) fn requester_class(&self, scope: Scope) -> RequesterClass {
        RequesterClass::new(self.traits.personal, scope)
    }

    /// Returns the hit-for-miss key of the request.
    pub(crate) fn memory_key(&self) -> &[u8] {
        self.variant_key.as_deref().unwrap_or(&self.key)
    }

    /// Returns the same key, for a request that does not need the rest.
    pub(crate) fn into_memory_key(self) -> Vec<u8> {
        self.variant_key.map_or(self.key, <[u8]>::into_vec)
    }
}

/// Returns the fields that decide which stored response fits a request.
pub(super) fn selecting<'a>(routed: &'a Routed, read: &'a Lookup) -> SelectingFields<'a> {
    let fields =
        SelectingFields::new(routed.request.headers(), &routed.record.info.cache_settings().ignore_cookies);
    SelectingFields { fragments: &read.fragments, ..fields }
}

/// Returns a request as far as it decides which stored response serves it.
pub(super) fn requested<'a>(routed: &'a Routed, read: &'a Lookup) -> Requested<'a> {
    Requested {
        selecting: selecting(routed, read),
        personal: read.traits.personal,
        scope: routed.route.cache.route_settings.scope,
        directives: &read.directives,
    }
}

/// Returns a request that no stored response serves, as far as it decides how the request goes to the upstream.
pub(super) fn unserved<'a>(
    routed: &'a Routed,
    read: &'a Lookup,
    candidate: Option<&'a Candidate>,
) -> Unserved<'a> {
    Unserved {
        headers: routed.request.headers(),
        directives: &read.directives,
        traits: read.traits,
        scope: routed.route.cache.route_settings.scope,
        head: read.head,
        selects_fragments: !read.fragments.is_empty(),
        candidate,
    }
}

/// Returns the memory of a key for reuse.
pub(crate) fn recycle(mut key: Vec<u8>) {
    key.clear();
    KEY.with_borrow_mut(|kept| {
        if kept.capacity() < key.capacity() {
            *kept = key;
        }
    });
}

impl RequestClass {
    /// Classifies a request. Returns [`RequestClass::Content`] if its content is needed and has not arrived.
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
        if cache.is_stopped(&routed.route.label, routed.record.info.started) {
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
        // The content of a GET is part of the request but of no cache key (RFC 9110 9.3.1).
        if seen.misleading {
            return RequestClass::Pass(BypassReason::Ambiguous);
        }
        if reads && content.as_ref().is_none_or(|content| !content.is_empty()) {
            return RequestClass::Pass(BypassReason::Content);
        }
        let Some(content) = content else { return RequestClass::Content };
        let policy = &routed.record.info.snapshot.policy;
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
            routed.record.cache.set_principal(principal.as_ref());
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
            received: false,
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
    let policy = &routed.record.info.snapshot.policy;
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
    // Enough for nearly every key; longer ones grow.
    key.reserve(USUAL_KEY);
    let parts = key::Parts {
        upstream: &upstream.name,
        rules: routed.record.sharing_rules(),
        whens: routed.whens,
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

/// Returns the fields that select fragments, except for those that are part of the key.
fn fragments(headers: &HeaderMap, keyed: &[HeaderName]) -> Vec<HeaderName> {
    let names = headers.keys().filter(|name| is_fragment(name) && !keyed.contains(name));
    names.cloned().collect()
}

/// The presence of the fields that matter, found in one pass over the map.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    authorization: bool,
    cookie: bool,
    /// A field that is not listed but named like a credential.
    unlisted: bool,
    directives: bool,
    misleading: bool,
    /// A field that selects fragments.
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
                // Most requests have only these fields; they are told apart without reading their names.
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

    /// Returns the kind of credentials in the request. A field that is listed or named like a credential, or a cookie
    /// that counts, takes precedence over Authorization, even if its value is empty.
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
