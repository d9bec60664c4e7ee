//! The outcome of the cache layer: how the request was handled, and why its response was not stored.

use std::cell::Cell;

use crate::fields::cache_status::Member;
use crate::identity::principal::Principal;
use crate::rendering::words::words;

words! {
    /// One word for how the cache handled a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum CacheHandling {
        /// Served from a fresh stored response.
        Hit => "hit",
        /// Served from a stale stored response.
        Stale => "stale",
        /// Served from a stale stored response, because the upstream failed.
        StaleIfError => "stale-if-error",
        /// Served from a stale stored response, because the upstream did not respond in time.
        StaleIfSlow => "stale-if-slow",
        /// Served from a stored response that the upstream confirmed with a 304.
        Revalidated => "revalidated",
        /// Served from a response that another request fetched.
        Collapsed => "collapsed",
        /// The cache had no matching response.
        Miss => "miss",
        /// The cache had a response that was no longer usable.
        Expired => "expired",
        Bypass => "bypass",
        Write => "write",
        Purge => "purge",
    }
}

impl CacheHandling {
    /// Returns whether the cache had the response; `None` if the cache was not asked.
    pub(super) fn is_hit(self) -> Option<bool> {
        match self {
            CacheHandling::Hit
            | CacheHandling::Stale
            | CacheHandling::StaleIfError
            | CacheHandling::StaleIfSlow
            | CacheHandling::Revalidated
            | CacheHandling::Collapsed => Some(true),
            CacheHandling::Miss | CacheHandling::Expired => Some(false),
            CacheHandling::Bypass | CacheHandling::Write | CacheHandling::Purge => None,
        }
    }
}

/// The outcome of the cache for one request.
#[derive(Default)]
pub(crate) struct CacheOutcome {
    handling: Cell<Option<CacheHandling>>,
    /// The member of `Cache-Status`, if it is not among the response's fields.
    status_member: Cell<Option<Member<'static>>>,
    not_stored: Cell<Option<&'static str>>,
    /// The keyed hash of the principal whose stored responses the request may use, if they are separate. As bytes,
    /// because a number would be aligned to 16 and leave a gap.
    principal: Cell<Option<[u8; 16]>>,
}

impl CacheOutcome {
    /// Records how the cache handled the request. The last call counts.
    pub(crate) fn set_handling(&self, handling: CacheHandling) {
        self.handling.set(Some(handling));
    }

    /// Records the reason why the response was not stored, as a word for the log. The last call counts.
    pub(crate) fn set_not_stored(&self, reason: &'static str) {
        self.not_stored.set(Some(reason));
    }

    /// Records the principal whose stored responses the request may use.
    pub(crate) fn set_principal(&self, principal: Option<&Principal>) {
        self.principal.set(principal.and_then(|principal| principal.partition.first_chunk().copied()));
    }

    /// Records the member of `Cache-Status` that is written beside the response's fields.
    pub(super) fn set_status_member(&self, member: Member<'static>) {
        self.status_member.set(Some(member));
    }

    /// Returns how the cache handled the request.
    pub(crate) fn handling(&self) -> Option<CacheHandling> {
        self.handling.get()
    }

    pub(super) fn status_member(&self) -> Option<Member<'static>> {
        self.status_member.get()
    }

    /// Returns the reason why the response was not stored.
    pub(crate) fn not_stored(&self) -> Option<&'static str> {
        self.not_stored.get()
    }

    pub(super) fn principal(&self) -> Option<u128> {
        self.principal.get().map(u128::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::CacheHandling;

    #[test]
    fn handling_counts_as_hit_only_where_the_cache_was_asked_and_had_the_response() {
        for handling in CacheHandling::ALL {
            let expected = match handling.as_str() {
                "hit" | "stale" | "stale-if-error" | "stale-if-slow" | "revalidated" | "collapsed" => {
                    Some(true)
                }
                "miss" | "expired" => Some(false),
                _ => None,
            };
            assert_eq!(handling.is_hit(), expected, "{handling:?}");
        }
    }
}
