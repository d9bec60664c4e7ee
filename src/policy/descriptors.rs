//! File descriptors: how many connections fit beside the process's own needs.
//! All holders of descriptors count: client connections; upstream connections with a slot; those of streams, which gave
//! their slot back; idle ones; those pinned to one client connection; and listeners, admin connections and workers.

use super::Policy;
use super::upstream::Scheme;

/// Descriptors for the main thread's runtime, logs, files, name resolution, and connections to monitoring.
const BASE: usize = 24;
/// Descriptors for the runtime of each worker.
const EACH_WORKER: usize = 4;
/// Descriptors for each listener of each worker: the listener itself, and three connections that wait for room.
const EACH_LISTENER: usize = 4;
/// Minimum descriptors reserved for the process itself.
const MIN_OWN: usize = 64;
/// The limit divided by this is the number of connections to the admin listener, and equally to the probes listener.
const EACH_ADMIN: usize = 256;
/// Minimum connections to the admin listener.
const MIN_ADMIN: usize = 16;
/// Maximum connections to the admin listener.
pub(crate) const MAX_ADMIN: usize = 256;
/// If upstreams would leave fewer client connections than this, descriptors are split in halves instead.
const MIN_CLIENTS: usize = 64;

/// Lowers `max_connections` of clients and upstreams, `max_streams` and the idle connections to fit into `limit`
/// descriptors. Returns a log line if anything was lowered.
pub(crate) fn fit(policy: &mut Policy, limit: usize) -> Option<String> {
    let server = &mut policy.server;
    server.admin_connections = (limit / EACH_ADMIN).clamp(MIN_ADMIN, MAX_ADMIN);
    let listeners = server.listen.len() + server.tls.as_ref().map_or(0, |tls| tls.listen.len());
    let endpoints: usize = policy.upstreams.iter().map(|upstream| upstream.endpoints.len()).sum();
    let own = BASE
        + server.workers * (EACH_WORKER + EACH_LISTENER * listeners)
        + 2 * server.admin_connections
        // One descriptor for the probe of each endpoint.
        + endpoints;
    let wanted: Vec<Wanted> = policy
        .upstreams
        .iter()
        .map(|upstream| {
            let own_connection = |scheme: &Scheme| !matches!(scheme, Scheme::H2c);
            Wanted {
                connections: upstream.max_connections,
                idle: upstream.max_idle,
                pinned: upstream.max_pinned,
                streams: upstream.max_streams,
                addresses: upstream.endpoints.len().max(1),
                // Streams over HTTP/2 share connections, so they need no descriptors of their own.
                pools: upstream.endpoints.len().max(1) * server.workers,
                streaming: upstream.endpoints.iter().filter(|each| own_connection(&each.scheme)).count(),
            }
        })
        .collect();
    let fit = Fit::new(limit.saturating_sub(own.max(MIN_OWN)), server.max_connections, &wanted);
    let mut lowered = fit.clients < server.max_connections;
    server.max_connections = fit.clients;
    for ((upstream, wanted), fit) in policy.upstreams.iter_mut().zip(&wanted).zip(&fit.upstreams) {
        lowered |= fit != wanted;
        upstream.max_connections = fit.connections;
        upstream.max_idle = fit.idle;
        upstream.max_pinned = fit.pinned;
        upstream.max_streams = fit.streams;
    }
    lowered.then(|| {
        let list = |number: fn(&Wanted) -> usize| {
            let upstreams = policy.upstreams.iter().zip(&fit.upstreams);
            let each: Vec<String> =
                upstreams.map(|(upstream, fit)| format!("{} {}", upstream.name, number(fit))).collect();
            each.join(", ")
        };
        format!(
            "the limit of open files is {limit}: server.max_connections is {}, and max_connections of each upstream \
            address: {}, max_streams: {}; raise the limit with ulimit -n or LimitNOFILE",
            fit.clients,
            list(|fit| fit.connections),
            list(|fit| fit.streams),
        )
    })
}

/// Below this number of descriptors, [`Fit::trim`] does nothing.
const MIN: usize = 100;

/// Connections to each address of an upstream, as configured or as they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// Connections with a slot of the upstream.
    connections: usize,
    /// Idle connections in each worker's pool.
    idle: usize,
    pinned: usize,
    streams: usize,
    addresses: usize,
    pools: usize,
    /// Number of addresses where each stream has a connection of its own.
    streaming: usize,
}

impl Wanted {
    /// Returns the descriptors in addition to the connections with a slot.
    fn beside(&self) -> usize {
        let streams = self.streams.saturating_mul(self.streaming);
        let waiting = self.idle.saturating_mul(self.pools) + self.pinned.saturating_mul(self.addresses);
        waiting.saturating_add(streams)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Fit {
    clients: usize,
    upstreams: Vec<Wanted>,
}

impl Fit {
    /// Distributes `rest` descriptors, those that the process itself does not need.
    fn new(rest: usize, clients: usize, wanted: &[Wanted]) -> Fit {
        let connections: Vec<(usize, usize)> =
            wanted.iter().map(|each| (each.connections, each.addresses)).collect();
        let beside = wanted.iter().map(Wanted::beside).fold(0, usize::saturating_add);
        let left = rest.saturating_sub(total(&connections));
        let (clients, connections, beside_fits) = if left / 2 >= MIN_CLIENTS.min(clients) {
            // Slots come first. Clients and the additional connections then get half of the rest each, or whatever the
            // other side leaves.
            let beside_fits = (left / 2).max(left.saturating_sub(clients)).min(beside);
            (clients.min(left - beside_fits), connections, beside_fits)
        } else {
            // One half for clients, the other half for upstreams.
            let clients = clients.min((rest / 2).max(1));
            let upstreams = rest.saturating_sub(clients);
            let connections = level(&connections, upstreams / 2);
            let left = upstreams.saturating_sub(total(&connections));
            (clients, connections, left.min(beside))
        };
        let lines = |number: fn(&Wanted) -> (usize, usize)| wanted.iter().map(number).collect::<Vec<_>>();
        let streams = lines(|each| (each.streams, each.streaming));
        let idle = lines(|each| (each.idle, each.pools));
        let pinned = lines(|each| (each.pinned, each.addresses));
        // An eighth for pinned connections and three eighths for idle ones, or more if streams need less.
        let for_pinned = total(&pinned).min(beside_fits / 8);
        let for_idle = total(&idle).min(beside_fits * 3 / 8);
        let streams = level(&streams, beside_fits - for_pinned - for_idle);
        let left = beside_fits.saturating_sub(total(&streams));
        let idle = level(&idle, left.saturating_sub(for_pinned));
        let pinned = level(&pinned, left.saturating_sub(total(&idle)));
        let fit = |at: usize, wanted: &Wanted| Wanted {
            connections: connections[at].0,
            idle: idle[at].0,
            pinned: pinned[at].0,
            streams: if wanted.streaming > 0 { streams[at].0 } else { wanted.streams },
            ..*wanted
        };
        let upstreams = wanted.iter().enumerate().map(|(at, wanted)| fit(at, wanted)).collect();
        let mut fit = Fit { clients, upstreams };
        fit.trim(rest);
        fit
    }

    /// Takes slots from the largest upstream while the sum exceeds `rest`, which happens because no number is less than
    /// one. With very few descriptors, the excess comes out of the process's own reserve.
    fn trim(&mut self, rest: usize) {
        while rest >= MIN && self.all() > rest {
            let largest = self.upstreams.iter_mut().max_by_key(|each| each.connections);
            let Some(largest) = largest.filter(|each| each.connections > 1) else { return };
            largest.connections -= 1;
        }
    }

    /// Returns the sum of all descriptors.
    fn all(&self) -> usize {
        let each =
            |each: &Wanted| each.connections.saturating_mul(each.addresses).saturating_add(each.beside());
        self.upstreams.iter().map(each).fold(self.clients, usize::saturating_add)
    }
}

/// Returns the sum of numbers, each multiplied by its count.
fn total(lines: &[(usize, usize)]) -> usize {
    lines.iter().map(|(number, times)| number.saturating_mul(*times)).fold(0, usize::saturating_add)
}

/// Lowers the largest numbers to one level, so that the sum is at most `budget`. No number becomes zero.
fn level(lines: &[(usize, usize)], budget: usize) -> Vec<(usize, usize)> {
    let at = |level: usize| -> Vec<(usize, usize)> {
        lines.iter().map(|(number, times)| ((*number).min(level.max(1)), *times)).collect()
    };
    let (mut fits, mut beyond) = (0, lines.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1);
    while beyond - fits > 1 {
        let middle = fits + (beyond - fits) / 2;
        if total(&at(middle)) <= budget {
            fits = middle;
        } else {
            beyond = middle;
        }
    }
    at(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upstream(connections: usize, streams: usize, addresses: usize) -> Wanted {
        let pinned = connections.max(64);
        Wanted {
            connections,
            idle: connections,
            pinned,
            streams,
            addresses,
            pools: addresses,
            streaming: addresses,
        }
    }

    #[test]
    fn n3_7_connections_fit_into_the_descriptors() {
        let one = &[upstream(256, 10_000, 1)][..];
        let two = &[upstream(256, 10_000, 3), upstream(16, 100, 2)][..];
        // For each address: slots, idle, pinned, streams.
        for (rest, clients, upstreams, expected_clients, expected) in [
            (1_000_000, 10_000, one, 10_000, vec![[256, 256, 256, 10_000]]),
            (64_992, 10_000, one, 10_000, vec![[256, 256, 256, 10_000]]),
            (19_812, 10_000, one, 9778, vec![[256, 256, 256, 9266]]),
            (960, 10_000, one, 352, vec![[256, 132, 44, 176]]),
            (384, 10_000, one, 64, vec![[256, 24, 8, 32]]),
            // Fewer than 64 clients would be left.
            (383, 10_000, one, 191, vec![[96, 36, 12, 48]]),
            (64, 10_000, one, 32, vec![[16, 6, 2, 8]]),
            (40, 10_000, one, 20, vec![[10, 3, 1, 6]]),
            (0, 10_000, one, 1, vec![[1, 1, 1, 1]]),
            // This number of clients needs no more descriptors.
            (384, 20, one, 20, vec![[256, 40, 13, 55]]),
            // Few streams leave the rest to other connections.
            (960, 10_000, &[upstream(256, 8, 1)], 352, vec![[256, 256, 88, 8]]),
            // With several addresses: the largest numbers are lowered first.
            (960, 10_000, two, 80, vec![[256, 6, 2, 8], [16, 6, 2, 8]]),
            (640, 10_000, two, 320, vec![[42, 12, 4, 16], [16, 12, 4, 16]]),
        ] {
            let fit = Fit::new(rest, clients, upstreams);
            let numbers: Vec<[usize; 4]> = fit
                .upstreams
                .iter()
                .map(|each| [each.connections, each.idle, each.pinned, each.streams])
                .collect();
            assert_eq!(
                (fit.clients, numbers),
                (expected_clients, expected),
                "{rest} descriptors, {clients} clients"
            );
            assert!(rest < 8 || fit.all() <= rest, "{} of {rest} descriptors", fit.all());
        }
        // Streams over HTTP/2 share connections, so they need no descriptors of their own.
        let h2c = [Wanted { streaming: 0, ..upstream(256, 10_000, 1) }];
        assert_eq!(Fit::new(1100, 10_000, &h2c).upstreams[0].streams, 10_000);
    }

    proptest! {
        #[test]
        fn n3_7_whatever_is_configured_fits(
            rest in MIN..100_000,
            clients in 1usize..20_000,
            upstreams in proptest::collection::vec((1usize..2000, 1usize..20_000, 1usize..4), 1..4),
        ) {
            let upstreams: Vec<Wanted> = upstreams
                .into_iter()
                .map(|(connections, streams, addresses)| upstream(connections, streams, addresses))
                .collect();
            let fit = Fit::new(rest, clients, &upstreams);
            prop_assert!(fit.all() <= rest, "{fit:?}");
            prop_assert!(fit.clients >= clients.min(rest / 4).min(MIN_CLIENTS));
        }
    }
}
