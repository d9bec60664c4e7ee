//! Responses that begin or end a session: they invalidate the stored responses of the request's credentials.

use http::{HeaderMap, Method, header};

use crate::cache::invalidation::Mode;
use crate::fields::cookie;
use crate::fields::set_cookie::SetCookie;
use crate::layer::record::RequestRecord;
use crate::policy::cache::is_safe;
use crate::runtime::clock;

/// The label of these invalidations in metrics.
pub(super) const LABEL: &str = "session";

/// Returns whether a response sets a cookie at all; comparing names is far faster than looking them up.
pub(crate) fn sets_cookie(response: &HeaderMap) -> bool {
    response.keys().any(|name| *name == header::SET_COOKIE)
}

/// Invalidates the stored responses of the request's own credentials if the response removes a listed cookie, or if a
/// write sets one for a client that had none. A mere renewal changes nothing.
pub(crate) fn heed(record: &RequestRecord, method: &Method, request: &HeaderMap, response: &HeaderMap) {
    let identity = &record.info.snapshot.policy.identity;
    let now = clock::unix_seconds(record.wall()) as i64;
    let lines = response.get_all(header::SET_COOKIE).iter();
    let cookies = lines.filter_map(|line| SetCookie::parse(line.as_bytes(), now));
    let (mut ends, mut begins) = (false, false);
    for cookie in cookies.filter(|cookie| identity.is_credential_cookie(cookie.name)) {
        ends |= cookie.expires;
        begins |= !cookie.expires;
    }
    if !ends {
        let mut listed = cookie::pairs(request).filter(|(name, _)| identity.is_credential_cookie(name));
        begins = begins && !is_safe(method) && listed.all(|(_, value)| value.is_empty());
    }
    if !ends && !begins {
        return;
    }
    let claims = record.verified_claims(request).as_ref().ok().and_then(Option::as_ref);
    let Some(principal) = identity.principal(request, claims) else { return };
    let cache = record.shared_cache();
    let mut targets = cache.targets();
    principal.credentials.iter().for_each(|hash| targets.credential(hash));
    cache.invalidate(&targets, Mode::Hard, clock::now());
    cache.counters.count_invalidation(LABEL);
}
