//! This process as part of its fleet: what it tells the others, and how it sees them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use crate::cache::Cache;
use crate::cache::invalidation::OnLost;
use crate::cache::invalidation::outbox::Outbox;
use crate::fleet::counters::Counters;
use crate::fleet::entry::Sender;
use crate::fleet::member::Member;
use crate::fleet::positions::Positions;
use crate::fleet::seal::{self, Keys};
use crate::fleet::stream_id::StreamId;
use crate::fleet::tracker::Loss;
use crate::runtime::clock;
use crate::runtime::log_throttle::LogThrottle;

/// Maximum number of processes of which it is remembered how far they were read.
const MAX_READ: usize = 4096;
/// How long a purge waits for the other processes.
const SETTLES: Duration = Duration::from_secs(2);
/// How long the end of the process waits until its last entries are published.
const LAST_ENTRIES: Duration = Duration::from_secs(1);

/// The processes that share Redis with this one, as it last saw them.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub members: Vec<Member>,
    /// The position up to which this process has applied the log.
    pub applied: StreamId,
    /// The time of Redis less the time of this process, in milliseconds.
    pub clock_offset: i64,
}

impl View {
    /// Returns the processes that are alive.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.live)
    }
}

/// The result of waiting for the other processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Processes that have applied it, this one included.
    pub by: usize,
    /// Processes that are alive, this one included.
    pub of: usize,
}

/// This process as part of its fleet; see the head of the file.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub sender: Sender,
    pub counters: Counters,
    /// The name of this process, for people.
    pub(super) name: String,
    pub(super) version: &'static str,
    pub(super) keys: Keys,
    pub(super) outbox: Arc<Outbox>,
    pub(super) cache: Arc<Cache>,
    /// Wakes the publisher for an entry without content.
    pub(super) beat: Notify,
    /// Wakes the reporter before its time.
    pub(super) report: Notify,
    /// Number of purges that wait for the others. While there is one, each entry asks the others to report.
    pub(super) awaiting: AtomicUsize,
    /// The position of the last entry of this process.
    pub(super) position: watch::Sender<StreamId>,
    pub(super) view: watch::Sender<View>,
    positions: Mutex<Positions>,
    /// The number up to which everything of each sender was read.
    read: Mutex<HashMap<Sender, u64>>,
    /// Number of processes that are alive, for others; 0 until it is known.
    pub process_count: Arc<AtomicUsize>,
    lost: AtomicBool,
    on_lost: OnLost,
    pub(super) leaving: watch::Sender<bool>,
    pub(super) left: watch::Sender<bool>,
    /// Bounds the lines about losses, of which a foreign process may cause one for each of its entries.
    told: Mutex<LogThrottle>,
}

impl Fleet {
    /// Creates the part of this process in a fleet. `timeout`: how long a write waits for Redis. Until the log is read,
    /// `on_lost` rules.
    pub(crate) fn new(
        keys: Keys,
        cache: Arc<Cache>,
        name: String,
        version: &'static str,
        timeout: Duration,
        on_lost: OnLost,
    ) -> Fleet {
        let outbox = Arc::new(Outbox::new(timeout));
        cache.share_invalidations(outbox.clone());
        cache.invalidation.set_doubted(on_lost == OnLost::Revalidate);
        Fleet {
            on_lost,
            sender: Sender(seal::fill(&SystemRandom::new())),
            counters: Counters::default(),
            name,
            version,
            keys,
            outbox,
            cache,
            beat: Notify::new(),
            report: Notify::new(),
            awaiting: AtomicUsize::new(0),
            position: watch::Sender::new(StreamId::default()),
            view: watch::Sender::new(View::default()),
            positions: Mutex::default(),
            read: Mutex::default(),
            process_count: Arc::default(),
            lost: AtomicBool::new(true),
            leaving: watch::Sender::new(false),
            left: watch::Sender::new(false),
            told: Mutex::new(LogThrottle::new(1)),
        }
    }

    /// Returns the processes as this one last saw them.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Returns the positions of the log that this process has applied.
    pub(super) fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the number up to which everything of a sender was read, and applied.
    pub(super) fn note_read(&self, sender: Sender, number: u64) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= MAX_READ && !read.contains_key(&sender) {
            // Clients of the others ask the upstream for once.
            read.clear();
        }
        read.insert(sender, number);
    }

    /// Returns the number up to which everything of a sender was read; 0 if nothing was.
    pub(super) fn has_read(&self, sender: Sender) -> u64 {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.get(&sender).copied().unwrap_or(0)
    }

    /// Returns whether invalidations of others may have been missed, because the log cannot be read.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns the number of names that wait to be published.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.waiting()
    }

    /// Waits until what was just invalidated here is applied by all processes that are alive, for two seconds at most.
    pub(crate) async fn settle(&self) -> Applied {
        self.awaiting.fetch_add(1, Ordering::SeqCst);
        let _waits = Awaiting(self);
        // The invalidation may be on its way already, in an entry that asks nobody.
        self.beat.notify_one();
        let published = self.outbox.wait().await && !self.is_lost();
        // The entry that has it, or a later one.
        let position = *self.position.borrow();
        let has_applied = |member: &Member| member.sender == self.sender || member.applied >= position;
        if published {
            let mut view = self.view.subscribe();
            self.report.notify_one();
            let applied = view.wait_for(|view| view.live().all(has_applied));
            let _ = tokio::time::timeout(SETTLES, applied).await;
        }
        let view = self.view.borrow();
        let applied = view.live().filter(|member| published && has_applied(member)).count();
        Applied { by: applied.max(1), of: view.live().count().max(1) }
    }

    /// Publishes what waits, takes leave of the others and ends [`crate::fleet::run::run`]; waits a second at most.
    pub(crate) async fn leave(&self) {
        self.leaving.send_replace(true);
        let mut left = self.left.subscribe();
        let _ = tokio::time::timeout(LAST_ENTRIES, left.wait_for(|left| *left)).await;
    }

    /// Notes whether the log can be read.
    pub(super) fn set_lost(&self, lost: bool) {
        if self.lost.swap(lost, Ordering::Relaxed) == lost {
            return;
        }
        self.cache.invalidation.set_doubted(lost && self.on_lost == OnLost::Revalidate);
        let on_lost = self.on_lost.as_str();
        if lost {
            tracing::warn!(
                on_lost,
                "the invalidation log cannot be read; writes of other processes are not seen"
            );
        } else {
            tracing::info!("the invalidation log is read");
        }
    }

    /// Invalidates everything, because something may have been missed.
    pub(super) fn lose(&self, loss: Loss) {
        self.counters.count_loss(loss);
        self.cache.invalidate_everything_here(clock::now());
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.may(clock::now()).is_none() {
            return;
        }
        tracing::warn!(
            reason = loss.as_str(),
            "invalidations of other processes may have been missed; all stored responses are invalidated"
        );
    }
}

/// A purge that waits, until it is dropped.
struct Awaiting<'a>(&'a Fleet);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.awaiting.fetch_sub(1, Ordering::SeqCst);
    }
}
