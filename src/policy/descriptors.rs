//! File descriptors: how many connections fit beside what the process needs for itself.

use super::Policy;

/// Descriptors for listeners, runtimes, logs, files and the admin listener.
const OWN: usize = 64;
/// Fewer client connections than this are not left over by upstreams; the rest is halved instead.
const MIN_CLIENTS: usize = 64;

/// Lowers `max_connections` of clients and upstreams to what `limit` descriptors allow. Gives a line for the log where
/// anything was lowered.
pub fn fit(policy: &mut Policy, limit: usize) -> Option<String> {
    let addresses: Vec<(usize, usize)> = policy
        .upstreams
        .iter()
        .map(|upstream| (upstream.max_connections, upstream.endpoints.len().max(1)))
        .collect();
    let fit = Fit::new(limit, policy.server.max_connections, &addresses);
    let clients = fit.clients;
    let mut lowered = clients < policy.server.max_connections;
    policy.server.max_connections = clients;
    for (upstream, connections) in policy.upstreams.iter_mut().zip(fit.upstreams) {
        lowered |= connections < upstream.max_connections;
        upstream.max_connections = connections;
    }
    lowered.then(|| {
        let upstreams: Vec<String> =
            policy.upstreams.iter().map(|upstream| format!("{} {}", upstream.name, upstream.max_connections)).collect();
        format!(
            "the limit of open files is {limit}: server.max_connections is {clients}, and max_connections of each upstream address: {}; raise it with ulimit -n or LimitNOFILE",
            upstreams.join(", ")
        )
    })
}

/// Numbers that fit.
#[derive(Debug, PartialEq, Eq)]
struct Fit {
    clients: usize,
    /// For each address of each upstream.
    upstreams: Vec<usize>,
}

impl Fit {
    /// `upstreams`: the connections of each address, and how many addresses there are.
    fn new(limit: usize, clients: usize, upstreams: &[(usize, usize)]) -> Fit {
        let connections: usize =
            upstreams.iter().map(|(connections, addresses)| connections.saturating_mul(*addresses)).sum();
        let rest = limit.saturating_sub(OWN);
        let left = rest.saturating_sub(connections);
        if left >= MIN_CLIENTS.min(clients) {
            let upstreams = upstreams.iter().map(|(connections, _)| *connections).collect();
            return Fit { clients: clients.min(left), upstreams };
        }
        // One half for clients, the other for upstreams, each in proportion.
        let half = (rest / 2).max(1);
        let share = |&(of, _): &(usize, usize)| {
            let share = of as u128 * half as u128 / connections.max(1) as u128;
            usize::try_from(share).unwrap_or(of).clamp(1, of.max(1))
        };
        Fit { clients: clients.min(half), upstreams: upstreams.iter().map(share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_7_connections_fit_into_the_descriptors() {
        let one = &[(256, 1)][..];
        for (limit, clients, upstreams, expected) in [
            (1_048_576, 10_000, one, (10_000, vec![256])),
            (20_000, 10_000, one, (10_000, vec![256])),
            (1024, 10_000, one, (704, vec![256])),
            (384, 10_000, one, (64, vec![256])),
            // 63 would be left.
            (383, 10_000, one, (159, vec![159])),
            (256, 10_000, one, (96, vec![96])),
            (128, 10_000, one, (32, vec![32])),
            (80, 10_000, one, (8, vec![8])),
            (64, 10_000, one, (1, vec![1])),
            // As few clients as these need no more.
            (384, 20, one, (20, vec![256])),
            (340, 20, one, (20, vec![256])),
            (339, 20, one, (20, vec![137])),
            // By addresses, in proportion.
            (1024, 10_000, &[(256, 3), (16, 2)], (160, vec![256, 16])),
            (704, 10_000, &[(256, 3), (16, 2)], (320, vec![102, 6])),
        ] {
            let fit = Fit::new(limit, clients, upstreams);
            assert_eq!(
                (fit.clients, fit.upstreams.clone()),
                expected,
                "{limit} descriptors, {clients} clients"
            );
            let all = fit
                .upstreams
                .iter()
                .zip(upstreams)
                .map(|(each, (_, addresses))| each * addresses)
                .sum::<usize>();
            assert!(limit < 80 || OWN + fit.clients + all <= limit, "{limit} descriptors");
        }
    }
}
