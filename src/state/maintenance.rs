//! Whether maintenance is on. The command and the configuration switch it; a reload keeps it.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// The switch of maintenance mode, shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    on: AtomicBool,
    gauge: Gauge,
}

impl Maintenance {
    /// Creates the switch. `gauge` shows its state: 1 is on.
    pub(crate) fn new(gauge: Gauge) -> Maintenance {
        Maintenance { on: AtomicBool::new(false), gauge }
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Switches maintenance, and logs a change with its cause.
    pub(crate) fn switch(&self, on: bool, cause: &'static str) {
        let before = self.on.swap(on, Ordering::Relaxed);
        self.gauge.set(i64::from(on));
        if on && !before {
            tracing::warn!(cause, "maintenance is on: requests for the upstream get 503");
        } else if before && !on {
            tracing::info!(cause, "maintenance is off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_shows_the_state() {
        let gauge = Gauge::default();
        let maintenance = Maintenance::new(gauge.clone());
        for on in [true, true, false, false, true] {
            maintenance.switch(on, "test");
            assert_eq!((maintenance.is_on(), gauge.get()), (on, i64::from(on)));
        }
    }
}
