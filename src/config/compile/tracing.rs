//! `[tracing]`, and the environment variables of OpenTelemetry: the service, its resource attributes, and fields for the
//! receiver. They have the names and the form that every exporter of OpenTelemetry uses.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Compiler;
use crate::config::file::File;
use crate::fields::query;
use crate::policy::{OtlpReceiver, TracingPolicy, UpstreamPolicy};
use crate::trace::threshold;

/// The service and its attributes (OpenTelemetry specification, "Resource SDK").
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Maximum resource attributes; each message to the receiver has all of them.
const MAX_ATTRIBUTES: usize = 128;
/// Maximum bytes of `OTEL_RESOURCE_ATTRIBUTES`.
const MAX_LENGTH: usize = 16 * 1024;

/// How long a receiver of spans may take for a batch: OTEL_EXPORTER_OTLP_TIMEOUT, as it is where nobody says.
const OTLP_TIMEOUT: Duration = Duration::from_secs(10);

impl Compiler<'_> {
    /// `[tracing]`.
    pub(super) fn tracing(&mut self, file: &File) -> TracingPolicy {
        let tracing = &file.tracing;
        let sample = self.share("tracing.sample", &tracing.sample);
        let at = &tracing.otlp_endpoint;
        let receiver = if at.value.is_empty() { None } else { self.fetched("tracing.otlp_endpoint", at) };
        let receiver = receiver.map(|(upstream, target)| {
            // As OTEL_EXPORTER_OTLP_ENDPOINT is meant; with a path it is the whole URL.
            let target =
                if target.as_str() == "/" { PathAndQuery::from_static("/v1/traces") } else { target };
            let upstream = UpstreamPolicy { response_timeout: OTLP_TIMEOUT, ..upstream };
            OtlpReceiver {
                upstream,
                target,
                resource: self.resource_attributes(),
                headers: self.otlp_headers(),
            }
        });
        TracingPolicy { receiver, threshold: threshold(sample) }
    }

    /// Returns the resource attributes of every span, each name once: those of `OTEL_RESOURCE_ATTRIBUTES`, then those
    /// that Pillion knows itself. `OTEL_SERVICE_NAME` takes precedence over `service.name` among the attributes.
    pub(super) fn resource_attributes(&mut self) -> Vec<(String, String)> {
        let mut attributes = self.listed_attributes();
        if let Some(name) = self.given(SERVICE_NAME) {
            attributes.retain(|(known, _)| known != "service.name");
            attributes.push(("service.name".to_owned(), name.to_owned()));
        }
        let own = [("service.name", "pillion"), ("service.version", env!("CARGO_PKG_VERSION"))];
        for (name, value) in own {
            if !attributes.iter().any(|(known, _)| known == name) {
                attributes.push((name.to_owned(), value.to_owned()));
            }
        }
        attributes
    }

    /// Returns a variable that is set and not empty. An empty one counts as not set (OpenTelemetry specification,
    /// "Environment Variable Specification").
    fn given(&self, name: &str) -> Option<&str> {
        self.environment.variables.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn listed_attributes(&mut self) -> Vec<(String, String)> {
        let Some(text) = self.given(RESOURCE_ATTRIBUTES) else { return Vec::new() };
        match attributes(text) {
            Ok(attributes) => attributes,
            Err(why) => {
                let message = format!("${RESOURCE_ATTRIBUTES} is not a list of attributes: {why}");
                self.fail(None, message, "expected name=value,name=value, percent-encoded");
                Vec::new()
            }
        }
    }

    /// Returns the fields of each request to the receiver (OpenTelemetry specification, "OpenTelemetry Protocol
    /// Exporter"): `name=value,name=value`, percent-encoded. So a secret is kept where other exporters keep it.
    pub(super) fn otlp_headers(&mut self) -> HeaderMap {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, self.given(name)?))) else {
            return HeaderMap::new();
        };
        let field = |pair: &str| {
            let (field, value) = pair.split_once('=')?;
            let mut value = HeaderValue::from_bytes(&query::percent_decoded(value.trim().as_bytes())).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(field.trim().as_bytes()).ok()?, value))
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let fields: Option<HeaderMap> = pairs.map(field).collect();
        fields.unwrap_or_else(|| {
            let message = format!("${name} is not a list of fields");
            self.fail(None, message, "expected name=value,name=value, percent-encoded");
            HeaderMap::new()
        })
    }
}

/// Parses `name=value,name=value`. The last value of a name counts.
fn attributes(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("it has {} bytes, at most {MAX_LENGTH}", text.len()));
    }
    let decoded = |text: &str| String::from_utf8(query::percent_decoded(text.trim().as_bytes()));
    let mut attributes: Vec<(String, String)> = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{:?} has no \"=\"", pair.trim()))?;
        let (Ok(name), Ok(value)) = (decoded(name), decoded(value)) else {
            return Err(format!("{:?} is not UTF-8", pair.trim()));
        };
        if name.is_empty() {
            return Err(format!("{:?} has no name", pair.trim()));
        }
        attributes.retain(|(known, _)| *known != name);
        attributes.push((name, value));
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(format!("it has more than {MAX_ATTRIBUTES} attributes"));
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_attributes_are_read_as_opentelemetry_writes_them() {
        for (text, expected) in [
            ("", Ok(vec![])),
            (
                "deployment.environment=prod,service.namespace=shop",
                Ok(vec![("deployment.environment", "prod"), ("service.namespace", "shop")]),
            ),
            (" a = 1 ,, b=2,", Ok(vec![("a", "1"), ("b", "2")])),
            ("a=x%2Cy%3Dz,b=c=d", Ok(vec![("a", "x,y=z"), ("b", "c=d")])),
            ("k%2Cey=%C3%A9", Ok(vec![("k,ey", "é")])),
            ("a=1+1", Ok(vec![("a", "1+1")])),
            ("a=1,b=2,a=3", Ok(vec![("b", "2"), ("a", "3")])),
            ("a=", Ok(vec![("a", "")])),
            ("a=1,prod", Err("\"prod\" has no \"=\"")),
            ("=1", Err("\"=1\" has no name")),
            ("a=%FF", Err("\"a=%FF\" is not UTF-8")),
        ] {
            let found = attributes(text);
            let expected: Result<Vec<(String, String)>, String> = expected
                .map(|pairs| pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
                .map_err(str::to_owned);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn resource_attributes_beyond_their_bounds_are_refused() {
        let many: Vec<String> = (0..=MAX_ATTRIBUTES).map(|number| format!("a{number}=1")).collect();
        assert_eq!(attributes(&many[1..].join(",")).map(|found| found.len()), Ok(MAX_ATTRIBUTES));
        assert!(attributes(&many.join(",")).unwrap_err().contains("more than 128"));
        assert!(attributes(&format!("a={}", "b".repeat(MAX_LENGTH))).unwrap_err().contains("at most 16384"));
    }
}
