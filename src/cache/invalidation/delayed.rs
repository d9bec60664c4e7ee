//! Invalidations that are repeated after a while: for upstreams that read from replicas that lag, and for writes whose
//! outcome is unknown.
//!
//! Repeats with the same keys and mode are merged; for each occasion the later time wins. The number pending for one
//! client is limited, so a flood of unfinished writes affects nothing but their own targets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::{Invalidation, Mode};
use crate::runtime::clock::Instant;

/// Maximum number pending at once. A further one is not repeated.
const MAX: usize = 10_000;
/// Maximum number pending at once for one client. A further one is not repeated.
const MAX_OF_CLIENT: u16 = 64;

/// Times after a write of unknown outcome at which its invalidation is repeated: the upstream may still be working on
/// it.
const UNKNOWN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
/// Number of times one invalidation is repeated: once for `settle` of a rule, and those for an unknown outcome.
const OCCASIONS: usize = 1 + UNKNOWN.len();

/// The network of a client, as the limits identify clients.
pub(crate) type Client = [u8; 16];

/// The reason why an invalidation is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The invalidation rule has `settle`.
    Settle(Duration),
    /// The outcome of the write is unknown.
    UnknownOutcome,
}

impl Repeat {
    fn times(self, now: Instant) -> [Option<Instant>; OCCASIONS] {
        match self {
            Repeat::Settle(after) => [Some(now + after), None, None, None],
            Repeat::UnknownOutcome => {
                let [first, second, third] = UNKNOWN.map(|after| Some(now + after));
                [None, first, second, third]
            }
        }
    }
}

/// The keys and the mode of an invalidation.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Names {
    invalidation_keys: Box<[InvalidationKey]>,
    mode: Mode,
}

#[derive(Debug)]
struct Pending {
    due: [Option<Instant>; OCCASIONS],
    /// The client whose limit it counts against; `None` for an invalidation of another process.
    client: Option<Client>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<Names, Pending>,
    of_client: HashMap<Client, u16>,
}

/// The pending invalidations; see the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<State>);

impl Settling {
    /// Schedules the repeats; returns false if too many are pending and there will be none.
    pub(crate) fn add(
        &self,
        invalidation_keys: &[InvalidationKey],
        mode: Mode,
        repeat: Repeat,
        client: Option<Client>,
        now: Instant,
    ) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { pending, of_client } = &mut *state;
        let full = pending.len() >= MAX;
        let times = repeat.times(now);
        match pending.entry(Names { invalidation_keys: invalidation_keys.into(), mode }) {
            Entry::Occupied(mut known) => {
                let due = &mut known.get_mut().due;
                due.iter_mut().zip(times).for_each(|(due, time)| *due = (*due).max(time));
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(place) => {
                if let Some(client) = client {
                    let count = of_client.entry(client).or_default();
                    if *count >= MAX_OF_CLIENT {
                        return false;
                    }
                    *count += 1;
                }
                place.insert(Pending { due: times, client });
            }
        }
        true
    }

    /// Runs the invalidations that are due.
    pub(crate) fn run(&self, invalidation: &Invalidation, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { pending, of_client } = &mut *state;
        pending.retain(|names, waiting| {
            let mut fires = false;
            for due in &mut waiting.due {
                fires |= due.take_if(|due| *due <= now).is_some();
            }
            if fires {
                invalidation.stamp(&names.invalidation_keys, names.mode, now);
            }
            let stays = waiting.due.iter().any(Option::is_some);
            if !stays
                && let Some(client) = waiting.client
                && let Entry::Occupied(mut count) = of_client.entry(client)
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::Validity;
    use crate::runtime::clock;

    const ONE: Client = [1; 16];

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_second_stamp_comes_later() {
        let now = clock::now();
        let invalidation = Invalidation::new(1, 1 << 20, now);
        let settling = Settling::default();
        let invalidation_keys = [invalidation.key_hasher.tag("a")];
        let begun = invalidation.begin(&Default::default(), now);
        assert!(settling.add(&invalidation_keys, Mode::Hard, Repeat::Settle(seconds(2)), Some(ONE), now));
        settling.run(&invalidation, now + seconds(1));
        assert_eq!(invalidation.validity(&invalidation_keys, begun, now), Validity::Valid);
        settling.run(&invalidation, now + seconds(2));
        assert_eq!(invalidation.validity(&invalidation_keys, begun, now), Validity::Gone);
    }

    #[test]
    fn n3_8_repeats_of_the_same_names_are_merged_and_the_later_time_wins() {
        let now = clock::now();
        let invalidation = Invalidation::new(1, 1 << 20, now);
        let settling = Settling::default();
        let invalidation_keys = [invalidation.key_hasher.tag("a")];
        for later in 0..1000 {
            assert!(settling.add(&invalidation_keys, Mode::Hard, Repeat::UnknownOutcome, Some(ONE), now));
            let later = now + Duration::from_millis(later);
            assert!(settling.add(
                &invalidation_keys,
                Mode::Hard,
                Repeat::Settle(seconds(2)),
                Some(ONE),
                later
            ));
        }
        assert_eq!(settling.0.lock().unwrap().pending.len(), 1);
        let fires = |at: Duration| {
            let begun = invalidation.begin(&Default::default(), now + at);
            settling.run(&invalidation, now + at);
            invalidation.validity(&invalidation_keys, begun, now) == Validity::Gone
        };
        for (milliseconds, wanted) in [
            (999, false),
            (1000, true),
            (2000, false),
            (2998, false),
            (2999, true),
            (4999, false),
            (5000, true),
            (29_999, false),
            (30_000, true),
            (60_000, false),
        ] {
            assert_eq!(fires(Duration::from_millis(milliseconds)), wanted, "{milliseconds} ms");
        }
        let state = settling.0.lock().unwrap();
        assert!(state.pending.is_empty() && state.of_client.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn n3_8_a_client_keeps_64_waiting_and_all_clients_10_000() {
        let now = clock::now();
        let invalidation = Invalidation::new(1, 1 << 20, now);
        let settling = Settling::default();
        let add = |tag: u32, client: u32| {
            let invalidation_keys = [invalidation.key_hasher.tag(&tag.to_string())];
            let mut network = Client::default();
            network[..4].copy_from_slice(&client.to_be_bytes());
            settling.add(&invalidation_keys, Mode::Hard, Repeat::UnknownOutcome, Some(network), now)
        };
        let mine = (0..100).filter(|tag| add(*tag, 1)).count();
        assert_eq!(mine, 64);
        assert!(add(63, 1), "a repeat of the same is merged, and takes no place");
        let all = mine + (100..20_000).filter(|tag| add(*tag, *tag)).count();
        assert_eq!(all, 10_000);
        let everything = [invalidation.key_hasher.everything()];
        let begun = invalidation.begin(&Default::default(), now);
        settling.run(&invalidation, now + seconds(30));
        assert_eq!(
            invalidation.validity(&everything, begun, now),
            Validity::Valid,
            "nothing else is stamped"
        );
        assert!(add(0, 1), "there is room again");
    }
}
