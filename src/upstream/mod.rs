//! The upstreams: their addresses and the health of those, concurrency limits, connections, and the path of a request
//! to its response.
//!
//! The state that all workers share is in [`Upstream`] and its [`Address`]es: counts and health, as atomics. Each
//! worker has its own [`Pool`] of connections. Not here: fields and routes (`layer`).

mod address;
mod admission;
mod balance;
mod body;
mod call;
mod collected;
mod connect;
mod counters;
mod endpoint;
mod error;
mod exchange;
mod health;
mod http2;
mod internal_request;
mod pinned;
mod pool;
mod probe;
mod queue;
mod resolve;
mod retry;
mod send;
mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::policy::{Scheme, UpstreamPolicy};
use crate::runtime::clock;

pub(crate) use crate::upstream::internal_request::{InternalRequest, InternalRequestError};
pub(crate) use crate::upstream::queue::Queued;
pub(crate) use address::{Address, Target};
pub(crate) use call::{Call, Progress, Streaming};
pub(crate) use collected::Collected;
pub(crate) use error::{ForwardError, KINDS as FAILURE_KINDS};
pub(crate) use pool::Pool;
pub(crate) use probe::watch;
pub(crate) use state::Upstream;

use crate::upstream::admission::Gate;
use address::Addresses;
use counters::Counters;
use endpoint::Endpoint;

/// Name, URLs and `max_connections`: the key under which a gate survives a reload.
type GateIdentity = (String, String, usize);

type UrlIdentity = (String, String);

/// All upstreams. State that outlives a reload is kept here and handed to the next generation.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    addresses: Arc<Addresses>,
    counters: std::sync::Mutex<HashMap<String, Arc<Counters>>>,
    gates: std::sync::Mutex<HashMap<GateIdentity, std::sync::Weak<Gate>>>,
    responded: std::sync::Mutex<HashMap<UrlIdentity, std::sync::Weak<AtomicBool>>>,
    generation: AtomicU64,
}

impl Registry {
    /// Builds the upstreams of a policy. Addresses with the same name, URL and limits as before keep their health,
    /// their counts and, on every worker, their connections.
    pub(crate) fn build(&self, policies: &[UpstreamPolicy]) -> Vec<Arc<Upstream>> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        policies.iter().map(|policy| Arc::new(self.upstream(policy, generation))).collect()
    }

    /// Returns whether a URL has ever sent a response, remembered while a generation uses it.
    fn responded(&self, upstream: &str, url: &str) -> Arc<AtomicBool> {
        let mut known = self.responded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.retain(|_, responded| responded.strong_count() > 0);
        let known = known.entry((upstream.to_owned(), url.to_owned())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let responded = Arc::default();
            *known = Arc::downgrade(&responded);
            responded
        })
    }

    fn upstream(&self, policy: &UpstreamPolicy, generation: u64) -> Upstream {
        let counters = {
            let mut known = self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(policy.name.clone()).or_default().clone()
        };
        let gate = policy.adaptive_concurrency.then(|| {
            let mut known = self.gates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Another URL behind the same name is another upstream.
            let urls = policy.endpoints.iter().map(|endpoint| endpoint.url.as_str());
            let identity = (policy.name.clone(), urls.collect::<Vec<_>>().join(" "), policy.max_connections);
            known.retain(|_, gate| gate.strong_count() > 0);
            if let Some(gate) = known.get(&identity).and_then(std::sync::Weak::upgrade) {
                return gate;
            }
            let max = policy.max_connections.saturating_mul(policy.endpoints.len());
            let gate = Arc::new(Gate::new(max, clock::now()));
            known.insert(identity, Arc::downgrade(&gate));
            gate
        });
        let endpoints = policy
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                policy: endpoint.clone(),
                resolved: arc_swap::ArcSwap::default(),
                refreshing: AtomicBool::new(false),
                behind: AtomicBool::new(false),
                addresses: self.addresses.clone(),
                upstream: policy.name.clone(),
                limits: address::Limits {
                    connections: policy.max_connections,
                    streams: policy.max_streams,
                    idle: policy.max_idle,
                    pinned: policy.max_pinned,
                },
                // A connection whose peer was verified by older rules is not used under newer ones.
                generation: if matches!(endpoint.scheme, Scheme::Https { .. }) { generation } else { 0 },
                responded: self.responded(&policy.name, &endpoint.url),
            })
            .map(Arc::new)
            .collect();
        let upstream = Upstream {
            policy: policy.clone(),
            endpoints,
            counters,
            budget: Arc::default(),
            gate,
            turn: AtomicUsize::new(0),
            built: clock::now(),
        };
        upstream.endpoints.iter().for_each(|endpoint| endpoint.resolve_literal());
        upstream
    }
}

impl Upstream {
    /// Takes over the addresses that an older generation resolved for the same names, so that a reload needs no
    /// resolver.
    pub(crate) fn carry_over(&self, older: &Upstream) {
        for endpoint in &self.endpoints {
            if let Some(older) = older.endpoints.iter().find(|older| older.policy.url == endpoint.policy.url)
            {
                endpoint.inherit(&older.resolved.load());
            }
        }
    }
}
