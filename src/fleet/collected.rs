//! The metrics of the fleet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::process::Fleet;

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Fleet>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Collected(fleet) = self;
        let counters = &fleet.counters;
        let help = "Entries of the invalidation log, by result: published by this process, applied, read a second time, \
            failed attempts to publish";
        let mut family = encoder.encode_descriptor("fleet_log_entries", help, None, MetricType::Counter)?;
        for (result, count) in [
            ("published", &counters.published),
            ("applied", &counters.applied),
            ("repeated", &counters.repeated),
            ("failed", &counters.failed),
        ] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("result", result)])?)?;
        }
        let help = "Times that all stored responses were invalidated because invalidations of other processes may have \
            been missed, by reason";
        let mut family = encoder.encode_descriptor("fleet_losses", help, None, MetricType::Counter)?;
        for (loss, count) in counters.losses() {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", loss.as_str())])?)?;
        }
        let view = fleet.view();
        let live = i64::try_from(view.live().count()).unwrap_or(i64::MAX);
        let waiting = i64::try_from(fleet.waiting()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("fleet_processes", "Processes of the fleet that are alive, this one included", live),
            (
                "fleet_lost",
                "Whether invalidations of other processes may be missed, because the log cannot be read: 1 is yes",
                i64::from(fleet.is_lost()),
            ),
            ("fleet_waiting_names", "Names that wait to be published in the invalidation log", waiting),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        let help = "Time from writing the last entry of this process to the invalidation log until it was read, in seconds";
        let time = ConstGauge::new(counters.round_trip().as_secs_f64());
        time.encode(encoder.encode_descriptor("fleet_round_trip_seconds", help, None, MetricType::Gauge)?)
    }
}
