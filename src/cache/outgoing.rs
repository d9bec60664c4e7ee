//! Stored responses that other processes of a fleet may have, on their way to Redis. Requests put them in and wait for
//! nothing; one task takes them out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::circulation::Circulation;
use crate::cache::store::Key;
use crate::cache::store::stored::StoredResponse;

/// How long a fetch takes whose response is sent at once. One that is fetched faster is sent when it is asked for a
/// second time: most of the others are never asked for again.
const WORTHWHILE: Duration = Duration::from_millis(10);
/// Maximum size of what waits, in bytes. Beyond it the oldest makes room.
const MAX_BYTES: usize = 16 << 20;
/// Bytes that a job takes beside its key and its content.
const BOOKKEEPING: usize = 256;

/// The responses that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether also those of which each principal has its own copy.
    pub users: bool,
    /// Maximum size of their content in bytes.
    pub max_object_size: usize,
}

/// Something to be done in Redis.
#[derive(Debug)]
pub(crate) enum Job {
    Write(Key, StoredResponse),
    /// The response was withdrawn, so the others must not find it either.
    Remove(Key),
    /// The fetch of a response has ended: gives up the lock of this name, if it still has this value.
    Unlock(String, [u8; 32]),
}

impl Job {
    fn size(&self) -> usize {
        BOOKKEEPING
            + match self {
                Job::Write(key, stored) => key.len() + stored.content.pieces().len(),
                Job::Remove(key) => key.len(),
                Job::Unlock(name, value) => name.len() + value.len(),
            }
    }
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
}

/// The responses on their way; see the head of the file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    state: Mutex<State>,
    filled: Notify,
    settings: Settings,
    /// Jobs that made room for newer ones.
    pub dropped: AtomicU64,
}

impl Outgoing {
    /// Creates an empty queue.
    pub(crate) fn new(settings: Settings) -> Outgoing {
        Outgoing { state: Mutex::default(), filled: Notify::new(), settings, dropped: AtomicU64::new(0) }
    }

    /// Returns whether responses are sent of which each principal has its own copy.
    pub(crate) fn sends_users(&self) -> bool {
        self.settings.users
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a response that was just stored, unless it is better sent when it is asked for again.
    pub(super) fn stored(&self, key: &[u8], stored: &StoredResponse) {
        if stored.head.fetched_in >= WORTHWHILE {
            self.asked(key, stored);
        }
    }

    /// Sends a response that is asked for, if it was not sent yet.
    pub(crate) fn asked(&self, key: &[u8], stored: &StoredResponse) {
        if stored.head.circulation == Circulation::Shared && !stored.head.is_sent() && self.fits(stored) {
            stored.head.set_sent();
            self.push(Job::Write(key.into(), stored.clone()));
        }
    }

    /// Removes a response that was withdrawn.
    pub(super) fn withdraw(&self, key: &[u8]) {
        self.push(Job::Remove(key.into()));
    }

    /// Trailers are not sent, so their responses are not either.
    fn fits(&self, stored: &StoredResponse) -> bool {
        stored.content.pieces().len() <= self.settings.max_object_size && stored.content.trailers().is_none()
    }

    /// Puts a job in.
    pub(crate) fn push(&self, job: Job) {
        let mut state = self.state();
        state.bytes += job.size();
        state.jobs.push_back(job);
        while state.bytes > MAX_BYTES && state.jobs.len() > 1 {
            let Some(oldest) = state.jobs.pop_front() else { break };
            state.bytes -= oldest.size();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes out the oldest job; waits for one.
    pub(crate) async fn next(&self) -> Job {
        loop {
            {
                let mut state = self.state();
                if let Some(job) = state.jobs.pop_front() {
                    state.bytes -= job.size();
                    return job;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Returns the size of what waits in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }
}
