//! The invalidations of this process that other processes do not know yet. Requests put them in and may wait until they
//! are published; one task takes them out, in batches.
//!
//! A write is announced before it is sent: should this process die before the outcome, the others invalidate what was
//! announced. The invalidation that follows takes the announcement back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::cache::invalidation::Mode;
use crate::cache::invalidation::name::Name;

/// Maximum number of names that wait. Beyond it everything is invalidated instead, which is a single name.
const MAX_NAMES: usize = 10_000;
/// Maximum size of the names that wait, in bytes: clients choose paths, and may choose long ones.
const MAX_BYTES: usize = 8 << 20;
/// Maximum number of batches that are told apart on their way. Beyond it the newest stands for all that follow.
const MAX_ON_THEIR_WAY: usize = 4096;
/// Number of waiting invalidations that a further one is compared with.
const COMPARED: usize = 32;

/// The number of an announced write, unique within the process.
pub(crate) type WriteId = u64;

/// One invalidation, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invalidated {
    pub names: Vec<Name>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub soft: bool,
    /// Milliseconds after which it is to be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<u64>,
    /// Whether the outcome of the write is unknown, so that it is repeated as such writes are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unknown: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Invalidated {
    /// Creates an invalidation that happens once.
    pub(crate) fn once(names: &[Name], mode: Mode) -> Invalidated {
        Invalidated { names: names.to_vec(), soft: mode == Mode::Soft, settle: None, unknown: false }
    }

    /// Creates one that is repeated after `settle`.
    pub(crate) fn settling(names: &[Name], mode: Mode, settle: Duration) -> Invalidated {
        let milliseconds = u64::try_from(settle.as_millis()).unwrap_or(u64::MAX);
        Invalidated { settle: Some(milliseconds), ..Invalidated::once(names, mode) }
    }

    /// Creates one of a write whose outcome is unknown.
    pub(crate) fn unknown(names: &[Name], mode: Mode) -> Invalidated {
        Invalidated { unknown: true, ..Invalidated::once(names, mode) }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.soft { Mode::Soft } else { Mode::Hard }
    }
}

/// One URL whose stored responses were purged, in all variants and for all users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purged {
    /// The authority that was requested.
    pub host: Box<str>,
    /// The path, in all forms under which responses may be stored.
    pub paths: Vec<Box<str>>,
    /// The queries as they are in keys; `None`: all.
    pub queries: Option<Vec<Box<str>>>,
}

/// The invalidations that are published together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalidated: Vec<Invalidated>,
    /// Writes that were sent to the upstream, with what they invalidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<(WriteId, Vec<Name>)>,
    /// Announced writes whose outcome is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<WriteId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purged: Vec<Purged>,
    /// Routes whose caching is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Box<str>>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self == &Batch::default()
    }
}

/// A number of names, and their size in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    count: usize,
    bytes: usize,
}

impl Amount {
    fn from_names(names: &[Name]) -> Amount {
        Amount { count: names.len(), bytes: names.iter().map(Name::size).sum() }
    }

    fn plus(self, other: Amount) -> Amount {
        Amount { count: self.count + other.count, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Amount) -> Amount {
        Amount { count: self.count - other.count, bytes: self.bytes - other.bytes }
    }

    fn is_too_much(self) -> bool {
        self.count > MAX_NAMES || self.bytes > MAX_BYTES
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    /// Names in `waiting`.
    names: Amount,
    /// The number of the last invalidation that was put in.
    last: u64,
    next_write: WriteId,
    /// Announced writes without an outcome, published or not, with the number of their names.
    open: HashMap<WriteId, Amount>,
    /// Names of open writes.
    open_names: Amount,
    /// Where the clock stood before the first invalidation that waits.
    since: Option<u64>,
    /// The same of batches that were taken out and are not read back yet, with the number of the last invalidation of
    /// each.
    on_their_way: VecDeque<(u64, u64)>,
}

/// The outbox; see the head of the file.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    published: watch::Sender<u64>,
    /// The number of the last entry of the log that was published.
    last_entry: AtomicU64,
    /// Whether requests wait until their invalidations are published.
    waits: watch::Sender<bool>,
    timeout: Duration,
}

impl Outbox {
    /// Creates an empty outbox. `timeout`: how long a write waits at most.
    pub(crate) fn new(timeout: Duration) -> Outbox {
        Outbox {
            state: Mutex::default(),
            filled: Notify::new(),
            published: watch::Sender::new(0),
            last_entry: AtomicU64::new(0),
            waits: watch::Sender::new(false),
            timeout,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an invalidation in; `number` is where the invalidation clock stood before it.
    pub(crate) fn push(&self, invalidated: Invalidated, number: u64) {
        if invalidated.names.is_empty() {
            return;
        }
        let mut state = self.state();
        state.last += 1;
        state.began_at(number);
        // A write stamps twice, so the second finds the first if it still waits.
        let mut latest = state.waiting.invalidated.iter().rev().take(COMPARED);
        if !latest.any(|waiting| *waiting == invalidated) {
            state.names = state.names.plus(Amount::from_names(&invalidated.names));
            state.waiting.invalidated.push(invalidated);
        }
        state.bound();
        drop(state);
        self.filled.notify_one();
    }

    /// Tells of a purge of one URL; `number` is where the invalidation clock stood before it.
    pub(crate) fn purge(&self, purged: Purged, number: u64) {
        let mut state = self.state();
        state.last += 1;
        state.began_at(number);
        let texts = purged.paths.iter().chain(purged.queries.iter().flatten());
        let bytes = purged.host.len() + texts.map(|text| text.len() + size_of::<Name>()).sum::<usize>();
        state.names = state.names.plus(Amount { count: purged.paths.len(), bytes });
        state.waiting.purged.push(purged);
        state.bound();
        drop(state);
        self.filled.notify_one();
    }

    /// Announces a write that is about to be sent; `None` without names, or if too many writes are open already.
    pub(crate) fn announce(&self, names: impl Iterator<Item = Name>) -> Option<WriteId> {
        let names: Vec<Name> = names.collect();
        let amount = Amount::from_names(&names);
        let mut state = self.state();
        let open_names = state.open_names.plus(amount);
        if names.is_empty() || open_names.is_too_much() {
            return None;
        }
        state.next_write += 1;
        let id = state.next_write;
        state.open.insert(id, amount);
        state.open_names = open_names;
        state.names = state.names.plus(amount);
        state.waiting.announced.push((id, names));
        state.bound();
        drop(state);
        self.filled.notify_one();
        Some(id)
    }

    /// Takes an announcement back: the outcome of the write is known, and its invalidation was put in before.
    pub(crate) fn done(&self, id: WriteId) {
        let mut state = self.state();
        let Some(amount) = state.open.remove(&id) else { return };
        state.open_names = state.open_names.minus(amount);
        let before = state.waiting.announced.len();
        state.waiting.announced.retain(|(known, _)| *known != id);
        if state.waiting.announced.len() < before {
            state.names = state.names.minus(amount);
        } else {
            state.waiting.done.push(id);
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Tells that the caching of a route is stopped.
    pub(crate) fn stop(&self, route: &str) {
        self.state().waiting.stopped.push(route.into());
        self.filled.notify_one();
    }

    /// Waits until something is there to publish.
    pub(crate) async fn filled(&self) {
        loop {
            if !self.state().waiting.is_empty() {
                return;
            }
            self.filled.notified().await;
        }
    }

    /// Takes out what waits, with the number to report as published once it is.
    pub(crate) fn take(&self) -> (Batch, u64) {
        let mut state = self.state();
        state.names = Amount::default();
        let last = state.last;
        if let Some(since) = state.since.take() {
            match state.on_their_way.len() < MAX_ON_THEIR_WAY {
                true => state.on_their_way.push_back((last, since)),
                false => state.on_their_way.back_mut().into_iter().for_each(|newest| newest.0 = last),
            }
        }
        (std::mem::take(&mut state.waiting), last)
    }

    /// Reports that everything up to a number was read back from the log, and applied.
    pub(crate) fn returned(&self, number: u64) {
        let mut state = self.state();
        while state.on_their_way.front().is_some_and(|(last, _)| *last <= number) {
            state.on_their_way.pop_front();
        }
    }

    /// Returns where the invalidation clock stood before the oldest invalidation that was not read back from the log.
    pub(crate) fn unreturned_since(&self) -> Option<u64> {
        let state = self.state();
        state.on_their_way.front().map(|(_, since)| *since).or(state.since)
    }

    /// Returns the number of names that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state().names.count
    }

    /// Reports that everything up to a number is published, the last of it in this entry of the log.
    pub(crate) fn published(&self, number: u64, entry: u64) {
        self.last_entry.store(entry, Ordering::SeqCst);
        self.published.send_if_modified(|published| {
            let newer = number > *published;
            *published = number.max(*published);
            newer
        });
    }

    /// Returns the number of the last entry of the log that was published.
    pub(crate) fn last_entry(&self) -> u64 {
        self.last_entry.load(Ordering::SeqCst)
    }

    /// Returns the number of the last invalidation that was put in.
    pub(crate) fn last(&self) -> u64 {
        self.state().last
    }

    /// Says whether requests wait until their invalidations are published.
    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.send_if_modified(|now| std::mem::replace(now, waits) != waits);
    }

    /// Returns whether an invalidation waits that a request should wait for.
    pub(crate) fn is_behind(&self) -> bool {
        *self.waits.borrow() && *self.published.borrow() < self.state().last
    }

    /// Waits until everything put in so far is published, for at most the timeout; returns whether it is.
    pub(crate) async fn wait(&self) -> bool {
        let last = self.state().last;
        let (mut published, mut waits) = (self.published.subscribe(), self.waits.subscribe());
        let settled = async {
            tokio::select! {
                done = published.wait_for(|published| *published >= last) => done.is_ok(),
                _ = waits.wait_for(|waits| !waits) => false,
            }
        };
        tokio::time::timeout(self.timeout, settled).await.unwrap_or(false)
    }
}

impl State {
    /// Notes where the clock stood before an invalidation.
    fn began_at(&mut self, number: u64) {
        self.since = Some(self.since.map_or(number, |since| since.min(number)));
    }

    /// Keeps the waiting names within their bound.
    fn bound(&mut self) {
        if !self.names.is_too_much() {
            return;
        }
        let everything = Invalidated::once(&[Name::Everything], Mode::Hard);
        let announced = self.waiting.announced.iter().map(|(_, names)| Amount::from_names(names));
        self.names = announced.fold(Amount::from_names(&everything.names), Amount::plus);
        self.waiting.invalidated = vec![everything];
        self.waiting.purged.clear();
        // Announcements stay: they are bounded by the open writes, and their outcome is not known yet.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: usize) -> Vec<Name> {
        vec![Name::Tag(number.to_string().into())]
    }

    #[test]
    fn too_many_names_become_everything() {
        let outbox = Outbox::new(Duration::from_millis(50));
        for number in 0..MAX_NAMES {
            outbox.push(Invalidated::once(&tag(number), Mode::Soft), 1);
        }
        assert_eq!(outbox.waiting(), MAX_NAMES);
        outbox.push(Invalidated::once(&tag(MAX_NAMES), Mode::Soft), 1);
        assert_eq!(outbox.waiting(), 1);
        let (batch, last) = outbox.take();
        assert_eq!(batch.invalidated, [Invalidated::once(&[Name::Everything], Mode::Hard)]);
        assert_eq!(last, MAX_NAMES as u64 + 1);
        assert!(outbox.take().0.is_empty());
    }

    #[test]
    fn a_few_long_names_become_everything_too() {
        let outbox = Outbox::new(Duration::from_millis(50));
        let long = |number: usize| vec![Name::Path(format!("/{number}{}", "a".repeat(64 << 10)).into())];
        (0..100).for_each(|number| outbox.push(Invalidated::once(&long(number), Mode::Hard), 1));
        assert_eq!(outbox.waiting(), 100);
        (100..200).for_each(|number| outbox.push(Invalidated::once(&long(number), Mode::Hard), 1));
        let (batch, _) = outbox.take();
        assert!(batch.invalidated[0].names == [Name::Everything] && batch.invalidated.len() < 100);
        let announced =
            (0..200).filter(|number| outbox.announce(long(*number).into_iter()).is_some()).count();
        assert!((100..130).contains(&announced), "{announced}");
        (1..=announced as u64).for_each(|id| outbox.done(id));
        assert_eq!((outbox.waiting(), outbox.take().0.is_empty()), (0, true));
    }

    #[test]
    fn an_announcement_that_was_not_published_is_dropped_by_its_outcome() {
        let outbox = Outbox::new(Duration::from_millis(50));
        let first = outbox.announce(tag(1).into_iter()).unwrap();
        let second = outbox.announce(tag(2).into_iter()).unwrap();
        outbox.done(first);
        assert_eq!(outbox.take().0.announced, [(second, tag(2))]);
        outbox.done(second);
        let (batch, _) = outbox.take();
        assert_eq!((batch.announced.len(), batch.done), (0, vec![second]));
        outbox.done(second);
        assert!(outbox.take().0.is_empty(), "an outcome counts once");
    }

    #[test]
    fn open_writes_are_bounded() {
        let outbox = Outbox::new(Duration::from_millis(50));
        for number in 0..MAX_NAMES {
            assert!(outbox.announce(tag(number).into_iter()).is_some());
            outbox.take();
        }
        assert_eq!(outbox.announce(tag(0).into_iter()), None);
        outbox.done(1);
        assert!(outbox.announce(tag(0).into_iter()).is_some());
        assert_eq!(outbox.announce([].into_iter()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_until_it_is_published_or_for_the_timeout() {
        let outbox = Outbox::new(Duration::from_millis(50));
        outbox.push(Invalidated::once(&tag(1), Mode::Hard), 1);
        assert!(!outbox.is_behind(), "nobody waits while nothing can be published");
        outbox.set_waits(true);
        assert!(outbox.is_behind());
        assert!(!outbox.wait().await, "for as long as the timeout");
        let (_, last) = outbox.take();
        let (waited, ()) = tokio::join!(outbox.wait(), async { outbox.published(last, 1) });
        assert!(waited && !outbox.is_behind());
        outbox.push(Invalidated::once(&tag(2), Mode::Hard), 1);
        let (waited, ()) = tokio::join!(outbox.wait(), async { outbox.set_waits(false) });
        assert!(!waited);
    }

    #[test]
    fn what_was_not_read_back_is_known_by_its_oldest_number() {
        let outbox = Outbox::new(Duration::from_millis(50));
        assert_eq!(outbox.unreturned_since(), None);
        outbox.push(Invalidated::once(&tag(1), Mode::Hard), 7);
        outbox.push(Invalidated::once(&tag(2), Mode::Hard), 9);
        assert_eq!(outbox.unreturned_since(), Some(7), "while it waits");
        let (_, first) = outbox.take();
        assert_eq!(outbox.unreturned_since(), Some(7), "while it is on its way");
        outbox.push(Invalidated::once(&tag(3), Mode::Hard), 12);
        outbox.returned(first);
        assert_eq!(outbox.unreturned_since(), Some(12));
        for number in 0..2 * MAX_ON_THEIR_WAY as u64 {
            outbox.push(Invalidated::once(&tag(4), Mode::Hard), 20 + number);
            let (_, last) = outbox.take();
            assert_eq!(outbox.unreturned_since(), Some(12), "{last}");
        }
        outbox.returned(u64::MAX);
        assert_eq!(outbox.unreturned_since(), None);
    }

    #[test]
    fn an_invalidation_survives_its_text() {
        for invalidated in [
            Invalidated::once(&tag(1), Mode::Hard),
            Invalidated::settling(&tag(1), Mode::Soft, Duration::from_secs(2)),
            Invalidated::unknown(&[Name::Everything], Mode::Hard),
        ] {
            let text = serde_json::to_string(&invalidated).unwrap();
            assert_eq!(serde_json::from_str::<Invalidated>(&text).unwrap(), invalidated, "{text}");
        }
    }
}
