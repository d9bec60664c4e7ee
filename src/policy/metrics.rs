//! `[metrics]`.

/// Settings of the table `[metrics]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsPolicy {
    /// Upper bounds of the latency histograms, in seconds.
    pub buckets: Vec<f64>,
    /// Maximum number of route labels; further routes share one label.
    pub max_routes: usize,
}
