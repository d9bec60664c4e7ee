//! The metrics of the links.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::link::Status;
use super::thread::Links;

#[derive(Debug)]
pub(crate) struct Collected(pub Links);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Whether a link to Redis is connected: 1 is yes";
        let mut family = encoder.encode_descriptor("redis_up", help, None, MetricType::Gauge)?;
        for link in self.0.all() {
            let up = matches!(&*link.status().borrow(), Status::Up { .. });
            ConstGauge::new(i64::from(up)).encode(family.encode_family(&[("link", link.role.as_str())])?)?;
        }
        let help = "Attempts to connect to Redis, by link and result";
        let mut family = encoder.encode_descriptor("redis_connects", help, None, MetricType::Counter)?;
        for link in self.0.all() {
            let counters = &link.counters;
            for (result, count) in [("connected", &counters.connects), ("failed", &counters.failed_connects)]
            {
                let labels = [("link", link.role.as_str()), ("result", result)];
                ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Commands sent to Redis, by link and result";
        let mut family = encoder.encode_descriptor("redis_commands", help, None, MetricType::Counter)?;
        for link in self.0.all() {
            let counters = &link.counters;
            for (result, count) in [
                ("succeeded", &counters.succeeded),
                ("failed", &counters.failed),
                ("timed-out", &counters.timed_out),
            ] {
                let labels = [("link", link.role.as_str()), ("result", result)];
                ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Time of the last answered PING to Redis, in seconds";
        let seconds = self.0.log.counters.ping.load(Ordering::Relaxed) as f64 / 1e6;
        let gauge = ConstGauge::new(seconds);
        gauge.encode(encoder.encode_descriptor("redis_ping_seconds", help, None, MetricType::Gauge)?)
    }
}
