//! Decides which fields are stored with a response, and which of them only Pillion sees (RFC 9111 3.1, 3.2).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::cache::invalidation::tags::{CACHE_TAG, SURROGATE_KEY};
use crate::cache::store::stored::compact;
use crate::fields::cache_status::X_CACHE;

/// Fields by which upstreams address Pillion alone; clients do not receive them.
pub(crate) static OWN: [HeaderName; 3] =
    [HeaderName::from_static("pillion-cache-control"), SURROGATE_KEY, CACHE_TAG];

/// Removes the fields that are for Pillion alone.
pub(crate) fn strip(headers: &mut HeaderMap) {
    // Comparing names is far faster than looking them up, and these fields are rare.
    if headers.keys().any(|name| OWN.contains(name)) {
        OWN.iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// The fields of a response as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFields {
    /// The fields that clients receive.
    pub fields: HeaderMap,
    /// The fields that decided about storing and that clients do not receive.
    pub own: HeaderMap,
}

/// Returns the fields to store. `excluded` are those that directives and the rules about connections keep out,
/// `targeted` the configured targeted fields, `length` that of the content if there is content of known length, and
/// `wall` the time of arrival.
pub(crate) fn select(
    fields: &HeaderMap,
    mut excluded: Vec<HeaderName>,
    targeted: &[HeaderName],
    length: Option<usize>,
    wall: SystemTime,
) -> StoredFields {
    excluded.extend(OWN.iter().cloned());
    // X-Cache of a cache closer to the upstream is about this request, not about later ones.
    excluded.push(X_CACHE);
    // A freshening response may omit the targeted field that the stored one was judged by.
    let own: Vec<_> = targeted.iter().filter(|name| OWN.contains(name)).collect();
    let judged_by = fields.iter().filter(|(name, _)| own.contains(name));
    let own: HeaderMap = judged_by.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut stored = compact(fields, &excluded);
    if !stored.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(wall))
    {
        // RFC 9110 6.6.1: a recipient of a response without Date records the time.
        stored.insert(header::DATE, date);
    }
    match length {
        Some(length) => drop(stored.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(stored.remove(header::CONTENT_LENGTH)),
    }
    StoredFields { fields: stored, own: compact(&own, &[]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn fields_for_pillion_and_about_one_exchange_are_not_stored() {
        let (date, length) = (("date", DATE), ("content-length", "5"));
        let targeted =
            [HeaderName::from_static("pillion-cache-control"), HeaderName::from_static("cdn-cache-control")];
        let excluded = [HeaderName::from_static("x-a"), header::AGE];
        for (lines, content, stored, own) in [
            (&[date, ("age", "5"), ("x-a", "1"), ("x-b", "1")][..], None, &[date, ("x-b", "1")][..], &[][..]),
            (&[date, ("x-cache", "HIT")], None, &[date], &[]),
            (&[date, ("cache-tag", "a"), ("surrogate-key", "b")], None, &[date], &[]),
            (
                &[date, ("pillion-cache-control", "max-age=5"), ("cdn-cache-control", "max-age=6")],
                None,
                &[date, ("cdn-cache-control", "max-age=6")],
                &[("pillion-cache-control", "max-age=5")],
            ),
            (&[date, ("x-b", "1"), ("x-b", "2")], None, &[date, ("x-b", "1"), ("x-b", "2")], &[]),
            (&[], None, &[date], &[]),
            (&[("date", "0")], None, &[("date", "0")], &[]),
            (&[date], Some(5), &[date, length], &[]),
            (&[date, ("content-length", "7")], Some(5), &[date, length], &[]),
            (&[date, length], None, &[date], &[]),
        ] {
            let wall = UNIX_EPOCH + Duration::from_secs(784_111_777);
            let found = select(&headers(lines), excluded.to_vec(), &targeted, content, wall);
            let wanted = StoredFields { fields: headers(stored), own: headers(own) };
            assert_eq!(found, wanted, "{lines:?} {content:?}");
        }
    }

    #[test]
    fn fields_for_pillion_are_stripped() {
        let mut found =
            headers(&[("x-b", "1"), ("cache-tag", "a"), ("cache-tag", "b"), ("surrogate-key", "c")]);
        strip(&mut found);
        assert_eq!(found, headers(&[("x-b", "1")]));
    }
}
