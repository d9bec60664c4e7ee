//! Authentication that binds a whole connection: NTLM, and Negotiate when it selects NTLM (RFC 4559 6). Later requests
//! on such a connection need no credential, so it must not serve any other client.

use http::{HeaderMap, header};

/// Authentication schemes that authenticate the connection instead of the request.
const SCHEMES: [&[u8]; 2] = [b"ntlm", b"negotiate"];

/// Returns whether a request tries to authenticate the connection it is sent on.
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
