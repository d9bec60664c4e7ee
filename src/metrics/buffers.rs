//! A Prometheus collector for the memory of buffered requests and responses.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::memory::buffers::BufferMemory;

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<BufferMemory>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            ("buffered_bytes", "Memory for buffered requests and responses, in bytes", self.0.bytes()),
            (
                "buffer_memory_bytes",
                "Configured limit of memory for buffered requests and responses, in bytes",
                self.0.max(),
            ),
        ];
        for (name, help, bytes) in gauges {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Responses of HTTP/2 upstreams ended because their clients read too little while \
            buffer_memory was used up";
        let counter = ConstCounter::new(self.0.given_up());
        let encoder = encoder.encode_descriptor("responses_given_up", help, None, MetricType::Counter)?;
        counter.encode(encoder)
    }
}
