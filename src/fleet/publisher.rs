//! Writes the invalidations of this process to the log, one entry after the other: an entry is sent when the one before
//! is stored, so numbers have no holes, and what comes meanwhile is in the next entry.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entry::{Content, Entry};
use super::process::Fleet;
use super::progress::{Failures, Progress};
use super::server::{Connected, Server};
use crate::cache::invalidation::Mode;
use crate::cache::invalidation::name::Name;
use crate::cache::invalidation::outbox::Invalidated;
use crate::runtime::clock::{self, Instant};

/// How long an entry is kept to be sent again, counted while the connection works.
const KEPT: Duration = Duration::from_secs(60);
/// Maximum size of kept entries in bytes.
const MAX_KEPT_BYTES: usize = 16 << 20;
/// Maximum number of kept entries. Beyond either, everything is invalidated in their place.
const MAX_KEPT: usize = 4096;
/// Pauses between attempts to write an entry.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
];

/// An entry that is sent again if a failover may have lost it.
struct Kept {
    bytes: Vec<u8>,
    /// The working time of the connection at which it was stored.
    at: Duration,
}

/// The entry that is being written. Whether it is stored is not known until Redis says so.
#[derive(Clone)]
struct Pending {
    bytes: Vec<u8>,
    /// The number of the last invalidation of the outbox that it covers.
    covers: u64,
    goodbye: bool,
}

struct Publisher<'a, S> {
    fleet: &'a Fleet,
    server: &'a S,
    progress: &'a Progress,
    failures: Failures,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Whether entries were dropped from `kept` before their time.
    dropped: bool,
    /// For how long connections have worked, without the time of the present one.
    worked: Duration,
    epoch: Option<Box<str>>,
    /// The epoch for which entries were sent again, until an entry says so.
    resent_for: Option<Box<str>>,
    pending: Option<Pending>,
}

/// Publishes until the process leaves the fleet.
pub(super) async fn run<S: Server>(fleet: &Fleet, server: &S, progress: &Progress) {
    let publisher = Publisher {
        fleet,
        server,
        progress,
        failures: Failures::default(),
        kept: VecDeque::new(),
        kept_bytes: 0,
        dropped: false,
        worked: Duration::ZERO,
        epoch: None,
        resent_for: None,
        pending: None,
    };
    publisher.run().await;
}

impl<S: Server> Publisher<'_, S> {
    async fn run(mut self) {
        let mut connection = self.server.writing();
        let mut leaving = self.fleet.leaving.subscribe();
        loop {
            let connected = tokio::select! {
                connected = connection.wait_for(Option::is_some) => connected.ok().and_then(|now| now.clone()),
                // Without a connection nobody can be told.
                _ = leaving.wait_for(|leaving| *leaving) => return,
            };
            let Some(connected) = connected else { return };
            let since = clock::now();
            let mut ended = connection.clone();
            let number = connected.number;
            let left = tokio::select! {
                () = self.publish(&connected, since) => true,
                _ = ended.wait_for(|now| now.as_ref().is_none_or(|now| now.number != number)) => false,
            };
            self.fleet.outbox.set_waits(false);
            self.worked += clock::now().saturating_duration_since(since);
            if left {
                return;
            }
        }
    }

    /// Publishes over one connection, until the last entry is stored.
    async fn publish(&mut self, connected: &Connected, since: Instant) {
        if self.epoch.as_ref().is_some_and(|epoch| *epoch != connected.epoch) {
            self.send_again(since).await;
            self.resent_for = Some(connected.epoch.clone());
            self.fleet.beat.notify_one();
        }
        self.epoch = Some(connected.epoch.clone());
        let mut leaving = self.fleet.leaving.subscribe();
        self.fleet.outbox.set_waits(true);
        loop {
            if self.pending.is_none() {
                let leaves = tokio::select! {
                    () = self.fleet.outbox.filled() => false,
                    () = self.fleet.beat.notified() => false,
                    _ = leaving.wait_for(|leaving| *leaving) => true,
                };
                self.pending = Some(self.prepare(leaves));
                self.progress.sent.set(Some((self.progress.published.get() + 1, clock::now())));
            }
            let Some(pending) = self.pending.clone() else { continue };
            self.store(&pending.bytes).await;
            self.pending = None;
            self.progress.published.set(self.progress.published.get() + 1);
            self.fleet.outbox.published(pending.covers, self.progress.published.get());
            if pending.goodbye {
                // A record that stays is forgotten after a while.
                let _ = self.server.leave(&self.fleet.sender.0).await;
                return;
            }
            self.keep(pending.bytes, since);
        }
    }

    /// Makes the next entry of what waits.
    fn prepare(&mut self, goodbye: bool) -> Pending {
        let (mut batch, covers) = self.fleet.outbox.take();
        let resent_for = self.resent_for.take();
        if resent_for.is_some() && std::mem::take(&mut self.dropped) {
            batch.invalidated = vec![Invalidated::once(&[Name::Everything], Mode::Hard)];
        }
        let awaited = self.fleet.awaiting.load(Ordering::SeqCst) > 0;
        let content = Content { batch, awaited, resent_for, goodbye };
        let entry = Entry { sender: self.fleet.sender, number: self.progress.published.get() + 1, content };
        self.progress.note(entry.number, covers);
        Pending { bytes: entry.to_bytes(&self.fleet.keys), covers, goodbye }
    }

    /// Stores an entry; tries until it is stored.
    async fn store(&self, bytes: &[u8]) {
        let mut pauses = PAUSES.iter().copied().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
        loop {
            let failed = match self.server.append(bytes).await {
                Ok(position) => {
                    self.failures.end();
                    self.fleet.counters.published.fetch_add(1, Ordering::Relaxed);
                    self.fleet.outbox.set_waits(true);
                    self.fleet.position.send_if_modified(|last| {
                        let newer = position > *last;
                        *last = position.max(*last);
                        newer
                    });
                    return;
                }
                Err(error) => error,
            };
            self.fleet.counters.failed.fetch_add(1, Ordering::Relaxed);
            // No request waits for a server that does not store.
            self.fleet.outbox.set_waits(false);
            self.failures.count("write to the invalidation log", &failed);
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    /// Keeps a stored entry for as long as a failover may lose it.
    fn keep(&mut self, bytes: Vec<u8>, since: Instant) {
        let at = self.worked + clock::now().saturating_duration_since(since);
        self.kept_bytes += bytes.len();
        self.kept.push_back(Kept { bytes, at });
        while let Some(first) = self.kept.front() {
            let is_over = at.saturating_sub(first.at) > KEPT;
            if !is_over && self.kept.len() <= MAX_KEPT && self.kept_bytes <= MAX_KEPT_BYTES {
                break;
            }
            self.dropped |= !is_over;
            self.kept_bytes -= first.bytes.len();
            self.kept.pop_front();
        }
    }

    /// Sends the kept entries once more, with the numbers that they have.
    async fn send_again(&mut self, since: Instant) {
        let now = self.worked + clock::now().saturating_duration_since(since);
        for kept in self.kept.iter().filter(|kept| now.saturating_sub(kept.at) <= KEPT) {
            self.store(&kept.bytes).await;
        }
    }
}
