//! Services that lead to a workload: their target ports.

use super::ports::{self, Ports, Target};
use crate::yaml::{Node, Value};

/// The facts about a workload that its Services need: its labels, its namespace, and its ports.
pub(super) struct BehindService {
    pub labels: Node,
    pub namespace: Option<String>,
    /// The container of the app.
    pub container: Node,
    pub ports: Ports,
}

/// Returns the namespace of an object as it is written.
pub(super) fn namespace(object: &Node) -> Option<&str> {
    object.at(&["metadata", "namespace"]).and_then(Node::text)
}

/// Returns whether the object is a Service that leads to pods with these labels in this namespace.
fn selects(object: &Node, labels: &Node, in_namespace: Option<&str>) -> bool {
    let selector = object.at(&["spec", "selector"]).map_or(&[][..], Node::entries);
    object.get("kind").and_then(Node::text) == Some("Service")
        && namespace(object) == in_namespace
        && !selector.is_empty()
        && selector.iter().all(|(key, value)| {
            key.text().and_then(|key| labels.get(key)).is_some_and(|label| label.text() == value.text())
        })
}

/// Returns the target of a port of a Service: `targetPort`, else `port`. UDP has none.
fn target(port: &Node) -> Option<Target<'_>> {
    let is_tcp = port.get("protocol").and_then(Node::text).is_none_or(|name| name == "TCP");
    let target = port.get("targetPort").or_else(|| port.get("port"))?.text()?;
    is_tcp.then_some(Target { port: target })
}

/// Returns the targets of all Services that lead to pods with these labels.
pub(super) fn targets<'a>(objects: &'a [Node], labels: &Node, in_namespace: Option<&str>) -> Vec<Target<'a>> {
    let services = objects.iter().filter(|object| selects(object, labels, in_namespace));
    let ports = services.flat_map(|service| service.at(&["spec", "ports"]).map_or(&[][..], Node::items));
    ports.filter_map(target).collect()
}

/// The effect on a Service.
pub(super) enum Effect {
    /// The object is no Service of the workload.
    None,
    /// Its ports lead to the sidecar now: the line that tells it.
    Leads(String),
    /// It has no virtual address, so clients reach the pods' own ports: the line that tells it.
    Headless(String),
}

/// Lets the ports of a Service that lead to the app lead to the sidecar, if the Service leads to the workload. Target
/// ports are numbers: names of a native sidecar's ports are resolved only since Kubernetes 1.33.
pub(super) fn lead_to_sidecar(object: &mut Node, workload: &BehindService) -> Effect {
    if !selects(object, &workload.labels, workload.namespace.as_deref()) {
        return Effect::None;
    }
    let name = object.at(&["metadata", "name"]).and_then(Node::text).unwrap_or("").to_owned();
    let is_headless = object.at(&["spec", "clusterIP"]).and_then(Node::text) == Some("None");
    let Some(Node { value: Value::Sequence(ports), .. }) = object.at_mut(&["spec", "ports"]) else {
        return Effect::None;
    };
    let Ports { app, listen, .. } = workload.ports;
    let leads_to_app = |target: Target<'_>| ports::is_port(&workload.container, target.port, app);
    let mut changed = Vec::new();
    for port in ports.iter_mut().filter(|port| target(port).is_some_and(leads_to_app)) {
        if !is_headless {
            port.set("targetPort", Node::plain(listen.to_string()));
        }
        changed.push(port.get("port").and_then(Node::text).unwrap_or("").to_owned());
    }
    match (changed.is_empty(), is_headless) {
        (true, _) => Effect::None,
        (false, true) => Effect::Headless(format!(
            "warning: service {name:?} is headless: its clients reach the pods' own ports; those that are to come through \
            the sidecar need port {listen}"
        )),
        (false, false) => Effect::Leads(format!(
            "service {name:?}: port {} leads to the sidecar ({listen})",
            changed.join(", ")
        )),
    }
}
