//! The table `[maintenance]`: what clients get while the upstream is left alone.

use bytes::Bytes;
use http::{HeaderValue, Method};
use ipnet::IpNet;
use std::net::IpAddr;

use super::pattern::Pattern;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaintenancePolicy {
    /// Whether maintenance is on from the start.
    pub enabled: bool,
    /// The content of refusals; `None`: a problem document.
    pub document: Option<Document>,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: HeaderValue,
    /// Whether stored responses are served.
    pub serve_stored: bool,
    /// Whether `/ready` stays as it is.
    pub ready: bool,
    /// Clients that are served as usual.
    pub allow: Vec<IpNet>,
    /// Requests that are served as usual.
    pub except: Vec<Pattern>,
}

/// The content of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub media_type: &'static str,
    pub content: Bytes,
}

impl MaintenancePolicy {
    /// Returns whether a request is served as usual. `path` must be normalized.
    pub(crate) fn exempts(&self, client: IpAddr, method: &Method, host: &str, path: &str) -> bool {
        self.allow.iter().any(|net| net.contains(&client))
            || self.except.iter().any(|pattern| pattern.takes(method, host, path))
    }
}

impl Document {
    /// Returns whether a client accepts the document, by its `Accept` field (RFC 9110 12.5.1). One without the field
    /// accepts everything.
    pub(crate) fn is_accepted(&self, accept: Option<&HeaderValue>) -> bool {
        let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else { return true };
        let own = self.media_type.split(';').next().unwrap_or_default();
        let kind = own.split('/').next().unwrap_or_default();
        accept.split(',').any(|member| {
            let mut parts = member.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
            let matches = range == own || range == "*/*" || range.strip_suffix("/*") == Some(kind);
            matches && weight != Some(0.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_for_clients_that_accept_its_type() {
        let document = Document { media_type: "text/html; charset=utf-8", content: Bytes::new() };
        for (accept, wanted) in [
            (None, true),
            (Some("*/*"), true),
            (Some("text/html,application/xhtml+xml;q=0.9"), true),
            (Some("Text/*"), true),
            (Some("application/json"), false),
            (Some("application/json, text/plain;q=0.5"), false),
            (Some("text/html;q=0, application/json"), false),
        ] {
            let accept = accept.map(HeaderValue::from_static);
            assert_eq!(document.is_accepted(accept.as_ref()), wanted, "{accept:?}");
        }
    }

    #[test]
    fn clients_and_requests_are_exempt() {
        let policy = MaintenancePolicy {
            enabled: false,
            document: None,
            retry_after: HeaderValue::from_static("1"),
            serve_stored: false,
            ready: true,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            except: vec![Pattern::parse("GET /healthz/**").unwrap()],
        };
        for (client, method, path, wanted) in [
            ("10.1.2.3", Method::POST, "/x", true),
            ("192.0.2.1", Method::GET, "/healthz", true),
            ("192.0.2.1", Method::HEAD, "/healthz/db", true),
            ("192.0.2.1", Method::POST, "/healthz", false),
            ("192.0.2.1", Method::GET, "/", false),
        ] {
            let client = client.parse().unwrap();
            assert_eq!(policy.exempts(client, &method, "h", path), wanted, "{client} {method} {path}");
        }
    }
}
