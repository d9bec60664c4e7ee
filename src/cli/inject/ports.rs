//! The port of the app, and ports for the sidecar that no container of the pod uses.

use super::options::Options;
use crate::yaml::Node;

/// The ports on which the sidecar takes requests, in order of preference.
const LISTEN: [u16; 3] = [8080, 18080, 28080];
/// The ports for probes and metrics, in order of preference.
const PROBES: [u16; 3] = [9901, 19901, 29901];
/// The port of the admin listener, on loopback.
const ADMIN: u16 = 9900;

/// The target of a Service's port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// A number, or the name of a port of a container.
    pub port: &'a str,
}

/// The ports of a pod with the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub app: u16,
    pub listen: u16,
    pub probes: u16,
}

/// Returns the containers that run beside each other for the life of the pod.
fn containers(pod: &Node) -> &[Node] {
    pod.get("containers").map_or(&[], Node::items)
}

/// Returns the name of a container.
pub(super) fn name(container: &Node) -> &str {
    container.get("name").and_then(Node::text).unwrap_or("")
}

/// Returns the TCP ports of a container: name and number.
fn tcp_ports(container: &Node) -> impl Iterator<Item = (Option<&str>, u16, &Node)> {
    let ports = container.get("ports").map_or(&[][..], Node::items).iter();
    ports
        .filter(|port| port.get("protocol").and_then(Node::text).is_none_or(|name| name == "TCP"))
        .filter_map(|port| {
            let number = port.get("containerPort")?.number()?;
            Some((port.get("name").and_then(Node::text), number, port))
        })
}

/// Returns whether a port of a container, by name or number, is the number `port`.
pub(super) fn is_port(container: &Node, target: &str, port: u16) -> bool {
    match target.parse::<u16>() {
        Ok(number) => number == port,
        Err(_) => tcp_ports(container).any(|(name, number, _)| name == Some(target) && number == port),
    }
}

/// Finds the container of the app: the one that is named with `--container` if the pod has it, else the only one with
/// ports. The error tells the remedy.
pub(super) fn app<'a>(pod: &'a Node, options: &Options) -> Result<&'a Node, String> {
    let all = containers(pod);
    let wanted = options.container.as_deref();
    if let Some(found) = all.iter().find(|container| Some(name(container)) == wanted) {
        return Ok(found);
    }
    let with_ports: Vec<_> = all.iter().filter(|container| tcp_ports(container).next().is_some()).collect();
    let only = match (&with_ports[..], all) {
        ([one], _) => Some(*one),
        ([], [one]) => Some(one),
        _ => None,
    };
    if let Some(one) = only {
        return match tcp_ports(one).any(|(_, _, port)| port.get("hostPort").is_some()) {
            true => Err(format!(
                "container {0:?} has a hostPort, by which clients reach the app; with --container {0} the sidecar takes \
                it over",
                name(one)
            )),
            false => Ok(one),
        };
    }
    match (&with_ports[..], all) {
        ([], []) => Err("it has no containers".to_owned()),
        (several, _) => {
            let names: Vec<_> = match several {
                [] => all.iter().map(name).collect(),
                several => several.iter().map(|container| name(container)).collect(),
            };
            let which =
                if several.is_empty() { "no container has ports" } else { "several containers have ports" };
            Err(format!("{which}; name the app's with --container (one of {})", names.join(", ")))
        }
    }
}

/// Finds the port of the app in its container, and free ports for the sidecar. The port is the one that is named with
/// `--app-port` if the container has it; else its only one; else the only one that a Service of the input leads to. The error
/// tells the remedy.
pub(super) fn choose(
    pod: &Node,
    container: &Node,
    targets: &[Target<'_>],
    options: &Options,
) -> Result<Ports, String> {
    let declared: Vec<(Option<&str>, u16)> =
        tcp_ports(container).map(|(name, number, _)| (name, number)).collect();
    let given = options.port.as_deref().and_then(|port| resolve(container, port));
    let is_declared = |port: &u16| declared.is_empty() || declared.iter().any(|(_, number)| number == port);
    let app = match (given.filter(is_declared), &declared[..]) {
        (Some(port), _) => port,
        (None, [(_, one)]) => *one,
        (None, declared) => {
            let mut wanted: Vec<u16> =
                targets.iter().filter_map(|target| resolve(container, target.port)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            match (&wanted[..], declared) {
                ([one], _) => *one,
                (_, []) => {
                    return Err(format!(
                        "container {:?} names no port; give the port on which the app listens with --app-port",
                        name(container)
                    ));
                }
                (_, declared) => {
                    let shown: Vec<_> = declared.iter().map(|(_, number)| number.to_string()).collect();
                    return Err(format!(
                        "container {:?} has several ports ({}); name the app's with --app-port",
                        name(container),
                        shown.join(", ")
                    ));
                }
            }
        }
    };
    let used: Vec<u16> = containers(pod)
        .iter()
        .flat_map(|container| tcp_ports(container).map(|(_, number, _)| number))
        .chain([app])
        .collect();
    if used.contains(&ADMIN) {
        return Err(format!("a container uses port {ADMIN}, which the sidecar's admin listener needs"));
    }
    let free = |ports: &[u16; 3]| ports.iter().copied().find(|port| !used.contains(port));
    match (free(&LISTEN), free(&PROBES)) {
        (Some(listen), Some(probes)) => Ok(Ports { app, listen, probes }),
        (None, _) => {
            Err(format!("its containers use all of the ports {LISTEN:?}, of which the sidecar needs one"))
        }
        (_, None) => {
            Err(format!("its containers use all of the ports {PROBES:?}, of which the sidecar needs one"))
        }
    }
}

/// Returns the number of a port that is given by number, or by a name of the container.
pub(super) fn resolve(container: &Node, port: &str) -> Option<u16> {
    match port.parse() {
        Ok(number) => Some(number),
        Err(_) => tcp_ports(container).find(|(name, _, _)| *name == Some(port)).map(|(_, number, _)| number),
    }
}
