//! The invalidation clock. There is no index from tags to responses. A fetch takes a number when it begins, and its
//! response keeps that number. An invalidation takes the next number and stamps its keys with it. A stored response is
//! valid while none of its keys has a stamp as new as its fetch. So an invalidation costs the same however much is
//! stored, misses nothing, and also drops responses that a write overtook on their way from the upstream.

pub(crate) mod delayed;
pub(crate) mod extent;
pub(crate) mod key;
pub(crate) mod live_paths;
#[cfg(test)]
mod model;
pub(crate) mod name;
pub(crate) mod outbox;
pub(crate) mod table;
pub(crate) mod tags;
pub(crate) mod targets;
pub(crate) mod webdav;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cache::invalidation::key::{InvalidationKey, KeyHasher};
use crate::cache::invalidation::live_paths::{LivePaths, WatchedPaths};
use crate::cache::invalidation::table::{MAX, Stamps};
use crate::rendering::words::words;
use crate::runtime::clock::Instant;

words! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub(crate) enum Mode {
        /// The response is as good as not stored.
        #[default]
        Hard => "hard",
        /// The response is stale from now on.
        Soft => "soft",
    }
}

words! {
    /// The use of stored responses while invalidations of other processes may be missed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) enum OnLost {
        /// Fresh ones are served.
        #[default]
        Serve => "serve",
        /// Each is revalidated before its use.
        Revalidate => "revalidate",
    }
}

/// The start of a fetch: its number for hard invalidations, and its time in milliseconds for soft ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchEpoch {
    pub number: u64,
    pub at: u64,
    pub order: u64,
}

impl FetchEpoch {
    /// Returns whether it began after another fetch.
    pub(crate) fn is_after(&self, other: &FetchEpoch) -> bool {
        (self.number, self.order) > (other.number, other.order)
    }
}

/// The validity of a stored response after all invalidations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Valid,
    /// Time since the soft invalidation that made it stale.
    Stale(Duration),
    Gone,
}

/// The invalidation clock of the process; see the head of the file.
#[derive(Debug)]
pub(crate) struct Invalidation {
    pub key_hasher: KeyHasher,
    next: AtomicU64,
    /// Hard invalidations that have not stamped all of their keys yet.
    stamping: AtomicU64,
    fetches: AtomicU64,
    hard: Stamps,
    soft: Stamps,
    /// Stamps that affect only fetches in progress.
    overtaken: Stamps,
    /// All invalidations, also of paths that are not live: responses of other processes are judged by them when they
    /// come. `None` where none come.
    all: OnceLock<Stamps>,
    /// Paths that have a stored response or a fetch in progress.
    live: Arc<LivePaths>,
    /// The newest soft stamp; fetches that began later need no lookup.
    last_soft: AtomicU64,
    /// Whether invalidations of other processes may be missing, so that nothing is used without revalidation.
    doubted: AtomicBool,
    /// The moment from which milliseconds are counted.
    origin: Instant,
}

impl Invalidation {
    /// Creates a clock that counts from now on, for a cache of `max_size` bytes.
    pub(crate) fn new(secret: u64, max_size: usize, origin: Instant) -> Invalidation {
        Invalidation {
            key_hasher: KeyHasher::new(secret),
            next: AtomicU64::new(1),
            stamping: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            hard: Stamps::default(),
            soft: Stamps::default(),
            overtaken: Stamps::default(),
            all: OnceLock::new(),
            live: LivePaths::new(max_size),
            last_soft: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
            origin,
        }
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin).as_millis();
        // Counts from one, because zero stands for never.
        u64::try_from(since).unwrap_or(MAX).saturating_add(1).min(MAX)
    }

    /// Watches the paths among the keys of a fetch that is about to begin, or of a response that is about to be stored.
    /// They can be invalidated for as long as the returned value is kept.
    pub(crate) fn watch(&self, invalidation_keys: &[InvalidationKey]) -> WatchedPaths {
        WatchedPaths::new(&self.live, invalidation_keys)
    }

    /// Begins a fetch. Its paths must be watched: an invalidation of a path that is not watched is forgotten.
    pub(crate) fn begin(&self, _: &WatchedPaths, now: Instant) -> FetchEpoch {
        FetchEpoch {
            number: self.next.load(Ordering::SeqCst),
            at: self.milliseconds(now),
            order: self.fetches.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Invalidates all responses that have one of `invalidation_keys` and were fetched, or are being fetched, until
    /// now.
    pub(crate) fn stamp(&self, invalidation_keys: &[InvalidationKey], mode: Mode, now: Instant) {
        self.note(invalidation_keys);
        // A path that is not live can only be fetched after this moment, so its stamp would be of no use.
        let mut invalidation_keys = invalidation_keys
            .iter()
            .filter(|invalidation_key| !invalidation_key.is_path() || self.live.has(**invalidation_key))
            .peekable();
        if invalidation_keys.peek().is_none() {
            return;
        }
        match mode {
            Mode::Hard => {
                self.stamping.fetch_add(1, Ordering::SeqCst);
                // A fetch that begins from here on has a greater number.
                let number = self.next.fetch_add(1, Ordering::SeqCst);
                invalidation_keys.for_each(|invalidation_key| self.hard.stamp(*invalidation_key, number));
                self.stamping.fetch_sub(1, Ordering::SeqCst);
            }
            Mode::Soft => {
                let at = self.milliseconds(now);
                self.last_soft.fetch_max(at, Ordering::SeqCst);
                invalidation_keys.for_each(|invalidation_key| self.soft.stamp(*invalidation_key, at));
            }
        }
    }

    /// Stamps from here on what [`Invalidation::is_current`] needs.
    pub(crate) fn stamp_all(&self) {
        self.all.get_or_init(Stamps::default);
    }

    /// Notes an invalidation for responses of other processes. It comes before the stamps for those of this one: a
    /// response that is judged before this note is stored with a start before those stamps.
    fn note(&self, invalidation_keys: &[InvalidationKey]) {
        let Some(all) = self.all.get() else { return };
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        invalidation_keys.iter().for_each(|invalidation_key| all.stamp(*invalidation_key, number));
    }

    /// Returns whether none of `invalidation_keys` was invalidated, in any way, since the clock stood at `number`. Only
    /// right after [`Invalidation::stamp_all`].
    pub(crate) fn is_current(&self, invalidation_keys: &[InvalidationKey], number: u64) -> bool {
        self.all.get().is_some_and(|all| {
            invalidation_keys.iter().all(|invalidation_key| all.get(*invalidation_key) < number)
        })
    }

    /// Keeps fetches in progress that have one of `invalidation_keys` from being stored or joined. Stored responses
    /// stay valid.
    pub(crate) fn overtake(&self, invalidation_keys: &[InvalidationKey]) {
        self.note(invalidation_keys);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        invalidation_keys.iter().for_each(|invalidation_key| self.overtaken.stamp(*invalidation_key, number));
    }

    /// Returns whether one of `invalidation_keys` was invalidated, hard or soft, or overtaken, since a fetch began.
    pub(crate) fn is_stamped_since(&self, invalidation_keys: &[InvalidationKey], begun: FetchEpoch) -> bool {
        let is_newer = |invalidation_key: &InvalidationKey| {
            self.hard.get(*invalidation_key) >= begun.number
                || self.overtaken.get(*invalidation_key) >= begun.number
        };
        let hard = self.next.load(Ordering::SeqCst) != begun.number && invalidation_keys.iter().any(is_newer);
        hard || (self.last_soft.load(Ordering::SeqCst) >= begun.at
            && invalidation_keys.iter().any(|invalidation_key| self.soft.get(*invalidation_key) >= begun.at))
    }

    /// Returns the validity of a response with `invalidation_keys` whose fetch began at `begun`.
    pub(crate) fn validity(
        &self,
        invalidation_keys: &[InvalidationKey],
        begun: FetchEpoch,
        now: Instant,
    ) -> Validity {
        let unchanged = self.next.load(Ordering::SeqCst) == begun.number;
        if !unchanged
            && invalidation_keys
                .iter()
                .any(|invalidation_key| self.hard.get(*invalidation_key) >= begun.number)
        {
            return Validity::Gone;
        }
        if self.last_soft.load(Ordering::SeqCst) < begun.at {
            return Validity::Valid;
        }
        let newest = invalidation_keys
            .iter()
            .map(|invalidation_key| self.soft.get(*invalidation_key))
            .max()
            .unwrap_or(0);
        if newest >= begun.at {
            let since = self.milliseconds(now).saturating_sub(newest);
            return Validity::Stale(Duration::from_millis(since));
        }
        Validity::Valid
    }

    /// Says whether stored responses are used only after revalidation.
    pub(crate) fn set_doubted(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
    }

    /// Returns whether stored responses are used only after revalidation.
    #[inline]
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// Returns whether there was any soft invalidation since a fetch began.
    pub(crate) fn has_soft_since(&self, begun: FetchEpoch) -> bool {
        self.last_soft.load(Ordering::SeqCst) >= begun.at
    }

    /// Returns the current number of hard invalidations: while it stays the same, valid responses stay valid.
    pub(crate) fn number(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Returns whether the invalidations that [`Invalidation::number`] counted before this call have stamped all of
    /// their keys. Only then may a response be remembered as valid under that number.
    pub(crate) fn is_settled(&self) -> bool {
        self.stamping.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    /// A response found valid while an invalidation is still stamping is not remembered as valid.
    #[test]
    fn a_memory_of_validity_never_overtakes_a_stamp() {
        use crate::cache::store::stored::tests::head_with;
        let origin = clock::now();
        let clock = Arc::new(Invalidation::new(1, 1 << 20, origin));
        let invalidation_keys: Vec<InvalidationKey> =
            (0..200).map(|n| clock.key_hasher.tag(&n.to_string())).collect();
        let last = [invalidation_keys[199]];
        for _ in 0..300 {
            let head = Arc::new(head_with(&last, clock.begin(&clock.watch(&last), origin), origin));
            let reader = {
                let (head, clock) = (head.clone(), clock.clone());
                std::thread::spawn(move || while head.age_if_valid(&clock, origin).is_some() {})
            };
            clock.stamp(&invalidation_keys, Mode::Hard, origin);
            assert!(head.age_if_valid(&clock, origin).is_none());
            reader.join().unwrap();
        }
    }

    /// A client that writes to very many paths invalidates nothing of others.
    #[test]
    fn n3_8_a_flood_of_writes_to_other_paths_leaves_what_is_stored() {
        let origin = clock::now();
        let clock = Invalidation::new(1, 64 << 20, origin);
        let stored: Vec<_> = (0..1000)
            .map(|n| {
                let path = format!("/stored/{n}");
                let key_hasher = clock.key_hasher;
                let mut invalidation_keys =
                    vec![key_hasher.everything(), key_hasher.path(&path), key_hasher.route("GET /**")];
                invalidation_keys.extend(key_hasher.prefixes(&path));
                let watched = clock.watch(&invalidation_keys);
                let begun = clock.begin(&watched, origin);
                (invalidation_keys, watched, begun)
            })
            .collect();
        (0..1_000_000)
            .for_each(|n| clock.stamp(&[clock.key_hasher.path(&format!("/{n}"))], Mode::Hard, origin));
        let is_left = |invalidation_keys: &[InvalidationKey], begun| {
            clock.validity(invalidation_keys, begun, origin) == Validity::Valid
        };
        let left =
            stored.iter().filter(|(invalidation_keys, _, begun)| is_left(invalidation_keys, *begun)).count();
        assert_eq!(left, stored.len(), "a million writes to paths of which nothing is stored");
        // A write to the path itself counts; one before the fetch does not.
        let (invalidation_keys, _, begun) = &stored[7];
        clock.stamp(&[clock.key_hasher.path("/stored/7")], Mode::Hard, origin);
        assert!(!is_left(invalidation_keys, *begun));
        let invalidation_keys = [clock.key_hasher.path("/later")];
        clock.stamp(&invalidation_keys, Mode::Hard, origin);
        let watched = clock.watch(&invalidation_keys);
        let begun = clock.begin(&watched, origin);
        assert!(is_left(&invalidation_keys, begun));
        clock.stamp(&invalidation_keys, Mode::Hard, origin);
        assert!(!is_left(&invalidation_keys, begun), "a fetch in progress is overtaken");
    }

    #[test]
    fn n5_7_what_is_overtaken_on_its_way_is_not_stored() {
        let origin = clock::now();
        let clock = Invalidation::new(1, 1 << 20, origin);
        let (invalidation_keys, other) = ([clock.key_hasher.path("/a")], [clock.key_hasher.path("/b")]);
        let watched = clock.watch(&invalidation_keys);
        let before = clock.begin(&watched, origin);
        clock.overtake(&invalidation_keys);
        assert!(
            clock.is_stamped_since(&invalidation_keys, before) && !clock.is_stamped_since(&other, before)
        );
        assert_eq!(
            clock.validity(&invalidation_keys, before, origin),
            Validity::Valid,
            "what is stored stays"
        );
        assert!(!clock.is_stamped_since(&invalidation_keys, clock.begin(&watched, origin)));
    }

    #[test]
    fn what_a_write_overtakes_is_gone() {
        let origin = clock::now();
        let later = |milliseconds| origin + Duration::from_millis(milliseconds);
        let clock = Invalidation::new(1, 1 << 20, origin);
        let invalidation_keys = [clock.key_hasher.tag("a"), clock.key_hasher.path("/a")];
        let other = [clock.key_hasher.tag("b")];
        let watched = clock.watch(&invalidation_keys);
        let before = clock.begin(&watched, origin);
        assert_eq!(clock.validity(&invalidation_keys, before, origin), Validity::Valid);
        clock.stamp(&invalidation_keys[..1], Mode::Hard, origin);
        let after = clock.begin(&watched, origin);
        assert_eq!(clock.validity(&invalidation_keys, before, origin), Validity::Gone);
        assert!(
            clock.is_stamped_since(&invalidation_keys, before)
                && !clock.is_stamped_since(&invalidation_keys, after)
        );
        assert_eq!(clock.validity(&invalidation_keys, after, origin), Validity::Valid);
        assert_eq!(clock.validity(&other, before, origin), Validity::Valid);
        clock.stamp(&invalidation_keys[1..], Mode::Soft, later(100));
        assert_eq!(
            clock.validity(&invalidation_keys, after, later(150)),
            Validity::Stale(Duration::from_millis(50))
        );
        assert_eq!(
            clock.validity(&invalidation_keys, clock.begin(&watched, later(101)), later(150)),
            Validity::Valid
        );
        let same_moment = clock.begin(&watched, later(100));
        assert_ne!(
            clock.validity(&invalidation_keys, same_moment, later(150)),
            Validity::Valid,
            "errs towards a fetch"
        );
    }
}
