//! Ranges of complete content (RFC 9110 14).

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};

use crate::fields::range;
use crate::memory::chunked_bytes::ChunkedBytes;

/// Maximum number of ranges of one request; a request with more gets the whole content, because RFC 9110 14.2 advises
/// against serving requests that only cause work.
pub(crate) const MAX_RANGES: usize = 16;
/// Number of random letters in a boundary.
const BOUNDARY: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// The Range field does not count; the response has the whole content.
    Whole,
    /// A 206 response with these parts.
    Parts(Vec<Range<usize>>),
    /// A 416 response: no requested part exists.
    Nothing,
}

/// Returns the ranges that `field` selects of content that is `length` bytes long.
pub(crate) fn select(field: &[u8], length: usize) -> Selected {
    let Some(specs) = range::parse(field, MAX_RANGES) else { return Selected::Whole };
    let within =
        |range: Range<u64>| Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?);
    let parts: Vec<Range<usize>> =
        specs.iter().filter_map(|spec| spec.resolve(length as u64)).filter_map(within).collect();
    if parts.is_empty() {
        return Selected::Nothing;
    }
    // Parts that together exceed the whole content overlap, and only cause work (RFC 9110 17.15).
    if parts.len() > 1 && parts.iter().map(ExactSizeIterator::len).sum::<usize>() > length {
        return Selected::Whole;
    }
    Selected::Parts(parts)
}

/// Returns the content of a 206 with these parts, and sets the fields that describe it (RFC 9110 15.3.7). The parts are
/// slices of `content`: a copy for each of many slow clients would take far more memory than the stored content.
pub(crate) fn partial(
    content: &ChunkedBytes,
    parts: &[Range<usize>],
    headers: &mut HeaderMap,
) -> ChunkedBytes {
    if let [part] = parts {
        set(headers, header::CONTENT_RANGE, content_range(part, content.len()));
        return content.slice(part.clone());
    }
    let boundary: String = std::iter::repeat_with(fastrand::alphanumeric).take(BOUNDARY).collect();
    let kind = headers.remove(header::CONTENT_TYPE);
    let mut body: Vec<Bytes> = Vec::new();
    for part in parts {
        let mut head = BytesMut::new();
        head.put_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        if let Some(kind) = &kind {
            head.put_slice(b"Content-Type: ");
            head.put_slice(kind.as_bytes());
            head.put_slice(b"\r\n");
        }
        let range = content_range(part, content.len());
        head.put_slice(format!("Content-Range: {range}\r\n\r\n").as_bytes());
        body.push(head.freeze());
        body.extend(content.slice(part.clone()).iter().cloned());
    }
    body.push(format!("\r\n--{boundary}--\r\n").into());
    set(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    body.into_iter().collect()
}

/// Returns the Content-Range of a 416 for content that is `length` bytes long.
pub(crate) fn unsatisfied(length: usize) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes */{length}"))
        .unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

fn content_range(part: &Range<usize>, length: usize) -> String {
    // No part is empty: `select` omits empty ones.
    format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1))
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "a list of one part")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selections() {
        use Selected::{Nothing, Parts, Whole};
        for (field, wanted) in [
            ("bytes=0-9", Parts(vec![0..10])),
            ("bytes=90-", Parts(vec![90..100])),
            ("bytes=-10", Parts(vec![90..100])),
            ("bytes=-1000", Parts(vec![0..100])),
            ("bytes=0-9,20-29", Parts(vec![0..10, 20..30])),
            ("bytes=0-9,200-300", Parts(vec![0..10])),
            ("bytes=100-", Nothing),
            ("bytes=-0", Nothing),
            ("bytes=0-,0-", Whole),
            ("bytes=0-99,0-0", Whole),
            ("bytes=9-0", Whole),
            ("lines=0-9", Whole),
        ] {
            assert_eq!(select(field.as_bytes(), 100), wanted, "{field}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("{at}-{at}")).collect();
        assert_eq!(select(format!("bytes={}", many.join(",")).as_bytes(), 100), Whole);
        assert_eq!(select(b"bytes=0-", 0), Nothing);
    }

    #[test]
    fn several_parts() {
        let content = Bytes::from_static(b"0123456789").into();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let body = partial(&content, &[0..2, 8..10], &mut headers);
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let wanted = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(body.joined(), wanted.as_bytes());
        assert!(!headers.contains_key(header::CONTENT_RANGE));
    }

    #[test]
    fn n3_2_parts_are_slices_of_what_is_stored() {
        let content = ChunkedBytes::copy(&vec![7; 100_000]);
        let stored: Vec<_> = content.iter().map(|piece| piece.as_ptr_range()).collect();
        let mut headers = HeaderMap::new();
        let body = partial(&content, &[0..40_000, 50_000..90_000], &mut headers);
        let sliced: usize = body
            .iter()
            .filter(|piece| stored.iter().any(|whole| whole.contains(&piece.as_ptr())))
            .map(Bytes::len)
            .sum();
        assert_eq!(sliced, 80_000);
    }

    proptest! {
        #[test]
        fn one_part_is_that_part(content in proptest::collection::vec(any::<u8>(), 1..500), a: usize, b: usize) {
            let whole = Bytes::from(content);
            let content = ChunkedBytes::from(whole.clone());
            let (a, b) = (a % content.len(), b % content.len());
            let (first, last) = (a.min(b), a.max(b));
            let Selected::Parts(parts) = select(format!("bytes={first}-{last}").as_bytes(), content.len()) else {
                return Err(TestCaseError::fail("a part"));
            };
            let mut headers = HeaderMap::new();
            prop_assert_eq!(&partial(&content, &parts, &mut headers).joined()[..], &whole[first..=last]);
            let wanted = format!("bytes {first}-{last}/{}", content.len());
            prop_assert_eq!(headers[header::CONTENT_RANGE].to_str().unwrap(), wanted);
        }
    }
}
