//! Reads the log, and applies what all processes of the fleet invalidate, this one included.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entry::Entry;
use super::process::Fleet;
use super::progress::{Failures, Progress};
use super::purge;
use super::server::{Connected, Server};
use super::stream_id::StreamId;
use super::tracker::{Loss, Tracker, Verdict};
use crate::cache::invalidation::Mode;
use crate::runtime::clock::{self, Instant};

/// How long a silent log is waited for: a random time between the two, after which this process adds an entry so that
/// all know that the log works. The first to add one spares the others theirs.
const BEAT: (u64, u64) = (1000, 2000);
/// Time without an entry after which the log counts as lost.
const LOST: Duration = Duration::from_secs(3);
/// Maximum number of entries that are read at once.
const MAX_READ: usize = 100;
/// Pause after Redis refused to say what is in the log, or to read it.
const PAUSE: Duration = Duration::from_millis(200);
/// How far back entries are read again after a failover, by the clock of Redis.
const AGAIN: Duration = Duration::from_secs(60);
/// Age from which on a soft invalidation is applied as a hard one: a response that was stored meanwhile must not be
/// served as stale without need, and one that was served as fresh must not be served again.
const SOFT_FOR: Duration = Duration::from_secs(1);
/// Age up to which an entry is noted.
const NOTED_FOR: Duration = Duration::from_millis(100);
/// Age of an entry from which on its repeats are over.
const REPEATS_FOR: Duration = Duration::from_secs(35);

struct Reader<'a, S> {
    fleet: &'a Fleet,
    server: &'a S,
    tracker: &'a RefCell<Tracker>,
    progress: &'a Progress,
    failures: Failures,
    position: StreamId,
    epoch: Option<Box<str>>,
    /// The newest entry at the first connection. Until it is read, entries are older than this process.
    begins_at: Option<StreamId>,
    /// When something was last read.
    heard: Instant,
    unreadable: bool,
}

/// Reads until the process leaves the fleet.
pub(super) async fn run<S: Server>(
    fleet: &Fleet,
    server: &S,
    tracker: &RefCell<Tracker>,
    progress: &Progress,
) {
    let reader = Reader {
        fleet,
        server,
        tracker,
        progress,
        failures: Failures::default(),
        position: StreamId::default(),
        epoch: None,
        begins_at: None,
        heard: clock::now(),
        unreadable: false,
    };
    reader.run().await;
}

impl<S: Server> Reader<'_, S> {
    async fn run(mut self) {
        let mut connection = self.server.reading();
        loop {
            let connected = {
                let wait = connection.wait_for(Option::is_some);
                match tokio::time::timeout(LOST, wait).await {
                    Ok(Ok(now)) => now.clone(),
                    Ok(Err(_)) => return,
                    Err(_) => None,
                }
            };
            let Some(connected) = connected else {
                self.fleet.set_lost(true);
                continue;
            };
            self.heard = clock::now();
            let mut ended = connection.clone();
            let number = connected.number;
            tokio::select! {
                () = self.read(&connected) => self.server.reconnect(),
                _ = ended.wait_for(|now| now.as_ref().is_none_or(|now| now.number != number)) => {}
            }
            self.tracker.borrow_mut().set_reading(false, clock::now());
        }
    }

    /// Reads over one connection, until nothing has come for too long.
    async fn read(&mut self, connected: &Connected) {
        self.begin(connected).await;
        self.tracker.borrow_mut().set_reading(true, clock::now());
        loop {
            let block = Duration::from_millis(fastrand::u64(BEAT.0..BEAT.1));
            let began = clock::now();
            let read = self.server.read_after(self.position, MAX_READ, block).await;
            match read {
                Ok(entries) if entries.is_empty() => {
                    self.failures.end();
                    self.tracker.borrow_mut().has_read_from(began);
                    self.fleet.beat.notify_one();
                }
                Ok(entries) => {
                    self.failures.end();
                    self.heard = clock::now();
                    let is_all = entries.len() < MAX_READ;
                    for (position, bytes) in entries {
                        self.apply(position, &bytes);
                        self.position = position;
                        self.note(position);
                    }
                    if is_all {
                        self.tracker.borrow_mut().has_read_from(began);
                    }
                    self.catch_up();
                    let caught_up = self.tracker.borrow().has_caught_up();
                    self.fleet.set_lost(!caught_up);
                    let position = self.position;
                    self.fleet.view.send_modify(|view| view.applied = position);
                }
                Err(error) => {
                    self.failures.count("read the invalidation log", &error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if clock::now().saturating_duration_since(self.heard) >= LOST {
                self.fleet.set_lost(true);
                return;
            }
        }
    }

    /// Finds where to go on reading; asks until Redis says.
    async fn begin(&mut self, connected: &Connected) {
        let extent = loop {
            match self.server.extent().await {
                Ok(extent) => break extent,
                Err(error) => self.failures.count("look into the invalidation log", &error),
            }
            if clock::now().saturating_duration_since(self.heard) >= LOST {
                self.fleet.set_lost(true);
            }
            tokio::time::sleep(PAUSE).await;
        };
        let now = clock::now();
        self.heard = now;
        if self.begins_at.is_none() {
            self.begins_at = Some(extent.last);
        }
        let is_new = self.epoch.as_ref().is_some_and(|epoch| *epoch != connected.epoch);
        // In a new epoch the log may begin anew; then each process sends its recent entries again.
        if !is_new
            && self.position != StreamId::default()
            && extent.first > self.position
            && extent.length > 0
        {
            self.fleet.lose(Loss::Trimmed);
        }
        if self.epoch.as_ref() != Some(&connected.epoch) {
            self.fleet.positions().begin(connected.epoch.clone());
        }
        if is_new {
            self.tracker.borrow_mut().begin_epoch(self.fleet.sender, now);
            // A server that took over may have given identifiers below those that were read.
            let again = u64::try_from(AGAIN.as_millis()).unwrap_or(u64::MAX);
            let milliseconds = self.position.milliseconds.min(extent.last.milliseconds).saturating_sub(again);
            self.position = StreamId { milliseconds, sequence: 0 };
        } else if extent.last < self.position {
            self.position = StreamId::default();
        }
        self.epoch = Some(connected.epoch.clone());
        self.catch_up();
        // An entry of one's own shows at once whether the log works.
        self.fleet.beat.notify_one();
    }

    /// Notes when everything is read that was there at the start.
    fn catch_up(&mut self) {
        let mut tracker = self.tracker.borrow_mut();
        if !tracker.has_caught_up() && self.begins_at.is_some_and(|last| self.position >= last) {
            tracker.catch_up();
        }
    }

    /// Notes where the invalidation clock stands after an entry. An entry that comes late is not noted once this process
    /// has caught up: what was to be repeated meanwhile may be repeated already, though a fetch after it began before.
    fn note(&self, position: StreamId) {
        if !self.tracker.borrow().has_caught_up() || self.age(position) <= NOTED_FOR {
            self.fleet.positions().advance(position, self.fleet.cache.invalidation.number());
        }
    }

    fn apply(&mut self, position: StreamId, bytes: &[u8]) {
        let Fleet { keys, counters, cache, sender, .. } = self.fleet;
        // Nothing is stored yet that an entry from before the start could concern.
        let is_old =
            !self.tracker.borrow().has_caught_up() && self.begins_at.is_some_and(|last| position <= last);
        let entry = match Entry::from_bytes(keys, bytes) {
            Ok(entry) => entry,
            Err(_) if is_old => return,
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::error!(
                        %error,
                        "an entry of the invalidation log cannot be read; each such entry invalidates everything. \
                        All processes of a fleet need the same identity.hash_key"
                    );
                }
                self.fleet.lose(Loss::Unreadable);
                return;
            }
        };
        let now = clock::now();
        match self.tracker.borrow_mut().read(entry.sender, entry.number, &entry.content, now) {
            Verdict::Apply => {}
            Verdict::Repeated => {
                counters.repeated.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Verdict::ApplyAfter(loss) => self.fleet.lose(loss),
        }
        counters.applied.fetch_add(1, Ordering::Relaxed);
        let applied = self.tracker.borrow().applied(entry.sender);
        let own = entry.sender == *sender;
        let age = self.age(position);
        if let Some((_, since)) =
            self.progress.sent.get().filter(|(number, _)| own && *number == entry.number)
        {
            counters.set_round_trip(now.saturating_duration_since(since));
        }
        for invalidated in &entry.content.batch.invalidated {
            let mode = if age > SOFT_FOR { Mode::Hard } else { invalidated.mode() };
            cache.apply(invalidated, mode, !own && age < REPEATS_FOR, now);
        }
        entry.content.batch.purged.iter().for_each(|purged| purge::overtake(cache, purged));
        for purged in entry.content.batch.purged.iter().filter(|_| !own && !is_old) {
            let (cache, purged) = (cache.clone(), purged.clone());
            tokio::task::spawn_blocking(move || purge::run(&cache, &purged));
        }
        for route in entry.content.batch.stopped.iter().filter(|_| !own) {
            if cache.stop(route, now) {
                tracing::warn!(
                    route = &**route,
                    "another process found that users get different responses on a route with scope \"shared\"; it is \
                    not cached for an hour"
                );
            }
        }
        if entry.content.goodbye {
            let mut tracker = self.tracker.borrow_mut();
            // Writes that were open when it ended have no outcome that anybody will tell.
            for names in tracker.abandoned_by(entry.sender) {
                cache.apply_abandoned(&names, now);
            }
            tracker.forget(entry.sender);
        }
        if own && let Some(covers) = self.progress.read_back(entry.number) {
            self.fleet.outbox.returned(covers);
        }
        self.fleet.note_read(entry.sender, applied);
        if entry.content.awaited && !own {
            self.fleet.report.notify_one();
        }
    }

    /// Returns the age of the entry at a position, by the clock of Redis.
    fn age(&self, position: StreamId) -> Duration {
        let here = i64::try_from(clock::unix_at(clock::now()).as_millis()).unwrap_or(i64::MAX);
        let there = here.saturating_add(self.fleet.view.borrow().clock_offset);
        let written = i64::try_from(position.milliseconds).unwrap_or(i64::MAX);
        Duration::from_millis(u64::try_from(there.saturating_sub(written)).unwrap_or(0))
    }
}
