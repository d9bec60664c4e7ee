//! One fetch for the fleet: a process that finds no response of another takes a lock in Redis before a fetch that takes
//! long, and the others look again until the response is there. A lock ends by itself, so a process that dies or hangs
//! stops nobody for longer than the fetch usually takes.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;

use super::Copies;
use crate::cache::collapse::Held;
use crate::cache::outgoing::{Job, Outgoing};
use crate::fleet::entry::Sender;
use crate::fleet::seal;
use crate::redis::command::Command;

/// How long a fetch usually takes from which on the fleet fetches once.
pub(crate) const WORTHWHILE: Duration = Duration::from_millis(50);
/// Bounds of the life of a lock, which is twice as long as the fetch usually takes.
const LIVES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Pause before a process looks again, doubled with each.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause.
pub(crate) const MAX_PAUSE: Duration = Duration::from_millis(160);

/// The state of a lock that was asked for.
#[derive(Debug)]
pub(crate) enum Locked {
    /// This process fetches.
    Here(Lock),
    /// Another one does.
    Elsewhere(Holder),
    /// Redis does not say.
    Unknown,
}

/// A lock of this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    outgoing: Arc<Outgoing>,
    name: String,
    value: [u8; 32],
}

impl Held for Lock {}

impl Drop for Lock {
    /// Gives the lock up behind the response, if one is sent.
    fn drop(&mut self) {
        self.outgoing.push(Job::Unlock(std::mem::take(&mut self.name), self.value));
    }
}

/// A lock of another process.
#[derive(Debug)]
pub(crate) struct Holder {
    name: String,
    value: Vec<u8>,
}

impl Copies {
    /// Takes the lock of a cache key; `usual` is how long its fetch usually takes.
    pub(crate) async fn lock(&self, key: &[u8], usual: Duration) -> Locked {
        let epoch: Box<str> = self.fleet.positions().epoch().into();
        let name = self.name(&epoch, key, b"lock");
        let life = (usual * 2).clamp(LIVES.0, LIVES.1);
        let mut value = [0; 32];
        let (sender, random) = value.split_at_mut(16);
        sender.copy_from_slice(&self.fleet.sender.0);
        // A lock that ended and was taken by another process is not given up.
        random.copy_from_slice(&seal::fill::<16>(&SystemRandom::new()));
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let set = Command::new("SET").arg(&name).arg(value).arg("NX").arg("PX").number(life);
        let both = [set, Command::new("GET").arg(&name)];
        let Ok([_, found]) = self.link.query_both(both, self.timeout).await else { return Locked::Unknown };
        match found.bytes() {
            Some(found) if found == value => {
                Locked::Here(Lock { outgoing: self.outgoing.clone(), name, value })
            }
            Some(found) => Locked::Elsewhere(Holder { name, value: found.to_vec() }),
            None => Locked::Unknown,
        }
    }

    /// Returns whether a process still fetches: it has its lock, and is alive.
    pub(crate) async fn is_held(&self, holder: &Holder) -> bool {
        let get = Command::new("GET").arg(&holder.name);
        let held = self.link.query(&get, self.timeout).await;
        let is_same = held.is_ok_and(|value| value.bytes() == Some(&holder.value));
        let sender = holder.value.first_chunk().map(|sender| Sender(*sender));
        is_same && self.fleet.view.borrow().live().any(|member| Some(member.sender) == sender)
    }
}
