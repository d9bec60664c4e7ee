//! Label sets of the metric families.

use prometheus_client::encoding::EncodeLabelSet;

/// The label of an operation's outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    pub result: &'static str,
}

/// The label of the configuration in force.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DigestLabels {
    /// The digest of the effective settings.
    pub digest: String,
}

/// The label of a refused connection.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    /// One of `proxy`, `tls`, `timeout` (before HTTP), `http2` (protocol error), and `share` (beyond one client's
    /// share).
    pub reason: &'static str,
}

/// The label of a dropped request field.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DroppedLabels {
    /// The reason of the drop: `underscore` or `proxy`.
    pub reason: &'static str,
}

/// The label names and values of a series.
pub(super) type Labels = [(&'static str, String); 3];
