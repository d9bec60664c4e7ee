//! Authentication of a whole connection: NTLM, and Negotiate where it comes to NTLM (RFC 4559 6). What comes later on
//! that connection needs no credential of its own, so the connection must not serve anybody else.

use http::{HeaderMap, header};

/// Schemes that authenticate the connection.
const SCHEMES: [&[u8]; 2] = [b"ntlm", b"negotiate"];

/// Whether a request authenticates the connection it is sent on.
pub(crate) fn is_tried(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let value = value.as_bytes().trim_ascii_start();
        let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t' | b',')).unwrap_or(value.len());
        SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(&value[..end]))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn n1_7_schemes_that_authenticate_a_connection() {
        for (value, expected) in [
            ("NTLM TlRMTVNTUAAB", true),
            ("ntlm TlRMTVNTUAAB", true),
            ("Negotiate YIIB", true),
            ("NEGOTIATE\tYIIB", true),
            (" Negotiate", true),
            ("NTLM", true),
            ("Bearer NTLM", false),
            ("NTLMv2 x", false),
            ("Basic bnRsbTp4", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(is_tried(&headers), expected, "{value:?}");
            headers.append(header::AUTHORIZATION, HeaderValue::from_static("NTLM x"));
            assert!(is_tried(&headers), "any line counts");
        }
    }
}
