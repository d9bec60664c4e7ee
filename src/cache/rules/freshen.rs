//! Updates of a stored response by a 304 or a response to HEAD (RFC 9111 4.3.4, 4.3.5, 3.2).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::storability::{NotStorable, RequestTraits, evaluate};
use crate::cache::settings::{CacheSettings, RouteCacheSettings};
use crate::fields::cache_control::ResponseDirectives;
use crate::fields::cache_status::X_CACHE;
use crate::fields::entity_tag::EntityTag;
use crate::fields::{cookie, date};

/// The meaning of a response for the stored response that its request may have revalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    /// The stored response is current.
    Confirmed,
    /// The upstream failed: the stored response may be used in place of the error.
    Failed,
    /// It is a response of its own.
    Other,
}

/// Decides about the response to a request for which a response is stored or not (`has_stored`), and which revalidates
/// that or not (RFC 9111 4.3.3).
pub(crate) fn validation(status: StatusCode, has_stored: bool, revalidates: bool) -> Validation {
    match status {
        StatusCode::NOT_MODIFIED if has_stored && revalidates => Validation::Confirmed,
        _ if has_stored && status.is_server_error() => Validation::Failed,
        _ => Validation::Other,
    }
}

/// Returns whether a 304 is about another response than the stored one (RFC 9111 4.3.4).
pub(crate) fn is_about_other(stored: &HeaderMap, brought: &HeaderMap) -> bool {
    let tag = match (EntityTag::from_headers(stored), EntityTag::from_headers(brought)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(ours), Some(theirs)) => !ours.weak_eq(&theirs) || (ours.weak && !theirs.weak),
    };
    let modified = (stored.get(header::LAST_MODIFIED), brought.get(header::LAST_MODIFIED));
    tag || matches!(modified, (Some(ours), Some(theirs)) if !date::is_same(ours, theirs))
}

/// The result of comparing a response to HEAD with the stored response to GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadComparison {
    /// A validator and everything else that both have is the same: the stored response is freshened.
    Same,
    /// The upstream has another response by now: the stored one is not used any more.
    Differs,
    /// It does not tell.
    Unknown,
}

/// Compares a response to HEAD, `(status, fields)`, with the `stored` response to GET (RFC 9111 4.3.5).
pub(crate) fn compare_head(
    stored: (StatusCode, &HeaderMap),
    (status, fields): (StatusCode, &HeaderMap),
) -> HeadComparison {
    let (stored_status, stored) = stored;
    if stored_status != status {
        return HeadComparison::Unknown;
    }
    let is_same = |name| match (stored.get(&name), fields.get(&name)) {
        (Some(ours), Some(theirs)) => Some(date::is_same(ours, theirs)),
        _ => None,
    };
    let [tag, modified, length] = [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LENGTH].map(is_same);
    if [tag, modified, length].contains(&Some(false)) {
        HeadComparison::Differs
    } else if [tag, modified].contains(&Some(true)) {
        HeadComparison::Same
    } else {
        HeadComparison::Unknown
    }
}

/// Returns whether a response to HEAD says something about the responses that its client shares with others: it sets no
/// cookie, is not private and does not depend on credentials.
pub(crate) fn is_about_all(
    traits: RequestTraits,
    response: (StatusCode, &HeaderMap),
    says: &ResponseDirectives,
    settings: (&RouteCacheSettings, &CacheSettings),
    wall: SystemTime,
) -> bool {
    // An upstream may omit the lifetime from its responses to HEAD.
    matches!(evaluate(traits, response, says, settings, wall), Ok(_) | Err(NotStorable::NoLifetime))
}

/// Returns the fields of a stored response after a response that confirms it: `stored` and those that clients do not
/// receive (`own`), replaced by those that the confirming response `brought`. The age of the stored response counts from
/// that one on.
pub(crate) fn freshened(stored: HeaderMap, own: &HeaderMap, brought: &HeaderMap) -> HeaderMap {
    let mut fields = joined(stored, own);
    fields.remove(header::DATE);
    update(&mut fields, brought);
    fields
}

/// Returns the fields of a stored response with those that clients do not receive.
pub(crate) fn joined(mut stored: HeaderMap, own: &HeaderMap) -> HeaderMap {
    stored.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
    stored
}

/// Replaces stored fields by those of a 304, except for fields about the content (RFC 9111 3.2).
fn update(stored: &mut HeaderMap, brought: &HeaderMap) {
    static CONTENT: [http::HeaderName; 4] =
        [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, header::TRANSFER_ENCODING];
    let is_kept = |name: &http::HeaderName| {
        CONTENT.contains(name) || cookie::SETTING.contains(name) || *name == X_CACHE
    };
    for name in brought.keys().filter(|name| !is_kept(name)) {
        stored.remove(name);
        for value in brought.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

/// Returns the cookies that a 304 sets. They are for the client alone whose request it responds to.
pub(crate) fn cookies(brought: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let lines =
        |name: &'static HeaderName| brought.get_all(name).iter().map(|value| (name.clone(), value.clone()));
    cookie::SETTING.iter().flat_map(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::freshness::tests::settings;
    use crate::cache::rules::storability::Personal;
    use crate::runtime::clock;

    type Lines<'a> = &'a [(&'static str, &'static str)];

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    /// The same time in an obsolete format (RFC 9110 5.6.7).
    const EARLIER_IN_OTHER_WORDS: &str = "Sunday, 06-Nov-94 08:49:37 GMT";
    const LATER: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    fn fields(lines: Lines<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_response_confirms_the_stored_one_fails_or_is_its_own() {
        use Validation::{Confirmed, Failed, Other};
        for (status, has_stored, revalidates, wanted) in [
            (304, true, true, Confirmed),
            // It responds to a condition of the client.
            (304, true, false, Other),
            (304, false, false, Other),
            (200, true, true, Other),
            (404, true, true, Other),
            (500, true, true, Failed),
            (503, true, true, Failed),
            // Without a validator the request has no condition.
            (503, true, false, Failed),
            (503, false, false, Other),
        ] {
            let code = StatusCode::from_u16(status).unwrap();
            let found = validation(code, has_stored, revalidates);
            assert_eq!(found, wanted, "{status} {has_stored} {revalidates}");
        }
    }

    #[test]
    fn a_304_is_about_another_response_by_its_validators() {
        let (strong, weak, other) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("etag", "\"b\""));
        let (earlier, later) = (("last-modified", EARLIER), ("last-modified", LATER));
        for (stored, brought, wanted) in [
            (&[strong][..], &[][..], false),
            (&[strong], &[strong], false),
            (&[strong], &[weak], false),
            (&[weak], &[weak], false),
            (&[weak], &[strong], true),
            (&[strong], &[other], true),
            (&[], &[strong], true),
            (&[earlier], &[earlier], false),
            (&[earlier], &[("last-modified", EARLIER_IN_OTHER_WORDS)], false),
            (&[earlier], &[later], true),
            (&[], &[later], false),
            (&[strong, earlier], &[strong, later], true),
        ] {
            assert_eq!(is_about_other(&fields(stored), &fields(brought)), wanted, "{stored:?} {brought:?}");
        }
    }

    #[test]
    fn a_response_to_head_is_compared_by_validators_and_length() {
        use HeadComparison::{Differs, Same, Unknown};
        let (tag, weak, other) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("etag", "\"b\""));
        let (earlier, later) = (("last-modified", EARLIER), ("last-modified", LATER));
        let (short, long) = (("content-length", "5"), ("content-length", "6"));
        for (stored, status, head, wanted) in [
            (&[tag][..], 200, &[tag][..], Same),
            (&[tag], 200, &[other], Differs),
            (&[tag], 200, &[weak], Differs),
            (&[tag], 404, &[tag], Unknown),
            (&[tag], 404, &[other], Unknown),
            (&[tag], 200, &[], Unknown),
            (&[], 200, &[tag], Unknown),
            (&[earlier], 200, &[earlier], Same),
            (&[earlier], 200, &[("last-modified", EARLIER_IN_OTHER_WORDS)], Same),
            (&[earlier], 200, &[later], Differs),
            (&[tag, earlier], 200, &[tag, later], Differs),
            (&[tag, earlier], 200, &[earlier], Same),
            (&[short], 200, &[short], Unknown),
            (&[short], 200, &[long], Differs),
            (&[tag, short], 200, &[tag, short], Same),
            (&[tag, short], 200, &[tag, long], Differs),
            (&[tag], 200, &[tag, long], Same),
        ] {
            let (stored, head) = (fields(stored), fields(head));
            let status = StatusCode::from_u16(status).unwrap();
            let found = compare_head((StatusCode::OK, &stored), (status, &head));
            assert_eq!(found, wanted, "{stored:?} {status} {head:?}");
        }
    }

    #[test]
    fn a_response_to_head_is_about_all_unless_it_is_for_its_client() {
        let route_settings = RouteCacheSettings::default();
        let user = RequestTraits { personal: Personal::Otherwise, ..RequestTraits::default() };
        for (traits, lines, wanted) in [
            (RequestTraits::default(), &[][..], true),
            (RequestTraits::default(), &[("cache-control", "max-age=5")], true),
            (RequestTraits::default(), &[("cache-control", "private, max-age=5")], false),
            (RequestTraits::default(), &[("cache-control", "no-store")], false),
            (RequestTraits::default(), &[("cache-control", "max-age=5"), ("set-cookie", "a=b")], false),
            (user, &[("cache-control", "max-age=5")], false),
            (user, &[("cache-control", "public, max-age=5")], true),
        ] {
            let headers = fields(lines);
            let says = ResponseDirectives::from_headers(&headers, &[]);
            let response = (StatusCode::OK, &headers);
            let found = is_about_all(traits, response, &says, (&route_settings, &settings()), clock::wall());
            assert_eq!(found, wanted, "{traits:?} {lines:?}");
        }
    }

    #[test]
    fn a_confirming_response_replaces_all_fields_but_those_about_the_content() {
        let stored = fields(&[
            ("date", EARLIER),
            ("etag", "\"a\""),
            ("cache-control", "max-age=5"),
            ("content-length", "5"),
            ("x-many", "1"),
            ("x-many", "2"),
            ("x-kept", "1"),
            ("x-cache", "HIT"),
        ]);
        let own = fields(&[("cache-tag", "a")]);
        let brought = fields(&[
            ("etag", "W/\"a\""),
            ("cache-control", "max-age=9"),
            ("content-length", "0"),
            ("content-encoding", "gzip"),
            ("x-many", "3"),
            ("set-cookie", "a=b"),
            ("x-cache", "MISS"),
            ("cache-tag", "b"),
        ]);
        let wanted = fields(&[
            ("etag", "W/\"a\""),
            ("cache-control", "max-age=9"),
            ("content-length", "5"),
            ("x-many", "3"),
            ("x-kept", "1"),
            ("x-cache", "HIT"),
            ("cache-tag", "b"),
        ]);
        assert_eq!(freshened(stored.clone(), &own, &brought), wanted);
        let with_date = freshened(stored, &own, &fields(&[("date", LATER)]));
        assert_eq!(with_date[header::DATE], LATER);
    }

    #[test]
    fn cookies_of_a_304_are_returned_with_all_their_lines() {
        let brought = fields(&[("set-cookie", "a=b"), ("etag", "\"a\""), ("set-cookie", "c=d")]);
        let found: Vec<_> = cookies(&brought).into_iter().map(|(_, value)| value).collect();
        assert_eq!(found, ["a=b", "c=d"]);
    }
}
