//! The metrics of the cache.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Cache;
use super::counters::{AGES, Event, RouteCounters, TARGET};
use crate::metrics::Cell;

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Cache>);

impl Collected {
    fn routes(&self) -> Vec<(String, Arc<RouteCounters>)> {
        let routes = self.0.counters.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(label, counters)| (label.clone(), counters.clone())).collect()
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cache = &self.0;
        let counters = &cache.counters;
        let help = "Cache operations, by operation, result and route: lookups, stores, \
            revalidations, stale responses";
        let mut family = encoder.encode_descriptor("cache_operations", help, None, MetricType::Counter)?;
        for (route, counts) in self.routes() {
            for event in Event::ALL {
                let (operation, result) = event.labels();
                let labels = [("operation", operation), ("result", result), ("route", route.as_str())];
                let count = counts.get(event);
                if count > 0 {
                    family
                        .encode_family(&labels)?
                        .encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
                }
            }
        }
        let help = "Invalidations of stored responses, by rule or cause";
        let mut family = encoder.encode_descriptor("cache_invalidations", help, None, MetricType::Counter)?;
        let invalidations: Vec<(String, u64)> = {
            let map = counters.invalidations.lock().unwrap_or_else(PoisonError::into_inner);
            let targets = (TARGET.to_owned(), counters.targets.get());
            let rules = map.iter().map(|(rule, cell)| (rule.clone(), cell.get()));
            rules.chain(Some(targets).filter(|(_, count)| *count > 0)).collect()
        };
        for (rule, count) in invalidations {
            let labels = [("rule", rule.as_str())];
            family.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
        }
        let help = "Age of responses served from the cache, in seconds";
        let ages: Vec<(f64, u64)> = AGES
            .iter()
            .map(Duration::as_secs_f64)
            .chain([f64::INFINITY])
            .zip(counters.ages.iter().map(Cell::get))
            .collect();
        let mut histogram =
            encoder.encode_descriptor("cache_hit_age_seconds", help, None, MetricType::Histogram)?;
        let count = ages.iter().map(|(_, count)| count).sum();
        histogram.encode_histogram::<[(&str, &str); 0]>(
            counters.age_seconds.get() as f64,
            count,
            &ages,
            None,
        )?;
        let plain = [
            (
                "cache_evictions",
                "Cache keys evicted because the cache was full",
                cache.store.evictions.get() as f64,
            ),
            (
                "cache_background_fetches",
                "Background fetches, which no client waited for",
                counters.background.get() as f64,
            ),
            (
                "cache_tripwire_comparisons",
                "Responses compared between users by the tripwire",
                counters.compared.get() as f64,
            ),
            (
                "cache_tripwire_stops",
                "Routes that the tripwire stopped caching because users got different responses",
                counters.tripped.get() as f64,
            ),
        ];
        for (name, help, value) in plain {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            family.encode_counter::<[(&str, &str); 0], f64, f64>(&value, None)?;
        }
        let gauges = [
            (
                "cache_bytes",
                "Memory of stored responses in bytes, with those being received or sent",
                cache.store.budget.get(),
            ),
            ("cache_max_bytes", "Configured cache size limit in bytes", cache.store.budget.max()),
            ("cache_keys", "Keys stored", cache.store.len()),
            (
                "cache_fetches_in_progress",
                "Fetches in progress that other requests can wait for",
                cache.fetches.len(),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
