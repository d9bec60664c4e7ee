//! A Prometheus collector for the verdicts on routes.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Performance;
use super::judge::Verdict;

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Performance>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let verdicts: Vec<(String, Verdict)> =
            self.0.routes().into_iter().map(|(label, route)| (label, route.verdict())).collect();
        type GaugeOf = fn(&Verdict) -> i64;
        let gauges: [(&str, &str, GaugeOf); 2] = [
            (
                "route_failing",
                "1 if more than 10 % of a route's requests failed in the last minute",
                |verdict| i64::from(verdict.failing),
            ),
            (
                "route_slowness",
                "Share of slow requests of a route: 0 healthy, 1 from 5 %, 2 above 10 %",
                |verdict| verdict.slowness as i64,
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (label, verdict) in &verdicts {
                family.encode_family(&[("route", label.as_str())])?.encode_gauge(&value(verdict))?;
            }
        }
        Ok(())
    }
}
