//! `[tracing]`: which requests are traced, and who receives their spans.

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracingPolicy {
    /// The receiver of spans, if there is one.
    pub receiver: Option<OtlpReceiver>,
    /// The sampling threshold: a trace that starts here is recorded if the last 56 bits of its id are at least this
    /// number.
    pub threshold: u64,
}

/// Settings of `tracing.otlp_endpoint`, the receiver of spans.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtlpReceiver {
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    /// The resource attributes of all spans, each name once: `$OTEL_RESOURCE_ATTRIBUTES`, `$OTEL_SERVICE_NAME`, and
    /// what Pillion knows itself.
    pub resource: Vec<(String, String)>,
    /// Fields of every export request: `$OTEL_EXPORTER_OTLP_TRACES_HEADERS`, or `$OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: HeaderMap,
}
