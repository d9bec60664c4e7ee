//! Decides how a request that no stored response serves goes to the upstream: alone, beside others, or together with
//! those that ask for the same (RFC 9111 4).

use http::{HeaderMap, header};

use super::conditions::has_validator;
use super::reuse::demands_upstream;
use super::storability::{Audience, RequestTraits};
use crate::cache::hit_for_miss::RequesterClass;
use crate::cache::selection::Candidate;
use crate::cache::settings::Scope;
use crate::fields::cache_control::RequestDirectives;

/// A request that no stored response serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unserved<'a> {
    /// The fields of the request.
    pub headers: &'a HeaderMap,
    pub directives: &'a RequestDirectives,
    pub traits: RequestTraits,
    /// The scope of its route.
    pub scope: Scope,
    /// Whether it is HEAD.
    pub head: bool,
    /// Whether it has fields that select fragments and are not part of the key.
    pub selects_fragments: bool,
    /// The stored response that it may revalidate.
    pub candidate: Option<&'a Candidate>,
}

/// The way of a request to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Recent responses under its key were not stored: it is forwarded, and its response is judged by its head alone.
    Known,
    /// It is forwarded unchanged and for itself alone.
    Alone,
    /// As [`Course::Alone`], because of its Range.
    Partial,
    /// It is forwarded with the conditions of the stored response. No request waits for it.
    Beside,
    /// It joins the fetch of its key, or begins it.
    Together,
}

impl Unserved<'_> {
    /// Decides about the request. `knows` returns whether hit-for-miss knows its key for a class of requests.
    // Inlined because each request comes here that is not stored.
    #[inline]
    pub(crate) fn course(&self, knows: impl Fn(RequesterClass) -> bool) -> Course {
        // Most requests of most upstreams: responses under this key were not stored, and this one will not be.
        if self.candidate.is_none() && knows(RequesterClass::new(self.traits.personal, self.scope)) {
            return Course::Known;
        }
        // A range request is forwarded unchanged, unless a stored response can be revalidated: then its range is cut
        // from that.
        let revalidates =
            |candidate: &Candidate| has_validator(&candidate.stored.head.fields, candidate.gone);
        if self.headers.contains_key(header::RANGE) && !self.candidate.is_some_and(revalidates) {
            return Course::Partial;
        }
        // A response to HEAD has no content to store. Requests with credentials wait for others only if the stored
        // response is for all. A response without Vary may not be the fragment that is requested.
        let alone = self.head
            || self.traits.no_store
            || (self.candidate.is_none() && (self.selects_fragments || !self.is_for_anybody()));
        if alone {
            Course::Alone
        } else if knows(RequesterClass::Waiting) {
            // Earlier responses under this key did not serve the requests that waited for them.
            Course::Beside
        } else {
            Course::Together
        }
    }

    /// Returns whether a response that is only for requests without credentials would serve it.
    fn is_for_anybody(&self) -> bool {
        Audience::Anonymous.admits(self.traits.personal, self.scope)
    }

    /// Returns whether a request with parameters outside the cache key waits for the fetch of the same request without
    /// them, if there is one.
    pub(crate) fn follows_without_parameters(&self) -> bool {
        !demands_upstream(self.directives)
            && !self.head
            && !self.traits.no_store
            && !self.selects_fragments
            && !self.headers.contains_key(header::RANGE)
            && self.is_for_anybody()
    }

    /// Returns whether the response to a request with parameters outside the cache key shows whether the response
    /// without them can be stored. `knows` as in [`Unserved::course`].
    pub(crate) fn shows_storability(&self, knows: impl Fn(RequesterClass) -> bool) -> bool {
        let is_known = || knows(RequesterClass::new(self.traits.personal, self.scope));
        self.candidate.is_some() || !(is_known() || self.head || self.traits.no_store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::storability::Personal;
    use crate::cache::selection::tests::stored_with_fields;

    const PERSONAL: RequestTraits =
        RequestTraits { no_store: false, personal: Personal::Otherwise, conditional: false };

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn requests_go_together_unless_the_response_is_for_one() {
        use Course::{Alone, Beside, Known, Partial, Together};
        let nothing = HeaderMap::new();
        let range = fields(&[("range", "bytes=0-0")]);
        let directives = RequestDirectives::default();
        let plain = Unserved {
            headers: &nothing,
            directives: &directives,
            traits: RequestTraits::default(),
            scope: Scope::Auto,
            head: false,
            selects_fragments: false,
            candidate: None,
        };
        let tagged = Candidate { stored: stored_with_fields(fields(&[("etag", "\"a\"")])), gone: false };
        let weak = Candidate { stored: stored_with_fields(fields(&[("etag", "W/\"a\"")])), gone: true };
        let revalidates = Unserved { candidate: Some(&tagged), ..plain };
        let personal = Unserved { traits: PERSONAL, ..plain };
        let silent = RequestTraits { no_store: true, ..RequestTraits::default() };
        let (any, waiting) = (RequesterClass::Any, RequesterClass::Waiting);
        for (request, known, wanted) in [
            (plain, None, Together),
            (plain, Some(any), Known),
            (plain, Some(RequesterClass::Personal), Together),
            (plain, Some(waiting), Beside),
            (Unserved { head: true, ..plain }, None, Alone),
            (Unserved { head: true, ..plain }, Some(any), Known),
            (Unserved { headers: &range, ..plain }, None, Partial),
            (Unserved { traits: silent, ..plain }, None, Alone),
            (Unserved { selects_fragments: true, ..plain }, None, Alone),
            (personal, None, Alone),
            (personal, Some(any), Alone),
            (personal, Some(RequesterClass::Personal), Known),
            (Unserved { scope: Scope::Shared, ..personal }, None, Together),
            (Unserved { scope: Scope::User, ..personal }, None, Together),
            (Unserved { scope: Scope::User, ..personal }, Some(any), Known),
            (revalidates, None, Together),
            (revalidates, Some(any), Together),
            (revalidates, Some(waiting), Beside),
            (Unserved { headers: &range, ..revalidates }, None, Together),
            (Unserved { headers: &range, candidate: Some(&weak), ..plain }, None, Partial),
            (Unserved { traits: PERSONAL, ..revalidates }, None, Together),
            (Unserved { selects_fragments: true, ..revalidates }, None, Together),
            (Unserved { head: true, ..revalidates }, None, Alone),
            (Unserved { traits: silent, ..revalidates }, None, Alone),
        ] {
            assert_eq!(request.course(|class| Some(class) == known), wanted, "{request:?} {known:?}");
        }
    }

    #[test]
    fn requests_with_uncounted_parameters_follow_and_show_what_can_be_stored() {
        let nothing = HeaderMap::new();
        let range = fields(&[("range", "bytes=0-0")]);
        let says = |value| RequestDirectives::from_headers(&fields(&[("cache-control", value)]));
        let (plain, no_cache, zero, one) = (says(""), says("no-cache"), says("max-age=0"), says("max-age=1"));
        let stored = Candidate { stored: stored_with_fields(HeaderMap::new()), gone: false };
        let request = Unserved {
            headers: &nothing,
            directives: &plain,
            traits: RequestTraits::default(),
            scope: Scope::Auto,
            head: false,
            selects_fragments: false,
            candidate: None,
        };
        let silent = RequestTraits { no_store: true, ..RequestTraits::default() };
        for (request, known, follows, shows) in [
            (request, None, true, true),
            (request, Some(RequesterClass::Any), true, false),
            (Unserved { candidate: Some(&stored), ..request }, Some(RequesterClass::Any), true, true),
            (Unserved { directives: &no_cache, ..request }, None, false, true),
            (Unserved { directives: &zero, ..request }, None, false, true),
            (Unserved { directives: &one, ..request }, None, true, true),
            (Unserved { head: true, ..request }, None, false, false),
            (Unserved { traits: silent, ..request }, None, false, false),
            (Unserved { selects_fragments: true, ..request }, None, false, true),
            (Unserved { headers: &range, ..request }, None, false, true),
            (Unserved { traits: PERSONAL, ..request }, None, false, true),
            (Unserved { traits: PERSONAL, scope: Scope::Shared, ..request }, None, true, true),
        ] {
            assert_eq!(request.follows_without_parameters(), follows, "{request:?}");
            assert_eq!(
                request.shows_storability(|class| Some(class) == known),
                shows,
                "{request:?} {known:?}"
            );
        }
    }
}
