//! Workloads: the objects that run containers.

use super::error::InjectError;
use super::options::Options;
use super::ports::{self, Ports};
use super::service::{self, BehindService};
use super::sidecar;
use crate::yaml::{Node, Value, YamlError};

/// The time in seconds that a pod gets to end: more than the app's sleep, drain_delay and drain_timeout together.
const GRACE: u32 = 60;

/// The kinds that run containers, and where their pod stands.
const KINDS: [(&str, &[&str]); 6] = [
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("Pod", &[]),
];

/// A workload with the sidecar.
pub(super) struct Injected {
    /// As messages name it: `deployment "web"`.
    name: String,
    form: Form,
}

enum Form {
    /// It had the sidecar already.
    Unchanged,
    /// It sends its own requests through the sidecar.
    Job,
    /// It takes requests through the sidecar.
    InFront(Box<BehindService>),
}

impl Injected {
    /// Returns the line that tells the change.
    pub(super) fn note(&self) -> String {
        let name = &self.name;
        match &self.form {
            Form::Unchanged => format!("{name}: has the sidecar already, nothing changed"),
            Form::Job => {
                format!("{name}: sidecar added; its requests go through 127.0.0.1, as pillion.toml says")
            }
            Form::InFront(to) => format!(
                "{name}: sidecar added on port {}, in front of container {:?} on port {}",
                to.ports.listen,
                ports::name(&to.container),
                to.ports.app
            ),
        }
    }

    /// Returns the name of a workload that takes requests through the sidecar, and what a Service that leads to it needs.
    pub(super) fn behind_service(&self) -> Option<(&str, &BehindService)> {
        match &self.form {
            Form::InFront(to) => Some((&self.name, to)),
            Form::Unchanged | Form::Job => None,
        }
    }
}

/// Adds the sidecar to an object, if the object runs containers.
pub(super) fn inject(
    object: &mut Node,
    objects: &[Node],
    options: &Options,
) -> Result<Option<Injected>, InjectError> {
    let kind = object.get("kind").and_then(Node::text).unwrap_or("");
    let Some((kind, place)) = KINDS.iter().find(|(name, _)| *name == kind) else { return Ok(None) };
    let given = object.at(&["metadata", "name"]).or_else(|| object.at(&["metadata", "generateName"]));
    let name = format!("{} {:?}", kind.to_ascii_lowercase(), given.and_then(Node::text).unwrap_or(""));
    let wrong = |problem: String| InjectError::Workload(name.clone(), problem);
    let namespace = service::namespace(object).map(str::to_owned);
    let Some(template) = object.at_mut(place) else { return Err(wrong("it has no pod template".to_owned())) };
    let labels = template.at(&["metadata", "labels"]).cloned().unwrap_or_else(Node::mapping);
    let Some(pod) = template.at_mut(&["spec"]) else { return Err(wrong("its pod has no spec".to_owned())) };
    if has_sidecar(pod) {
        return Ok(Some(Injected { name, form: Form::Unchanged }));
    }
    if pod
        .get("volumes")
        .is_some_and(|volumes| volumes.items().iter().any(|volume| ports::name(volume) == sidecar::NAME))
    {
        return Err(wrong(format!("it has a volume named {:?} of its own; rename it", sidecar::NAME)));
    }
    let is_job = matches!(*kind, "Job" | "CronJob");
    if is_job && options.classic {
        let problem = "a job with --classic would never end, as its sidecar does not; leave --classic out";
        return Err(wrong(problem.to_owned()));
    }
    if is_job {
        add(pod, sidecar::of_job(options)?, options);
        return Ok(Some(Injected { name, form: Form::Job }));
    }
    if pod.get("hostNetwork").and_then(Node::text) == Some("true") {
        let problem = "its pods use the network of their node (hostNetwork), where clients reach the app beside \
            the sidecar; take hostNetwork out";
        return Err(wrong(problem.to_owned()));
    }
    let container = ports::app(pod, options).map_err(wrong)?.clone();
    let targets = service::targets(objects, &labels, namespace.as_deref());
    let ports = ports::choose(pod, &container, &targets, options).map_err(wrong)?;
    let mut added = sidecar::in_front(options, ports)?;
    let app = container_mut(pod, ports::name(&container));
    if let Some(app) = app {
        take_over_host_port(app, &mut added, ports);
        keep_running(app, options)?;
    }
    if pod.get("terminationGracePeriodSeconds").is_none() {
        pod.set("terminationGracePeriodSeconds", Node::plain(GRACE.to_string()));
    }
    add(pod, added, options);
    let behind = BehindService { labels, namespace, container, ports };
    Ok(Some(Injected { name, form: Form::InFront(Box::new(behind)) }))
}

/// Returns the problem if an option names a container or a port that no workload has.
pub(super) fn unused(found: &[Injected], options: &Options) -> Option<String> {
    if found.iter().any(|workload| matches!(workload.form, Form::Unchanged)) {
        return None;
    }
    let mut apps = found.iter().filter_map(Injected::behind_service);
    if let Some(name) = &options.container
        && !apps.clone().any(|(_, app)| ports::name(&app.container) == name)
    {
        return Some(format!("--container: no workload has a container {name:?} that takes requests"));
    }
    if let Some(port) = &options.port
        && !apps.any(|(_, app)| ports::resolve(&app.container, port) == Some(app.ports.app))
    {
        return Some(format!(
            "--app-port: no container of an app has a port {port:?}; a container without ports takes a number"
        ));
    }
    None
}

/// Returns whether a pod has a container with the sidecar's name.
fn has_sidecar(pod: &Node) -> bool {
    ["containers", "initContainers"]
        .iter()
        .filter_map(|key| pod.get(key))
        .flat_map(Node::items)
        .any(|container| ports::name(container) == sidecar::NAME)
}

fn add(pod: &mut Node, container: Node, options: &Options) {
    match options.classic {
        true => pod.push("containers", container),
        false => add_first(pod, container),
    }
    pod.push("volumes", sidecar::volume(options));
}

/// Adds a native sidecar before all other init containers, so that their requests may go through it too.
fn add_first(pod: &mut Node, container: Node) {
    match pod.at_mut(&["initContainers"]) {
        Some(Node { value: Value::Sequence(items), .. }) => items.insert(0, container),
        _ => pod.push("initContainers", container),
    }
}

fn container_mut<'a>(pod: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    match pod.at_mut(&["containers"]) {
        Some(Node { value: Value::Sequence(items), .. }) => {
            items.iter_mut().find(|container| ports::name(container) == name)
        }
        _ => None,
    }
}

/// Moves the `hostPort` of the app's port to the sidecar.
fn take_over_host_port(app: &mut Node, sidecar: &mut Node, ports: Ports) {
    let Some(Node { value: Value::Sequence(own), .. }) = app.at_mut(&["ports"]) else { return };
    let is_app = |port: &&mut Node| port.get("containerPort").and_then(Node::number) == Some(ports.app);
    let Some(Node { value: Value::Mapping(entries), .. }) = own.iter_mut().find(is_app) else { return };
    let is_of_host = |(key, _): &mut (Node, Node)| matches!(key.text(), Some("hostPort" | "hostIP"));
    let taken: Vec<(Node, Node)> = entries.extract_if(.., is_of_host).collect();
    if let Some(Node { value: Value::Sequence(added), .. }) = sidecar.at_mut(&["ports"])
        && let Some(port) = added.first_mut()
    {
        taken.into_iter().for_each(|(key, value)| port.set(key.text().unwrap_or(""), value));
    }
}

/// Lets the app run for a while after its pod is marked as ending, unless it has a hook of its own.
fn keep_running(app: &mut Node, options: &Options) -> Result<(), YamlError> {
    if app.at(&["lifecycle", "preStop"]).is_some() {
        return Ok(());
    }
    let hook = sidecar::sleep(options)?;
    let mut lifecycle = app.get("lifecycle").cloned().unwrap_or_else(Node::mapping);
    for (key, value) in hook.entries() {
        lifecycle.set(key.text().unwrap_or(""), value.clone());
    }
    app.set("lifecycle", lifecycle);
    Ok(())
}
