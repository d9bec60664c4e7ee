//! A Prometheus collector for the state of every health check, read at scrape time.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::health;
use super::monitor::Monitor;
use crate::state::live_policy::LivePolicy;

/// The registry is built before the first policy is, so `live` is empty until startup sets it.
pub(crate) struct Collected {
    /// The states of all checks, as the monitor last confirmed them.
    pub monitor: Arc<Monitor>,
    pub live: Arc<OnceLock<LivePolicy>>,
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "State of a health check: 0 healthy, 1 degraded, 2 unhealthy";
        let mut family = encoder.encode_descriptor("health_status", help, None, MetricType::Gauge)?;
        let has_redis = self.live.get().is_some_and(|live| live.load().policy.fleet.is_some());
        for (check, state) in self.monitor.states(health::checks(has_redis)) {
            family.encode_family(&[("check", check.as_str())])?.encode_gauge(&(state as i64))?;
        }
        let limit = self.live.get().and_then(|live| live.load().policy.health.memory_limit);
        if let Some(limit) = limit.and_then(|limit| i64::try_from(limit).ok()) {
            let help = "Memory limit that the memory check uses, in bytes";
            encoder
                .encode_descriptor("memory_limit_bytes", help, None, MetricType::Gauge)?
                .encode_gauge(&limit)?;
        }
        Ok(())
    }
}
