//! Selects the stored response that serves a request, alone, after its revalidation, or in place of an error (RFC 9111
//! 4, 4.2.4, RFC 5861).

use super::invalidation::Invalidation;
use super::rules::eligibility::FwdReason;
use super::rules::reuse::{self, Age, Failed, Reuse, RevalidateReason};
use super::rules::storability::Personal;
use super::selecting_fields::SelectingFields;
use super::settings::Scope;
use super::store::Entry;
use super::store::stored::{StoredHead, StoredResponse};
use crate::fields::cache_control::RequestDirectives;
use crate::runtime::clock::Instant;

/// A stored response that cannot be used without revalidation.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub stored: StoredResponse,
    /// Whether an invalidation removed it: only a strong entity tag may revalidate it then.
    pub gone: bool,
}

/// A request, as far as it decides which stored response serves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requested<'a> {
    /// The fields that responses vary with.
    pub selecting: SelectingFields<'a>,
    /// The kind of credentials that it carries.
    pub personal: Personal,
    /// The scope of its route.
    pub scope: Scope,
    pub directives: &'a RequestDirectives,
}

/// The permission by which a stored response is used without a word of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Fresh,
    /// It is stale, and the request accepts that (RFC 9111 5.2.1.2).
    MaxStale,
    /// It is stale, and revalidated at the same time (RFC 5861 3).
    WhileRevalidate,
}

/// The stored response for a request, or the reason why the request goes to the upstream.
#[derive(Clone, Debug)]
pub(crate) enum Selection<'a> {
    Served(&'a StoredResponse, Age, Use),
    /// No stored response may be used, not even after its revalidation.
    Nothing(FwdReason),
    Revalidated(FwdReason, Candidate),
}

/// Selects among the responses stored under the key of a request.
// Inlined because each hit passes here.
#[inline]
pub(crate) fn select<'a>(
    entry: &'a Entry,
    request: Requested<'_>,
    invalidation: &Invalidation,
    now: Instant,
) -> Selection<'a> {
    let Some(stored) = entry.select(request.selecting) else {
        return Selection::Nothing(FwdReason::VaryMiss);
    };
    if !stored.head.audience.admits(request.personal, request.scope) {
        return Selection::Nothing(FwdReason::Miss);
    }
    let Some(age) = stored.head.age_if_valid(invalidation, now) else {
        return Selection::Revalidated(FwdReason::Stale, Candidate { stored: stored.clone(), gone: true });
    };
    if invalidation.is_doubted() {
        return Selection::Revalidated(FwdReason::Stale, Candidate { stored: stored.clone(), gone: false });
    }
    let permission = match reuse::reuse(&stored.head.freshness, age, request.directives) {
        Reuse::Fresh => Use::Fresh,
        Reuse::MaxStale => Use::MaxStale,
        Reuse::WhileRevalidate => Use::WhileRevalidate,
        Reuse::Revalidate(why) => {
            let why = match why {
                RevalidateReason::Stale => FwdReason::Stale,
                RevalidateReason::Request => FwdReason::Request,
            };
            return Selection::Revalidated(why, Candidate { stored: stored.clone(), gone: false });
        }
    };
    Selection::Served(stored, age, permission)
}

/// Returns the stored response that a request may revalidate, whatever its age.
pub(crate) fn candidate(
    entry: &Entry,
    request: Requested<'_>,
    invalidation: &Invalidation,
    now: Instant,
) -> Option<Candidate> {
    let stored = entry.select(request.selecting)?;
    stored.head.audience.admits(request.personal, request.scope).then(|| {
        let gone = stored.head.age_if_valid(invalidation, now).is_none();
        Candidate { stored: stored.clone(), gone }
    })
}

/// Returns whether a stored response is fresh for a request with `directives`.
pub(crate) fn is_fresh(
    stored: &StoredResponse,
    directives: &RequestDirectives,
    invalidation: &Invalidation,
    now: Instant,
) -> bool {
    let age = stored.head.age_if_valid(invalidation, now).filter(|_| !invalidation.is_doubted());
    age.is_some_and(|age| reuse::reuse(&stored.head.freshness, age, directives) == Reuse::Fresh)
}

/// Share of its lifetime before the end of which a response may be fetched anew.
const AHEAD: u32 = 10;

/// Returns whether a fresh response is to be fetched anew now. In the last tenth of its lifetime the chance grows with the
/// time that a fetch takes, as in Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention"
/// (VLDB 2015). `random` returns a number of at least 0 and below 1.
pub(crate) fn is_due_ahead(head: &StoredHead, age: Age, random: impl FnOnce() -> f64) -> bool {
    let left = head.freshness.lifetime.saturating_sub(age.current);
    // One minus it, because the logarithm of zero is infinite.
    left <= head.freshness.lifetime / AHEAD
        && left.as_secs_f64() <= -head.fetched_in.as_secs_f64() * (1.0 - random()).ln()
}

/// Returns the age of the stored response that is used in place of an error; `None` if the error is passed on. It is
/// judged anew, because it may have been invalidated since it was selected.
pub(crate) fn in_place_of_error(
    candidate: &Candidate,
    directives: &RequestDirectives,
    failed: Failed,
    invalidation: &Invalidation,
    now: Instant,
) -> Option<Age> {
    if candidate.gone {
        return None;
    }
    let head = &candidate.stored.head;
    let age = head.age_if_valid(invalidation, now)?;
    reuse::may_replace_error(&head.freshness, age, directives, failed).then_some(age)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::Cache;
    use crate::cache::invalidation::Mode;
    use crate::cache::rules::freshness::Freshness;
    use crate::cache::rules::storability::Audience;
    use crate::cache::store::stored::tests::parts_with;
    use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts};
    use crate::cache::variant::Variant;
    use crate::fields::cookie::Ignored;
    use crate::memory::chunked_bytes::ChunkedBytes;
    use crate::runtime::clock;

    const KEY: &[u8] = b"key";
    const MINUTE: Duration = Duration::from_secs(60);

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// Returns a stored response with such fields, outside of any cache.
    pub(crate) fn stored_with_fields(fields: HeaderMap) -> StoredResponse {
        let response = Stored::with(|parts| StoredHeadParts { fields, ..parts });
        response.entry.variants()[0].clone()
    }

    /// A cache with one response, which is fresh for an hour and then stale for a minute.
    struct Stored {
        cache: Cache,
        entry: Arc<Entry>,
        received: Instant,
    }

    impl Stored {
        fn with(change: impl FnOnce(StoredHeadParts) -> StoredHeadParts) -> Stored {
            let received = clock::now();
            let cache = Cache::new(1, 1 << 20, received);
            let keys = [cache.invalidation.key_hasher.tag("a")];
            let begun = cache.invalidation.begin(&cache.invalidation.watch(&keys), received);
            let parts = parts_with(&keys, begun, received);
            let freshness = Freshness { while_revalidate: MINUTE, if_error: MINUTE, ..parts.freshness };
            let head = StoredHead::new(change(StoredHeadParts { freshness, ..parts }));
            let place = cache.store.budget.take_over(1);
            let content = Content::new(ChunkedBytes::copy(b"a"), None, place);
            let stored = StoredResponse { head: Arc::new(head), content: Arc::new(content) };
            assert!(cache.keep(KEY, &stored));
            let entry = cache.store.get(KEY, 0).unwrap();
            Stored { cache, entry, received }
        }

        fn invalidate(&self, mode: Mode) {
            let keys = [self.cache.invalidation.key_hasher.tag("a")];
            self.cache.invalidation.stamp(&keys, mode, self.received + MINUTE);
        }

        /// The selection in words, `after` seconds.
        fn selected(&self, request: Requested<'_>, after: u64) -> String {
            let now = self.received + Duration::from_secs(after);
            match select(&self.entry, request, &self.cache.invalidation, now) {
                Selection::Served(_, age, permission) => format!("{permission:?} {}", age.current.as_secs()),
                Selection::Nothing(why) => why.as_str().to_owned(),
                Selection::Revalidated(why, Candidate { gone, .. }) => {
                    format!("{}{}", why.as_str(), if gone { ", gone" } else { "" })
                }
            }
        }
    }

    /// Calls `with` with a request of such fields, whose directives are those of its Cache-Control.
    fn requested<R>(
        lines: &[(&'static str, &'static str)],
        personal: Personal,
        scope: Scope,
        with: impl FnOnce(Requested<'_>) -> R,
    ) -> R {
        let (headers, ignored) = (fields(lines), Ignored::default());
        let directives = RequestDirectives::from_headers(&headers);
        let selecting = SelectingFields::new(&headers, &ignored);
        with(Requested { selecting, personal, scope, directives: &directives })
    }

    fn asks<R>(says: &'static str, with: impl FnOnce(Requested<'_>) -> R) -> R {
        requested(&[("cache-control", says)], Personal::No, Scope::Auto, with)
    }

    #[test]
    fn a_stored_response_serves_requests_by_age_and_directives() {
        let stored = Stored::with(|parts| parts);
        for (says, after, wanted) in [
            ("", 0, "Fresh 0"),
            ("", 3599, "Fresh 3599"),
            ("", 3600, "WhileRevalidate 3600"),
            ("", 3661, "stale"),
            ("max-stale=100", 3700, "MaxStale 3700"),
            ("no-cache", 0, "request"),
            ("max-age=5", 6, "request"),
            ("max-age=5", 3700, "stale"),
        ] {
            assert_eq!(asks(says, |request| stored.selected(request, after)), wanted, "{says} {after}");
        }
    }

    #[test]
    fn a_stored_response_serves_no_request_that_it_is_not_for() {
        use Personal::{Authorization, No, Otherwise};
        for (audience, personal, scope, wanted) in [
            (Audience::Anonymous, No, Scope::Auto, "Fresh 0"),
            (Audience::Anonymous, Authorization, Scope::Auto, "miss"),
            (Audience::Anonymous, Otherwise, Scope::Auto, "miss"),
            (Audience::Authorized, Authorization, Scope::Auto, "Fresh 0"),
            (Audience::Authorized, Otherwise, Scope::Auto, "miss"),
            (Audience::Everyone, Otherwise, Scope::Auto, "Fresh 0"),
            (Audience::Anonymous, Otherwise, Scope::Shared, "Fresh 0"),
            (Audience::Anonymous, Otherwise, Scope::User, "Fresh 0"),
        ] {
            let stored = Stored::with(|parts| StoredHeadParts { audience, ..parts });
            let found = requested(&[], personal, scope, |request| stored.selected(request, 0));
            assert_eq!(found, wanted, "{audience:?} {personal:?} {scope:?}");
            let offered = requested(&[], personal, scope, |request| {
                candidate(&stored.entry, request, &stored.cache.invalidation, stored.received)
            });
            assert_eq!(offered.is_some(), wanted != "miss", "{audience:?} {personal:?} {scope:?}");
        }
        let stored = Stored::with(|parts| {
            let (request, ignored) = (fields(&[("accept-language", "en")]), Ignored::default());
            let selecting = SelectingFields::new(&request, &ignored);
            let variant = Variant::from_response(&fields(&[("vary", "accept-language")]), selecting, &[]);
            StoredHeadParts { variant: variant.unwrap(), ..parts }
        });
        for (language, wanted) in [("en", "Fresh 0"), ("fr", "vary-miss")] {
            let lines = [("accept-language", language)];
            let found = requested(&lines, No, Scope::Auto, |request| stored.selected(request, 0));
            assert_eq!(found, wanted, "{language}");
        }
    }

    #[test]
    fn an_invalidated_response_is_revalidated_before_its_use() {
        for (mode, says, after, wanted, gone) in [
            (Mode::Hard, "", 60, "stale, gone", true),
            (Mode::Hard, "max-stale", 60, "stale, gone", true),
            (Mode::Soft, "", 60, "WhileRevalidate 60", false),
            (Mode::Soft, "max-stale", 121, "stale", false),
            (Mode::Soft, "", 121, "stale", false),
        ] {
            let stored = Stored::with(|parts| parts);
            stored.invalidate(mode);
            assert_eq!(
                asks(says, |request| stored.selected(request, after)),
                wanted,
                "{mode:?} {says} {after}"
            );
            let now = stored.received + Duration::from_secs(after);
            let offered =
                asks(says, |request| candidate(&stored.entry, request, &stored.cache.invalidation, now));
            assert_eq!(offered.map(|candidate| candidate.gone), Some(gone), "{mode:?} {after}");
            let directives = RequestDirectives::default();
            let response = &stored.entry.variants()[0];
            assert!(!is_fresh(response, &directives, &stored.cache.invalidation, now), "{mode:?} {after}");
        }
    }

    #[test]
    fn a_response_is_fresh_within_its_lifetime_unless_the_request_demands_another() {
        let stored = Stored::with(|parts| parts);
        for (says, after, wanted) in
            [("", 3599, true), ("", 3600, false), ("no-cache", 0, false), ("max-age=5", 6, false)]
        {
            let now = stored.received + Duration::from_secs(after);
            let found = asks(says, |request| {
                is_fresh(&stored.entry.variants()[0], request.directives, &stored.cache.invalidation, now)
            });
            assert_eq!(found, wanted, "{says} {after}");
        }
    }

    #[test]
    fn a_stale_response_replaces_an_error_unless_it_was_invalidated() {
        let status = |code| Failed::Status(StatusCode::from_u16(code).unwrap());
        for (mode, gone, failed, says, after, wanted) in [
            (None, false, status(503), "", 3630, Some(3630)),
            (None, false, status(503), "", 3661, None),
            (None, false, status(503), "", 10, None),
            (None, false, status(404), "", 3630, None),
            (None, false, status(503), "no-cache", 3630, None),
            (None, true, status(503), "", 3630, None),
            (Some(Mode::Hard), false, status(503), "", 3630, None),
            (Some(Mode::Soft), false, status(503), "", 90, Some(90)),
        ] {
            let stored = Stored::with(|parts| parts);
            mode.into_iter().for_each(|mode| stored.invalidate(mode));
            let candidate = Candidate { stored: stored.entry.variants()[0].clone(), gone };
            let now = stored.received + Duration::from_secs(after);
            let found = asks(says, |request| {
                in_place_of_error(&candidate, request.directives, failed, &stored.cache.invalidation, now)
            });
            let found = found.map(|age| age.current.as_secs());
            assert_eq!(found, wanted, "{mode:?} {gone} {failed:?} {says} {after}");
        }
    }
}
