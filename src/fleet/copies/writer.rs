//! Writes stored responses to Redis, one after the other, behind the requests that brought them.

use std::sync::LazyLock;
use std::time::Duration;

use super::copies_counters::Write;
use super::value::{self, Times};
use super::{Copies, LARGE, position_text, write_names};
use crate::cache::outgoing::Job;
use crate::cache::store::stored::StoredResponse;
use crate::fleet::seal::Purpose;
use crate::fleet::stream_id::StreamId;
use crate::redis::command::{Command, CommandError};
use crate::redis::script::Script;
use crate::runtime::clock;

/// Maximum time that Redis keeps a response.
const MAX_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Time that a response must still be fresh to be worth its write.
const MIN_FRESH: Duration = Duration::from_secs(1);

/// Writes a value unless there is one of a later position.
static SET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "\
local there = redis.call('GETRANGE', KEYS[1], 0, 40)
if there > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

/// Removes a lock, if it is still the same.
static UNLOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "\
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0",
    )
});

impl Copies {
    /// Writes what is there to be written, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            let job = self.outgoing.next().await;
            let write = match job {
                _ if self.fleet.is_lost() || !self.link.is_up() => Write::Skipped,
                Job::Write(key, stored) => self.write(&key, &stored).await,
                Job::Remove(key) => self.remove(&key).await,
                Job::Unlock(name, value) => {
                    let with = |command: Command| command.number(1).arg(&name).arg(value);
                    // It ends by itself.
                    let _ = UNLOCK.run(&self.link, self.link.timeout(), with).await;
                    continue;
                }
            };
            self.counters.count_write(write);
        }
    }

    async fn write(&self, key: &[u8], stored: &StoredResponse) -> Write {
        let head = &stored.head;
        let (epoch, position) = {
            let positions = self.fleet.positions();
            (Box::<str>::from(positions.epoch()), positions.position_of(head.fetch_epoch.number))
        };
        // A fetch that began before this process read the log, or in another epoch, cannot be compared.
        let Some(position) = position else { return Write::Skipped };
        let now = clock::now();
        let age = head.age(now);
        let freshness = &head.freshness;
        let fresh = freshness.lifetime.saturating_sub(age);
        if fresh < MIN_FRESH || !self.outgoing_is_valid(stored) {
            return Write::Skipped;
        }
        let stale = freshness.while_revalidate.max(freshness.if_error).max(freshness.if_unreachable);
        let kept = (fresh + stale).min(MAX_KEPT);
        let times = Times { age, wall: clock::unix_at(now), kept };
        let mut varies = Vec::new();
        let mut names: Vec<_> = head.variant.fields().map(|(name, _)| name.clone()).collect();
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        if !names.is_empty() {
            let primary = self.name(&epoch, key, &varies);
            let written = self.set(primary, position, value::names(&names), kept).await;
            if !matches!(written, Ok(true)) {
                return result(written);
            }
            write_names(&names, &mut varies);
            head.variant.append(&names, &mut varies);
        }
        let name = self.name(&epoch, key, &varies);
        result(self.set(name, position, value::response(stored, times), kept).await)
    }

    /// Returns whether nothing invalidated a response while it waited.
    fn outgoing_is_valid(&self, stored: &StoredResponse) -> bool {
        let head = &stored.head;
        !self.fleet.cache.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch)
    }

    async fn set(
        &self,
        name: String,
        position: StreamId,
        content: Vec<u8>,
        kept: Duration,
    ) -> Result<bool, CommandError> {
        let position = position_text(position);
        let bound = [name.as_bytes(), position.as_bytes()].concat();
        let sealed = if content.len() > LARGE {
            let fleet = self.fleet.clone();
            let seal = move || fleet.keys.seal(Purpose::Copy, &bound, &content);
            tokio::task::spawn_blocking(seal)
                .await
                .map_err(|error| CommandError::Broken(error.to_string()))?
        } else {
            self.fleet.keys.seal(Purpose::Copy, &bound, &content)
        };
        let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        let with = |command: Command| command.number(1).arg(&name).arg(&position).arg(&sealed).number(kept);
        Ok(SET.run(&self.link, self.link.timeout(), with).await?.number() == Some(1))
    }

    /// Removes the response to a key. What it varied with is gone with it, so its variants are not found either.
    async fn remove(&self, key: &[u8]) -> Write {
        let epoch: Box<str> = self.fleet.positions().epoch().into();
        let del = Command::new("DEL").arg(self.name(&epoch, key, &[]));
        match self.link.query(&del, self.link.timeout()).await {
            Ok(_) => Write::Removed,
            Err(_) => Write::Failed,
        }
    }
}

fn result(written: Result<bool, CommandError>) -> Write {
    match written {
        Ok(true) => Write::Written,
        Ok(false) => Write::Older,
        Err(error) => {
            tracing::debug!(%error, "a stored response was not written to Redis");
            Write::Failed
        }
    }
}
