//! Memory for what waits for a slow peer or for its turn, and each client's share of what clients have in common.
//!
//! Clients are counted in fixed tables of atomics, by a hash of their address: counting a client takes no lock, and
//! no number of clients makes a table grow. Clients in one slot share its allowance.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

mod arrivals;

pub(crate) use arrivals::Arrival;

pub(crate) const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 10;

/// One client never holds more than this many eighths.
const EIGHTHS: usize = 7;
/// With so few, all of them are one client's: a share of one would halve an upstream that has two workers for all who
/// come through one address.
const SHARED_FROM: usize = 3;

/// Requests may go beyond the limit by this part of it: responses that fill the memory slow their upstreams, but refuse
/// no request.
const REQUESTS_BEYOND: usize = 16;
/// ... and by no less than this; bytes.
const MIN_BEYOND: usize = 1024 * 1024;

/// Memory of a waiting connection beside its buffers (its task, its request, its place in a line); bytes, measured with
/// `benches/attacks`.
pub(crate) const OF_A_WAIT: usize = 16 * 1024;

/// Memory that the allocator takes for buffers of `bytes` bytes: it rounds up.
pub(crate) const fn weight(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// The most that one client may hold of `total`.
pub(crate) fn client_share(total: usize) -> usize {
    if total < SHARED_FROM { total } else { total / 8 * EIGHTHS + total % 8 * EIGHTHS / 8 }
}

/// A client's slot in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientSlot(u16);

impl ClientSlot {
    /// The slot of a client: its address, or its network of `ipv6_prefix` bits, as one subscriber has all of that.
    pub(crate) fn new(address: IpAddr, ipv6_prefix: u8) -> ClientSlot {
        let bits = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => {
                let host = 128 - u32::from(ipv6_prefix.min(128));
                let network = u128::from(address).checked_shr(host).unwrap_or_default();
                (network ^ (network >> 64)) as u64 ^ (1 << 63)
            }
        };
        // Keyed, so that nobody can choose an address that shares the slot of another one.
        let mixed = (bits ^ seed()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ClientSlot((mixed >> (u64::BITS - SLOT_BITS)) as u16)
    }

    /// Its index in a table of [`SLOTS`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| fastrand::u64(..))
}

/// How what is polled just now is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Freely,
    /// Ahead of a peer that is slow: no buffer is so large that its end, which waits, holds much that is gone.
    Ahead,
    /// There is no room in the buffer memory: in small pieces.
    Pressed,
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Freely) };
}

/// How to read just now.
pub(crate) fn reading() -> Reading {
    READING.get()
}

/// Whether what is read just now finds no room in the buffer memory, and is to be read in small pieces.
pub(crate) fn is_pressed() -> bool {
    reading() == Reading::Pressed
}

/// Polls something that reads so.
pub(crate) fn while_reading<T>(reading: Reading, poll: impl FnOnce() -> T) -> T {
    READING.set(reading);
    let polled = poll();
    READING.set(Reading::Freely);
    polled
}

/// Polls something for a peer that is slow; without room it is read in small pieces.
pub(crate) fn while_pressed<T>(pressed: bool, poll: impl FnOnce() -> T) -> T {
    while_reading(if pressed { Reading::Pressed } else { Reading::Freely }, poll)
}

/// Memory that all buffers together may hold, and how much of it each client holds.
#[derive(Debug)]
pub(crate) struct BufferMemory {
    bytes: AtomicUsize,
    max: AtomicUsize,
    /// The most that one client may hold of it.
    share: AtomicUsize,
    by_client: Box<[AtomicUsize]>,
    arrivals: arrivals::Arrivals,
}

impl BufferMemory {
    /// At most `max` bytes.
    pub(crate) fn new(max: usize) -> BufferMemory {
        BufferMemory {
            bytes: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            share: AtomicUsize::new(client_share(max)),
            by_client: (0..SLOTS).map(|_| AtomicUsize::new(0)).collect(),
            arrivals: arrivals::Arrivals::default(),
        }
    }

    /// Whether a client may buffer more. The next piece may then exceed the limit, by one for each worker: its length is
    /// not known before. Room for content that may come unasked is left free.
    pub(crate) fn has_room(&self, client: ClientSlot) -> bool {
        let (max, kept) = (self.max(), self.kept_for_arrivals());
        self.bytes() + kept < max && self.held_by(client) + kept < self.share.load(Ordering::Relaxed)
    }

    /// A reservation for a request that is here already; `None` where it has to be refused.
    pub(crate) fn try_reserve_request(
        self: &Arc<BufferMemory>,
        client: ClientSlot,
        bytes: usize,
    ) -> Option<BufferReservation> {
        let limit = self.max().saturating_add(self.beyond());
        let mut reserved = BufferReservation::new(self.clone(), client);
        reserved.resize(bytes);
        (self.bytes() <= limit && self.held_by(client) <= client_share(limit)).then_some(reserved)
    }

    /// How far requests may go beyond the limit; bytes.
    fn beyond(&self) -> usize {
        (self.max() / REQUESTS_BEYOND).max(MIN_BEYOND)
    }

    /// A reservation for something that can be done without; `None` where there is no room for all of it.
    pub(crate) fn try_reserve(
        self: &Arc<BufferMemory>,
        client: ClientSlot,
        bytes: usize,
    ) -> Option<BufferReservation> {
        let mut reserved = BufferReservation::new(self.clone(), client);
        reserved.resize(bytes);
        let (kept, share) = (self.kept_for_arrivals(), self.share.load(Ordering::Relaxed));
        (self.bytes() + kept <= self.max() && self.held_by(client) + kept <= share).then_some(reserved)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes held for one client.
    pub(crate) fn held_by(&self, client: ClientSlot) -> usize {
        self.by_client.get(client.index()).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.share.store(client_share(max), Ordering::Relaxed);
    }

    fn add(&self, client: ClientSlot, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(held) = self.by_client.get(client.index()) {
            held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn subtract(&self, client: ClientSlot, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(held) = self.by_client.get(client.index()) {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Whether a client may buffer more, for the code that decides so before anything is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    memory: &'a Arc<BufferMemory>,
    client: ClientSlot,
}

impl<'a> Room<'a> {
    /// The room of `client`.
    pub(crate) fn new(memory: &'a Arc<BufferMemory>, client: ClientSlot) -> Room<'a> {
        Room { memory, client }
    }

    /// A reservation of nothing yet in it.
    pub(crate) fn reservation(&self) -> BufferReservation {
        BufferReservation::new(self.memory.clone(), self.client)
    }

    /// See [`BufferMemory::try_reserve`].
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<BufferReservation> {
        self.memory.try_reserve(self.client, bytes)
    }

    /// See [`BufferMemory::has_room`].
    pub(crate) fn is_left(&self) -> bool {
        self.memory.has_room(self.client)
    }

    pub(crate) fn memory(self) -> &'a Arc<BufferMemory> {
        self.memory
    }

    /// A reservation for what comes unasked.
    pub(crate) fn arrival(self) -> Arrival {
        Arrival::new(self.memory.clone(), self.client)
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(self) -> BufferReservation {
        BufferReservation::new(self.memory.clone(), self.client)
    }
}

/// Content that holds something, its part of the memory say, until the last reference to it is gone: a library that it was
/// handed to may keep it for as long as a client does not take it.
pub(crate) fn hold<T: Send + 'static>(content: Bytes, held: T) -> Bytes {
    Bytes::from_owner(Holding { content, _held: held })
}

struct Holding<T> {
    content: Bytes,
    _held: T,
}

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

/// The part of the memory that one buffer holds, given back when dropped.
#[derive(Debug)]
pub(crate) struct BufferReservation {
    memory: Arc<BufferMemory>,
    client: ClientSlot,
    bytes: usize,
}

impl BufferReservation {
    pub(crate) fn new(memory: Arc<BufferMemory>, client: ClientSlot) -> BufferReservation {
        BufferReservation { memory, client, bytes: 0 }
    }

    /// Whether the buffer may grow.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.has_room(self.client)
    }

    /// The buffer holds so many bytes now.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(self.client, bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.subtract(self.client, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Hands `bytes` of it, or all there is, to another owner.
    pub(crate) fn split(&mut self, bytes: usize) -> BufferReservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BufferReservation { memory: self.memory.clone(), client: self.client, bytes }
    }

    /// Takes over what another one of the same client and memory holds.
    pub(crate) fn join(&mut self, mut other: BufferReservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Whose share it is of.
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is a part of this client's share.
    pub(crate) fn belongs_to(&self, client: ClientSlot) -> bool {
        self.client == client
    }
}

impl Drop for BufferReservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_4_one_client_never_holds_more_than_seven_eighths() {
        for (total, share) in
            [(1, 1), (2, 2), (3, 2), (4, 3), (7, 6), (8, 7), (9, 7), (16, 14), (100, 87), (256, 224)]
        {
            assert_eq!(client_share(total), share, "of {total}");
            assert!(total < SHARED_FROM || client_share(total) * 8 <= total * 7, "of {total}");
        }
        let memory = Arc::new(BufferMemory::new(800));
        let (one, other) = (ClientSlot(1), ClientSlot(2));
        let mut held = BufferReservation::new(memory.clone(), one);
        held.resize(699);
        assert!(memory.has_room(one), "699 of 700");
        held.resize(700);
        assert!(!memory.has_room(one) && memory.has_room(other), "an eighth is left for others");
        let mut others = BufferReservation::new(memory.clone(), other);
        others.resize(100);
        assert!(!memory.has_room(other), "used up");
        held.resize(10);
        assert!(memory.has_room(one) && memory.has_room(other));
        drop((held, others));
        assert_eq!(memory.bytes(), 0);
        assert!(memory.by_client.iter().all(|held| held.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn n3_4_a_client_is_an_address_or_a_network() {
        let slot = |address: &str| ClientSlot::new(address.parse().unwrap(), 64);
        assert_eq!(slot("192.0.2.7"), slot("::ffff:192.0.2.7"), "however it is written");
        assert_eq!(slot("2001:db8:1:2::1"), slot("2001:db8:1:2:ffff::9"), "one subscriber's network");
        let addresses = (0..SLOTS as u32).map(|at| IpAddr::from((at | 0x0a00_0000).to_be_bytes()));
        let mut taken = std::collections::HashSet::new();
        taken.extend(addresses.map(|address| ClientSlot::new(address, 64).index()));
        // Thrown at random, 1024 addresses hit some 647 slots.
        assert!(taken.len() > 500, "{} slots", taken.len());
        assert!(taken.iter().all(|slot| *slot < SLOTS));
        ClientSlot::new("::1".parse().unwrap(), 0);
    }
}
