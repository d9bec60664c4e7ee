//! The health checks: how each is evaluated, and how they combine into readiness.

use std::time::Duration;

use serde_json::{Value, json};

use super::disk::{self, Disk};
use super::finding::{Finding, State};
use crate::metrics::read_process;
use crate::policy::{Awaited, Check, Requirement};
use crate::redis::link::{Role, Status};
use crate::runtime::clock;
use crate::state::live_policy::{SharedState, Snapshot};

/// Remaining validity below which a certificate is reported as degraded.
const CERTIFICATE_DEGRADED: Duration = Duration::from_secs(14 * 86_400);

/// Time without a heartbeat after which a worker is degraded: some task blocks its event loop.
const WORKER_DEGRADED: Duration = Duration::from_secs(3);
/// Time without a heartbeat after which a worker is unhealthy: it is taken to be stuck.
const WORKER_UNHEALTHY: Duration = Duration::from_secs(10);

/// Returns the checks of a process: that of Redis only where there is one.
pub(crate) fn checks(has_redis: bool) -> impl Iterator<Item = Check> {
    Check::ALL.into_iter().filter(move |check| has_redis || *check != Check::Redis)
}

pub(crate) fn run(check: Check, snapshot: &Snapshot, shared_state: &SharedState) -> Finding {
    match check {
        Check::Upstream => upstream(snapshot),
        Check::Memory => memory(snapshot),
        Check::Certificate => certificate(snapshot),
        Check::FileDescriptors => file_descriptors(snapshot),
        Check::Disk => disk(snapshot),
        Check::Workers => workers(shared_state),
        Check::Redis => redis(shared_state),
    }
}

/// Returns whether the process is ready by the checks in `health.ready_requires`; the error is the reason.
pub(crate) fn ready(snapshot: &Snapshot, shared_state: &SharedState) -> Result<(), String> {
    for requirement in &snapshot.policy.health.ready_requires {
        let lacking = match *requirement {
            Requirement::Check(check) => {
                let finding = run(check, snapshot, shared_state);
                (finding.status == State::Unhealthy).then_some(finding.detail)
            }
            Requirement::Upstream(index) => lacking(snapshot, index, Awaited::AnyAddress),
            Requirement::Primary => lacking(snapshot, 0, Awaited::Primary),
        };
        if let Some(detail) = lacking {
            return Err(format!("{}: {detail}", requirement.check().as_str()));
        }
    }
    Ok(())
}

/// Returns whether an upstream has not yet given its first response and has not had long enough to count as failing.
pub(crate) fn is_starting(snapshot: &Snapshot) -> bool {
    let now = clock::now();
    snapshot.upstreams.iter().enumerate().any(|(index, upstream)| {
        let threshold = upstream.policy.health.unhealthy_after;
        upstream.is_awaited(snapshot.policy.health.awaits(index))
            && upstream.is_starting(now)
            && upstream.addresses().iter().all(|(_, address)| address.is_well(threshold))
    })
}

/// Returns why the upstream at `index` has no address that has responded and is reachable; `None` if it has one.
fn lacking(snapshot: &Snapshot, index: usize, awaited: Awaited) -> Option<String> {
    let upstream = snapshot.upstreams.get(index)?;
    let (name, threshold) = (&upstream.policy.name, upstream.policy.health.unhealthy_after);
    let whose = match awaited {
        Awaited::Primary => format!("the url of {name}"),
        Awaited::AnyAddress | Awaited::Nothing => name.clone(),
    };
    if upstream.is_awaited(awaited) {
        return Some(format!("{whose} has not answered yet"));
    }
    let primary = upstream.policy.endpoints.first().map(|endpoint| &endpoint.url);
    let addresses = upstream.addresses();
    let mut counted = addresses.iter().filter(|(url, _)| awaited != Awaited::Primary || Some(url) == primary);
    let serves = counted.any(|(_, address)| address.has_responded() && address.is_reachable(threshold));
    (!serves).then(|| format!("no address of {whose} answers"))
}

fn upstream(snapshot: &Snapshot) -> Finding {
    let mut worst = State::Healthy;
    let mut sick = Vec::new();
    for (index, upstream) in snapshot.upstreams.iter().enumerate() {
        let threshold = upstream.policy.health.unhealthy_after;
        let addresses = upstream.addresses();
        let down: Vec<String> = addresses
            .iter()
            .filter(|(_, address)| !address.is_well(threshold))
            .map(|(_, address)| address.name.to_string())
            .collect();
        let awaited = snapshot.policy.health.awaits(index);
        let lacking = match awaited {
            Awaited::Nothing => None,
            awaited => lacking(snapshot, index, awaited),
        };
        if let Some(lacking) = lacking.filter(|_| down.is_empty() || awaited == Awaited::Primary) {
            worst = State::Unhealthy;
            sick.push(lacking);
        }
        if down.is_empty() {
            continue;
        }
        // Failing requests may be the fault of one client, but an unreachable upstream fails every client.
        let reached = addresses.iter().any(|(_, address)| address.is_reachable(threshold));
        let state = if reached { State::Degraded } else { State::Unhealthy };
        worst = worst.max(state);
        sick.push(format!(
            "{}, {} of {} addresses failing: {}",
            upstream.policy.name,
            down.len(),
            addresses.len(),
            down.join(", ")
        ));
    }
    let detail = if sick.is_empty() { "every known address answers".to_owned() } else { sick.join("; ") };
    Finding { status: worst, detail }
}

/// Iterates over the id of every upstream address and whether it is healthy.
pub(crate) fn states(snapshot: &Snapshot) -> impl Iterator<Item = (u64, bool)> {
    snapshot.upstreams.iter().flat_map(|upstream| {
        let threshold = upstream.policy.health.unhealthy_after;
        upstream.addresses().into_iter().map(move |(_, address)| (address.id, address.is_well(threshold)))
    })
}

/// Requests do not fail without Redis, so it is unhealthy only for those who require it.
fn redis(shared_state: &SharedState) -> Finding {
    let (Some(links), Some(fleet)) = (&shared_state.redis, &shared_state.fleet) else {
        return Finding { status: State::Healthy, detail: "[redis] is not configured".to_owned() };
    };
    // Requests that find no stored response in Redis ask the upstream.
    let mut required = links.all().filter(|link| link.role != Role::Copies);
    let down = required.find_map(|link| match &*link.status().borrow() {
        Status::Down { reason } if reason.is_empty() => Some("not connected yet".to_owned()),
        Status::Down { reason } => Some(reason.clone()),
        Status::Up { .. } => None,
    });
    if let Some(detail) = down {
        return Finding { status: State::Unhealthy, detail };
    }
    if fleet.is_lost() {
        let detail = "the invalidation log cannot be read".to_owned();
        return Finding { status: State::Unhealthy, detail };
    }
    let processes = fleet.view().live().count();
    let plural = if processes == 1 { "" } else { "es" };
    Finding { status: State::Healthy, detail: format!("connected; {processes} process{plural} in the fleet") }
}

fn memory(snapshot: &Snapshot) -> Finding {
    let resident = read_process().resident_bytes;
    let health = &snapshot.policy.health;
    let Some(limit) = health.memory_limit.filter(|limit| *limit > 0) else {
        return Finding {
            status: State::Healthy,
            detail: format!("{resident} bytes resident, no limit known"),
        };
    };
    let status = by_share(resident, limit, health.degraded_at);
    Finding { status, detail: format!("{resident} of {limit} bytes resident") }
}

/// Maps a usage to a state. Unhealthy begins half way between `degraded_at` and the limit, because a process at its
/// limit may no longer be able to report.
fn by_share(used: u64, limit: u64, degraded_at: f64) -> State {
    let share = used as f64 / limit.max(1) as f64;
    if share >= degraded_at.midpoint(1.0) {
        State::Unhealthy
    } else if share >= degraded_at {
        State::Degraded
    } else {
        State::Healthy
    }
}

fn file_descriptors(snapshot: &Snapshot) -> Finding {
    let process = read_process();
    let status = by_share(process.open_fds, process.max_fds, snapshot.policy.health.degraded_at);
    Finding { status, detail: format!("{} of {} file descriptors open", process.open_fds, process.max_fds) }
}

fn disk(snapshot: &Snapshot) -> Finding {
    let degraded_at = snapshot.policy.health.degraded_at;
    let disks = disk::read();
    let state = |disk: &Disk| by_share(disk.used, disk.total, degraded_at);
    let Some(status) = disks.iter().map(state).max() else {
        return Finding { status: State::Healthy, detail: "no log is written to a file".to_owned() };
    };
    let told = |Disk { name, used, total }: &Disk| {
        format!("{used} of {total} bytes used on the disk that {name} goes to")
    };
    let detail = disks.iter().map(told).collect::<Vec<_>>().join("; ");
    Finding { status, detail }
}

fn workers(shared_state: &SharedState) -> Finding {
    let ages = shared_state.heartbeats.ages(clock::now());
    let stuck = ages.iter().enumerate().max_by_key(|(_, age)| **age);
    let Some((worker, age)) = stuck.filter(|(_, age)| **age >= WORKER_DEGRADED) else {
        return Finding { status: State::Healthy, detail: format!("{} workers respond", ages.len()) };
    };
    let status = if *age >= WORKER_UNHEALTHY { State::Unhealthy } else { State::Degraded };
    Finding { status, detail: format!("worker {worker} has not responded for {} s", age.as_secs()) }
}

/// Lists how long ago each worker gave its last heartbeat.
pub(crate) fn signs_of_life(shared_state: &SharedState) -> Vec<Value> {
    let ages = shared_state.heartbeats.ages(clock::now()).into_iter().enumerate();
    ages.map(|(worker, age)| json!({ "worker": worker, "quiet_ms": age.as_millis() as u64 })).collect()
}

fn certificate(snapshot: &Snapshot) -> Finding {
    let now = clock::wall();
    let expiries = snapshot.policy.server.tls.iter().flat_map(|tls| &tls.expiries);
    let Some((path, expiry)) = expiries.min_by_key(|(_, expiry)| *expiry) else {
        return Finding { status: State::Healthy, detail: "no certificates in use".to_owned() };
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match expiry.duration_since(now) {
        Err(_) => Finding { status: State::Unhealthy, detail: format!("{name} has expired") },
        Ok(left) => {
            let status = if left < CERTIFICATE_DEGRADED { State::Degraded } else { State::Healthy };
            Finding { status, detail: format!("{name} expires in {} days", left.as_secs() / 86_400) }
        }
    }
}
