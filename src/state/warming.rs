//! What `[[warm]]` knows of clients, and its counters: how clients reach this process decides about cache keys, so
//! responses are fetched as those clients would ask for them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::rendering::words::words;

/// Maximum number of ways in which clients reach this process that are remembered.
pub(crate) const MAX_VANTAGES: usize = 4;

words! {
    /// What came of a request for a response that is kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Warmth {
        /// It was stored already.
        Stored => "stored",
        Fetched => "fetched",
        /// The response is not stored for all users.
        NotStored => "not-stored",
        Failed => "failed",
    }
}

/// A way in which clients reach this process, as far as it decides about cache keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vantage {
    /// Whether the client's connection is TLS.
    pub tls: bool,
    pub host: String,
    /// Where connections come from, if that is a trusted proxy.
    pub proxy: Option<SocketAddr>,
    /// Fields by which that proxy tells how the client reached it.
    pub told: Vec<(HeaderName, HeaderValue)>,
}

impl Vantage {
    /// Returns whether two are the same but for the port of the proxy.
    fn is_as(&self, other: &Vantage) -> bool {
        let address = |vantage: &Vantage| vantage.proxy.map(|proxy| proxy.ip());
        let Vantage { tls, host, told, .. } = self;
        (*tls, host, told) == (other.tls, &other.host, &other.told) && address(self) == address(other)
    }
}

/// What is known; see the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    vantages: Mutex<Vec<Vantage>>,
    counts: [AtomicU64; Warmth::ALL.len()],
}

impl Warming {
    /// Notes how a client reached this process; the first ones count.
    pub(crate) fn note(&self, vantage: impl FnOnce() -> Vantage) {
        let mut vantages = self.vantages.lock().unwrap_or_else(PoisonError::into_inner);
        if vantages.len() < MAX_VANTAGES {
            let vantage = vantage();
            if !vantages.iter().any(|known| known.is_as(&vantage)) {
                vantages.push(vantage);
            }
        }
    }

    /// Returns how clients reach this process.
    pub(crate) fn vantages(&self) -> Vec<Vantage> {
        self.vantages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, warmth: Warmth) {
        if let Some(count) = self.counts.get(warmth as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Warming>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests for responses of [[warm]], by result";
        let mut family = encoder.encode_descriptor("warm_requests", help, None, MetricType::Counter)?;
        for (warmth, count) in Warmth::ALL.iter().zip(&self.0.counts) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("result", warmth.as_str())])?)?;
        }
        Ok(())
    }
}
