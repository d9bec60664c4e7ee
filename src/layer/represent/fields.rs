//! The response fields that depend on the representation.

use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::fields::cache_control;
use crate::fields::entity_tag::EntityTag;
use crate::fields::media_type::MediaKind;
use crate::represent::coding::Coding;
use crate::represent::entity_tag;

/// Digests of the unencoded content (RFC 9530, and older fields).
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Fields about the content, which a 304 does not repeat (RFC 9110 15.4.5).
static OF_CONTENT: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::TRAILER,
];

/// The presence of the fields that matter, found in one pass over the map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub cache_control: bool,
    pub content_encoding: bool,
    pub etag: bool,
    pub last_modified: bool,
    pub kind: MediaKind,
}

impl Seen {
    pub(super) fn scan(headers: &HeaderMap) -> Seen {
        let mut seen = Seen {
            cache_control: false,
            content_encoding: false,
            etag: false,
            last_modified: false,
            kind: MediaKind::Ordinary,
        };
        for (name, value) in headers {
            match *name {
                header::CONTENT_TYPE => seen.kind = MediaKind::parse(value.as_bytes()),
                header::CACHE_CONTROL => seen.cache_control = true,
                header::CONTENT_ENCODING => seen.content_encoding = true,
                header::ETAG => seen.etag = true,
                header::LAST_MODIFIED => seen.last_modified = true,
                _ => {}
            }
        }
        seen
    }
}

/// Removes fields that are wrong for encoded content: its length, its digests, and the offer of ranges (a range of
/// encoded content is not what the upstream would send for it).
fn content_changed(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    DIGESTS.iter().for_each(|name| drop(headers.remove(name)));
}

/// Replaces the upstream's tag for content that Pillion encoded. An invalid tag cannot be made different for another
/// coding, so it is removed.
fn retag(headers: &mut HeaderMap) {
    match EntityTag::from_headers(headers) {
        Some(tag) if tag.weak => {}
        Some(tag) => {
            let tag = entity_tag::on_coded(&tag);
            headers.insert(header::ETAG, tag);
        }
        None => drop(headers.remove(header::ETAG)),
    }
}

/// Sets the fields of encoded content; `retags`: its tag is that of the content.
pub(super) fn coded(headers: &mut HeaderMap, coding: Coding, retags: bool) {
    if retags {
        retag(headers);
    }
    content_changed(headers);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
}

/// Removes fields that are wrong for a part: the length of the whole, and digests of what is sent (RFC 9530 2).
pub(super) fn of_a_part(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove("content-digest");
    headers.remove("content-md5");
}

/// Makes a 304 of a 200. The required fields stay (Cache-Control, Content-Location, Date, ETag, Expires, Vary), and so
/// do fields that are not about the content: cookies, and fields that let a browser's script read the response.
/// Last-Modified is needed only without a tag.
pub(super) fn not_modified(parts: &mut Parts, tag: Option<HeaderValue>) {
    parts.status = StatusCode::NOT_MODIFIED;
    let headers = &mut parts.headers;
    // Comparing names is far faster than looking them up.
    const MAX_GONE: usize = 11;
    let mut gone: [Option<HeaderName>; MAX_GONE] = Default::default();
    let of_content = headers.keys().filter(|name| OF_CONTENT.contains(name) || DIGESTS.contains(name));
    gone.iter_mut().zip(of_content).for_each(|(place, name)| *place = Some(name.clone()));
    gone.into_iter().flatten().for_each(|name| drop(headers.remove(name)));
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
        headers.remove(header::LAST_MODIFIED);
    }
}

/// Returns the declared length of a response without content.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sets how long browsers keep a response. This replaces the upstream's max-age, no-cache and Expires, but never
/// no-store or private. A response to a request with credentials becomes private, unless the upstream allows it for
/// all.
pub(super) fn browser_ttl(parts: &mut Parts, ttl: Duration, personal: bool) {
    let told = matches!(
        parts.status,
        StatusCode::OK
            | StatusCode::NON_AUTHORITATIVE_INFORMATION
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    let headers = &mut parts.headers;
    if !told || cache_control::has(headers, "no-store") {
        return;
    }
    let kept: Vec<Vec<u8>> = cache_control::directives(headers)
        .filter(|directive| !directive.is("max-age") && !directive.is("no-cache"))
        .map(|directive| match directive.argument {
            Some(argument) => [directive.name, argument].join(&b"="[..]),
            None => directive.name.to_vec(),
        })
        .collect();
    let says = |name: &str| cache_control::has(headers, name);
    let personal = personal || headers.contains_key(header::SET_COOKIE);
    let says_private = personal && !says("private") && !says("public") && !says("s-maxage");
    let mut value = kept.join(&b", "[..]);
    // A response that has an age already is kept for this long from now on.
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    let lifetime = ttl.as_secs().saturating_add(age);
    for word in [says_private.then(|| "private".to_owned()), Some(format!("max-age={lifetime}"))] {
        let Some(word) = word else { continue };
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(word.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        headers.insert(header::CACHE_CONTROL, value);
        // RFC 9111 5.3: max-age takes precedence over Expires, so Expires would be redundant.
        headers.remove(header::EXPIRES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    #[test]
    fn browsers_are_told() {
        let hour = Duration::from_secs(3600);
        for (status, lines, personal, wanted) in [
            (200, &[][..], false, Some("max-age=3600")),
            (200, &[("cache-control", "no-cache")], false, Some("max-age=3600")),
            (200, &[("age", "100")], false, Some("max-age=3700")),
            (200, &[("cache-control", "public, max-age=5")], false, Some("public, max-age=3600")),
            (200, &[("cache-control", "private, max-age=5")], true, Some("private, max-age=3600")),
            (200, &[("cache-control", "no-store")], false, Some("no-store")),
            (200, &[("cache-control", "s-maxage=9")], true, Some("s-maxage=9, max-age=3600")),
            (
                200,
                &[("cache-control", "no-cache=\"a, b\", must-revalidate")],
                false,
                Some("must-revalidate, max-age=3600"),
            ),
            (200, &[], true, Some("private, max-age=3600")),
            (200, &[("set-cookie", "a=b")], false, Some("private, max-age=3600")),
            (304, &[("expires", "0")], false, Some("max-age=3600")),
            (404, &[], false, None),
            (500, &[("cache-control", "no-cache")], false, Some("no-cache")),
        ] {
            let mut response = Response::builder().status(status);
            for (name, value) in lines {
                response = response.header(*name, *value);
            }
            let (mut parts, ()) = response.body(()).unwrap().into_parts();
            browser_ttl(&mut parts, hour, personal);
            let found = parts.headers.get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
            assert_eq!(found, wanted, "{status} {lines:?}");
            assert!(!parts.headers.contains_key(header::EXPIRES));
        }
    }
}
