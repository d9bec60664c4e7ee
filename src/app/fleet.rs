//! Joins the fleet of `[redis]`.

use std::sync::Arc;

use super::start_error::StartError;
use crate::cache::Cache;
use crate::cache::outgoing::Outgoing;
use crate::fleet::collected as fleets;
use crate::fleet::copies::{Copies, collected as shared};
use crate::fleet::own_writes::OwnWrites;
use crate::fleet::process::Fleet;
use crate::fleet::redis_server::RedisServer;
use crate::fleet::run;
use crate::fleet::seal::Keys;
use crate::limit::shared::SharedLimits;
use crate::metrics::Metrics;
use crate::policy::{FleetPolicy, Policy};
use crate::redis::collected as links;
use crate::redis::thread::Links;
use crate::state::live_policy::SharedState;

/// Builds the part of this process in its fleet, and the links to Redis, which are not connected yet.
pub(super) fn join(
    policy: &FleetPolicy,
    version: &'static str,
    cache: &Arc<Cache>,
    metrics: &mut Metrics,
) -> (Arc<Fleet>, Links) {
    let of_copies =
        policy.copies.as_ref().map(|copies| copies.elsewhere.as_ref().unwrap_or(&policy.settings));
    let links = Links::new(&policy.settings, of_copies);
    metrics.collect(Box::new(links::Collected(links.clone())));
    let keys = Keys::new(policy.hash_keys.iter().map(|key| key.expose().as_bytes()));
    let (timeout, on_lost) = (policy.settings.timeout, policy.on_lost);
    let fleet = Arc::new(Fleet::new(keys, cache.clone(), name(), version, timeout, on_lost));
    metrics.collect(Box::new(fleets::Collected(fleet.clone())));
    (fleet, links)
}

/// Builds the stored responses that the processes share, if they share any.
pub(super) fn copies(
    policy: &FleetPolicy,
    cache: &Cache,
    fleet: &Arc<Fleet>,
    links: &Links,
    metrics: &mut Metrics,
) -> Option<Arc<Copies>> {
    let (settings, link) = (policy.copies.as_ref()?, links.copies.clone()?);
    let outgoing = Arc::new(Outgoing::new(settings.outgoing));
    cache.share_responses(outgoing.clone());
    let copies = Copies::new(fleet.clone(), link, outgoing, &policy.settings.prefix, settings.timeout);
    let copies = Arc::new(copies);
    metrics.collect(Box::new(shared::Collected(copies.clone())));
    Some(copies)
}

/// Builds what clients read after their own writes, if the configuration cares.
pub(super) fn own_writes(policy: &Policy, fleet: Option<&Arc<Fleet>>) -> Option<Arc<OwnWrites>> {
    let policy = policy.fleet.as_ref()?;
    let (carrier, fleet) = (policy.own_writes?, fleet?.clone());
    Some(Arc::new(OwnWrites::new(fleet, carrier, policy.settings.timeout)))
}

/// Builds the limits that are counted with the other processes, if there are any.
pub(super) fn limits(policy: &Policy, fleet: Option<&Fleet>, links: Option<&Links>) -> Option<SharedLimits> {
    let policy = policy.fleet.as_ref()?;
    let (link, live) = (links?.log.clone(), fleet?.process_count.clone());
    Some(SharedLimits::new(policy.limits?, link, &policy.settings.prefix, live))
}

/// Connects to Redis, and takes part in the fleet from here on.
pub(super) fn start(shared_state: &SharedState, policy: &Policy) -> Result<(), StartError> {
    let (Some(fleet), Some(links), Some(policy)) =
        (shared_state.fleet.clone(), shared_state.redis.clone(), &policy.fleet)
    else {
        return Ok(());
    };
    let prefix = policy.settings.prefix.clone();
    let (of_server, copies) = (links.clone(), shared_state.copies.clone());
    links
        .start(move || async move {
            let server = RedisServer::new(of_server, &prefix);
            let of_copies = async {
                match &copies {
                    Some(copies) => copies.run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = run::run(&fleet, &server) => {}
                () = of_copies => {}
            }
        })
        .map_err(|error| StartError::System("cannot start the thread for Redis", error))
}

/// Returns the name of this process for people: that of its pod or host.
fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
