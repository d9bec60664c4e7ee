//! The cache engine: pure decisions about storing and reuse, and the state that all workers share (the store, the
//! in-flight fetches, the invalidation clock). It knows nothing of tower or of the configuration file.
//!
//! - `settings`, `rules`, `key`, `variant`, `selection`: the cache settings, the rules of RFC 9111, and which response
//!   serves a request.
//! - `store`: the stored responses. `collapse` and `in_flight_body`: fetches in progress. `hit_for_miss`: keys whose
//!   responses are not stored. `invalidation`: which stored responses are no longer valid.
//! - `circulation` and `outgoing`: stored responses that other processes may have.
//! - `tripwire` and `comparable`: whether a shared route really is shared. `apart`: which cookie splits the copies of a
//!   user.

pub(crate) mod apart;
pub(crate) mod canonical;
pub(crate) mod circulation;
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
pub(crate) mod nameless;
pub(crate) mod outgoing;
pub(crate) mod rules;
pub(crate) mod selecting_fields;
pub(crate) mod selection;
pub(crate) mod settings;
pub(crate) mod store;
pub(crate) mod tripwire;
pub(crate) mod unattended;
pub(crate) mod variant;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cache::circulation::Circulation;
use crate::cache::collapse::InFlightFetches;
use crate::cache::hit_for_miss::HitForMiss;
use crate::cache::invalidation::delayed::{Client, Repeat, Settling};
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::name::Name;
use crate::cache::invalidation::outbox::{Invalidated, Outbox};
use crate::cache::invalidation::targets::Targets;
use crate::cache::invalidation::webdav::WebDavUpstreams;
use crate::cache::outgoing::Outgoing;
use crate::cache::store::stored::StoredResponse;
use crate::runtime::clock::Instant;
use counters::Counters;
use invalidation::{Invalidation, Mode};
use store::Store;
use unattended::Unattended;

/// How long a route is not cached after its users were found to receive each other's responses.
const STOPPED: Duration = Duration::from_secs(3600);
/// The cache state that all workers share; it outlives every reload.
#[derive(Debug)]
pub(crate) struct Cache {
    pub store: Store,
    pub fetches: Arc<InFlightFetches>,
    /// Keys whose responses are not stored, so no request waits for them.
    pub hit_for_miss: HitForMiss,
    pub invalidation: Invalidation,
    pub counters: Arc<Counters>,
    settling: Settling,
    /// Routes whose caching is stopped, each with the time until which it is.
    stopped: ArcSwap<HashMap<String, Instant>>,
    /// Upstream requests that continue after their client disconnected.
    pub unattended: Arc<Unattended>,
    pub webdav: WebDavUpstreams,
    /// The invalidations that other processes are told of, where there are others.
    outbox: OnceLock<Arc<Outbox>>,
    /// The stored responses that other processes are sent.
    outgoing: OnceLock<Arc<Outgoing>>,
    origin: Instant,
}

impl Cache {
    /// Creates an empty cache of at most `max_size` bytes; `secret` belongs to this process alone.
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
            outbox: OnceLock::new(),
            outgoing: OnceLock::new(),
            origin,
        }
    }

    /// Stores a response unless an invalidation overtook it; returns false if it is not stored.
    pub(crate) fn keep(&self, key: &[u8], stored: &StoredResponse) -> bool {
        self.store.insert(key, stored.clone()) && {
            // A purge stamps before it looks through the keys, so a response stored during that search is found
            // overtaken here.
            let head = &stored.head;
            let overtaken = self.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch);
            if overtaken {
                self.store.forget(key, stored);
            } else if let Some(outgoing) = self.outgoing.get() {
                outgoing.stored(key, stored);
            }
            !overtaken
        }
    }

    /// Removes a response that the upstream withdrew, here and where other processes would find it.
    pub(crate) fn forget(&self, key: &[u8], stored: &StoredResponse) {
        self.store.forget(key, stored);
        if let Some(outgoing) = self.outgoing.get()
            && stored.head.circulation != Circulation::Own
        {
            outgoing.withdraw(key);
        }
    }

    /// Returns whether the caching of a route is stopped at the moment.
    pub(crate) fn is_stopped(&self, route: &str, now: Instant) -> bool {
        let stopped = self.stopped.load();
        !stopped.is_empty() && stopped.get(route).is_some_and(|until| *until > now)
    }

    /// Stops the caching of a route for an hour; returns false if it was stopped already.
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

    /// Resumes the caching of routes whose configuration changed.
    pub(crate) fn resume<'a>(&self, routes: impl Iterator<Item = &'a str> + Clone) {
        self.stopped.rcu(|stopped| {
            let mut stopped = HashMap::clone(stopped);
            stopped.retain(|known, _| !routes.clone().any(|route| route == known));
            stopped
        });
    }

    /// Tells other processes of invalidations from here on.
    pub(crate) fn share_invalidations(&self, outbox: Arc<Outbox>) {
        let _ = self.outbox.set(outbox);
    }

    /// Returns the outbox, where there are other processes.
    pub(crate) fn outbox(&self) -> Option<&Arc<Outbox>> {
        self.outbox.get()
    }

    /// Sends stored responses to other processes from here on, and judges theirs by all invalidations.
    pub(crate) fn share_responses(&self, outgoing: Arc<Outgoing>) {
        self.invalidation.stamp_all();
        let _ = self.outgoing.set(outgoing);
    }

    /// Returns the stored responses that other processes are sent, where there are others.
    #[inline]
    pub(crate) fn outgoing(&self) -> Option<&Arc<Outgoing>> {
        self.outgoing.get()
    }

    /// Begins a collection of what an invalidation names.
    pub(crate) fn targets(&self) -> Targets {
        Targets::new(self.invalidation.key_hasher, self.outbox.get().is_some())
    }

    /// Invalidates what is stored and on its way, here and in other processes.
    pub(crate) fn invalidate(&self, targets: &Targets, mode: Mode, now: Instant) {
        if let Some(outbox) = self.outbox.get() {
            // Before the stamps: a response of another process that is judged from here on is judged by both.
            outbox.push(Invalidated::once(targets.names(), mode), self.invalidation.number());
        }
        self.invalidation.stamp(targets.keys(), mode, now);
    }

    /// Schedules a further invalidation with the same targets, here and in other processes. In this one there is none
    /// if too many are pending already.
    pub(crate) fn repeat(&self, targets: &Targets, mode: Mode, repeat: Repeat, client: Client, now: Instant) {
        self.settling.add(targets.keys(), mode, repeat, Some(client), now);
        if let Some(outbox) = self.outbox.get() {
            let invalidated = match repeat {
                Repeat::Settle(after) => Invalidated::settling(targets.names(), mode, after),
                Repeat::UnknownOutcome => Invalidated::unknown(targets.names(), mode),
            };
            outbox.push(invalidated, self.invalidation.number());
        }
    }

    /// Applies an invalidation of the log, hard or soft as `mode` says; `repeats`: its repeats are not over, and no
    /// business of this process yet.
    pub(crate) fn apply(&self, invalidated: &Invalidated, mode: Mode, repeats: bool, now: Instant) {
        let keys = self.keys_of(&invalidated.names);
        self.invalidation.stamp(&keys, mode, now);
        if !repeats {
            return;
        }
        let settle = invalidated.settle.map(|after| Repeat::Settle(Duration::from_millis(after)));
        for repeat in settle.into_iter().chain(invalidated.unknown.then_some(Repeat::UnknownOutcome)) {
            self.settling.add(&keys, mode, repeat, None, now);
        }
    }

    /// Invalidates what a process announced that ended before it knew the outcome, now and once more when its upstream
    /// must have ended the write.
    pub(crate) fn apply_abandoned(&self, names: &[Name], now: Instant) {
        let keys = self.keys_of(names);
        self.invalidation.stamp(&keys, Mode::Hard, now);
        self.settling.add(&keys, Mode::Hard, Repeat::UnknownOutcome, None, now);
    }

    /// Invalidates everything in this process alone.
    pub(crate) fn invalidate_everything_here(&self, now: Instant) {
        self.invalidation.stamp(&[self.invalidation.key_hasher.everything()], Mode::Hard, now);
    }

    fn keys_of(&self, names: &[Name]) -> Vec<InvalidationKey> {
        names.iter().map(|name| name.key(self.invalidation.key_hasher)).collect()
    }

    /// Evicts stored responses until the cache is within its limit; returns false if evicting all of them is not
    /// enough.
    pub(crate) fn make_room(&self) -> bool {
        if self.store.budget.excess() > 0 {
            self.store.make_room(None);
        }
        self.store.budget.excess() == 0
    }

    /// Does the periodic work: due delayed invalidations and evictions. A few calls a second are enough.
    pub(crate) fn tick(&self, now: Instant) {
        self.settling.run(&self.invalidation, now);
        self.make_room();
    }

    /// Returns the whole seconds since the cache was created.
    pub(crate) fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.origin).as_secs()).unwrap_or(u32::MAX)
    }
}
