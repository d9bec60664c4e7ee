//! Decides whether two requests for the same target differ only in their user. Only such a pair shows whether an
//! upstream gives users different responses; requests that differ elsewhere may get different ones for that reason.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

/// Identifiers of one request or of its trace. They change with each request, so no response should depend on them.
const IDENTIFIERS: [&str; 22] = [
    "x-request-id",
    "x-correlation-id",
    "request-id",
    "correlation-id",
    "x-trace-id",
    "x-transaction-id",
    "x-client-request-id",
    "x-ms-client-request-id",
    "x-ms-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "sentry-trace",
    "newrelic",
    "elastic-apm-traceparent",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "request-context",
    "cf-ray",
];
/// Prefixes of further identifier names.
const IDENTIFIER_BEGINNINGS: [&str; 3] = ["x-b3-", "x-datadog-", "x-ot-span-"];

/// Fields that clients send to say what they request, or how.
const ORDINARY: [&str; 50] = [
    "accept",
    "user-agent",
    "referer",
    "origin",
    "host",
    "from",
    "via",
    "te",
    "trailer",
    "dnt",
    "pragma",
    "cache-control",
    "connection",
    "keep-alive",
    "upgrade",
    "upgrade-insecure-requests",
    "expect",
    "max-forwards",
    "early-data",
    "priority",
    "prefer",
    "range",
    "date",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cdn-loop",
    "purpose",
    "x-purpose",
    "x-moz",
    "save-data",
    "device-memory",
    "dpr",
    "width",
    "viewport-width",
    "downlink",
    "ect",
    "rtt",
    "available-dictionary",
    "dictionary-id",
    "x-requested-with",
    "turbo-frame",
    "x-livewire",
    "rsc",
    "x-host",
    "x-scheme",
    "x-url-scheme",
    "x-proxy-url",
    "front-end-https",
];
/// Prefixes of the names of further such fields.
const ORDINARY_BEGINNINGS: [&str; 18] = [
    "accept-",
    "content-",
    "if-",
    "sec-",
    "x-forwarded-",
    "x-original-",
    "x-http-",
    "x-method-",
    "x-rewrite-",
    "x-invoke-",
    "x-envoy-",
    "x-device-",
    "hx-",
    "x-inertia",
    "x-pjax",
    "x-up-",
    "next-",
    "cf-",
];

/// The meaning of a field when two requests are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    Credential,
    Identifier,
    /// A field that selects the response.
    Ordinary,
    Unknown,
}

/// Returns the meaning of a field; `is_credential` knows the configured credentials.
pub(super) fn bearing(name: &HeaderName, is_credential: impl Fn(&HeaderName) -> bool) -> Bearing {
    if is_credential(name) {
        return Bearing::Credential;
    }
    if is_identifier(name) {
        return Bearing::Identifier;
    }
    let name = name.as_str();
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    if ORDINARY.contains(&name) || begins(&ORDINARY_BEGINNINGS) {
        Bearing::Ordinary
    } else {
        Bearing::Unknown
    }
}

fn is_identifier(name: &HeaderName) -> bool {
    let name = name.as_str();
    IDENTIFIERS.contains(&name) || IDENTIFIER_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Returns the fields of one request with the identifiers of another.
pub(super) fn with_identifiers(fields: &HeaderMap, others: &HeaderMap) -> HeaderMap {
    let mut changed = HeaderMap::with_capacity(fields.len());
    let kept = fields.iter().filter(|(name, _)| !is_identifier(name));
    for (name, value) in kept.chain(others.iter().filter(|(name, _)| is_identifier(name))) {
        changed.append(name, value.clone());
    }
    changed
}

/// One of two compared requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    /// The request fields as received.
    pub headers: &'a HeaderMap,
    /// The client address that a trusted proxy reported; it may differ between the two, as the peer may.
    pub client: Option<IpAddr>,
}

impl<'a> Side<'a> {
    /// Returns the values of a field for comparison, without the client address that a trusted proxy reported.
    fn values(self, name: &HeaderName) -> Vec<&'a [u8]> {
        let values = self.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let Some(client) = self.client else { return values.collect() };
        let is_client = |text: &[u8]| {
            let text = std::str::from_utf8(text).ok().map(str::trim);
            text.and_then(|text| text.parse::<IpAddr>().ok()).is_some_and(|ip| ip.to_canonical() == client)
        };
        if name != "x-forwarded-for" {
            return values.map(|value| if is_client(value) { &b""[..] } else { value }).collect();
        }
        let elements = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let mut elements: Vec<&[u8]> = elements.collect();
        if let Some(at) = elements.iter().rposition(|element| is_client(element)) {
            elements.remove(at);
        }
        elements
    }
}

/// Returns whether two requests are from different clients and ask for the same in the same way. They must differ in
/// credentials, or in fields that no list knows if `unknown` allows that, and otherwise only in identifiers.
pub(super) fn are_comparable(
    one: Side<'_>,
    other: Side<'_>,
    unknown: bool,
    is_credential: impl Fn(&HeaderName) -> bool,
) -> bool {
    let mut differ = false;
    let further = other.headers.keys().filter(|name| !one.headers.contains_key(*name));
    for name in one.headers.keys().chain(further) {
        if one.headers.get_all(name).iter().eq(other.headers.get_all(name).iter()) {
            continue;
        }
        match bearing(name, &is_credential) {
            Bearing::Credential => differ = true,
            Bearing::Identifier => {}
            Bearing::Unknown if unknown => differ = true,
            Bearing::Unknown | Bearing::Ordinary if one.values(name) != other.values(name) => return false,
            Bearing::Unknown | Bearing::Ordinary => {}
        }
    }
    differ
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn is_credential(name: &HeaderName) -> bool {
        ["authorization", "cookie", "x-api-key"].contains(&name.as_str())
    }

    #[test]
    fn n3_9_which_requests_are_compared() {
        let usual = ["authorization: a", "user-agent: x", "accept-language: en", "x-tenant: 1"];
        for (other, shared, auto) in [
            (&["authorization: b", "user-agent: x", "accept-language: en", "x-tenant: 1"][..], true, true),
            (&["user-agent: x", "accept-language: en", "x-tenant: 1"], true, true),
            (&["authorization: a", "user-agent: x", "accept-language: en", "x-tenant: 1"], false, false),
            (&["authorization: b", "user-agent: y", "accept-language: en", "x-tenant: 1"], false, false),
            (&["authorization: b", "user-agent: x", "accept-language: de", "x-tenant: 1"], false, false),
            (&["authorization: b", "accept-language: en", "x-tenant: 1"], false, false),
            (&["authorization: b", "user-agent: x", "accept-language: en", "x-tenant: 2"], false, true),
            (&["authorization: b", "user-agent: x", "accept-language: en"], false, true),
            (&["authorization: a", "user-agent: x", "accept-language: en", "x-tenant: 2"], false, true),
            (
                &[
                    "authorization: b",
                    "user-agent: x",
                    "accept-language: en",
                    "x-tenant: 1",
                    "hx-request: true",
                ],
                false,
                false,
            ),
            (
                &[
                    "cookie: a=b",
                    "user-agent: x",
                    "accept-language: en",
                    "x-tenant: 1",
                    "x-request-id: 7",
                    "traceparent: 00-1",
                    "x-b3-spanid: 1",
                ],
                true,
                true,
            ),
        ] {
            let (one, other) = (fields(&usual), fields(other));
            for (unknown, wanted) in [(false, shared), (true, auto)] {
                let side = |headers| Side { headers, client: None };
                for (one, other) in [(&one, &other), (&other, &one)] {
                    let found = are_comparable(side(one), side(other), unknown, is_credential);
                    assert_eq!(found, wanted, "{other:?} {unknown}");
                }
            }
        }
    }

    #[test]
    fn n3_9_the_client_that_a_trusted_proxy_tells_of_may_differ() {
        for (one, other, wanted) in [
            ("x-forwarded-for: 10.0.0.1", "x-forwarded-for: 10.0.0.2", true),
            ("x-real-ip: 10.0.0.1", "x-real-ip: 10.0.0.2", true),
            ("x-forwarded-for: 10.0.0.1, 10.9.9.9", "x-forwarded-for: 10.0.0.2, 10.9.9.9", true),
            // Elements before that address are made up by the client, so they are part of the request.
            ("x-forwarded-for: 1.1.1.1, 10.0.0.1", "x-forwarded-for: 2.2.2.2, 10.0.0.2", false),
            ("x-forwarded-for: 10.0.0.1", "x-forwarded-for: 2.2.2.2, 10.0.0.2", false),
            ("x-real-ip: 1.1.1.1", "x-real-ip: 10.0.0.2", false),
        ] {
            let (one, other) = (fields(&["cookie: a", one]), fields(&["cookie: b", other]));
            let side = |headers, client: &str| Side { headers, client: Some(client.parse().unwrap()) };
            let found =
                are_comparable(side(&one, "10.0.0.1"), side(&other, "10.0.0.2"), false, is_credential);
            assert_eq!(found, wanted, "{one:?} {other:?}");
            let untold = |headers| Side { headers, client: None };
            assert!(!are_comparable(untold(&one), untold(&other), false, is_credential));
        }
    }
}
