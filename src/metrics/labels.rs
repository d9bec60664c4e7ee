//! Label sets of the metric families.

use prometheus_client::encoding::EncodeLabelSet;

/// The label of an outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    pub result: &'static str,
}

/// The label of a refused connection.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    /// `proxy`, `tls`, `timeout` (before HTTP), or `http2` for a broken protocol.
    pub reason: &'static str,
}

/// The label of a dropped field.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DroppedLabels {
    /// `underscore` or `proxy`.
    pub reason: &'static str,
}

/// The labels of a series.
pub(super) type Labels = [(&'static str, String); 3];
