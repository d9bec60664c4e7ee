//! The metrics of shared responses.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Copies;

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Copies>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Collected(copies) = self;
        let counters = &copies.counters;
        let help = "Stored responses that were looked for in Redis, by result";
        let mut family = encoder.encode_descriptor("fleet_copy_reads", help, None, MetricType::Counter)?;
        for (result, count) in counters.reads() {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        let help = "Stored responses that were to be written to Redis, by result";
        let mut family = encoder.encode_descriptor("fleet_copy_writes", help, None, MetricType::Counter)?;
        for (result, count) in counters.writes().chain([("dropped", copies.dropped())]) {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        let help = "Size of stored responses that wait to be written to Redis, in bytes";
        let bytes = i64::try_from(copies.waiting_bytes()).unwrap_or(i64::MAX);
        let family = encoder.encode_descriptor("fleet_copy_waiting_bytes", help, None, MetricType::Gauge)?;
        ConstGauge::new(bytes).encode(family)
    }
}
