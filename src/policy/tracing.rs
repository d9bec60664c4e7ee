//! `[tracing]`: which requests are traced, and who receives their spans.

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::upstream::UpstreamPolicy;

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracingPolicy {
    /// Who is told of spans.
    pub receiver: Option<OtlpReceiver>,
    /// A trace that begins here is recorded by its id: from this number on, of its last 56 bits.
    pub threshold: u64,
}

/// `tracing.otlp_endpoint`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtlpReceiver {
    pub upstream: UpstreamPolicy,
    pub target: PathAndQuery,
    /// What Pillion is called there: `$OTEL_SERVICE_NAME`, or its own name.
    pub service: String,
    /// Fields of every message: `$OTEL_EXPORTER_OTLP_TRACES_HEADERS`, or `$OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: HeaderMap,
}
