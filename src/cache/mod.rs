//! The cache engine: pure answers to what may be stored, for how long and for whom; the store, the fetches in
//! progress and the invalidation clock that all workers share. It knows no tower and no configuration file.
//!
//! - `route_settings`: what the configuration says. `storability`, `freshness`, `reuse`, `variant`, `key`: the questions.
//! - `invalidation` over `stamps`, `live_paths` and `invalidation_keys`: what no longer holds.
//! - `tripwire` over `comparable`: whether what is shared may be. `apart`: which cookie keeps copies apart.
//! - `store` of `stored`; `fetch` and `fill`: what is coming; `passes`: what is not worth waiting for.

pub(crate) mod apart;
pub(crate) mod canonical;
pub(crate) mod collapse;
#[cfg(test)]
mod collapse_model;
pub(crate) mod collected;
mod comparable;
pub(crate) mod counters;
pub(crate) mod fragment;
pub(crate) mod hit_for_miss;
pub(crate) mod in_flight_body;
#[cfg(test)]
mod in_flight_body_model;
mod in_flight_state;
pub(crate) mod invalidation;
pub(crate) mod key;
pub(crate) mod rules;
pub(crate) mod selecting_fields;
pub(crate) mod settings;
pub(crate) mod store;
pub(crate) mod tripwire;
pub(crate) mod unattended;
pub(crate) mod variant;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cache::collapse::InFlightFetches;
use crate::cache::hit_for_miss::HitForMiss;
use crate::cache::invalidation::delayed::{Client, Repeat, Settling};
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::webdav::WebDavUpstreams;
use crate::cache::store::stored::StoredResponse;
use crate::runtime::clock::Instant;
use counters::Counters;
use invalidation::{Invalidation, Mode};
use store::Store;
use unattended::Unattended;

/// For so long a route is not cached whose users were given each other's answers.
const STOPPED: Duration = Duration::from_secs(3600);
/// What all workers share; it outlives every reload.
#[derive(Debug)]
pub(crate) struct Cache {
    pub store: Store,
    pub fetches: Arc<InFlightFetches>,
    /// What is not worth waiting for.
    pub hit_for_miss: HitForMiss,
    pub invalidation: Invalidation,
    pub counters: Arc<Counters>,
    settling: Settling,
    /// Routes that are not cached, and until when.
    stopped: ArcSwap<HashMap<String, Instant>>,
    /// What goes on without the client that began it.
    pub unattended: Arc<Unattended>,
    pub webdav: WebDavUpstreams,
    origin: Instant,
}

impl Cache {
    /// Empty, for at most `max_size` bytes; `secret` is this process's own.
    pub(crate) fn new(secret: u64, max_size: usize, origin: Instant) -> Cache {
        Cache {
            store: Store::new(secret, max_size),
            fetches: Arc::default(),
            hit_for_miss: HitForMiss::new(secret),
            invalidation: Invalidation::new(secret, max_size, origin),
            counters: Arc::default(),
            settling: Settling::default(),
            stopped: ArcSwap::default(),
            unattended: Arc::default(),
            webdav: WebDavUpstreams::default(),
            origin,
        }
    }

    /// Stores a response, unless it was overtaken; false: it is not stored.
    pub(crate) fn keep(&self, key: &[u8], stored: &StoredResponse) -> bool {
        self.store.insert(key, stored.clone()) && {
            // An invalidation that takes keys out looks through them after it has stamped: what was stored since is seen here.
            let head = &stored.head;
            let overtaken = self.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch);
            if overtaken {
                self.store.forget(key, stored);
            }
            !overtaken
        }
    }

    /// Whether a route is not cached for a while.
    pub(crate) fn is_stopped(&self, route: &str, now: Instant) -> bool {
        let stopped = self.stopped.load();
        !stopped.is_empty() && stopped.get(route).is_some_and(|until| *until > now)
    }

    /// From now on a route is not cached for a while; false: it was not before.
    pub(crate) fn stop(&self, route: &str, now: Instant) -> bool {
        let mut new = false;
        self.stopped.rcu(|stopped| {
            let mut stopped = HashMap::clone(stopped);
            let before = stopped.insert(route.to_owned(), now + STOPPED);
            new = before.is_none_or(|until| until <= now);
            stopped
        });
        new
    }

    /// Routes that were written anew may be cached again.
    pub(crate) fn resume<'a>(&self, routes: impl Iterator<Item = &'a str> + Clone) {
        self.stopped.rcu(|stopped| {
            let mut stopped = HashMap::clone(stopped);
            stopped.retain(|known, _| !routes.clone().any(|route| route == known));
            stopped
        });
    }

    /// Invalidates once more after a while, unless too much waits for that already.
    pub(crate) fn repeat(
        &self,
        invalidation_keys: &[InvalidationKey],
        mode: Mode,
        repeat: Repeat,
        client: Client,
        now: Instant,
    ) {
        self.settling.add(invalidation_keys, mode, repeat, client, now);
    }

    /// Gives up what is stored until no more is held than may be; false: all of it was not enough.
    pub(crate) fn make_room(&self) -> bool {
        if self.store.budget.excess() > 0 {
            self.store.make_room(None);
        }
        self.store.budget.excess() == 0
    }

    /// What is to be done now and then; a few times a second is often enough.
    pub(crate) fn tick(&self, now: Instant) {
        self.settling.run(&self.invalidation, now);
        self.make_room();
    }

    /// Seconds since it was made.
    pub(crate) fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.origin).as_secs()).unwrap_or(u32::MAX)
    }
}
