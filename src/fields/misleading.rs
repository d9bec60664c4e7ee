//! Fields that make some apps respond as if the request had another method, host, scheme or path.

/// Complete names of such fields.
const NAMES: [&str; 25] = [
    "x-http-method",
    "x-host",
    "x-backend-host",
    "x-scheme",
    "x-url-scheme",
    "x-proxy-url",
    "x-matched-path",
    "x-forwarded",
    "x-http-destinationurl",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "front-end-https",
    "http-method",
    "x-script-name",
    "x-ingress-path",
    "x-override-url",
    "x-server-name",
    "x-real-host",
    "x-proxy-host",
    "x-prerender-revalidate",
    "forwarded-host",
    "forwarded-proto",
    "request-uri",
    "base-url",
    "proxy-host",
];

/// Prefixes of such field names: those of IIS, Symfony and Zend, of Next.js, and of Vercel.
const BEGINNINGS: [&str; 5] = ["x-original-", "x-rewrite-", "x-invoke-", "x-middleware-", "x-now-route-"];

/// Suffixes of such field names.
const ENDS: [&str; 4] = ["-method-override", "-host-override", "-url-override", "-path-override"];

/// Returns whether a field is misleading. Underscores count as hyphens, because CGI and WSGI apps cannot tell them
/// apart.
pub(crate) fn is_misleading(name: &str) -> bool {
    // Rules out nearly every name before the slower comparisons.
    let begin = name.as_bytes();
    let may_be = matches!(begin, [b'x', ..] | [b'f', b'r' | b'o', ..] | [b'h', b't', ..])
        || matches!(begin, [b'r', b'e', b'q', ..] | [b'b', b'a', ..] | [b'p', b'r', b'o', ..]);
    if !may_be {
        return false;
    }
    let spelt = name.contains('_').then(|| name.replace('_', "-"));
    let name = spelt.as_deref().unwrap_or(name);
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_4_fields_that_mislead() {
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "http-method-override",
            "x_http_method_override",
            "x-original-url",
            "x-original-uri",
            "x-original-path",
            "x-original-host",
            "x-original-method",
            "x-rewrite-url",
            "x-envoy-original-path",
            "x-invoke-path",
            "x-invoke-status",
            "x-invoke-query",
            "x-matched-path",
            "x-now-route-matches",
            "x-middleware-subrequest",
            "x-middleware-prefetch",
            "x-host",
            "x-backend-host",
            "x-http-host-override",
            "x-scheme",
            "x-url-scheme",
            "x-proxy-url",
            "x-forwarded",
            "front-end-https",
            "front_end_https",
            "x-script-name",
            "x-ingress-path",
            "x-override-url",
            "x-server-name",
            "x-real-host",
            "x-proxy-host",
            "x-prerender-revalidate",
            "forwarded-host",
            "forwarded-proto",
            "request-uri",
            "base-url",
            "proxy-host",
        ] {
            assert!(is_misleading(name), "{name}");
        }
        for name in [
            "host",
            "from",
            "x-forwarded-for",
            "forwarded",
            "x-request-id",
            "x-now",
            "x-hosting",
            "proxy-connection",
            "request-id",
        ] {
            assert!(!is_misleading(name), "{name}");
        }
    }
}
