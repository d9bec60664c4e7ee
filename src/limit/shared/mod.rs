//! Limits that all processes of a fleet count together, in Redis. A process takes a [`lease`] of tokens from the shared
//! bucket of a caller and spends it by itself, so that most requests ask nobody. A request waits for Redis at most
//! [`Settings::timeout`]; while Redis is away nobody waits, and `on_error` decides.

pub(crate) mod lease;
#[cfg(test)]
mod model;
mod script;
pub(crate) mod standing;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;

use self::lease::{Demand, Grant, Look, Terms};
use super::cells::{Cell, Kind};
use super::gcra::{Nanoseconds, Quota};
use super::tier::Limit;
use crate::redis::command::{Command, CommandError, Value};
use crate::redis::link::Link;
use crate::rendering::words::words;
use crate::runtime::clock::{self, nanoseconds};
use crate::runtime::log_throttle::LogThrottle;

/// Time between two questions while Redis is away.
const PROBE: Duration = Duration::from_millis(100);
/// Number of responses in a row that must come too late before requests do not wait for any, and in time before they do
/// again: a server whose responses take about the timeout must not change its state with each.
const ROW: u32 = 3;
/// Maximum number of questions on their way.
const MAX_ASKING: usize = 4096;
/// A limit whose burst is below this many times the number of processes is counted exactly: its tokens are too few to be
/// leased.
const FEW: u32 = 4;

words! {
    /// The decision about requests while Redis is away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum OnError {
        /// Each process counts by itself, with its share of the rate.
        Local => "local",
        /// Requests pass.
        Open => "open",
        /// Requests are refused with 503.
        Closed => "closed",
    }
}

/// The settings of shared limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub on_error: OnError,
    /// How long a request waits for Redis.
    pub timeout: Duration,
    /// The number of processes before it is known.
    pub replicas: usize,
}

/// The counters of shared limits.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Questions with a response.
    pub succeeded: AtomicU64,
    /// Questions without a response.
    pub failed: AtomicU64,
    /// Requests that were decided without Redis although their limits are shared.
    pub alone: AtomicU64,
}

/// The shared limits of a process.
#[derive(Debug)]
pub(crate) struct SharedLimits {
    pub settings: Settings,
    pub counters: Counters,
    link: Arc<Link>,
    prefix: String,
    /// Number of processes that are alive; 0: not known yet.
    live: Arc<AtomicUsize>,
    away: AtomicBool,
    /// Responses in a row that speak for the other state.
    row: AtomicU32,
    /// Bounds the lines about a server that comes and goes.
    told: Mutex<LogThrottle>,
    /// The time of the next question while Redis is away.
    next_probe: AtomicU64,
    asking: AtomicUsize,
}

impl SharedLimits {
    pub(crate) fn new(
        settings: Settings,
        link: Arc<Link>,
        prefix: &str,
        live: Arc<AtomicUsize>,
    ) -> SharedLimits {
        SharedLimits {
            settings,
            counters: Counters::default(),
            link,
            prefix: prefix.to_owned(),
            live,
            away: AtomicBool::new(false),
            row: AtomicU32::new(0),
            told: Mutex::new(LogThrottle::new(2)),
            next_probe: AtomicU64::new(0),
            asking: AtomicUsize::new(0),
        }
    }

    /// Number of processes that share the limits.
    pub(crate) fn live(&self) -> usize {
        match self.live.load(Ordering::Relaxed) {
            0 => self.settings.replicas.max(1),
            live => live,
        }
    }

    /// Whether requests are decided without Redis.
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Notes whether a response came in time; several in a row decide.
    fn note_pace(&self, late: bool) {
        if late == self.is_away() {
            self.row.store(0, Ordering::Relaxed);
        } else if self.row.fetch_add(1, Ordering::Relaxed) + 1 >= ROW {
            self.set_away(late, "it responds too late");
        }
    }

    fn set_away(&self, away: bool, why: &str) {
        self.row.store(0, Ordering::Relaxed);
        if self.away.swap(away, Ordering::Relaxed) == away {
            return;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.may(clock::now()).is_none() {
            return;
        }
        let on_error = self.settings.on_error.as_str();
        if away {
            tracing::warn!(on_error, why, "limits are not counted with the other processes: Redis is away");
        } else {
            tracing::info!("limits are counted with the other processes");
        }
    }

    /// Returns whether one question may be asked although Redis is away, to see whether it is back.
    pub(super) fn may_probe(&self, now: Nanoseconds) -> bool {
        let due = self.next_probe.load(Ordering::Relaxed);
        let next = now.saturating_add(nanoseconds(PROBE));
        due <= now
            && self.next_probe.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The terms of a limit at the present number of processes.
    pub(super) fn terms(&self, limit: &Limit) -> Terms {
        let live = u32::try_from(self.live()).unwrap_or(u32::MAX);
        let is_exact = limit.exact || limit.quota.burst.get() < live.saturating_mul(FEW);
        Terms::new(limit.rule, &limit.quota, is_exact)
    }

    /// The time before which a question that begins now has ended: it may be sent twice.
    pub(super) fn ends_before(&self, now: Nanoseconds) -> Nanoseconds {
        now.saturating_add(nanoseconds(self.link.timeout().saturating_mul(2) + PROBE))
    }

    /// The name of a caller's hash. The braces keep it in the slot of the log, to which the link leads.
    fn key(&self, hash: u128) -> String {
        format!("{{{}}}:l1:{hash:032x}", self.prefix)
    }

    /// The share of a limit that this process has while Redis is away.
    pub(super) fn share(&self, quota: &Quota) -> Quota {
        let live = u32::try_from(self.live()).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(quota.burst.get() / live).unwrap_or(NonZeroU32::MIN);
        // A share whose burst takes too long to refill is none; then the whole limit is.
        Quota::new(quota.count, quota.period.saturating_mul(live), burst).unwrap_or(*quota)
    }

    async fn query(&self, key: &str, demands: &[Demand]) -> Result<(u64, Vec<Grant>), CommandError> {
        let timeout = self.link.timeout();
        let live = self.live();
        let with = |command| script::arguments(command, key, live, demands);
        let value = script::TAKE.run(&self.link, timeout, with).await?;
        let unexpected = || CommandError::Unexpected(format!("{value:?}"));
        script::response(&value, demands.len()).ok_or_else(unexpected)
    }

    /// Asks for tokens of a caller; `clock` is the present time of the limiter. Returns the time of the server and its
    /// grants, or `None`.
    pub(super) async fn ask(
        &self,
        hash: u128,
        demands: &[Demand],
        clock: impl Fn() -> Nanoseconds,
    ) -> Option<(u64, Vec<Grant>)> {
        let sent = clock();
        let response = match self.asking.fetch_add(1, Ordering::Relaxed) < MAX_ASKING {
            true => self.query(&self.key(hash), demands).await,
            false => Err(CommandError::Down),
        };
        self.asking.fetch_sub(1, Ordering::Relaxed);
        match &response {
            Ok(_) => {
                self.counters.succeeded.fetch_add(1, Ordering::Relaxed);
                let late = clock().saturating_sub(sent) > nanoseconds(self.settings.timeout);
                self.note_pace(late);
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                self.set_away(true, &error.to_string());
            }
        }
        response.ok()
    }

    /// Forgets what a caller has used, in Redis.
    pub(crate) async fn reset(&self, hash: u128) -> Result<(), CommandError> {
        let del = Command::new("DEL").arg(self.key(hash));
        self.link.query(&del, self.link.timeout()).await.map(drop::<Value>)
    }

    /// Returns what is left of each limit of a caller, by the shared buckets, without taking anything.
    pub(crate) async fn look(
        &self,
        hash: u128,
        limits: &[Limit],
    ) -> Result<Vec<(u32, Duration)>, CommandError> {
        let nothing = |limit: &Limit| Demand {
            terms: Terms::new(limit.rule, &limit.quota, true),
            cost: 0,
            wanted: 0,
            back: 0,
            since: 0,
        };
        let demands: Vec<Demand> = limits.iter().map(nothing).collect();
        let (_, grants) = self.query(&self.key(hash), &demands).await?;
        Ok(grants.iter().map(|grant| (grant.left, Duration::from_nanos(grant.full))).collect())
    }
}

/// An undecided request: it waits for a response of the server.
#[derive(Debug)]
pub(super) struct Open {
    /// Ends when the response is there.
    pub done: OwnedNotified,
    /// The question that this request has to send; empty if another one did already.
    pub demands: Vec<Demand>,
}

/// Looks at the leases of a caller; a question would end before `until`. Returns what each says to a request, or what has to be asked.
pub(super) fn look(
    cell: &mut Cell,
    limits: &[(usize, Terms)],
    cost: impl Fn(&Terms) -> u32,
    now: Nanoseconds,
    until: Nanoseconds,
) -> Result<SmallVec<[Look; 2]>, Box<Open>> {
    let shared = cell.shared();
    let looks: SmallVec<[Look; 2]> =
        limits.iter().map(|(_, terms)| shared.lease(terms.rule).look(cost(terms), now)).collect();
    let is_refused = looks.iter().any(|look| matches!(look, Look::Refused(_)));
    if is_refused || !looks.contains(&Look::Ask) {
        return Ok(looks);
    }
    // Made under the lock of the cell, so that no response comes before it.
    let done = shared.done.clone().notified_owned();
    if shared.is_asking(now) {
        return Err(Box::new(Open { done, demands: Vec::new() }));
    }
    let lacking = limits.iter().zip(&looks).filter(|(_, look)| **look == Look::Ask);
    let demands =
        lacking.map(|((_, terms), _)| shared.lease(terms.rule).demand(*terms, cost(terms), now)).collect();
    shared.begin(until);
    Err(Box::new(Open { done, demands }))
}

/// Returns whether the limits of a cell are shared: the cell of all who found no place is not.
pub(super) fn is_shared(cell: &Cell) -> bool {
    cell.key().kind != Kind::Overflow
}
