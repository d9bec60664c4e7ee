//! The rate-limit endpoints of the admin listener: the state of one key, and the keys that are limited most. Keys
//! appear by their name in the key file or by their hash, never in clear.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::control::Control;
use super::report::Report;
use crate::limit::cells::{Cell, Key};
use crate::limit::tier::Tier;
use crate::policy::limits::{LimitPolicy, ListedKey};
use crate::runtime::clock;
use crate::state::live_policy::Snapshot;

/// Number of keys listed if the request does not say.
const USUALLY_SHOWN: usize = 20;
const MAX_SHOWN: usize = 1000;

fn refused(detail: impl Into<String>) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, detail.into())
}

fn listed(policy: &LimitPolicy, partition: u128) -> Option<&Arc<ListedKey>> {
    policy.listed.values().find(|key| key.partition == partition)
}

/// Formats a partition hash as the admin API shows and accepts it.
fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

/// Returns the partition hash of the key that a request names: by a name from the key file, a hash as `/limits/top`
/// shows it, or an address.
fn partition(snapshot: &Snapshot, parameters: &[(String, String)]) -> Result<u128, (StatusCode, String)> {
    let policy = &snapshot.policy.limits;
    let Some((_, given)) = parameters.iter().find(|(name, _)| name == "key") else {
        return Err(refused(
            "the parameter key is missing; give a name in the file of keys, a hash as /limits/top \
            shows it, or an IP address",
        ));
    };
    let by_name = policy.listed.values().find(|key| key.name.as_deref() == Some(given));
    let by_address = given
        .parse::<IpAddr>()
        .ok()
        .map(|address| snapshot.policy.identity.hasher().network(&policy.network(address)));
    let by_hash = (given.len() == 32).then(|| u128::from_str_radix(given, 16).ok()).flatten();
    by_name.map(|key| key.partition).or(by_address).or(by_hash).ok_or_else(|| {
        (
            StatusCode::NOT_FOUND,
            format!("{given:?} is neither a name in the file of keys, nor a hash, nor an IP address"),
        )
    })
}

/// Handles `GET /limits/status?key=`. Where limits are shared, Redis is asked for their state.
pub(super) async fn status(control: &Control, parameters: &[(String, String)]) -> Report {
    let snapshot = control.live.load_full();
    let policy = &snapshot.policy.limits;
    let hash = partition(&snapshot, parameters)?;
    let limiter = &control.shared_state.limiter;
    let now = clock::now();
    let own = listed(policy, hash);
    let of = |cell: &mut Cell| (cell.key(), cell.allowed, cell.limited);
    let cell = limiter.cells.find(hash, of);
    // The tiers of past requests are not recorded, so every tier on which the key has used quota is shown.
    let tiers: Vec<&Arc<Tier>> = match own {
        Some(own) => vec![&own.tier],
        None => policy.tiers.iter().collect(),
    };
    let shared = limiter.shared.as_ref().filter(|shared| !shared.is_away());
    let mut limits = Vec::new();
    for tier in tiers {
        let there = match shared {
            Some(shared) => shared.look(hash, &tier.limits).await.ok(),
            None => None,
        };
        let here = limiter.standing(hash, tier, now).unwrap_or_default();
        let here = here.iter().map(|(_, standing)| (standing.remaining, standing.wait.unwrap_or_default()));
        for (limit, (remaining, full_in)) in tier.limits.iter().zip(there.unwrap_or_else(|| here.collect())) {
            let untouched = remaining == limit.quota.burst.get();
            if own.is_none() && untouched && (cell.is_none() || tier.name != policy.default.name) {
                continue;
            }
            limits.push(json!({
                "tier": tier.name.as_str(),
                "limit": limit.name,
                "rate": limit.quota.count,
                "period_seconds": limit.quota.period.as_secs(),
                "burst": limit.quota.burst,
                "remaining": remaining,
                "full_in_seconds": full_in.as_secs_f64(),
                "shadow": tier.shadow,
            }));
        }
    }
    let mut told = match cell {
        Some((key, allowed, limited)) => shown(policy, key, allowed, limited),
        None => json!({ "key": hex(hash), "name": own.and_then(|key| key.name.clone()) }),
    };
    if cell.is_none() && shared.is_none() {
        limits.clear();
    }
    told["held"] = cell.is_some().into();
    told["shared"] = shared.is_some().into();
    told["limits"] = limits.into();
    Ok(told)
}

/// Handles `POST /limits/reset?key=`: forgets what a key used, here and, where limits are shared, in Redis.
pub(super) async fn reset(control: &Control, parameters: &[(String, String)]) -> Report {
    let snapshot = control.live.load_full();
    let hash = partition(&snapshot, parameters)?;
    let limiter = &control.shared_state.limiter;
    if let Some(shared) = &limiter.shared {
        shared.reset(hash).await.map_err(|error| {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the limits were not reset in Redis: {error}"))
        })?;
    }
    let held = limiter.reset(hash);
    Ok(json!({ "key": hex(hash), "held": held, "shared": limiter.shared.is_some() }))
}

fn shown(policy: &LimitPolicy, key: Key, allowed: u32, limited: u32) -> Value {
    let listed = listed(policy, key.hash);
    let shared = policy.tiers.iter().find(|tier| tier.overflow == key.hash);
    let tier = listed.map(|key| &key.tier).or(shared).map(|tier| tier.name.as_str());
    json!({
        "key": hex(key.hash),
        "kind": key.kind.as_str(),
        "name": listed.and_then(|key| key.name.clone()),
        "tier": tier,
        "allowed": allowed,
        "limited": limited,
    })
}

/// Handles `GET /limits/top?n=`: lists the keys that are limited most, then the ones with the most requests.
pub(super) fn top(control: &Control, parameters: &[(String, String)]) -> Report {
    let wanted = match parameters.iter().find(|(name, _)| name == "n") {
        None => USUALLY_SHOWN,
        Some((_, given)) => {
            let number = given.parse::<usize>().ok().filter(|number| (1..=MAX_SHOWN).contains(number));
            number.ok_or_else(|| refused(format!("n is {given:?}; expected 1 to {MAX_SHOWN}")))?
        }
    };
    let snapshot = control.live.load();
    let policy = &snapshot.policy.limits;
    let cells = &control.shared_state.limiter.cells;
    // Keeps at most twice the wanted number while it goes over all cells, so the full set is never in memory.
    let mut found: Vec<(u32, u32, Key)> = Vec::with_capacity(2 * wanted);
    let shrink = |found: &mut Vec<(u32, u32, Key)>| {
        found.sort_by_key(|(limited, allowed, key)| std::cmp::Reverse((*limited, *allowed, key.hash)));
        found.truncate(wanted);
    };
    cells.each(|cell| {
        found.push((cell.limited, cell.allowed, cell.key()));
        if found.len() == 2 * wanted {
            shrink(&mut found);
        }
    });
    shrink(&mut found);
    let keys: Vec<Value> =
        found.iter().map(|(limited, allowed, key)| shown(policy, *key, *allowed, *limited)).collect();
    Ok(json!({ "held": cells.held(), "max_keys": policy.max_keys, "keys": keys }))
}
