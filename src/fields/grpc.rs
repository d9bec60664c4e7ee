//! Detection of gRPC calls (gRPC over HTTP/2, section Requests).

use http::{HeaderMap, Method, header};

/// The media type of gRPC, without a suffix.
const MEDIA_TYPE: &str = "application/grpc";

/// Returns whether a request is meant as a gRPC call: a POST of `application/grpc` or `application/grpc+*`.
pub(crate) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && has_media_type(headers)
}

fn has_media_type(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    let Some((begin, rest)) = value.split_at_checked(MEDIA_TYPE.len()) else { return false };
    // Media types are case-insensitive (RFC 9110 8.3.1).
    begin.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
        && rest.first().is_none_or(|byte| matches!(byte, b'+' | b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn n3_3_only_a_post_of_the_media_type_is_a_call() {
        let post = Method::POST;
        for (method, media_type, expected) in [
            (&post, "application/grpc", true),
            (&post, "application/grpc+proto", true),
            (&post, "Application/gRPC+json; charset=utf-8", true),
            (&post, "application/grpc;x=y", true),
            (&post, "application/grpc-web", false),
            (&post, "application/grpcx", false),
            (&post, "text/event-stream", false),
            (&post, "application/json", false),
            (&post, "", false),
            (&Method::GET, "application/grpc", false),
            (&Method::PUT, "application/grpc", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
            assert_eq!(is_call(method, &headers), expected, "{method} {media_type}");
        }
        assert!(!is_call(&post, &HeaderMap::new()));
    }
}
