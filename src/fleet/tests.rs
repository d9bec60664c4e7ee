//! Processes of a fleet over a Redis that loses, refuses and forgets as it is told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::process::Fleet;
use super::run;
use super::seal::Keys;
use super::server::{Connected, Extent, Record, Server, ServerError};
use super::stream_id::StreamId;
use super::tracker::Loss;
use crate::cache::Cache;
use crate::cache::invalidation::outbox::WriteId;
use crate::cache::invalidation::{FetchEpoch, Mode, OnLost, Validity};
use crate::runtime::clock;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// How long a write waits.
const TIMEOUT: Duration = Duration::from_millis(50);
/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is in the Redis of a test.
#[derive(Default)]
struct Data {
    entries: BTreeMap<StreamId, Vec<u8>>,
    last: StreamId,
    records: BTreeMap<Vec<u8>, Record>,
    /// Whether entries are refused.
    refuses: bool,
    /// Whether entries are stored and the sender is told that they are not.
    denies: bool,
}

/// The Redis of a test.
#[derive(Clone)]
struct Redis {
    data: Rc<RefCell<Data>>,
    added: Rc<Notify>,
    connection: watch::Sender<Option<Connected>>,
}

fn milliseconds() -> u64 {
    clock::unix_at(clock::now()).as_millis() as u64
}

impl Redis {
    fn new() -> Redis {
        let connected = Connected { number: 1, epoch: "first".into() };
        let (data, added) = (Rc::default(), Rc::default());
        Redis { data, added, connection: watch::Sender::new(Some(connected)) }
    }

    fn connect(&self, number: u64, epoch: &str) {
        self.connection.send_replace(Some(Connected { number, epoch: epoch.into() }));
    }

    fn disconnect(&self) {
        self.connection.send_replace(None);
    }
}

impl Server for Redis {
    async fn append(&self, entry: &[u8]) -> Result<StreamId, ServerError> {
        tokio::task::yield_now().await;
        let mut data = self.data.borrow_mut();
        if data.refuses || self.connection.borrow().is_none() {
            return Err(ServerError::Failed("refused".to_owned()));
        }
        let mut position = StreamId { milliseconds: milliseconds(), sequence: 0 };
        if position <= data.last {
            position = StreamId { sequence: data.last.sequence + 1, ..data.last };
        }
        data.last = position;
        data.entries.insert(position, entry.to_vec());
        self.added.notify_waiters();
        if data.denies { Err(ServerError::Failed("denied".to_owned())) } else { Ok(position) }
    }

    async fn read_after(
        &self,
        position: StreamId,
        max: usize,
        block: Duration,
    ) -> Result<Vec<(StreamId, Vec<u8>)>, ServerError> {
        let found = || -> Vec<_> {
            let data = self.data.borrow();
            let after = data.entries.range(position..).filter(|(known, _)| **known > position);
            after.take(max).map(|(known, entry)| (*known, entry.clone())).collect()
        };
        let added = self.added.notified();
        if found().is_empty() {
            let _ = tokio::time::timeout(block, added).await;
        }
        if self.connection.borrow().is_none() {
            return std::future::pending().await;
        }
        Ok(found())
    }

    async fn extent(&self) -> Result<Extent, ServerError> {
        let data = self.data.borrow();
        let first = data.entries.first_key_value().map(|(position, _)| *position).unwrap_or_default();
        Ok(Extent { first, last: data.last, length: data.entries.len() as u64 })
    }

    async fn report(&self, field: &[u8], value: &[u8]) -> Result<(u64, Vec<Record>), ServerError> {
        if self.connection.borrow().is_none() {
            return Err(ServerError::Failed("refused".to_owned()));
        }
        let now = milliseconds();
        let record = Record { field: field.to_vec(), value: value.to_vec(), written: now };
        let mut data = self.data.borrow_mut();
        data.records.insert(field.to_vec(), record);
        Ok((now, data.records.values().cloned().collect()))
    }

    async fn leave(&self, field: &[u8]) -> Result<(), ServerError> {
        self.data.borrow_mut().records.remove(field);
        Ok(())
    }

    fn writing(&self) -> watch::Receiver<Option<Connected>> {
        self.connection.subscribe()
    }

    fn reading(&self) -> watch::Receiver<Option<Connected>> {
        self.connection.subscribe()
    }

    fn reconnect(&self) {}
}

/// A process of the fleet.
struct Process {
    cache: Arc<Cache>,
    fleet: Arc<Fleet>,
    task: JoinHandle<()>,
}

impl Process {
    fn start(redis: &Redis) -> Process {
        Process::with(redis, OnLost::Serve)
    }

    fn with(redis: &Redis, on_lost: OnLost) -> Process {
        let cache = Arc::new(Cache::new(fastrand::u64(..), 1 << 20, clock::now()));
        let keys = Keys::new([KEY]);
        let fleet = Fleet::new(keys, cache.clone(), "test".to_owned(), "0", TIMEOUT, on_lost);
        let fleet = Arc::new(fleet);
        let (redis, runs) = (redis.clone(), fleet.clone());
        let task = tokio::task::spawn_local(async move { run::run(&runs, &redis).await });
        Process { cache, fleet, task }
    }

    /// Invalidates a tag.
    fn invalidate(&self, tag: &str) {
        let mut targets = self.cache.targets();
        targets.tag(tag);
        self.cache.invalidate(&targets, Mode::Hard, clock::now());
    }

    /// Announces a write that invalidates a tag.
    fn announce(&self, tag: &str) -> WriteId {
        let mut targets = self.cache.targets();
        targets.tag(tag);
        self.fleet.outbox.announce(targets.names().iter().cloned()).unwrap()
    }

    /// Begins a fetch.
    fn fetch(&self) -> FetchEpoch {
        let invalidation = &self.cache.invalidation;
        invalidation.begin(&invalidation.watch(&[]), clock::now())
    }

    /// Returns whether what was fetched with a tag is valid.
    fn has(&self, tag: &str, fetched: FetchEpoch) -> bool {
        let invalidation = &self.cache.invalidation;
        let keys = [invalidation.key_hasher.tag(tag), invalidation.key_hasher.everything()];
        invalidation.validity(&keys, fetched, clock::now()) == Validity::Valid
    }

    fn losses(&self, wanted: Loss) -> u64 {
        self.fleet.counters.losses().find(|(loss, _)| *loss == wanted).unwrap().1
    }

    fn all_losses(&self) -> u64 {
        self.fleet.counters.losses().map(|(_, count)| count).sum()
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = clock::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "this never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Starts two processes that read the log.
async fn two(redis: &Redis) -> (Process, Process) {
    let (one, other) = (Process::start(redis), Process::start(redis));
    until("both read", || !one.fleet.is_lost() && !other.fleet.is_lost()).await;
    until("both are seen", || other.fleet.view().live().count() == 2).await;
    (one, other)
}

#[test]
fn an_invalidation_reaches_all_processes_and_a_fetch_after_it_stays() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        let fetched_by_one = one.fetch();
        one.invalidate("a");
        assert!(!one.has("a", fetched_by_one), "here it is done at once");
        assert!(one.fleet.outbox.wait().await, "it is published before the write ends");
        until("the other applied it", || !other.has("a", before)).await;
        assert!(other.has("b", before));
        let after = other.fetch();
        until("the log is quiet", || one.fleet.view().applied == other.fleet.view().applied).await;
        assert!(other.has("a", after));
        assert_eq!((one.all_losses(), other.all_losses()), (0, 0));
    });
}

#[test]
fn a_purge_is_told_how_many_applied_it() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        until("one sees both", || one.fleet.view().live().count() == 2).await;
        one.invalidate("a");
        let began = clock::now();
        let applied = one.fleet.settle().await;
        assert_eq!((applied.by, applied.of), (2, 2));
        assert!(began.elapsed() < Duration::from_secs(1), "the other is asked to report at once");
        other.task.abort();
        one.invalidate("b");
        let applied = one.fleet.settle().await;
        assert_eq!((applied.by, applied.of), (1, 2), "the other is not known to be gone yet");
    });
}

#[test]
fn what_is_invalidated_without_redis_is_published_when_it_is_back() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        redis.disconnect();
        one.invalidate("a");
        let began = clock::now();
        until("no request waits", || !one.fleet.outbox.is_behind()).await;
        assert!(began.elapsed() < TIMEOUT);
        until("both know", || one.fleet.is_lost() && other.fleet.is_lost()).await;
        assert!(other.has("a", before));
        redis.connect(2, "first");
        until("the other applied it", || !other.has("a", before)).await;
        until("both read", || !one.fleet.is_lost() && !other.fleet.is_lost()).await;
        assert_eq!((one.all_losses(), other.all_losses()), (0, 0));
    });
}

#[test]
fn an_entry_that_was_stored_twice_is_applied_once() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        redis.data.borrow_mut().denies = true;
        let before = other.fetch();
        one.invalidate("a");
        until("the other applied it", || !other.has("a", before)).await;
        redis.data.borrow_mut().denies = false;
        assert!(one.fleet.outbox.wait().await || one.fleet.outbox.waiting() == 0);
        let repeated = || other.fleet.counters.repeated.load(std::sync::atomic::Ordering::Relaxed);
        until("the second is read", || repeated() > 0).await;
        assert_eq!((one.all_losses(), other.all_losses()), (0, 0));
    });
}

#[test]
fn what_a_failover_lost_is_sent_again() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        // The other reads nothing of it, as it waits for a server that ends.
        redis.data.borrow_mut().refuses = true;
        one.invalidate("a");
        until("it is on its way", || one.fleet.outbox.waiting() == 0).await;
        redis.disconnect();
        redis.data.borrow_mut().refuses = false;
        let last = *redis.data.borrow().entries.last_key_value().unwrap().0;
        redis.data.borrow_mut().entries.remove(&last);
        redis.connect(2, "second");
        until("the other applied it", || !other.has("a", before)).await;
        // A process that does not send again is noticed after five seconds.
        tokio::time::sleep(Duration::from_millis(5500)).await;
        assert_eq!((one.losses(Loss::NotResent), other.losses(Loss::NotResent)), (0, 0), "both sent again");
    });
}

#[test]
fn a_process_that_is_killed_in_a_write_leaves_its_announcement() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        let ended = one.announce("ended");
        one.announce("open");
        let entries = redis.data.borrow().entries.len();
        until("it is published", || redis.data.borrow().entries.len() > entries).await;
        one.fleet.outbox.done(ended);
        one.invalidate("other");
        until("the outcome is known", || !other.has("other", before)).await;
        one.task.abort();
        // Its record is old.
        redis.data.borrow_mut().records.get_mut(one.fleet.sender.0.as_slice()).unwrap().written -= 60_000;
        until("it is taken for gone", || !other.has("open", before)).await;
        assert!(other.has("ended", before));
        assert_eq!(other.all_losses(), 0);
    });
}

#[test]
fn a_process_that_leaves_says_so() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        one.announce("open");
        one.fleet.leave().await;
        until("its write has an unknown outcome", || !other.has("open", before)).await;
        until("it is not seen any more", || other.fleet.view().live().count() == 1).await;
        assert_eq!(other.all_losses(), 0);
    });
}

#[test]
fn a_log_that_was_trimmed_or_emptied_before_it_was_read_invalidates_everything() {
    on_worker(async {
        let redis = Redis::new();
        let (one, other) = two(&redis).await;
        let before = other.fetch();
        redis.disconnect();
        until("both know", || one.fleet.is_lost() && other.fleet.is_lost()).await;
        let newer = StreamId { milliseconds: milliseconds() + 1, sequence: 0 };
        {
            let mut data = redis.data.borrow_mut();
            data.entries.clear();
            data.entries.insert(newer, b"not an entry".to_vec());
            data.last = newer;
        }
        redis.connect(2, "first");
        until("it is lost", || other.losses(Loss::Trimmed) == 1).await;
        assert!(!other.has("whatever", before));
        until("what is no entry is lost too", || other.losses(Loss::Unreadable) == 1).await;
    });
}

#[test]
fn while_the_log_is_lost_stored_responses_are_revalidated_if_so_configured() {
    on_worker(async {
        let redis = Redis::new();
        let (serves, doubts) =
            (Process::with(&redis, OnLost::Serve), Process::with(&redis, OnLost::Revalidate));
        assert!(doubts.cache.invalidation.is_doubted(), "nothing is read yet");
        until("both read", || !serves.fleet.is_lost() && !doubts.fleet.is_lost()).await;
        assert!(!doubts.cache.invalidation.is_doubted());
        redis.disconnect();
        until("both know", || serves.fleet.is_lost() && doubts.fleet.is_lost()).await;
        assert!(doubts.cache.invalidation.is_doubted() && !serves.cache.invalidation.is_doubted());
    });
}

#[test]
fn entries_from_before_the_start_are_no_loss_even_if_they_cannot_be_read() {
    on_worker(async {
        let redis = Redis::new();
        for _ in 0..3 {
            redis.append(b"sealed with a key of long ago").await.unwrap();
        }
        let process = Process::start(&redis);
        until("it reads", || !process.fleet.is_lost()).await;
        assert_eq!(process.all_losses(), 0);
        redis.append(b"sealed with another key").await.unwrap();
        until("it is a loss", || process.losses(Loss::Unreadable) == 1).await;
    });
}
