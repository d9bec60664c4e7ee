//! `Host` and authorities (RFC 9110 7.2, RFC 3986 3.2.2): one strict parser for every version of HTTP.

use http::{HeaderMap, HeaderValue, header};

/// Returns the value of `Host`, of which a valid request has at most one (RFC 9112 3.2). It compares names in order
/// instead of hashing, because `Host` is the first field of nearly every head.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.iter().find(|(name, _)| **name == header::HOST).map(|(_, value)| value)
}

/// Returns `Host` as text; empty if it is missing.
pub(crate) fn text(headers: &HeaderMap) -> &str {
    from_headers(headers).and_then(|host| host.to_str().ok()).unwrap_or("")
}

/// Returns whether `text` is `uri-host [":" port]` without userinfo. An empty `Host` is valid.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (host, port) = if text.first() == Some(&b'[') {
        match text.iter().position(|byte| *byte == b']') {
            Some(end) => text.split_at(end + 1),
            None => return false,
        }
    } else {
        text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len()))
    };
    let port_fine = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port_fine && is_name(host)
}

fn is_name(host: &[u8]) -> bool {
    if let [b'[', inner @ .., b']'] = host {
        return !inner.is_empty()
            && inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    host.iter().all(|byte| NAMES[usize::from(*byte)])
}

/// The characters of registered names: unreserved and sub-delims. Percent-escapes are refused, since no real host name
/// uses them.
const NAMES: [bool; 256] = {
    let mut names = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        names[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'')
            || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    names
};

/// Returns the name that routes match: without the port, and without the dot of a fully qualified name.
pub(crate) fn name(host: &str) -> &str {
    let name = match host.rfind(':') {
        Some(at) if host[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => &host[..at],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Removes the port from an authority if it is the default of the scheme (RFC 9110 4.2.3).
pub(crate) fn without_default_port(authority: &[u8], https: bool) -> &[u8] {
    let port: &[u8] = if https { b":443" } else { b":80" };
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    authority.strip_suffix(b":").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in
            ["", "a", "a.example", "a.example:80", "a.example.:", "[::1]", "[::1]:8080", "1.2.3.4", "_x-y"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a/b", "a@b", "a:b", "a:1:2", "[::1", "[::1]x", "::1", "a%41", "a:999999", "[]", "a,b",
            "a?b",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert_eq!(name("a.example.:80"), "a.example");
        assert_eq!(name("[::1]:80"), "[::1]");
        assert_eq!(name("a"), "a");
    }
}
