//! Keeps the responses of `[[warm]]` in the cache: it asks for them as a client without credentials would, at the start,
//! when they were invalidated, and before their freshness ends. No limit counts these requests, and no log has them.

mod schedule;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderName, HeaderValue, Method, header};
use tokio::sync::Semaphore;
use tower::Service as _;

use self::schedule::{Due, Outcome, Plan};
use super::cache::unattended::to_its_end;
use super::explain::{arrive, head::SampleRequest};
use super::record::{CacheHandling, HTTP_2};
use super::stack::{self, Parts};
use crate::fields::cache_status::CACHE_STATUS;
use crate::policy::{UpstreamPolicy, Warmed};
use crate::runtime::clock::{self, Instant};
use crate::runtime::lifecycle::{Lifecycle, Phase};
use crate::state::live_policy::Snapshot;
use crate::state::warming::{Vantage, Warmth};

/// Interval at which it is looked for what is due.
const LOOK: Duration = Duration::from_millis(100);
/// Maximum number of requests on their way.
const MAX_ASKING: usize = 4;
/// Maximum number of requests that are begun at once: one for what is stored already takes no time.
const MAX_BEGUN: usize = 50;
/// The address from which requests come that no trusted proxy sends.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// A response: what is asked for, and as which client.
type Place = (usize, usize);

/// Asks for what is due until the process drains. To be run by one worker.
pub(crate) async fn run(parts: Parts, lifecycle: Rc<Lifecycle>) {
    let mut view = parts.view.clone();
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    let mut schedule = Schedule::default();
    while lifecycle.phase() == Phase::Running {
        tokio::time::sleep(LOOK).await;
        let snapshot = view.load().clone();
        if snapshot.policy.warm.is_empty() || !snapshot.policy.cache.enabled {
            continue;
        }
        schedule.follow(&snapshot, &parts);
        let number = parts.shared_state.cache.invalidation.number();
        for (place, due) in schedule.due(number, clock::now()) {
            let Ok(permit) = asking.clone().try_acquire_owned() else { break };
            let Some((warmed, vantage)) = schedule.get(&snapshot, place) else { continue };
            schedule.begin(place, number);
            let (plans, generation) = (schedule.plans.clone(), snapshot.generation);
            let (parts, snapshot, told) = (parts.clone(), snapshot.clone(), schedule.told.clone());
            tokio::task::spawn_local(async move {
                let outcome = ask(&parts, &snapshot, &warmed.target, &vantage, due, &told).await;
                if let Some(plan) = plans.borrow_mut().get_mut(&(generation, place)) {
                    plan.end(outcome, clock::now(), fastrand::f64());
                }
                drop(permit);
            });
        }
    }
}

/// The responses by their generation and place, with their plans.
type Plans = Rc<RefCell<HashMap<(u64, Place), Plan>>>;

#[derive(Default)]
struct Schedule {
    generation: u64,
    /// Whether a client was seen.
    knows_clients: bool,
    /// The clients as which it is asked, for each of the configured responses.
    vantages: Vec<Vec<Vantage>>,
    plans: Plans,
    /// Targets of which it was said that they are not stored.
    told: Rc<RefCell<std::collections::HashSet<String>>>,
    turn: Cell<usize>,
}

impl Schedule {
    /// Follows the configuration, and how clients reach this process.
    fn follow(&mut self, snapshot: &Arc<Snapshot>, parts: &Parts) {
        if self.generation != snapshot.generation {
            self.generation = snapshot.generation;
            self.plans.borrow_mut().clear();
            self.told.borrow_mut().clear();
        }
        let seen = parts.shared_state.warming.vantages();
        if std::mem::replace(&mut self.knows_clients, !seen.is_empty()) != self.knows_clients {
            // What was asked for before is another client's.
            self.plans.borrow_mut().clear();
        }
        let upstream = snapshot.policy.upstreams.first();
        let of = |warmed: &Warmed| match &warmed.hosts[..] {
            [] if seen.is_empty() => vec![upstreams_own(upstream)],
            [] => seen.clone(),
            hosts => hosts.iter().map(|(tls, host)| vantage(*tls, host)).collect(),
        };
        self.vantages = snapshot.policy.warm.iter().map(of).collect();
        let now = clock::now();
        let mut plans = self.plans.borrow_mut();
        for (at, (warmed, vantages)) in snapshot.policy.warm.iter().zip(&self.vantages).enumerate() {
            for of in 0..vantages.len() {
                plans.entry((self.generation, (at, of))).or_insert_with(|| Plan::new(warmed.every, now));
            }
        }
    }

    /// Returns what is due; at another time others come first.
    fn due(&self, number: u64, now: Instant) -> Vec<(Place, Due)> {
        let plans = self.plans.borrow();
        let mut due: Vec<(Place, Due)> = plans
            .iter()
            .filter_map(|((_, place), plan)| plan.due(number, now).map(|due| (*place, due)))
            .collect();
        due.sort_unstable_by_key(|(place, _)| *place);
        let turn = self.turn.replace(self.turn.get().wrapping_add(MAX_BEGUN)) % due.len().max(1);
        due.rotate_left(turn);
        due.truncate(MAX_BEGUN);
        due
    }

    fn get(&self, snapshot: &Snapshot, (at, of): Place) -> Option<(Warmed, Vantage)> {
        Some((snapshot.policy.warm.get(at)?.clone(), self.vantages.get(at)?.get(of)?.clone()))
    }

    fn begin(&self, place: Place, number: u64) {
        if let Some(plan) = self.plans.borrow_mut().get_mut(&(self.generation, place)) {
            plan.begin(number);
        }
    }
}

fn vantage(tls: bool, host: &str) -> Vantage {
    Vantage { tls, host: host.to_owned(), proxy: None, told: Vec::new() }
}

/// The client that asks before any other did: under the name of the upstream.
fn upstreams_own(upstream: Option<&UpstreamPolicy>) -> Vantage {
    let url =
        upstream.and_then(|upstream| upstream.endpoints.first()).map(|endpoint| endpoint.url.parse::<Uri>());
    let authority = url.and_then(Result::ok).and_then(|url| url.authority().cloned());
    vantage(false, authority.as_ref().map_or("localhost", Authority::as_str))
}

/// Asks for a response, and again when it was fetched, to see whether it is stored.
async fn ask(
    parts: &Parts,
    snapshot: &Arc<Snapshot>,
    target: &PathAndQuery,
    vantage: &Vantage,
    due: Due,
    told: &RefCell<std::collections::HashSet<String>>,
) -> Outcome {
    let warming = &parts.shared_state.warming;
    let first = once(parts, snapshot, target, vantage, due).await;
    let seen = match first {
        Seen::Hit(_) => first,
        Seen::Fetched => once(parts, snapshot, target, vantage, Due::Look).await,
        other => other,
    };
    let (warmth, outcome) = match seen {
        Seen::Hit(left) if first == seen => (Warmth::Stored, Outcome::Fresh(left)),
        Seen::Hit(left) => (Warmth::Fetched, Outcome::Fresh(left)),
        Seen::Failed => (Warmth::Failed, Outcome::Failed),
        Seen::Fetched | Seen::NotStored(_) => (Warmth::NotStored, Outcome::NotStored),
    };
    warming.count(warmth);
    if let Seen::NotStored(reason) = seen
        && told.borrow_mut().insert(target.to_string())
    {
        tracing::warn!(
            path = target.path(),
            reason,
            "a response of [[warm]] is not stored for all users, so it is fetched in vain"
        );
    }
    outcome
}

/// What one request showed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// It is stored, and fresh for this time.
    Hit(Duration),
    Fetched,
    NotStored(&'static str),
    Failed,
}

async fn once(
    parts: &Parts,
    snapshot: &Arc<Snapshot>,
    target: &PathAndQuery,
    vantage: &Vantage,
    due: Due,
) -> Seen {
    let Some(sample) = sample(target, vantage, due) else { return Seen::Failed };
    let Ok(observed) = arrive(&sample, (HTTP_2, clock::now()), snapshot, &parts.sink) else {
        return Seen::Failed;
    };
    let record = observed.record.clone();
    let mut layers = stack::without_limits(parts);
    let Ok(mut response) = layers.call(observed).await;
    record.add_own_fields(response.headers_mut());
    let status = response.status();
    let left = response.headers().get(CACHE_STATUS).and_then(left);
    to_its_end(response.into_body()).await;
    match (record.cache.handling(), record.cache.not_stored()) {
        (Some(CacheHandling::Hit | CacheHandling::Revalidated), None) => match left {
            Some(left) => Seen::Hit(left),
            None => Seen::Fetched,
        },
        _ if status.is_server_error() || record.error.get().is_some() => Seen::Failed,
        (_, Some(reason)) => Seen::NotStored(reason),
        _ => Seen::Fetched,
    }
}

/// Reads the `ttl` of this cache, the last member of `Cache-Status` (RFC 9211 2.5).
fn left(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?;
    let member = value.rsplit(',').next()?;
    let ttl = member.split(';').find_map(|parameter| parameter.trim().strip_prefix("ttl="))?;
    Some(Duration::from_secs(u64::try_from(ttl.parse::<i64>().ok()?).unwrap_or(0)))
}

fn sample(target: &PathAndQuery, vantage: &Vantage, due: Due) -> Option<SampleRequest> {
    let scheme = if vantage.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(vantage.host.as_str());
    let mut fields: Vec<(HeaderName, HeaderValue)> = vantage.told.clone();
    if due == Due::Renew {
        // Longer than anything is fresh: what is stored is revalidated.
        fields.push((header::CACHE_CONTROL, HeaderValue::from_static("min-fresh=2147483648")));
    }
    Some(SampleRequest {
        method: Method::GET,
        uri: uri.path_and_query(target.clone()).build().ok()?,
        fields,
        client: vantage.proxy.unwrap_or(NOBODY),
        content: None,
        claims: None,
    })
}
