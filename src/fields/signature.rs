//! Request signatures that list the fields they cover: AWS4 and similar (`SignedHeaders=` in `Authorization` or in the
//! query of a presigned URL), RFC 9421 (`Signature-Input`), and its predecessor draft (`headers="..."`). The upstream
//! verifies the signature over the request it receives, so covered fields must reach it unchanged.

use http::{HeaderMap, HeaderName, header};

/// The field that lists the covered components (RFC 9421 4.1).
pub(crate) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The field of the draft (draft-cavage-http-signatures 4.1). RFC 9421 puts only the signature itself in it.
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// Parameters that list field names: those of AWS, Google, Azure, Alibaba and Tencent, and that of OSS.
const LISTS: [&[u8]; 2] = [b"signedheaders=", b"additionalheaders="];
const OSS_QUERY: &[u8] = b"x-oss-additional-headers=";
/// The parameter of the draft that lists field names.
const DRAFT: &[u8] = b"headers=\"";

/// Returns whether a field may contain such a signature, so that one pass over the names suffices.
pub(crate) fn may_hold(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == SIGNATURE_INPUT || *name == SIGNATURE
}

/// Returns whether a signature of the request lists fields.
pub(crate) fn names_fields(headers: &HeaderMap, query: Option<&str>) -> bool {
    headers.contains_key(SIGNATURE_INPUT) || lists(headers, query).next().is_some()
}

/// Returns whether a signature of the request covers this field.
pub(crate) fn covers(headers: &HeaderMap, query: Option<&str>, field: &HeaderName) -> bool {
    let is_field = |name: &[u8]| name.eq_ignore_ascii_case(field.as_str().as_bytes());
    // A component identifier is a quoted name (RFC 9421 2).
    let mut components =
        headers.get_all(SIGNATURE_INPUT).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b'"'));
    components.any(is_field) || lists(headers, query).any(|list| split(list).any(is_field))
}

/// Iterates over the lists of field names in the signatures of a request.
fn lists<'r>(headers: &'r HeaderMap, query: Option<&'r str>) -> impl Iterator<Item = &'r [u8]> {
    let fields =
        [header::AUTHORIZATION, SIGNATURE].into_iter().flat_map(move |name| headers.get_all(name).iter());
    let of_fields = fields.filter_map(|line| {
        let value = line.as_bytes();
        match LISTS.iter().find_map(|list| after(value, list)) {
            Some(list) => Some(until(list, b"\",& ")),
            // The draft separates names by spaces and puts the list in quotes.
            None => Some(until(after(value, DRAFT)?, b"\"")),
        }
    });
    let of_query = query.into_iter().filter_map(|query| {
        let query = query.as_bytes();
        let list = LISTS.iter().chain([&OSS_QUERY]).find_map(|list| after(query, list))?;
        Some(until(list, b"&"))
    });
    of_fields.chain(of_query)
}

/// Iterates over the names in a list. They are separated by semicolons, raw or percent-encoded, or by spaces.
fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = list.split(|byte| matches!(byte, b';' | b' ' | b'+' | b'%'));
    // A name after an encoded semicolon still begins with the digits of the escape.
    names.map(|name| name.strip_prefix(b"3B").or_else(|| name.strip_prefix(b"3b")).unwrap_or(name))
}

fn after<'v>(value: &'v [u8], begin: &[u8]) -> Option<&'v [u8]> {
    let first = begin.first()?;
    let mut from = 0;
    // A comparison with the first byte rejects nearly every position quickly.
    while let Some(at) = value.get(from..)?.iter().position(|byte| byte.eq_ignore_ascii_case(first)) {
        let rest = &value[from + at..];
        if rest.get(..begin.len()).is_some_and(|found| found.eq_ignore_ascii_case(begin)) {
            return rest.get(begin.len()..);
        }
        from += at + 1;
    }
    None
}

fn until<'v>(value: &'v [u8], ends: &[u8]) -> &'v [u8] {
    &value[..value.iter().position(|byte| ends.contains(byte)).unwrap_or(value.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn n4_8_signatures_and_the_fields_they_cover() {
        let aws = "AWS4-HMAC-SHA256 Credential=A/20260101/x/s3/aws4_request, SignedHeaders=host;range;x-amz-date, Signature=00";
        let azure = "HMAC-SHA256 Credential=c&SignedHeaders=x-ms-date;host&Signature=0";
        let draft =
            "keyId=\"k\",algorithm=\"rsa-sha256\",headers=\"(request-target) host date\",signature=\"0\"";
        let draft_scheme = format!("Signature {draft}");
        let input = "sig1=(\"@method\" \"content-digest\" \"x-request-id\";req);created=1;keyid=\"range\"";
        let url = "X-Amz-Date=1&X-Amz-SignedHeaders=content-type%3Bhost%3brange&X-Amz-Signature=0";
        for (field, query, signed, covered, not) in [
            (None, None, false, "", "host"),
            (None, Some("a=b&headers=c"), false, "", "host"),
            (None, Some(url), true, "range", "if-match"),
            (None, Some("x-oss-additional-headers=host&b"), true, "host", "range"),
            (Some(("authorization", aws)), None, true, "range", "accept-encoding"),
            (Some(("authorization", azure)), None, true, "host", "signature"),
            (Some(("authorization", draft_scheme.as_str())), None, true, "date", "range"),
            (Some(("signature", draft)), None, true, "host", "keyid"),
            (Some(("signature", "sig1=:AAAA:")), None, false, "", "sig1"),
            (Some(("signature-input", input)), None, true, "x-request-id", "accept-encoding"),
            (Some(("authorization", "Bearer abc")), None, false, "", "host"),
            (Some(("authorization", "AWS4-HMAC-SHA256 SignedHeaders=")), None, true, "", "host"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = field {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let covers = |name: &str| {
                !name.is_empty() && covers(&headers, query, &HeaderName::from_bytes(name.as_bytes()).unwrap())
            };
            assert_eq!(names_fields(&headers, query), signed, "{field:?} {query:?}");
            assert_eq!(covers(covered), !covered.is_empty(), "{field:?} {query:?} {covered}");
            assert!(!covers(not), "{field:?} {query:?} {not}");
            assert!(headers.keys().all(may_hold));
        }
    }
}
