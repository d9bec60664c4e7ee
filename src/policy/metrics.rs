//! `[metrics]`.

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsPolicy {
    /// Upper bounds of the latency histograms, seconds.
    pub buckets: Vec<f64>,
    /// Route labels before the rest folds into one.
    pub max_routes: usize,
}
