//! Stored responses that the processes of a fleet share, in Redis.
//!
//! A response is found under an HMAC of its cache key, sealed, with the position in the invalidation log up to which its
//! writer had applied everything when its fetch began. Whoever reads it compares that position with what it has applied
//! itself, so a response that a write overtook is never used. There is no index and no scan: an invalidation leaves what
//! is in Redis alone, where its time ends it.
//!
//! - `value`: the format. `writer`: the task that writes. `lock`: one fetch for all. `copies_counters`, `collected`: what is counted.

pub(crate) mod collected;
pub(crate) mod copies_counters;
pub(crate) mod lock;
#[cfg(test)]
mod model;
pub(crate) mod value;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, StatusCode};

use self::copies_counters::{CopiesCounters, Read};
use self::value::{Received, Value};
use crate::cache::outgoing::Outgoing;
use crate::fleet::process::Fleet;
use crate::fleet::seal::Purpose;
use crate::fleet::stream_id::StreamId;
use crate::redis::command::{self, Command, CommandError};
use crate::redis::link::Link;
use crate::runtime::clock::{self, Instant};

/// Length of a position in front of a sealed value: two numbers of 20 digits and a hyphen, so that Redis compares them
/// as text.
const POSITION: usize = 41;
/// Size of values in bytes beyond which they are sealed and opened away from threads that others wait for.
const LARGE: usize = 64 << 10;
/// Number of reads in a row that took too long, after which requests do not wait for any.
const MAX_LATE: u32 = 3;
/// Interval at which one read is tried while requests do not wait.
const PROBE: Duration = Duration::from_secs(1);

/// A response that another process stored.
#[derive(Debug)]
pub(crate) struct Found {
    pub received: Box<Received>,
    /// Its age (RFC 9111 4.2.3).
    pub age: Duration,
    /// Where the invalidation clock of this process stood when the response was fetched, or before: whatever was stamped
    /// from there on counts.
    pub number: u64,
}

/// What Redis has under a cache key, for people.
#[derive(Debug)]
pub(crate) enum Peek {
    Response {
        age: Duration,
        /// Freshness lifetime.
        lifetime: Duration,
        /// How long Redis still keeps it.
        left: Duration,
        /// The position up to which its writer had applied the log when its fetch began.
        position: StreamId,
        status: StatusCode,
        /// Size of its content in bytes.
        content: usize,
    },
    /// The fields that its responses vary with.
    Names(Vec<HeaderName>),
}

/// The stored responses of a fleet; see the head of the file.
#[derive(Debug)]
pub(crate) struct Copies {
    pub counters: CopiesCounters,
    fleet: Arc<Fleet>,
    link: Arc<Link>,
    outgoing: Arc<Outgoing>,
    prefix: String,
    /// How long a request waits.
    timeout: Duration,
    late: AtomicU32,
    /// Whether requests do not wait, because Redis is slow.
    slow: AtomicBool,
    /// When one may wait all the same, in milliseconds since `since`.
    next_probe: AtomicU64,
    since: Instant,
}

impl Copies {
    /// Creates the shared responses of a process. `timeout`: how long a request waits for one.
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        link: Arc<Link>,
        outgoing: Arc<Outgoing>,
        prefix: &str,
        timeout: Duration,
    ) -> Copies {
        Copies {
            counters: CopiesCounters::default(),
            fleet,
            link,
            outgoing,
            prefix: prefix.to_owned(),
            timeout,
            late: AtomicU32::new(0),
            slow: AtomicBool::new(false),
            next_probe: AtomicU64::new(0),
            since: clock::now(),
        }
    }

    /// Creates a link for the requests of one worker, to be run by it.
    pub(crate) fn link_of_worker(&self) -> Arc<Link> {
        Arc::new(self.link.another())
    }

    /// Returns the size of what waits to be written, in bytes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outgoing.bytes()
    }

    /// Returns the number of writes that were dropped because too much waited.
    pub(crate) fn dropped(&self) -> u64 {
        self.outgoing.dropped.load(Ordering::Relaxed)
    }

    /// Returns whether a request may look for a response now: the log is read, and Redis is not too slow.
    pub(crate) fn may_ask(&self, link: &Link, now: Instant) -> bool {
        if self.fleet.is_lost() || !link.is_up() {
            return false;
        }
        if !self.slow.load(Ordering::Relaxed) {
            return true;
        }
        let at = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        let due = self.next_probe.load(Ordering::Relaxed);
        let next = at.saturating_add(u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX));
        due <= at && self.next_probe.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Returns the name in Redis of the response to a cache key, `said` by the values of the fields it varies with.
    fn name(&self, epoch: &str, key: &[u8], said: &[u8]) -> String {
        let name = self.fleet.keys.name(&[&[value::VERSION], epoch.as_bytes(), key, said]);
        let mut text = format!("{{{}}}:c1:", self.prefix);
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
        name.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
        text
    }

    /// Looks for the response to a cache key; waits for Redis at most the timeout. `said` appends the values that the
    /// request has in these fields.
    pub(crate) async fn find(
        &self,
        link: &Link,
        key: &[u8],
        said: impl Fn(&[HeaderName], &mut Vec<u8>),
    ) -> Option<Found> {
        let began = clock::now();
        let found = tokio::time::timeout(self.timeout, self.look(link, key, said, began)).await;
        let (read, found) = match found {
            Ok(Ok(found)) => (Read::Hit, Some(found)),
            Ok(Err(read)) => (read, None),
            Err(_) => (Read::Late, None),
        };
        self.counters.count_read(read);
        self.note_pace(read == Read::Late);
        found
    }

    fn note_pace(&self, late: bool) {
        if late && self.late.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_LATE {
            self.slow.store(true, Ordering::Relaxed);
        } else if !late && self.late.load(Ordering::Relaxed) > 0 {
            self.late.store(0, Ordering::Relaxed);
            self.slow.store(false, Ordering::Relaxed);
        }
    }

    async fn look(
        &self,
        link: &Link,
        key: &[u8],
        said: impl Fn(&[HeaderName], &mut Vec<u8>),
        began: Instant,
    ) -> Result<Found, Read> {
        let epoch: Box<str> = self.fleet.positions().epoch().into();
        let mut varies = Vec::new();
        let (position, value, left) = match self.get(link, &self.name(&epoch, key, &varies)).await? {
            (_, Value::Names(names), _) => {
                write_names(&names, &mut varies);
                said(&names, &mut varies);
                self.get(link, &self.name(&epoch, key, &varies)).await?
            }
            found => found,
        };
        let Value::Response(received) = value else { return Err(Read::Unreadable) };
        let number = self.number_at(position).ok_or(Read::Unknown)?;
        let age = age(&received, left) + clock::now().saturating_duration_since(began);
        Ok(Found { received, age, number })
    }

    /// Returns what is under a cache key; waits for as long as a command may take.
    pub(crate) async fn peek(&self, key: &[u8]) -> Result<Peek, Read> {
        let epoch: Box<str> = self.fleet.positions().epoch().into();
        Ok(match self.get(&self.link, &self.name(&epoch, key, &[])).await? {
            (_, Value::Names(names), _) => Peek::Names(names),
            (position, Value::Response(received), left) => Peek::Response {
                age: age(&received, left),
                lifetime: received.freshness.lifetime,
                left,
                position,
                status: received.status,
                content: received.content.len(),
            },
        })
    }

    /// Returns where the clock of this process stood at a position, and before all that it invalidated and the others
    /// do not know yet.
    fn number_at(&self, position: StreamId) -> Option<u64> {
        // In this order: what comes back meanwhile stamps anew.
        let unreturned = self.fleet.outbox.unreturned_since();
        let number = self.fleet.positions().number_at(position)?;
        Some(unreturned.map_or(number, |unreturned| number.min(unreturned)))
    }

    async fn get(&self, link: &Link, name: &str) -> Result<(StreamId, Value, Duration), Read> {
        let commands = [Command::new("GET").arg(name), Command::new("PTTL").arg(name)];
        let [value, left] = match link.query_both(commands, link.timeout()).await {
            Ok(both) => both,
            Err(CommandError::Timeout) => return Err(Read::Late),
            Err(_) => return Err(Read::Failed),
        };
        let command::Value::Bytes(mut bytes) = value else { return Err(Read::Miss) };
        let (position, _) = bytes.split_at_checked(POSITION).ok_or(Read::Unreadable)?;
        let bound = [name.as_bytes(), position].concat();
        let position = std::str::from_utf8(position).ok().and_then(StreamId::parse);
        let position = position.ok_or(Read::Unreadable)?;
        let fleet = self.fleet.clone();
        let is_large = bytes.len() > LARGE;
        // Opened where it is, and copied once: into the chunks in which it is stored.
        let mut open = move || {
            let sealed = bytes.get_mut(POSITION..).unwrap_or_default();
            let content = fleet.keys.open_in_place(Purpose::Copy, &bound, sealed);
            content.ok().and_then(value::read)
        };
        let value = match is_large {
            true => tokio::task::spawn_blocking(open).await.map_err(|_| Read::Failed)?,
            false => open(),
        };
        let value = value.ok_or(Read::Unreadable)?;
        // Without an end it was not written by Pillion.
        let left = left.number().map(Duration::from_millis).ok_or(Read::Unreadable)?;
        Ok((position, value, left))
    }
}

/// Returns the age of a response (RFC 9111 4.2.3) that Redis still keeps for a time: by either clock, for that of the
/// writer may be wrong, and Redis may have been told late.
fn age(received: &Received, left: Duration) -> Duration {
    let times = received.times;
    let by_wall = clock::unix_at(clock::now()).saturating_sub(times.wall);
    times.age + by_wall.max(times.kept.saturating_sub(left))
}

/// Appends the fields that a response varies with to what its name is made of.
fn write_names(names: &[HeaderName], out: &mut Vec<u8>) {
    for name in names {
        out.extend_from_slice(name.as_str().as_bytes());
        out.push(b'\n');
    }
}

/// Writes a position as Redis can compare it.
fn position_text(position: StreamId) -> String {
    format!("{:020}-{:020}", position.milliseconds, position.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_compared_as_text() {
        let id = |milliseconds, sequence| StreamId { milliseconds, sequence };
        let all = [id(9, 10), id(10, 2), id(10, 10), id(u64::MAX, u64::MAX)];
        for pair in all.windows(2) {
            assert!(position_text(pair[0]) < position_text(pair[1]));
        }
        for id in all {
            let text = position_text(id);
            assert_eq!((text.len(), StreamId::parse(&text)), (POSITION, Some(id)));
        }
    }
}
