//! A Prometheus collector for the expiry of the current certificates.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::runtime::clock;
use crate::state::live_policy::LivePolicy;

/// Reads the live policy. The registry is built before the first policy is, so the cell is empty until startup sets it.
pub(crate) struct Collected(pub std::sync::Arc<std::sync::OnceLock<LivePolicy>>);

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(live) = self.0.get() else { return Ok(()) };
        let snapshot = live.load();
        let expiries = snapshot.policy.server.tls.iter().flat_map(|tls| &tls.expiries);
        let help = "Expiry time of a certificate, in seconds since the epoch";
        let mut family =
            encoder.encode_descriptor("certificate_expiry_seconds", help, None, MetricType::Gauge)?;
        for (path, expiry) in expiries {
            let labels =
                [("certificate", path.file_name().unwrap_or_default().to_string_lossy().into_owned())];
            family.encode_family(&labels)?.encode_gauge(&clock::unix_seconds(*expiry))?;
        }
        Ok(())
    }
}
